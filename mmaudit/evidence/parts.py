"""A fixed part of a split, read in this process: the same samples every time it is read.

Losses along a training are compared with each other, so that they have to be about the same samples; and a recorder that runs
within a training must not start worker processes, or draw from the loader that the training itself reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from mmaudit.evidence.data import Source
from mmaudit.evidence.loaders import BatchStream, RawBatch, Selection
from mmaudit.evidence.wording import explain
from mmaudit.exceptions import DataError, MMAuditError
from mmaudit.masking.spec import MaskingSpec

__all__ = ["drawn_positions", "fixed_part"]


def drawn_positions(total: int, most: int | None, *, seed: int = 0) -> list[int]:
    """Places of the samples that :func:`fixed_part` takes where they can be read by position, in their order.

    Args:
        total: Samples of the split.
        most: At most so many; ``None`` for all.
        seed: Of the draw.

    Example:
        >>> drawn_positions(4, 9), len(drawn_positions(100, 9))
        ([0, 1, 2, 3], 9)
    """
    if most is None or most >= total:
        return list(range(total))
    drawn = np.random.default_rng([seed, 2]).permutation(total)[:most]
    return [int(position) for position in np.sort(drawn)]


def fixed_part(
    source: Source, spec: MaskingSpec, most: int | None, *, seed: int = 0, size: int | None = None
) -> Source:
    """Some samples of a split, as a source of its own.

    Samples that can be read by position are drawn once, from the seed alone, and kept in their order. Of batches that come
    ready-made, or that the spec keeps whole, every so many-th is taken where their number is known, else the first ones, and
    they stay in memory.

    Args:
        source: The split.
        spec: Where things are in a batch.
        most: At most so many samples, or the batches that begin with fewer; ``None`` for all.
        seed: Of the draw.
        size: Samples of a batch where they are read by position, if the split's own batches hold more; left out, as many.

    Raises:
        DataError: If the split cannot be read.
    """
    by_sample = source.by_sample()
    total = source.samples
    if by_sample is not None and spec.batching != "keep" and total and source.length:
        data, collate = by_sample
        positions = drawn_positions(total, most, seed=seed)
        own = -(-total // source.length)
        size = own if size is None else min(size, own)
        reader = _Picked(data, collate, positions, size, total, source.description)
        return Source(reader, spec, notes=dict.fromkeys(source.notes))
    if most is None or (total is not None and total <= most):
        return source
    stride = 1
    if total and source.length:
        stride = max(1, total // most)
    kept, seen = [], 0
    for batch in source.batches(stride=stride):
        kept.append(batch.data)
        seen += batch.n
        if seen >= most:
            break
    of = f" of {total:,}" if total else ""
    stream = BatchStream(
        lambda: kept, f"{seen:,}{of} samples of {source.description}", length=len(kept)
    )
    stream.samples = seen
    return Source(stream, spec, notes=dict.fromkeys(source.notes))


class _Picked:
    """Chosen samples of a split by position, batched as the split's own loader would.

    Args:
        data: Samples by position.
        collate: Samples -> batch.
        positions: The chosen ones.
        size: Samples of a batch.
        total: Samples of the split.
        description: Of the split.
    """

    def __init__(
        self,
        data: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        positions: Sequence[int],
        size: int,
        total: int,
        description: str,
    ) -> None:
        self._data, self._collate = data, collate
        self._positions, self._size = positions, size
        self.samples: int | None = len(positions)
        self.length: int | None = -(-len(positions) // size)
        part = "" if len(positions) == total else f"{len(positions):,} of {total:,} samples of "
        self.description = part + description

    def by_sample(self) -> tuple[Dataset[Any], Callable[[list[Any]], Any]]:
        """The chosen samples by position."""
        return Subset(self._data, list(self._positions)), self._collate

    def read(self, selection: Selection) -> Iterator[RawBatch]:
        """Read the wanted batches only."""
        for index in selection.indices(self.length or 0):
            start = index * self._size
            chosen = self._positions[start : start + self._size]
            try:
                raw = self._collate([self._data[position] for position in chosen])
            except MMAuditError:
                raise
            except Exception as error:
                raise DataError(
                    f"{self.description}: batch {index} cannot be read: {explain(error)}"
                ) from error
            yield RawBatch(index, raw, start, len(chosen))
