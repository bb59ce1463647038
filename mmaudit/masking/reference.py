"""What some masks need to know of the data: mean and standard deviation of an input, and a pool of donors.

Collected in one pass over the training data, or over the audited data where there is no other. Statistics are summed in
float64. The donors are the samples whose ids have the smallest hashes, so that the pool depends on seed and ids alone and
neither on the batch size nor on the order of the samples.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.base import stable_hash
from mmaudit.masking.masked_batch import canonical_path, known_dimension
from mmaudit.masking.paths import find_value
from mmaudit.masking.spec import MaskingSpec, MaskSpec, NoiseMask
from mmaudit.report.schema import Note

__all__ = ["Donors", "Moments", "Reference", "ReferenceBatch", "needs_reference"]

_LARGEST_POOL = 2**30


class ReferenceBatch(Protocol):
    """What is read of a batch."""

    @property
    def data(self) -> Any:
        """The batch as the model gets it."""

    @property
    def ids(self) -> Sequence[str]:
        """Sample ids, length n."""

    @property
    def dims(self) -> Mapping[str, int | None]:
        """Path of a tensor -> its dimension over samples."""

    @property
    def present(self) -> Mapping[str, np.ndarray]:
        """Modality -> whether each sample has it, bool ``(n,)``."""


@dataclass(frozen=True)
class Moments:
    """Statistics of one input over the samples that have it; entries that are not finite are left out."""

    n: int
    """Samples."""
    mean: Tensor
    """Float64, shape of one sample."""
    std: Tensor
    """Population standard deviation, float64, shape of one sample."""
    low: float
    """Smallest value of all entries."""
    high: float


@dataclass(frozen=True)
class Donors:
    """A pool of samples that have a modality, in the order of their hashes."""

    ids: tuple[str, ...]
    values: dict[str, list[Tensor]]
    """Input -> the donors' values, each of the shape of one sample, on the CPU."""


@dataclass(frozen=True)
class Reference:
    """Everything that masks take from data.

    Args:
        moments: Modality -> input -> statistics, for the inputs whose masks need them.
        donors: Modality -> pool, for the modalities whose masks need one.
        source: Where it is from, as it is said in the record: ``training data`` or ``audited data``.
        notes: What a reader must know.
    """

    moments: dict[str, dict[str, Moments]] = field(default_factory=dict)
    donors: dict[str, Donors] = field(default_factory=dict)
    source: str = "training data"
    notes: tuple[Note, ...] = ()

    @classmethod
    def collect(
        cls,
        batches: Iterable[ReferenceBatch],
        spec: MaskingSpec,
        *,
        donors: int = 256,
        seed: int = 0,
        source: str = "training data",
    ) -> Reference:
        """Read the data once and keep what the masks of a spec need.

        Args:
            batches: The whole of the data, in any batch size.
            spec: Modalities and their masks.
            donors: Size of a pool, at least 2; smaller where the data is, or where it would take more than 1 GiB.
            seed: Of the whole audit.
            source: ``training data`` or ``audited data``; the latter is noted.

        Returns:
            Statistics and pools; empty where no mask needs any.

        Raises:
            SpecError: If an input cannot have a mean (its shape varies) or no sample has the modality.
            DataError: If an input is no dense tensor with one row per sample.
        """
        if donors < 2:
            raise SpecError(f"expected a pool of at least 2 donors, found {donors}")
        wanted = {name: _needs(modality.mask) for name, modality in spec.modalities.items()}
        running: dict[tuple[str, str], _RunningMoments] = {}
        pools: dict[str, _Pool] = {}
        for name, (statistics, marginal) in wanted.items():
            for input_name in statistics:
                mask = spec.modalities[name].mask[input_name].kind
                running[name, input_name] = _RunningMoments(
                    f"modality '{name}', input '{input_name}'", mask
                )
            if marginal:
                pools[name] = _Pool(donors, seed)
        for batch in batches if running or pools else ():
            for (name, input_name), moments in running.items():
                rows = _present_rows(batch, spec, name, input_name)
                if rows is not None:
                    moments.add(rows[0])
            for name, pool in pools.items():
                pool.add(_donor_rows(batch, spec, name, wanted[name][1]))
        notes = [pool.note(name) for name, pool in pools.items() if pool.shrunk]
        if source != "training data" and (running or pools):
            names = ", ".join(dict.fromkeys([*(name for name, _ in running), *pools]))
            text = f"the masks of {names} take their values from the {source}, because there is no training data"
            notes.append(Note(kind="warning", topic="masking", text=text))
        result = cls(source=source, notes=tuple(notes))
        for (name, input_name), moments in running.items():
            result.moments.setdefault(name, {})[input_name] = moments.result()
        for name, pool in pools.items():
            result.donors[name] = pool.result(name, wanted[name][1])
        return result


