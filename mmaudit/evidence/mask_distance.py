"""How far masked inputs are from the data: in what the encoders of the modality give, or in the inputs where it has none.

A mask that leaves the data (zeros, where no sample is near zero) asks the model about what it was never shown.

The nearest of many samples is nearer than that of few: how many there are, and which, must not depend on how the data is batched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.tracing import output_tensors
from mmaudit.evidence.collecting import Collector, described
from mmaudit.evidence.extra_table import is_written, write_table
from mmaudit.evidence.parts import drawn_positions, fixed_part
from mmaudit.evidence.second_masks import SecondMasks, spread
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import DataError, MMAuditError
from mmaudit.masking.batches import Batch
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.report.schema import Note

__all__ = ["MASK_DISTANCE", "collect_mask_distance", "encoder_outputs", "nearest"]

MASK_DISTANCE = "mask_distance"
_SAMPLES = 256
_BATCH = 32
_WIDEST = 4096
_SAME = 1e-6
"""Points closer than this share of the size of the data are one; above float32 rounding."""


@dataclass
class _Views:
    """What is compared, as far as it was read: view (``real``, ``first``, ``second``) -> modality -> parts, ``(n, d)`` each."""

    ids: list[str] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    has: dict[str, list[np.ndarray]] = field(default_factory=dict)
    values: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)


def collect_mask_distance(surroundings: Surroundings) -> tuple[Note, ...]:
    """Write, for some samples, how far they and their masked stand-ins are from the nearest other sample.

    At most 256 samples are compared: drawn from the number of samples alone where they can be read by position, else the first
    ones (of batches that have to stay as they are, the first of every so many-th).

    Columns: ``sample_id``, ``group``, and ``real``, ``first`` and ``second`` (M numbers each, NaN where a sample lacks the
    modality or there is no second mask). Distances are Euclidean.
    """
    folder = surroundings.work / MASK_DISTANCE
    if is_written(folder):
        return ()
    if _by_position(surroundings):
        try:
            views = _looked_at(surroundings, _drawn(surroundings))
        except DataError:  # samples that do not fit together in other batches than their own
            views = _looked_at(surroundings, _as_they_come(surroundings))
    else:
        views = _looked_at(surroundings, _as_they_come(surroundings))
    modalities = surroundings.spec.names
    n, M = len(views.ids), len(modalities)
    columns = {view: np.full((n, M), np.nan) for view in ("real", "first", "second")}
    for m, name in enumerate(modalities):
        has_parts = views.has.get(name, [])
        if sum(len(part) for part in has_parts) != n:
            continue
        try:
            has = np.concatenate(has_parts)
            points = np.concatenate(views.values["real"][name])[has]
            for view, found in views.values.items():
                columns[view][has, m] = nearest(np.concatenate(found[name])[has], points)
        except ValueError:  # batches of different shapes: nothing to compare
            for view in columns:
                columns[view][:, m] = np.nan
    write_table(folder, {"sample_id": views.ids, "group": views.groups, **columns})
    return ()


def _by_position(surroundings: Surroundings) -> bool:
    """Whether any samples can be read together."""
    source = surroundings.source
    readable = source.by_sample() is not None and source.samples and source.length
    return bool(readable) and surroundings.spec.batching != "keep"


def _drawn(surroundings: Surroundings) -> Iterator[Batch]:
    """Some samples, the same ones in the same batches whatever the batch size of the data (unless that is very small)."""
    source, spec = surroundings.source, surroundings.spec
    positions = drawn_positions(source.samples or 0, _SAMPLES)
    for batch in fixed_part(source, spec, _SAMPLES, size=_BATCH).batches():
        if spec.ids is None:
            # Masks are drawn by id: by the number in all of the data, not in this part of it.
            numbers = positions[batch.start : batch.start + batch.n]
            batch = replace(batch, ids=[str(number) for number in numbers])
        yield batch


def _as_they_come(surroundings: Surroundings) -> Iterator[Batch]:
    """Batches of the data, spread over it where their number is known."""
    source, step = surroundings.source, 1
    if source.samples and source.length:
        step = spread(source.samples, source.length, 2 * _SAMPLES)
    yield from source.batches(stride=step)


def _looked_at(surroundings: Surroundings, batches: Iterator[Batch]) -> _Views:
    """The first samples of some batches, as they are and under both masks."""
    collector, second = surroundings.collector, surroundings.second
    views = _Views()
    for batch in batches:
        with described(batch):
            prepared = collector.prepare(batch)
            seen = {
                "real": _seen(surroundings, prepared, None),
                "first": _seen(surroundings, prepared, 0),
            }
            if second is not None:
                try:
                    seen["second"] = _seen(
                        surroundings, _prepared_again(collector, second, batch), 0
                    )
                except MMAuditError:  # said where the coalitions are evaluated under this mask
                    second = None
                    views.values.pop("second", None)
        taken = min(batch.n, _SAMPLES - len(views.ids))
        views.ids += batch.ids[:taken]
        views.groups += batch.groups[:taken] if batch.groups else [None] * taken
        for name in seen["real"]:
            views.has.setdefault(name, []).append(batch.present[name][:taken])
            for view, values in seen.items():
                views.values.setdefault(view, {}).setdefault(name, []).append(values[name][:taken])
        if len(views.ids) >= _SAMPLES:
            break
    return views


def nearest(points: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Distance of point i to the nearest sample that is neither sample i nor where the point is.

    The values of a donor are those of a sample: what counts is whether they lie among the others.

    Args:
        points: Shape ``(n, d)``.
        data: Shape ``(n, d)``.

    Returns:
        Shape ``(n,)``; NaN where there is no other sample.

    Example:
        >>> nearest(np.array([[0.0], [5.0]]), np.array([[0.0], [3.0]])).tolist()
        [3.0, 5.0]
    """
    a, b = torch.from_numpy(points).double(), torch.from_numpy(data).double()
    distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    scale = b.square().sum(1).mean().sqrt()
    distances = distances.where(distances > _SAME * scale, torch.inf)
    least = distances.amin(1)
    return np.asarray(least.where(torch.isfinite(least), torch.nan).numpy())


