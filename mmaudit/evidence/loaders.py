"""Where batches come from: a DataLoader in a fixed order from any batch on, or anything that can be iterated over.

A loader is rebuilt around the same dataset and ``collate_fn``; what it does otherwise than the user's own is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from mmaudit.evidence.sampling import Plan, fixed_order, plan_of
from mmaudit.evidence.wording import data_note
from mmaudit.evidence.workers import (
    EndError,
    loader_options,
    quiet_loader,
    reading,
    spawnable_workers,
)
from mmaudit.exceptions import DataError
from mmaudit.report.schema import Note

__all__ = ["BatchReader", "BatchStream", "PlannedLoader", "RawBatch", "Selection", "open_loader"]


@dataclass(frozen=True)
class Selection:
    """The batches that one reader wants: from ``skip`` on, those with ``index % stride == offset``."""

    skip: int = 0
    stride: int = 1
    offset: int = 0

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index >= self.skip and index % self.stride == self.offset

    def indices(self, length: int) -> Iterator[int]:
        """Wanted batches among the first ``length``, in order."""
        return (index for index in range(self.skip, length) if index in self)


@dataclass(frozen=True)
class RawBatch:
    """A batch as its source gave it."""

    index: int
    data: Any
    start: int | None = None
    """Running number of its first sample, where that is known without reading the batches before."""
    size: int | None = None
    """Number of samples, where that is known without reading it."""


class BatchReader(Protocol):
    """Where batches come from."""

    description: str
    length: int | None
    """Batches, where known."""
    samples: int | None
    """Samples, where known."""

    def read(self, selection: Selection) -> Iterator[RawBatch]:
        """Read the wanted batches; those with unknown ``start`` are preceded by all others, for counting."""


class PlannedLoader:
    """A map-style DataLoader, rebuilt so that any batch can be read without those before it.

    Args:
        loader: The user's.
        plan: What to read.
        workers: Worker processes; 0 reads in this process.
        timeout: Seconds a worker may take for one batch.
        directory: Importable in the workers too.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        plan: Plan,
        *,
        workers: int,
        timeout: float,
        directory: Path | None,
    ) -> None:
        self._loader = loader
        self._plan = plan
        self._options = loader_options(loader, workers)
        self._patience = loader.timeout or timeout
        self._directory = directory
        self.length: int | None = len(plan)
        self.samples: int | None = plan.samples
        self.description = (
            f"DataLoader over {type(loader.dataset).__name__} ({plan.samples} samples)"
        )

    def by_sample(self) -> tuple[Dataset[Any], Callable[[list[Any]], Any]]:
        """The samples of the plan by position, and how the loader batches them."""
        order = [index for number in range(len(self._plan)) for index in self._plan.batch(number)]
        return Subset(self._loader.dataset, order), self._loader.collate_fn

    def read(self, selection: Selection) -> Iterator[RawBatch]:
        """Read the wanted batches only."""
        wanted = _Wanted(self._plan, selection)
        loader = quiet_loader(self._loader.dataset, batch_sampler=wanted, **self._options)
        numbers = selection.indices(len(self._plan))
        with reading(loader, self._directory, self._patience) as fetch:
            for index in numbers:
                start, size = self._plan.start(index), self._plan.size(index)
                data = fetch(f"batch {index} (samples {start} to {start + size - 1})")
                yield RawBatch(index, data, start, size)


class BatchStream:
    """Batches that can only be read from the first one on: an iterable, or a loader of an IterableDataset.

    Args:
        make: Returns what to iterate over, each time it is called.
        description: For the record.
        once: It can be read a single time.
        length: Batches, where known.
        directory: Importable in worker processes too.
        timeout: Seconds a worker may take for one batch.
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        description: str,
        *,
        once: bool = False,
        length: int | None = None,
        directory: Path | None = None,
        timeout: float = 120,
    ) -> None:
        self._make = make
        self._patience = timeout
        self.once = once
        self._spent = False
        self._directory = directory
        self.description = description
        self.length = length
        self.samples: int | None = None

    def read(self, selection: Selection) -> Iterator[RawBatch]:
        """Read all batches; the consumer leaves out what is not wanted."""
        if self._spent:
            raise DataError(
                f"{self.description} can be read only once and has been; give a list, a DataLoader or a function that"
                " returns a new iterator"
            )
        self._spent = self.once
        index = 0
        with reading(self._make, self._directory, self._patience) as fetch:
            while True:
                try:
                    data = fetch(f"batch {index}")
                except EndError:
                    return
                yield RawBatch(index, data)
                index += 1


def open_loader(
    loader: DataLoader[Any],
    *,
    batch_size: int | None = None,
    timeout: float = 120,
    directory: Path | None = None,
    note: Callable[[Note], None],
) -> BatchReader:
    """Make a DataLoader readable in a fixed order, each sample once.

    Args:
        loader: The user's; it is not changed.
        batch_size: Instead of the loader's own.
        timeout: Seconds a worker may take for one batch, where the loader sets none.
        directory: Made importable in the workers.
        note: Takes what was done otherwise than asked.

    Raises:
        DataError: If the dataset has no length, or a sampler of the user's own raises.
    """
    name = type(loader.dataset).__name__
    if type(loader).__iter__ is not DataLoader.__iter__:
        if isinstance(loader.sampler, RandomSampler | WeightedRandomSampler | SubsetRandomSampler):
            text = f"{type(loader).__name__} shuffles and iterates in its own way; its order is not under the audit's control"
            note(data_note("warning", text))
        return BatchStream(lambda: loader, f"{type(loader).__name__} over {name}")
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return _stream(loader, batch_size, timeout, directory, note)
    plan = plan_of(loader, batch_size, note)
    workers = spawnable_workers(loader, directory, note) if len(plan) else 0
    return PlannedLoader(loader, plan, workers=workers, timeout=timeout, directory=directory)


def _stream(
    loader: DataLoader[Any],
    batch_size: int | None,
    timeout: float,
    directory: Path | None,
    note: Callable[[Note], None],
) -> BatchStream:
    """A loader whose batches cannot be planned: an IterableDataset, or a dataset whose items are batches."""
    name = type(loader.dataset).__name__
    options = loader_options(loader, spawnable_workers(loader, directory, note))
    batched = loader.batch_size is not None
    if not isinstance(loader.dataset, IterableDataset):
        order, reason = fixed_order(loader.sampler, loader.dataset)
        if reason:
            note(
                data_note(
                    "fallback",
                    f"{reason}: the {len(order)} batches are read once each, in the order of the dataset",
                )
            )
        return BatchStream(
            lambda: quiet_loader(loader.dataset, batch_size=None, sampler=order, **options),
            f"DataLoader over {name}",
            length=len(order),
            directory=directory,
            timeout=loader.timeout or timeout,
        )
    if loader.drop_last:
        note(data_note("fallback", "drop_last was switched off: the last samples are audited too"))
    size = (batch_size or loader.batch_size) if batched else None
    return BatchStream(
        lambda: quiet_loader(loader.dataset, batch_size=size, **options),
        f"DataLoader over {name}, an IterableDataset",
        directory=directory,
        timeout=loader.timeout or timeout,
    )


class _Wanted(Sampler[list[Any]]):
    """The planned batches of a selection, as a batch sampler."""

    def __init__(self, plan: Plan, selection: Selection) -> None:
        self._plan = plan
        self._selection = selection

    def __iter__(self) -> Iterator[list[Any]]:
        return (self._plan.batch(index) for index in self._selection.indices(len(self._plan)))
