"""Differences over training seeds: one number a seed, with and without a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.report.schema import Estimate
from mmaudit.typing import FloatArray

__all__ = ["SeedLevel", "seed_level"]

_FEWEST = 5


class SeedLevel(NamedTuple):
    """A change over seeds."""

    before: float
    """Mean over seeds without the change."""
    after: float
    """Mean over seeds with it."""
    difference: Estimate
    """After less before; ``n`` is the number of seeds."""
    p: float | None
    """Of the hypothesis that the change does nothing on average, two-sided; ``None`` where there is no test."""


def seed_level(
    results_a: Sequence[float] | FloatArray, results_b: Sequence[float] | FloatArray
) -> SeedLevel:
    """Compare two ways of training over several seeds, by Student's paired t.

    The interval covers what another seed would have given, with the test data as they are; it takes the differences for normally
    distributed. Differences that are all equal have no spread to judge them by: they get no interval and no test.

    Args:
        results_a: One number for each seed, shape ``(k,)``.
        results_b: The same after the change, the same seeds in the same order.

    Returns:
        The difference of b to a.

    Raises:
        UndefinedMeasureError: If the numbers are not paired, are none, or are not finite.

    Example:
        >>> found = seed_level([0.94, 0.95, 0.93], [0.96, 0.96, 0.96])
        >>> round(found.difference.value, 3), round(found.p, 3)
        (0.02, 0.074)
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (results_a, results_b))
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise UndefinedMeasureError(
            f"expected one number for each seed, the same seeds twice, found shapes {a.shape} and {b.shape}"
        )
    if not np.isfinite([a, b]).all():
        raise UndefinedMeasureError(
            "expected finite numbers for all seeds; leave out a seed that failed, on both sides"
        )
    differences, k = b - a, len(a)
    value = float(differences.mean())
    reason, ends, p = None, (None, None), None
    if k < 2:
        reason = "one seed: nothing is known of others"
    elif np.ptp(differences) <= 1e-12 * max(1.0, float(np.abs(a).max())):
        reason = f"all {k} seeds differ by the same amount"
    else:
        error = float(differences.std(ddof=1)) / np.sqrt(k)
        half = float(stats.t.ppf(0.975, k - 1)) * error
        ends = (value - half, value + half)
        p = float(2 * stats.t.sf(abs(value) / error, k - 1))
        if k < _FEWEST:
            reason = f"{k} seeds, fewer than {_FEWEST}"
    difference = Estimate(
        value=value,
        low=ends[0],
        high=ends[1],
        n=k,
        method=f"paired Student t over {k} seeds" if p is not None else "",
        warning=f"the interval should not be trusted: {reason}" if reason else None,
    )
    return SeedLevel(float(a.mean()), float(b.mean()), difference, p)
