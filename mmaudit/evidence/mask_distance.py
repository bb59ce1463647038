"""How far masked inputs are from the data: in what the encoders of the modality give, or in the inputs where it has none.

A mask that leaves the data (zeros, where no sample is near zero) asks the model about what it was never shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.tracing import output_tensors
from mmaudit.evidence.collecting import Collector, described
from mmaudit.evidence.extra_table import is_written, write_table
from mmaudit.evidence.second_masks import SecondMasks, spread
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import MMAuditError
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.report.schema import Note

__all__ = ["MASK_DISTANCE", "collect_mask_distance", "encoder_outputs", "nearest"]

MASK_DISTANCE = "mask_distance"
_SAMPLES = 256
_WIDEST = 4096
_SAME = 1e-6
"""Points closer than this share of the size of the data are one; above float32 rounding."""


def collect_mask_distance(surroundings: Surroundings) -> tuple[Note, ...]:
    """Write, for some samples, how far they and their masked stand-ins are from the nearest other sample.

    Columns: ``sample_id``, ``group``, and ``real``, ``first`` and ``second`` (M numbers each, NaN where a sample lacks the
    modality or there is no second mask). Distances are Euclidean.
    """
    folder = surroundings.work / MASK_DISTANCE
    if is_written(folder):
        return ()
    collector, second = surroundings.collector, surroundings.second
    modalities = surroundings.spec.names
    ids: list[str] = []
    groups: list[str | None] = []
    views: dict[str, dict[str, list[np.ndarray]]] = {
        name: {view: [] for view in ("real", "first", "second", "has")} for name in modalities
    }
    source = surroundings.source
    step = 1
    if source.samples and source.length:
        step = spread(source.samples, source.length, 2 * _SAMPLES)
    for batch in source.batches(stride=step):
        with described(batch):
            prepared = collector.prepare(batch)
            real = _seen(surroundings, prepared, None)
            first = _seen(surroundings, prepared, 0)
            again = first
            try:
                if second is not None:
                    other = _prepared_again(collector, second, batch)
                    again = _seen(surroundings, other, 0)
            except MMAuditError:  # said where the coalitions are evaluated under this mask
                second = None
        ids += list(batch.ids)
        groups += list(batch.groups) if batch.groups else [None] * batch.n
        for name in modalities:
            if name in real:
                for view, values in (("real", real), ("first", first), ("second", again)):
                    views[name][view].append(values[name])
                views[name]["has"].append(batch.present[name])
        if len(ids) >= _SAMPLES:
            break
    n, M = len(ids), len(modalities)
    columns = {view: np.full((n, M), np.nan) for view in ("real", "first", "second")}
    for m, name in enumerate(modalities):
        found = views[name]
        if sum(len(part) for part in found["has"]) != n:
            continue
        try:
            has = np.concatenate(found["has"])
            points = np.concatenate(found["real"])[has]
            for view in columns:
                if view == "second" and second is None:
                    continue
                columns[view][has, m] = nearest(np.concatenate(found[view])[has], points)
        except ValueError:  # batches of different shapes: nothing to compare
            for view in columns:
                columns[view][:, m] = np.nan
    write_table(folder, {"sample_id": ids, "group": groups, **columns})
    return ()


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
