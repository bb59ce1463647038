"""Memory kept between batches."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from mmaudit.evidence.heap import kept_heap

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc only")


def faults(blocks: int) -> int:
    """Pages faulted in by `blocks` tensors of 160 MB one after another: glibc keeps none of this size by itself."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        torch.ones(40_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@linux
def test_memory_is_not_faulted_in_again_for_every_batch() -> None:
    without = faults(10)
    with kept_heap():
        faults(10)  # the heap grows until a block fits into what was freed
        kept = faults(10)
    assert kept < without / 10


@linux
def test_the_setting_ends_with_the_block_also_after_an_error() -> None:
    with pytest.raises(ValueError, match="on purpose"), kept_heap():
        faults(2)
        raise ValueError("on purpose")
    assert faults(10) > 1000
