"""What a batch says: sample ids, targets, groups, and which samples have which modality.

The user's batch itself stays as it is, apart from being on the CPU and holding tensors where it held numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import DataError
from mmaudit.masking.arrays import to_tensor
from mmaudit.masking.base import stable_hash
from mmaudit.masking.masked_batch import canonical_path, known_dimension, sample_dimensions
from mmaudit.masking.paths import find_value, get_value, map_leaves
from mmaudit.masking.spec import MaskingSpec
from mmaudit.masking.targets import read_targets
from mmaudit.report.schema import Note

__all__ = ["Batch", "BatchParser"]

_UNMASKED = ("keep", "drop")


@dataclass(frozen=True)
class Batch:
    """Some samples, as the model gets them and as the audit counts them."""

    index: int
    """Number of the batch in the order of the data, from 0."""
    start: int
    """Running number of its first sample."""
    data: Any
    """The user's batch, on the CPU."""
    ids: list[str]
    """Sample ids, unique in the data: those the spec points to, else running numbers."""
    targets: np.ndarray | None
    """What is true, as :func:`~mmaudit.masking.targets.read_targets` gives it; ``None`` where the spec names no target."""
    groups: list[str] | None
    """Samples with equal groups belong together."""
    present: dict[str, np.ndarray]
    """Modality -> whether each sample has it, bool ``(n,)``."""
    n: int
    """Samples."""
    dims: Mapping[str, int | None] = field(default_factory=dict)
    """Path of every tensor -> its dimension over samples, ``None`` where it has none; as the first batch of the data shows."""


