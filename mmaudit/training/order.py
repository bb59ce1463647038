"""Which samples make up which step: a function of seed and epoch alone.

Because nothing else enters, a resumed run sees the order of an uninterrupted one, and a run on several processes cuts the
same batches into shards. The ``n`` samples of an epoch are dealt into ``ceil(n / batch_size)`` batches that differ by at
most one sample: nothing is padded, nothing dropped, and no batch of one is left over to upset batch statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmaudit.exceptions import DataError

__all__ = ["MicroBatch", "epoch_batches", "shard_batches", "steps_per_epoch"]


@dataclass(frozen=True)
class MicroBatch:
    """What one process computes between two points where gradients may be shared.

    Args:
        indices: Samples of this process, as positions in the training data.
        places: The same samples, as positions in the batch of the whole step: what random draws are keyed by, so that they do
            not depend on the number of processes.
        total: Samples of the whole optimiser step, over all processes and micro-batches.
        last: Whether the optimiser steps after this one.
        epoch: Counted from 1.
        step: Number of the optimiser step this belongs to, over all epochs, from 1.
    """

    indices: tuple[int, ...]
    places: tuple[int, ...]
    total: int
    last: bool
    epoch: int = 1
    step: int = 1


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Optimiser steps in one pass over ``samples`` samples."""
    return -(-samples // batch_size)


def epoch_batches(samples: int, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch, in order.

    Args:
        samples: Size of the training data.
        batch_size: Largest size of a batch.
        seed: Of the run.
        epoch: Counted from 1.

    Returns:
        Disjoint arrays of positions that together hold every sample once.

    Example:
        >>> [len(batch) for batch in epoch_batches(10, 4, seed=0, epoch=1)]
        [4, 3, 3]
    """
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order, steps_per_epoch(samples, batch_size))


def shard_batches(
    batches: Sequence[np.ndarray], *, accumulation: int, rank: int, processes: int
) -> Iterator[MicroBatch]:
    """This process's micro-batches, in order.

    Every process gets the same number of them, which collective operations need.

    Raises:
        DataError: If a batch has too few samples to give every micro-batch of every process one.
    """
    for batch in batches:
        if len(batch) < accumulation * processes:
            raise DataError(
                f"A batch of {len(batch)} cannot be cut into {accumulation} micro-batches on {processes} "
                "processes: take a larger batch_size, less accumulation or fewer processes."
            )
        for number, places in enumerate(np.array_split(np.arange(len(batch)), accumulation)):
            mine = places[rank::processes]
            yield MicroBatch(
                tuple(batch[mine].tolist()),
                tuple(mine.tolist()),
                len(batch),
                number == accumulation - 1,
            )