def needs_reference(spec: MaskingSpec) -> bool:
    """Whether a mask of the spec takes something from data: ``mean``, ``marginal``, ``noise`` without both its settings."""
    return any(
        statistics or marginal
        for statistics, marginal in (_needs(m.mask) for m in spec.modalities.values())
    )


def _needs(masks: Mapping[str, MaskSpec]) -> tuple[list[str], list[str]]:
    """Inputs that need statistics, and inputs that need donors."""
    statistics = [
        name
        for name, mask in masks.items()
        if mask.kind == "mean"
        or (isinstance(mask, NoiseMask) and (mask.mean is None or mask.std is None))
    ]
    return statistics, [name for name, mask in masks.items() if mask.kind == "marginal"]


def _present_rows(
    batch: ReferenceBatch, spec: MaskingSpec, name: str, input_name: str
) -> tuple[Tensor, np.ndarray] | None:
    """Rows of an input for the samples that have the modality, and their places in the batch."""
    present = np.flatnonzero(batch.present[name])
    values = find_value(batch.data, spec.modalities[name].inputs[input_name])
    if values is None or not len(present):
        return None
    if not isinstance(values, Tensor) or values.layout != torch.strided:
        raise DataError(
            f"modality '{name}', input '{input_name}': mask '{spec.modalities[name].mask[input_name].kind}' needs a dense"
            f" tensor, found {getattr(values, 'layout', type(values).__name__)}; use 'zero' or 'drop'"
        )
    path = canonical_path(spec.modalities[name].inputs[input_name])
    axis = known_dimension(path, values, len(batch.ids), batch.dims)
    if axis is None:
        raise DataError(
            f"modality '{name}', input '{input_name}': mask '{spec.modalities[name].mask[input_name].kind}' needs one row per"
            f" sample, found shape {tuple(values.shape)} for {len(batch.ids)} samples; use 'zero' or a constant"
        )
    values = values.detach().movedim(axis, 0)
    return (values if len(present) == len(values) else values[torch.from_numpy(present)]), present


def _donor_rows(
    batch: ReferenceBatch, spec: MaskingSpec, name: str, inputs: Sequence[str]
) -> list[tuple[str, dict[str, Tensor]]]:
    rows: dict[str, Tensor] = {}
    places: np.ndarray = np.empty(0, dtype=np.int64)
    for input_name in inputs:
        found = _present_rows(batch, spec, name, input_name)
        if found is None:
            return []
        rows[input_name], places = found
    return [
        (batch.ids[place], {input_name: values[i] for input_name, values in rows.items()})
        for i, place in enumerate(places)
    ]


