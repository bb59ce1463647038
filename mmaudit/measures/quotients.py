"""Intervals of quotients whose denominator is itself uncertain, such as the share of R2 that is lost.

Accuracies are above 0 for certain and ratios of them are estimated on a logarithm. R2 may be anything below 1: a quotient of two
of them has no logarithm and, where the denominator may be 0, no bounded interval. Fieller's method (1954) asks which quotients
the data do not contradict, by Student's t on ``numerator - quotient * denominator``; where the denominator's own interval
excludes 0 that is an interval. Over 2,000 data sets for each of 51 scenarios (50, 200 and 1,000 samples, 30 and 100 groups; normal
and uniform targets, normal errors) at most 6 % of all data sets give a wrong interval. It covers 93 to 97 % where the denominator is
clearly above 0 in most data sets; where only some of them define it, those are a selection, and cover less (78 to 92 % where 9 to
30 % do).
"""

from __future__ import annotations

import numpy as np

from mmaudit.measures.intervals import Intervals, ratio_spread, student_factor
from mmaudit.typing import FloatArray

__all__ = ["quotient_intervals"]


def quotient_intervals(
    numerators: FloatArray, denominators: FloatArray, counts: FloatArray
) -> Intervals:
    """Quotients of two sums over units.

    Args:
        numerators: Shape ``(U, c)``.
        denominators: Shape ``(U, c)`` or ``(U, 1)``; sums of them should be positive.
        counts: Samples of each unit, shape ``(U, 1)``.

    Returns:
        c intervals; the value is NaN where the denominator's interval includes 0 or lies below it, and where there are fewer than
        two units.
    """
    above, below = numerators, np.broadcast_to(denominators, numerators.shape)
    N, D = above.sum(axis=0), below.sum(axis=0)
    used = np.broadcast_to((counts != 0).sum(axis=0), N.shape).astype(np.float64)
    factor = student_factor(used) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        correction = used / (used - 1)
        off_n, off_d = above - N / used, below - D / used
        nn, nd, dd = (
            correction * (a * b).sum(axis=0)
            for a, b in ((off_n, off_n), (off_n, off_d), (off_d, off_d))
        )
        # Roots of (N - q D)^2 = t^2 Var(N - q D).
        a, b, c = D**2 - factor * dd, N * D - factor * nd, N**2 - factor * nn
        bounded = (D > 0) & (a > 0) & (used > 1)
        half = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        value = np.where(bounded, N / D, np.nan)
        low, high = ((b + sign * half) / a for sign in (-1, 1))
        _, events, _ = ratio_spread(above - value * below, D, counts)
    return Intervals(
        value,
        np.where(bounded, low, np.nan),
        np.where(bounded, high, np.nan),
        np.where(np.isfinite(events), events, np.inf),
        None,
        "Fieller and Student t",
    )