class BatchParser:
    """Reads the batches of one pass over the data and checks that they agree.

    Args:
        spec: Where things are in a batch.
        note: Takes what was changed or found on the way.
        to_cpu: Whether tensors that lie elsewhere are brought to the CPU.
        dims: Path -> dimension over samples, as the first batch of the data showed it.
    """

    def __init__(
        self,
        spec: MaskingSpec,
        note: Callable[[Note], None],
        *,
        to_cpu: bool = True,
        dims: Mapping[str, int | None] | None = None,
    ) -> None:
        self._spec = spec
        self._dims = dims
        self._to_cpu = to_cpu
        self._note = note
        self._seen = _SeenIds()
        self._kinds: dict[str, tuple[torch.dtype, int]] = {}
        self._found: dict[str, bool] = dict.fromkeys(spec.names, False)

    @property
    def never_found(self) -> list[str]:
        """Modalities that no sample had so far."""
        return [name for name, found in self._found.items() if not found]

    def count(self, data: Any) -> int:
        """Number of samples in a batch.

        Raises:
            DataError: If nothing in it says so.
        """
        if self._spec.target is not None:
            return _length(get_value(data, self._spec.target), f"target '{self._spec.target}'")
        found = {
            f"modality '{name}', path '{path}'": value
            for name, modality in self._spec.modalities.items()
            for path in modality.inputs.values()
            if (value := find_value(data, path)) is not None
        }
        if found:
            # Samples run along the first axis as a rule; where inputs disagree on it, along one whose size they share.
            first = _length(next(iter(found.values())), next(iter(found)))
            shapes = [
                tuple(v.shape) if isinstance(v, Tensor) else (len(v),) for v in found.values()
            ]
            shared = [size for size in shapes[0] if all(size in shape for shape in shapes)]
            return first if first in shared or not shared else shared[0]
        raise DataError(
            "the batch has neither a target nor any modality's input, so its samples cannot be counted"
        )

    def parse(self, raw: Any, index: int, start: int, *, size: int | None = None) -> Batch:
        """Read one batch.

        Args:
            raw: The user's batch.
            index: Its number.
            start: Running number of its first sample.
            size: How many samples it should have, where that is known.

        Raises:
            DataError: If it does not have what the spec says; the sentence names the batch or the sample.
        """
        where = f"batch {index}"
        data = map_leaves(raw, (Tensor, np.ndarray), self._leaf)
        n = self.count(data)
        if n == 0:
            raise DataError(f"{where} is empty; expected at least one sample")
        if size is not None and n != size:
            self._other_size(where, n, size)
        ids = self._ids(data, start, n, where)
        targets = None
        if self._spec.target is not None:
            # Numbers to be predicted keep the precision in which they came.
            whole = raw if self._spec.task == "regression" else data
            targets = read_targets(get_value(whole, self._spec.target), self._spec, ids)
        groups = None
        if self._spec.group is not None:
            groups = _texts(
                get_value(data, self._spec.group), n, f"{where}: group '{self._spec.group}'", ids
            )
        if self._dims is None:
            self._dims = sample_dimensions(data, n)
        present = {name: self._present(data, name, n, where) for name in self._spec.modalities}
        for name, rows in present.items():
            self._found[name] = self._found[name] or bool(rows.any())
        return Batch(index, start, data, ids, targets, groups, present, n, self._dims)

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.cpu() if self._to_cpu and leaf.device.type != "cpu" else leaf
        return (
            to_tensor(leaf, "an array of the batches", self._note)
            if leaf.dtype.kind in "biufc"
            else leaf
        )

    def _other_size(self, where: str, n: int, size: int) -> None:
        if n > size and self._spec.ids is None:
            raise DataError(
                f"{where}: {n} rows for {size} samples of the dataset, so rows cannot be numbered; name sample ids in the spec"
                " ('ids')"
            )
        text = f"{where}: the collate_fn made {n} rows of {size} samples of the dataset"
        self._note(Note(kind="warning", topic="data", text=text))

    def _ids(self, data: Any, start: int, n: int, where: str) -> list[str]:
        if self._spec.ids is None:
            return [str(start + row) for row in range(n)]
        ids = _texts(get_value(data, self._spec.ids), n, f"{where}: ids '{self._spec.ids}'", None)
        double = self._seen.add(ids)
        if double is not None:
            raise DataError(
                f"{where}: sample id '{double}' occurs twice; ids ('{self._spec.ids}') must be unique in the data"
            )
        return ids

    def _present(self, data: Any, name: str, n: int, where: str) -> np.ndarray:
        modality = self._spec.modalities[name]
        values = {key: find_value(data, path) for key, path in modality.inputs.items()}
        required = {
            key: value for key, value in values.items() if modality.mask[key].kind not in _UNMASKED
        }
        looked = required or values
        absent = [key for key, value in looked.items() if value is None]
        if absent and len(absent) < len(looked):
            there = next(key for key, value in looked.items() if value is not None)
            raise DataError(
                f"{where}: modality '{name}' has '{there}' but not '{absent[0]}' (path '{modality.inputs[absent[0]]}');"
                " expected all of its inputs or none"
            )
        if absent:
            return np.zeros(n, dtype=bool)
        for key, value in required.items():
            self._check(
                value,
                modality.inputs[key],
                f"{where}: modality '{name}', path '{modality.inputs[key]}'",
            )
        rows = np.ones(n, dtype=bool)
        if modality.present is not None:
            rows &= _booleans(
                get_value(data, modality.present),
                n,
                f"{where}: '{modality.present}' of modality '{name}'",
            )
        tensors = {
            canonical_path(modality.inputs[key]): value
            for key, value in values.items()
            if isinstance(value, Tensor)
        }
        missing = _all_nan(tensors, n, self._dims)
        if missing is not None and (missing & rows).any():
            text = f"samples whose values of '{name}' are all NaN count as having no {name}"
            self._note(Note(kind="information", topic="data", text=text))
            rows &= ~missing
        return rows

    def _check(self, value: Any, path: str, where: str) -> None:
        if not isinstance(value, Tensor):
            raise DataError(
                f"{where}: expected a tensor or a numeric array, found {type(value).__name__}; only 'drop' masks it"
            )
        kind = (value.dtype, value.ndim)
        known = self._kinds.setdefault(path, kind)
        if kind != known:
            raise DataError(
                f"{where}: {kind[0]} with {kind[1]} dimensions, but {known[0]} with {known[1]} in the batches before; expected"
                " batches that agree"
            )