class _RunningMoments:
    """Mean and variance by merging batches (Chan, Golub and LeVeque 1979), entry by entry."""

    def __init__(self, where: str, mask: str) -> None:
        self.where = where
        self.mask = mask
        self.n = 0
        self.low, self.high = float("inf"), float("-inf")
        self.count = self.mean = self.squares = torch.empty(0)

    def add(self, rows: Tensor) -> None:
        if rows.is_complex():
            raise SpecError(
                f"{self.where}: mask '{self.mask}' is for real numbers, found {rows.dtype}; use 'zero'"
            )
        rows = rows.cpu().double()
        shape = rows.shape[1:]
        if not self.n:
            self.count, self.mean, self.squares = (
                torch.zeros(shape, dtype=torch.float64) for _ in range(3)
            )
        elif shape != self.mean.shape:
            use = (
                "'zero' or 'marginal'"
                if self.mask == "mean"
                else "noise with 'mean' and 'std', or 'marginal'"
            )
            raise SpecError(
                f"{self.where}: mask '{self.mask}' needs inputs of one shape, found {tuple(self.mean.shape)} and"
                f" {tuple(shape)} per sample; use {use}"
            )
        self.n += len(rows)
        finite = torch.isfinite(rows)
        if not bool(finite.any()):
            return
        known = rows[finite]
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        added = finite.sum(0).double()
        mean = torch.where(finite, rows, 0.0).sum(0) / added.clamp(min=1)
        squares = torch.where(finite, rows - mean, 0.0).square().sum(0)
        total = (self.count + added).clamp(min=1)
        step = mean - self.mean
        self.squares += squares + step.square() * self.count * added / total
        self.mean += step * added / total
        self.count += added

    def result(self) -> Moments:
        if not self.n:
            raise SpecError(
                f"{self.where}: mask '{self.mask}' found no sample with this modality; add 'data.train' with such samples,"
                " or use 'zero'"
            )
        if not bool((self.count > 0).all()):
            raise DataError(
                f"{self.where}: mask '{self.mask}': some entries have no finite value in any of {self.n} samples"
            )
        return Moments(self.n, self.mean, (self.squares / self.count).sqrt(), self.low, self.high)


class _Pool:
    """The samples with the smallest hashes, within a number and a size."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.shrunk = False
        self._bytes = 0
        # Largest hash first; the id decides between equal hashes and keeps tensors from being compared.
        self._heap: list[tuple[int, str, dict[str, Tensor]]] = []
        self._limit: int | None = None

    def add(self, rows: Iterable[tuple[str, dict[str, Tensor]]]) -> None:
        for sample, values in rows:
            order = -stable_hash(self.seed, "pool", sample)
            if self._limit is not None and order <= self._limit:
                continue
            # A row is a view; without a copy it would keep its whole batch in memory.
            kept = {name: value.cpu().clone() for name, value in values.items()}
            heapq.heappush(self._heap, (order, sample, kept))
            self._bytes += _size(kept)
            over = self._bytes > _LARGEST_POOL and len(self._heap) > 2
            while len(self._heap) > self.size or over:
                order, _, gone = heapq.heappop(self._heap)
                self._bytes -= _size(gone)
                # What was given up once stays out, else the pool would depend on the order of the samples.
                self._limit = order if self._limit is None else max(self._limit, order)
                self.shrunk = self.shrunk or over
                over = self._bytes > _LARGEST_POOL and len(self._heap) > 2

    def note(self, name: str) -> Note:
        text = f"the pool of donors for '{name}' holds {len(self._heap)} instead of {self.size} samples, which take 1 GiB"
        return Note(kind="information", topic="masking", text=text)

    def result(self, name: str, inputs: Sequence[str]) -> Donors:
        if len(self._heap) < 2:
            raise SpecError(
                f"modality '{name}': mask 'marginal' needs at least 2 samples with this modality, found {len(self._heap)};"
                " add 'data.train' with such samples, or use 'zero'"
            )
        ordered = sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))
        return Donors(
            tuple(sample for _, sample, _ in ordered),
            {input_name: [values[input_name] for _, _, values in ordered] for input_name in inputs},
        )


def _size(values: Mapping[str, Tensor]) -> int:
    return sum(value.element_size() * value.numel() for value in values.values())
