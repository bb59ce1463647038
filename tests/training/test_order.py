from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.exceptions import DataError
from mmaudit.training.order import epoch_batches, shard_batches, steps_per_epoch


@given(
    samples=st.integers(1, 200),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 5),
    epoch=st.integers(1, 5),
)
def test_every_sample_once_in_nearly_equal_batches(samples, batch_size, seed, epoch):
    batches = epoch_batches(samples, batch_size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(samples))
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert len(batches) == steps_per_epoch(samples, batch_size)


def test_the_order_depends_on_seed_and_epoch_alone():
    def first(seed, epoch):
        return epoch_batches(100, 10, seed=seed, epoch=epoch)[0].tolist()

    np.random.seed(1)
    once = first(3, 2)
    np.random.seed(2)
    assert first(3, 2) == once
    assert first(3, 1) != once and first(2, 2) != once


@given(samples=st.integers(12, 80), accumulation=st.integers(1, 3), processes=st.integers(1, 2))
def test_shards_share_each_batch_out_without_loss(samples, accumulation, processes):
    batches = epoch_batches(samples, 12, seed=0, epoch=1)
    shards = [
        list(shard_batches(batches, accumulation=accumulation, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    assert len({len(shard) for shard in shards}) == 1
    step: list[int] = []
    done = 0
    for micros in zip(*shards, strict=True):
        step += [index for micro in micros for index in micro.indices]
        assert all(micro.total == len(batches[done]) for micro in micros)
        if micros[0].last:
            assert sorted(step) == sorted(batches[done].tolist())
            step, done = [], done + 1
    assert done == len(batches)


def test_batches_too_small_to_share_are_refused():
    batches = epoch_batches(5, 3, seed=0, epoch=1)
    with pytest.raises(DataError, match="batch of 3 cannot be cut into 2 micro-batches on 2"):
        list(shard_batches(batches, accumulation=2, rank=0, processes=2))
