"""Memory that stays with the process between batches instead of going back to the system after each.

glibc returns freed memory above a threshold, and every page of it is faulted in again by the next batch. Whether that happens
depends on what happens to lie at the end of the heap: on two cores an audit of two ResNet-18 took 1.08 plain passes in one
process and 1.25 in the next, with five times the page faults. With memory kept both passes fault nothing, and run 5 % faster.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_heap"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_KEPT = 2**30
_USUAL = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25}
"""Where glibc's own adjustment ends in a process that has freed large tensors."""


@contextmanager
def kept_heap() -> Iterator[None]:
    """Let the C library keep up to 1 GiB of freed memory; afterwards it goes back. Does nothing where there is no glibc."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    assert libc is not None
    for parameter in _USUAL:
        libc.mallopt(parameter, _KEPT)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
