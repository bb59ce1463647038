"""Features of some samples, spread over the data: of what each modality's inputs are, and of what its encoders make of them.

The samples are those with the smallest hashes of seed and id, so that neither the batch size nor the order of the data changes which
they are. Where the data is so large that reading it once more would take long, only some batches are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.tracing import CallKey, output_tensors
from mmaudit.evidence.collecting import described
from mmaudit.evidence.data import Source
from mmaudit.evidence.features import Featuriser, ShapesDifferError
from mmaudit.evidence.second_masks import spread
from mmaudit.evidence.surroundings import Surroundings
from mmaudit.exceptions import DataError, first_line
from mmaudit.masking.base import stable_hash
from mmaudit.masking.batches import Batch
from mmaudit.masking.masked_batch import (
    MaskedBatch,
    batch_dimension,
    canonical_path,
    known_dimension,
)
from mmaudit.masking.paths import find_value
from mmaudit.typing import FloatArray, IntArray

__all__ = ["KINDS", "Gathered", "Gatherer"]

KINDS = ("inputs", "encoder")
"""What features are made of."""

_MOST_READ = 65_536
_AT_ONCE = 256
_HASHES = 2**63


@dataclass
class Gathered:
    """What is known of n samples (or segments of samples).

    Attributes:
        ids: Of samples, or ``<sample>#<segment>``.
        owners: What is resampled: groups, or sample ids.
        truth: As :func:`~mmaudit.evidence.questions.ask` takes it, ``(n, ...)``.
        has: Modality -> whether each has it, bool ``(n,)``.
        features: Kind of features and modality -> ``(n, w)``; whatever stands where the modality is lacking means nothing.
        whole: Whether nothing of the data was left out.
    """

    ids: list[str]
    owners: list[str]
    truth: np.ndarray
    has: dict[str, np.ndarray]
    features: dict[tuple[str, str], FloatArray]
    whole: bool


@dataclass
class _Part:
    """What one batch gave."""

    keys: IntArray
    ids: np.ndarray
    owners: np.ndarray
    truth: np.ndarray
    has: dict[str, np.ndarray]
    features: dict[tuple[str, str], FloatArray] = field(default_factory=dict)

    def where(self, rows: np.ndarray) -> _Part:
        return _Part(
            self.keys[rows],
            self.ids[rows],
            self.owners[rows],
            self.truth[rows],
            {name: values[rows] for name, values in self.has.items()},
            {name: values[rows] for name, values in self.features.items()},
        )


class Gatherer:
    """Reads data and makes features, in the same way for all data it is given.

    Args:
        surroundings: Of the audit.
        most: Samples, at most.
        width: Features of one kind of one modality, about.

    Attributes:
        reasons: Kind of features and modality -> why there are none.
    """

    def __init__(self, surroundings: Surroundings, *, most: int, width: int) -> None:
        self._surroundings, self._most = surroundings, most
        self._seed: int = surroundings.settings["seed"]
        self._makers = {
            (kind, name): Featuriser(
                width,
                stable_hash(self._seed, kind, name),
                tokens=[i for i, m in part.mask.items() if kind == "inputs" and m.kind == "token"],
            )
            for kind in KINDS
            for name, part in surroundings.spec.modalities.items()
        }
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}
        self.reasons: dict[tuple[str, str], str] = {}

    def words(self, kind: str, modality: str) -> str:
        """How features came about."""
        words = self._makers[kind, modality].words
        return ", ".join(dict.fromkeys(words.values()))

    def gather(self, source: Source, *, encoders: bool) -> Gathered:
        """Read a source.

        Args:
            source: With targets.
            encoders: Whether the model is run for what its encoders give.

        Raises:
            ShapesDifferError: If something was found that makes features that were given out before different.
            DataError: If the data cannot be read.
        """
        stride = 1
        if source.samples and source.length and source.samples > _MOST_READ:
            stride = spread(source.samples, source.length, _MOST_READ)
        parts: list[_Part] = []
        below, kept, samples = _HASHES, 0, 0
        progress = self._surroundings.collector.progress
        for batch in source.batches(stride=stride):
            part = self._part(batch, below, encoders=encoders)
            samples += batch.n
            kept += len(part.keys)
            parts.append(part)
            if kept > 2 * self._most:
                below = int(np.sort(np.concatenate([p.keys for p in parts]))[self._most])
                parts = [p.where(p.keys < below) for p in parts]
                kept = sum(len(p.keys) for p in parts)
            if progress is not None:
                progress("Probes", samples, source.samples)
        whole = stride == 1 and below == _HASHES and kept <= self._most
        return self._together([part for part in parts if len(part.keys)], whole=whole)

    def _together(self, parts: list[_Part], *, whole: bool) -> Gathered:
        if not parts:
            return Gathered([], [], np.empty(0), {}, {}, whole)
        keys = np.concatenate([part.keys for part in parts])
        # In an order that depends on the ids alone, and ties (equal hashes) in that of the data.
        order = np.argsort(keys, kind="stable")[: self._most]

        def joined(values: list[np.ndarray]) -> np.ndarray:
            return np.asarray(np.concatenate(values)[order])

        features = {}
        for key in self._makers:
            made = [part.features[key] for part in parts if key in part.features]
            if key in self.reasons or not made:
                continue
            nothing = np.zeros((1, made[0].shape[1]), np.float32)
            features[key] = joined(
                [part.features.get(key, np.repeat(nothing, len(part.keys), 0)) for part in parts]
            )
        return Gathered(
            joined([part.ids for part in parts]).tolist(),
            joined([part.owners for part in parts]).tolist(),
            joined([part.truth for part in parts]),
            {name: joined([part.has[name] for part in parts]) for name in parts[0].has},
            features,
            whole,
        )

    def _part(self, batch: Batch, below: int, *, encoders: bool) -> _Part:
        value, spec = self._surroundings.collector.value, self._surroundings.spec
        if batch.targets is None:
            raise DataError("the audit needs labels: name their path under 'target'.")
        segment: IntArray | None = None
        if spec.task == "segments":
            rows = value.rows(batch)
            ids, sample, segment, truth = rows.ids, rows.sample, rows.part, rows.truth
        else:
            ids, sample, truth = batch.ids, np.arange(batch.n), batch.targets
        keys = np.array([stable_hash(self._seed, "probe", i) for i in ids], dtype=np.int64)
        chosen = np.flatnonzero(keys < below)
        sample = sample[chosen]
        segment = None if segment is None else segment[chosen]
        owners = np.array(batch.groups if batch.groups else batch.ids, dtype=object)
        part = _Part(
            keys[chosen],
            np.array(ids, dtype=object)[chosen],
            owners[sample],
            truth[chosen],
            {name: batch.present[name][sample] for name in spec.names},
        )
        if not len(chosen):
            return part
        parts = truth.shape[1] if spec.task == "segments" and truth.ndim > 1 else 0
        parts = batch.targets.shape[1] if segment is not None else parts
        places = _Places(sample, segment, parts)
        for name in spec.names:
            if part.has[name].any() and ("inputs", name) not in self.reasons:
                self._add(part, ("inputs", name), self._inputs(batch, name), places)
        if encoders:
            self._encode(part, batch, places)
        return part

    def _inputs(self, batch: Batch, modality: str) -> dict[str, Tensor] | str:
        """Inputs of a modality that its masks hide, samples first; or why they cannot be taken."""
        found: dict[str, Tensor] = {}
        part = self._surroundings.spec.modalities[modality]
        for name, path in part.inputs.items():
            if part.mask[name].kind == "keep":
                continue
            value = find_value(batch.data, path)
            if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
                value = torch.as_tensor(value)
            if not isinstance(value, Tensor):
                return f"input '{name}' is a {type(value).__name__}, no tensor"
            dim = known_dimension(canonical_path(path), value, batch.n, batch.dims)
            if dim is None:
                return f"input '{name}' has no dimension that runs over samples"
            found[name] = value if dim == 0 else value.movedim(dim, 0)
        return found

    def _encode(self, part: _Part, batch: Batch, places: _Places) -> None:
        missing = [
            name
            for name in self._surroundings.spec.names
            if part.has[name].any() and ("encoder", name) not in self.reasons
        ]
        wanted = _encoder_keys(self._surroundings)
        for name in missing:
            if not any(owner == name for owner in wanted.values()):
                self.reasons["encoder", name] = "no module of the model sees this modality alone"
        missing = [name for name in missing if ("encoder", name) not in self.reasons]
        if not missing:
            return
        with described(batch):
            found = self._encoder_outputs(batch, places.needed, wanted)
        for name in missing:
            tensors = found.get(name)
            if not tensors:
                self.reasons["encoder", name] = (
                    "its encoders give nothing with a row for each sample"
                )
            else:
                self._add(part, ("encoder", name), tensors, places.among_needed)

    def _encoder_outputs(
        self, batch: Batch, samples: IntArray, wanted: Mapping[CallKey | str, str]
    ) -> dict[str, dict[str, Tensor]]:
        """Modality -> what its encoders give for some samples of a batch."""
        surroundings = self._surroundings
        prepared = surroundings.collector.prepare(batch)
        together = surroundings.structure.rows_matter is not None or len(samples) == batch.n
        try:
            chunks = [
                prepared if together else prepared.rows(torch.from_numpy(rows))
                for rows in np.split(samples, range(_AT_ONCE, len(samples), _AT_ONCE))
            ]
        except DataError:  # an input without samples: the batch stays whole
            together, chunks = True, [prepared]
        chunks = chunks[:1] if together else chunks
        found = [_watched(surroundings, chunk, wanted) for chunk in chunks]
        joined: dict[str, dict[str, Tensor]] = {}
        for name, tensors in found[0].items():
            if any(set(other.get(name, ())) != set(tensors) for other in found):
                continue
            joined[name] = {
                key: _concatenated([other[name][key] for other in found]) for key in tensors
            }
            if together:
                rows = torch.from_numpy(samples)
                joined[name] = {key: tensor[rows] for key, tensor in joined[name].items()}
        return joined

    def _add(
        self,
        part: _Part,
        key: tuple[str, str],
        tensors: dict[str, Tensor] | str,
        places: _Places,
    ) -> None:
        """Make features and keep them, or the reason why there are none."""
        if isinstance(tensors, str):
            self.reasons[key] = tensors
            return
        if self._names.setdefault(key, tuple(tensors)) != tuple(tensors):
            self.reasons[key] = "it is not computed alike in every batch"
            return
        try:
            part.features[key] = self._makers[key].rows(
                {name: places.of(tensor) for name, tensor in tensors.items()}
            )
        except ShapesDifferError:
            raise
        except (ValueError, RuntimeError) as error:  # shapes that nothing fits
            self.reasons[key] = (
                f"its values cannot be made into features ({first_line(error, 160)})"
            )


class _Places:
    """Which samples of a batch, or which segments of them, were chosen.

    Args:
        sample: Sample of each row, ascending.
        segment: Segment of each row, ``None`` where a sample is one row.
        segments: T.
    """

    def __init__(self, sample: IntArray, segment: IntArray | None, segments: int) -> None:
        self.sample, self.segment, self.segments = sample, segment, segments

    @property
    def needed(self) -> IntArray:
        """The samples behind the rows, each once."""
        return np.unique(self.sample)

    @property
    def among_needed(self) -> _Places:
        """The same rows where only the needed samples are left."""
        return _Places(np.searchsorted(self.needed, self.sample), self.segment, self.segments)

    def of(self, tensor: Tensor) -> Tensor:
        """Rows of a tensor ``(n, ...)``: of a segment the slice, where a dimension runs over segments."""
        rows = torch.from_numpy(self.sample).to(tensor.device)
        if self.segment is None:
            return tensor[rows]
        for dim in range(1, tensor.dim()):
            if tensor.shape[dim] == self.segments:
                at = torch.from_numpy(self.segment).to(tensor.device)
                return tensor.movedim(dim, 1)[rows, at]
        return tensor[rows]


def _encoder_keys(surroundings: Surroundings) -> dict[CallKey | str, str]:
    """Encoder calls, or modules that the spec calls encoders, -> modality."""
    spec, structure = surroundings.spec, surroundings.structure
    found: dict[CallKey | str, str] = {}
    for m, (name, part) in enumerate(spec.modalities.items()):
        if part.encoders is not None:
            found |= dict.fromkeys(structure.record.encoders.get(name, ()), name)
            continue
        for call in structure.encoder_calls:
            # The model itself is no part of which one could say that it saw a modality alone.
            if call.modality == m and call.key[0]:
                found[call.key] = name
    return found


def _watched(
    surroundings: Surroundings, batch: MaskedBatch, wanted: Mapping[CallKey | str, str]
) -> dict[str, dict[str, Tensor]]:
    """Run the model and keep what the wanted calls return, samples first."""
    evaluator = surroundings.collector.evaluator
    modules = (
        dict(evaluator.model.named_modules()) if isinstance(evaluator.model, nn.Module) else {}
    )
    names = {key if isinstance(key, str) else key[0] for key in wanted}
    known = {call.key: call for call in surroundings.structure.encoder_calls}
    counts: dict[str, int] = {}
    found: dict[str, dict[str, Tensor]] = {}

    def keep(name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        key = (name, counts.get(name, 0))
        counts[name] = key[1] + 1
        out = forward(*args, **kwargs)
        modality = wanted.get(key, wanted.get(name))
        if modality is None:
            return out
        call = known.get(key)
        for place, tensor in enumerate(output_tensors(out)):
            if call is not None and call.live and not call.live[place]:
                continue
            rows = _samples_first(tensor, batch.n, call.dims[place] if call and call.dims else None)
            if rows is not None:
                # A copy: what follows may overwrite what an encoder returned.
                found.setdefault(modality, {})[f"{name} {key[1]} {place}"] = rows.detach().clone()
        return out

    with intercepted({name: modules[name] for name in sorted(names) if name in modules}, keep):
        evaluator.plain(batch)
    return found


def _samples_first(tensor: Tensor, n: int, dim: int | None) -> Tensor | None:
    """An encoder's output with one row for each sample, ``None`` where it has none."""
    if not tensor.is_floating_point() or tensor.is_nested or tensor.layout is not torch.strided:
        return None
    if dim is None:
        dim = batch_dimension(tensor, n)
    if dim is None and tensor.dim() and len(tensor) % n == 0:
        return tensor.reshape(n, len(tensor) // n, *tensor.shape[1:])  # segments side by side
    if dim is None or tensor.shape[dim] != n:
        return None
    return tensor.movedim(dim, 0)


def _concatenated(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
