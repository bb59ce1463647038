"""The samples of a split by position, in the form that a training takes them: in any order and any number at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from mmaudit.evidence.data import Source, open_source
from mmaudit.exceptions import DataError
from mmaudit.masking.batches import Batch, BatchParser
from mmaudit.masking.masked_batch import take_rows
from mmaudit.masking.paths import tensor_paths, with_values
from mmaudit.masking.spec import MaskingSpec

__all__ = ["Samples", "open_samples", "split_off"]


@dataclass(frozen=True)
class Samples:
    """A split of the data.

    Attributes:
        data: Items by position.
        collate: Items -> :class:`~mmaudit.masking.batches.Batch`.
        description: For the record.
    """

    data: Dataset[Any]
    collate: Callable[[list[Any]], Batch]
    description: str

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # what is opened here has a length

    def batch(self, positions: Sequence[int]) -> Batch:
        """Some samples as one batch."""
        return self.collate([self.data[position] for position in positions])

    def only(self, positions: Sequence[int]) -> Samples:
        """A part of the samples."""
        return replace(self, data=Subset(self.data, list(positions)))

    def targets(self) -> np.ndarray:
        """Classes of all samples, ``(n,)``; reads them all. All 0 where a sample has no class of its own."""
        found = []
        for at in range(0, len(self), 256):
            batch = self.batch(range(at, min(at + 256, len(self))))
            if batch.targets is None:
                raise DataError("training needs labels: name their path under 'target'.")
            targets = batch.targets
            found.append(targets if targets.ndim == 1 else np.zeros(len(targets), np.int32))
        return np.concatenate(found)


def open_samples(source: Any, spec: MaskingSpec, *, directory: Path | None = None) -> Samples:
    """Open a split for training.

    Datasets are read item by item and batched by their loader's own ``collate_fn``, arrays row by row. Ready-made batches are kept
    in memory and cut into samples.

    Args:
        source: What :func:`~mmaudit.evidence.data.open_source` takes.
        spec: Where things are in a batch.
        directory: What relative paths and import strings start from.

    Raises:
        DataError: If it cannot be read, or comes as batches that cannot be cut into samples.
    """
    opened = open_source(source, spec, directory=directory)
    by_sample = opened.by_sample()
    if by_sample is None:
        return _from_batches(opened)
    data, collate = by_sample
    collated = _Collate(spec, collate, opened.first().dims)
    return Samples(_Numbered(data), collated, opened.description)


def split_off(samples: Samples, share: float, *, seed: int) -> tuple[Samples, Samples]:
    """Take a part away, stratified where samples have classes.

    Args:
        samples: At least two of them.
        share: Of every class that is taken away, in (0, 1); at least one sample of a class that has two.
        seed: Of the choice.

    Returns:
        What is left, and what was taken.

    Raises:
        DataError: If no class has two samples.
    """
    targets, rng = samples.targets(), np.random.default_rng([seed, 1])
    taken = np.zeros(len(targets), dtype=bool)
    for label in np.unique(targets):
        places = rng.permutation(np.flatnonzero(targets == label))
        number = max(1, round(share * len(places))) if len(places) > 1 else 0
        taken[places[:number]] = True
    if not taken.any():
        raise DataError(
            f"{samples.description}: no class has two samples, so nothing can be held out: name data.validation."
        )
    return samples.only(np.flatnonzero(~taken).tolist()), samples.only(
        np.flatnonzero(taken).tolist()
    )


class _Numbered(Dataset[Any]):
    """Items with their positions, which are their ids where the data has none."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        return position, self._data[position]


class _Collate:
    """Items with positions -> batch; a class, because worker processes have to be sent it."""

    def __init__(self, spec: MaskingSpec, collate: Callable[[list[Any]], Any], dims: Any) -> None:
        self._spec, self._collate, self._dims = spec, collate, dict(dims)

    def __call__(self, items: list[tuple[int, Any]]) -> Batch:
        parser = BatchParser(self._spec, _no_note, dims=self._dims)
        batch = parser.parse(self._collate([item for _, item in items]), 0, 0)
        if batch.n != len(items):
            raise DataError(
                f"the collate_fn made {batch.n} rows of {len(items)} samples: training needs one row per sample."
            )
        return (
            batch if self._spec.ids is not None else replace(batch, ids=[str(i) for i, _ in items])
        )


def _from_batches(source: Source) -> Samples:
    """Batches in memory, as samples."""
    batches = list(source.batches())
    rows = [(number, row) for number, batch in enumerate(batches) for row in range(batch.n)]
    for path, dim in batches[0].dims.items():
        if dim is None:
            continue
        shapes = {
            tuple(size for d, size in enumerate(tensor_paths(batch.data)[path].shape) if d != dim)
            for batch in batches
        }
        if len(shapes) > 1:
            raise DataError(
                f"{source.description} come ready-made and '{path}' has samples of shape {' and '.join(map(str, sorted(shapes)[:2]))}, "
                "which cannot be batched anew: give a DataLoader over a dataset instead."
            )
    return Samples(_Rows(batches, rows), _gather, f"{source.description}, kept in memory")


class _Rows(Dataset[Any]):
    """Samples as their batch and their row in it."""

    def __init__(self, batches: list[Batch], rows: list[tuple[int, int]]) -> None:
        self._batches, self._rows = batches, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Batch, int]:
        number, row = self._rows[position]
        return self._batches[number], row


def _gather(picked: list[tuple[Batch, int]]) -> Batch:
    """Rows of several batches as one: rows of tensors, and whatever else the first of them holds."""
    first, _ = picked[0]
    leaves = {id(batch): tensor_paths(batch.data) for batch, _ in picked}
    values: dict[str, Tensor] = {}
    for path, dim in first.dims.items():
        if dim is not None:
            parts = [
                take_rows(leaves[id(batch)][path], dim, torch.tensor([row]))
                for batch, row in picked
            ]
            values[path] = torch.cat(parts, dim)
    targets = [batch.targets[row] for batch, row in picked if batch.targets is not None]
    groups = [batch.groups[row] for batch, row in picked if batch.groups is not None]
    return replace(
        first,
        data=with_values(first.data, values),
        ids=[batch.ids[row] for batch, row in picked],
        targets=np.stack(targets) if targets else None,
        groups=groups or None,
        present={
            name: np.array([batch.present[name][row] for batch, row in picked])
            for name in first.present
        },
        n=len(picked),
    )


def _no_note(note: object) -> None:
    """What is worth a note was noted when the split was opened."""
