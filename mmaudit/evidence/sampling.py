"""Which samples of a dataset make up which batch: without shuffling, without dropping, without repeating.

A shuffling sampler or ``drop_last`` would make two audits see different samples, and a resumed one see some twice.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from mmaudit.evidence.wording import data_note, explain
from mmaudit.exceptions import DataError, MMAuditError
from mmaudit.report.schema import Note

__all__ = ["Plan", "fixed_order", "plan_of"]


class Plan:
    """Which samples make up which batch.

    Args:
        order: Dataset indices in the order of reading, cut into batches of ``batch_size``.
        batch_size: At least 1.
        batches: Ready-made batches of indices, instead of the two.
    """

    def __init__(
        self,
        order: Sequence[Any] = (),
        batch_size: int = 1,
        *,
        batches: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        self._order = order
        self._size = batch_size
        self._batches = batches
        self._starts = None if batches is None else np.cumsum([0, *map(len, batches)])

    def __len__(self) -> int:
        return -(-len(self._order) // self._size) if self._batches is None else len(self._batches)

    @property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return len(self._order) if self._starts is None else int(self._starts[-1])

    def start(self, index: int) -> int:
        """Running number of the first sample of a batch."""
        return index * self._size if self._starts is None else int(self._starts[index])

    def size(self, index: int) -> int:
        """Number of samples of a batch."""
        return min(self.start(index + 1), self.samples) - self.start(index)

    def batch(self, index: int) -> list[Any]:
        """Dataset indices of a batch."""
        if self._batches is not None:
            return list(self._batches[index])
        return list(self._order[index * self._size : (index + 1) * self._size])


def plan_of(loader: DataLoader[Any], batch_size: int | None, note: Callable[[Note], None]) -> Plan:
    """What a map-style loader reads, without shuffling and without dropping the last samples.

    A sampler that is not one of torch's is listed twice, with different random numbers: equal lists are kept as they are.
    """
    batch_sampler: Any = loader.batch_sampler
    if type(batch_sampler) is not BatchSampler:
        return _own_batches(loader, batch_sampler, batch_size, note)
    order, reason = fixed_order(batch_sampler.sampler, loader.dataset)
    size = batch_size or batch_sampler.batch_size
    if reason:
        note(
            data_note(
                "fallback",
                f"{reason}: the {len(order)} samples are read once each, in the order of the dataset",
            )
        )
    if batch_sampler.drop_last and len(order) % batch_sampler.batch_size:
        left = len(order) % batch_sampler.batch_size
        note(
            data_note(
                "fallback", f"drop_last was switched off: the last {left} samples are audited too"
            )
        )
    return Plan(order, size)


def fixed_order(sampler: Any, dataset: Any) -> tuple[Sequence[Any], str | None]:
    """Indices in a fixed order, and why they are not the sampler's own (``None`` where they are).

    A sampler that is not one of torch's is listed twice, with different random numbers: equal lists are kept.
    """
    name = type(sampler).__name__
    if isinstance(sampler, SequentialSampler):
        return range(_size(dataset)), None
    if isinstance(sampler, SubsetRandomSampler):
        return list(sampler.indices), f"{name} was replaced"
    if isinstance(sampler, RandomSampler | WeightedRandomSampler | DistributedSampler):
        return range(_size(dataset)), f"{name} was replaced"
    first, second = _listings(
        sampler, 4 * _size(dataset) + 1000 if hasattr(dataset, "__len__") else None
    )
    if first is None or second is None:
        return range(_size(dataset)), f"{name}, which does not end, was replaced"
    if first == second:
        return _compact(first), None
    return (
        _sorted(first) if set(first) == set(second) else range(_size(dataset))
    ), f"{name}, which shuffles, was replaced"


def _own_batches(
    loader: DataLoader[Any],
    batch_sampler: Any,
    batch_size: int | None,
    note: Callable[[Note], None],
) -> Plan:
    """Plan of a batch sampler of the user's own."""
    name = type(batch_sampler).__name__
    limit = 4 * _size(loader.dataset) + 1000 if hasattr(loader.dataset, "__len__") else None
    first, second = _listings(batch_sampler, limit)
    if first is not None and second is not None:
        batches = [list(batch) for batch in first]
        if batches == [list(batch) for batch in second]:
            if batch_size is not None:
                note(
                    data_note(
                        "information",
                        f"the batches of {name} are kept; batch_size={batch_size} has no effect",
                    )
                )
            seen = len(set(itertools.chain.from_iterable(batches)))
            if getattr(batch_sampler, "drop_last", False) and seen < _size(loader.dataset):
                note(
                    data_note(
                        "warning",
                        f"{name} drops samples: {seen} of {_size(loader.dataset)} are audited",
                    )
                )
            return Plan(batches=batches)
        flat = list(itertools.chain.from_iterable(batches))
        same = set(flat) == set(itertools.chain.from_iterable(second))
        order = (
            _sorted(flat)
            if same and not getattr(batch_sampler, "drop_last", False)
            else range(_size(loader.dataset))
        )
        size = batch_size or max(map(len, batches), default=1)
    else:
        order, size = (
            range(_size(loader.dataset)),
            batch_size or getattr(batch_sampler, "batch_size", None) or 64,
        )
    text = f"{name}, which shuffles, was replaced: {len(order)} samples are read once each, in batches of {size}"
    note(data_note("fallback", text))
    return Plan(order, size)


def _listings(sampler: Any, limit: int | None) -> tuple[list[Any] | None, list[Any] | None]:
    """What a sampler gives with two different random states; ``None`` where it does not end."""
    own = getattr(sampler, "generator", None)
    state = own.get_state() if isinstance(own, torch.Generator) else None
    python_state, numpy_state = random.getstate(), np.random.get_state()
    found: list[list[Any] | None] = []
    try:
        with torch.random.fork_rng(devices=[]):
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
                listed = list(itertools.islice(iter(sampler), limit))
                found.append(None if limit is not None and len(listed) >= limit else listed)
    except MMAuditError:
        raise
    except Exception as error:
        raise DataError(
            f"the sampler {type(sampler).__name__} could not be read: {explain(error)}"
        ) from error
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if state is not None and own is not None:
            own.set_state(state)
    return found[0], found[1]


def _size(dataset: Any) -> int:
    try:
        return len(dataset)
    except Exception as error:
        raise DataError(
            f"the dataset {type(dataset).__name__} has no length ({explain(error)}); define __len__ or use an IterableDataset"
        ) from error


def _sorted(indices: Iterable[Hashable]) -> Sequence[Any]:
    unique: Any = set(indices)
    return _compact(sorted(unique))


def _compact(indices: list[Any]) -> Sequence[Any]:
    """Indices in little memory."""
    if indices == list(range(len(indices))):
        return range(len(indices))
    return indices