class _SeenIds:
    """Which ids have occurred, as sorted 64-bit hashes: 8 bytes per sample, and few in a set that is merged now and then."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.int64)
        self._recent: set[int] = set()

    def add(self, ids: Sequence[str]) -> str | None:
        """Remember ids; returns the first that has occurred before."""
        codes = [stable_hash(sample) for sample in ids]
        at = np.searchsorted(self._sorted, codes)
        known = np.zeros(len(codes), dtype=bool)
        if len(self._sorted):
            known = self._sorted[np.minimum(at, len(self._sorted) - 1)] == codes
        for sample, code, before in zip(ids, codes, known, strict=True):
            if before or code in self._recent:
                return sample
            self._recent.add(code)
        if len(self._recent) >= 2**15:
            new = np.fromiter(self._recent, dtype=np.int64, count=len(self._recent))
            self._sorted = np.concatenate([self._sorted, new])
            self._sorted.sort()
            self._recent.clear()
        return None


def _length(value: Any, where: str) -> int:
    if isinstance(value, Tensor | np.ndarray):
        if value.ndim == 0:
            raise DataError(
                f"{where}: a single number, expected one value per sample; batches need a first axis of samples"
            )
        return int(value.shape[0])
    if isinstance(value, list | tuple):
        return len(value)
    raise DataError(
        f"{where}: a {type(value).__name__}, expected a tensor, an array or a list with one value per sample"
    )


def _texts(value: Any, n: int, where: str, ids: Sequence[str] | None) -> list[str]:
    """One text per sample."""
    if _length(value, where) != n:
        raise DataError(f"{where}: {_length(value, where)} values for {n} samples")
    items = value.tolist() if isinstance(value, Tensor | np.ndarray) else list(value)
    texts = []
    for row, item in enumerate(items):
        if isinstance(item, Tensor | np.ndarray | np.generic) and item.ndim == 0:
            item = item.item()
        if isinstance(item, list) and len(item) == 1:
            item = item[0]
        if item is None or (isinstance(item, float) and math.isnan(item)):
            raise DataError(
                f"{where}: nothing for {'row ' + str(row) if ids is None else repr(ids[row])}"
            )
        if isinstance(item, bytes):
            item = item.decode("utf-8", "replace")
        if not isinstance(item, str | int | float):
            raise DataError(
                f"{where}: a {type(item).__name__}, expected one text or number per sample"
            )
        texts.append(str(item))
    return texts


def _booleans(value: Any, n: int, where: str) -> np.ndarray:
    flags = np.asarray(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
    flags = flags.reshape(-1) if flags.size == n else flags
    if flags.shape != (n,) or flags.dtype.kind not in "biuf" or not np.isin(flags, (0, 1)).all():
        raise DataError(
            f"{where}: expected a boolean for each of {n} samples, found {flags.dtype} of shape {flags.shape}"
        )
    return flags.astype(bool)


def _all_nan(
    values: Mapping[str, Tensor], n: int, dims: Mapping[str, int | None] | None
) -> np.ndarray | None:
    """Samples in which every floating input is NaN throughout; ``None`` where there is none."""
    missing: Tensor | None = None
    for path, value in values.items():
        axis = (
            known_dimension(path, value, n, dims)
            if value.layout == torch.strided and value.is_floating_point()
            else None
        )
        if axis is None or value.numel() == 0:
            continue
        rows = value.detach().movedim(axis, 0).reshape(n, -1)
        candidates = (
            torch.isnan(rows[:, 0]) if missing is None else missing & torch.isnan(rows[:, 0])
        )
        if not bool(candidates.any()):
            return None
        missing = candidates.clone()
        missing[candidates] = torch.isnan(rows[candidates]).all(1)
    return None if missing is None or not bool(missing.any()) else missing.numpy()
