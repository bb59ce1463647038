"""The self-test whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

import mmaudit
from mmaudit.selftest.cases import CASES
from mmaudit.selftest.checks import check_cases
from mmaudit.selftest.coverage import check_coverage
from mmaudit.selftest.results import SelftestResult

__all__ = ["run_selftest"]

_RUNS, _QUICK_RUNS = 300, 60
_QUICK_CASES = ("unique", "redundant", "XOR", "ignored", "harmful")


def run_selftest(
    *,
    quick: bool = False,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> SelftestResult:
    """Audit planted models and measure simulated tables, and compare with what is known about them.

    Args:
        quick: Fewer cases and data sets: seconds.
        seed: Of everything that is drawn.
        progress: Told how far it is: stage, samples done, all samples.

    Returns:
        Errors of estimators, coverage of intervals, verdicts; ``result.off`` lists what is off.
    """
    began = time.perf_counter()
    cases = [case for case in CASES if not quick or case.name in _QUICK_CASES]
    samples = 30_000 if quick else 100_000
    with _one_thread():
        errors, verdicts = check_cases(cases, seed, samples=samples, progress=progress)
        coverage = check_coverage(_QUICK_RUNS if quick else _RUNS, seed, progress)
    return SelftestResult(
        version=mmaudit.__version__,
        seed=seed,
        quick=quick,
        seconds=time.perf_counter() - began,
        errors=tuple(errors),
        coverage=tuple(coverage),
        verdicts=tuple(verdicts),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Everything here is small: threads would wait for each other, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