def encoder_outputs(
    model: Any, call: Any, encoders: dict[str, tuple[str, ...]], data: Any, n: int
) -> dict[str, Tensor]:
    """What the encoders of each modality give for a batch.

    Args:
        model: The module.
        call: Runs it on ``data``.
        encoders: Modality -> names of its encoders.
        data: A batch, with whatever masked.
        n: Samples in it.

    Returns:
        Modality -> all tensors that its encoders return with one row for each sample, flattened and side by side, ``(n, d)``,
        float32 on the CPU; a modality whose encoders return none is left out.
    """
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    wanted = {
        name: modules[name] for names in encoders.values() for name in names if name in modules
    }
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        seen.setdefault(name, []).extend(
            _flat(t) for t in output_tensors(out) if t.dim() > 0 and len(t) == n
        )
        return out

    with intercepted(wanted, keep):
        call(data)
    found = {}
    for modality, names in encoders.items():
        parts = [tensor for name in names for tensor in seen.get(name, ())]
        if parts:
            found[modality] = torch.cat(parts, 1)
    return found


def _seen(
    surroundings: Surroundings, batch: MaskedBatch, coalition: int | None
) -> dict[str, np.ndarray]:
    """Modality -> what is compared, ``(n, d)``; of the batch as it is, or with a coalition's modalities present."""
    evaluator, names = surroundings.collector.evaluator, surroundings.spec.names

    def look(part: MaskedBatch) -> list[Tensor]:
        data = part.whole if coalition is None else part.coalition(coalition)
        encoders = surroundings.structure.record.encoders
        found = encoder_outputs(evaluator.model, evaluator.caller, encoders, data, part.n)
        for name in names:
            if name not in found:
                found[name] = _of_inputs(surroundings, part, name, masked=coalition is not None)
        return [found[name] for name in names]

    seen = zip(names, evaluator.in_parts(batch, look), strict=True)
    return {name: values.numpy() for name, values in seen if values.shape[1]}


def _of_inputs(
    surroundings: Surroundings, batch: MaskedBatch, name: str, *, masked: bool
) -> Tensor:
    """The inputs of a modality side by side; nothing, ``(n, 0)``, where they cannot be compared."""
    inputs = []
    for path, (modality, _) in batch.replaced.items():
        value = batch.masked(path) if masked else batch.values[path]
        if modality == name and isinstance(value, Tensor) and batch.dims[path] is not None:
            inputs.append(_flat(value.movedim(batch.dims[path] or 0, 0)))
    if inputs and len(inputs) <= len(surroundings.spec.modalities[name].inputs):
        return torch.cat(inputs, 1)
    return torch.zeros(batch.n, 0)


def _flat(tensor: Tensor) -> Tensor:
    """One row of numbers for each sample; of very many, means of neighbours."""
    rows = tensor.detach().float().cpu().reshape(len(tensor), -1)
    if rows.shape[1] > _WIDEST:
        rows = nn.functional.adaptive_avg_pool1d(rows.unsqueeze(1), _WIDEST).squeeze(1)
    return torch.nan_to_num(rows)


def _prepared_again(collector: Collector, second: SecondMasks, batch: Any) -> MaskedBatch:
    """A batch with its second masks."""
    return MaskedBatch(
        batch.data,
        second.spec,
        second.masks.maskers,
        batch.ids,
        present=batch.present,
        device=collector.processes.device,
        templates=second.masks.templates,
        dims=batch.dims,
    )
