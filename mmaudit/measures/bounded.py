"""Intervals of estimates between 0 and 1 that are no plain proportions."""

from __future__ import annotations

import numpy as np

from mmaudit.measures.intervals import student_factor, wilson
from mmaudit.typing import FloatArray

__all__ = ["wilson_at_spread"]

_ROUNDING = 1e-12


def wilson_at_spread(
    value: FloatArray,
    error: FloatArray,
    units: FloatArray,
    *,
    trials: FloatArray,
    pseudo_variance: float | FloatArray = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Wilson's interval at the number of trials of a proportion that would have the same variance.

    It cannot leave [0, 1] and is skewed as a proportion is; with many units it is the interval of the standard error.

    Args:
        value: Estimates in [0, 1], shape ``(c,)``.
        error: Their standard errors, shape ``(c,)``.
        units: Units behind each, shape ``(c,)``; with few of them the interval is widened as Student's t is.
        trials: Trials where there is no spread to go by, positive, shape ``(c,)``.
        pseudo_variance: Added to the squared standard error where there is a spread.

    Returns:
        Lower and upper ends, shape ``(c,)`` each; NaN where there are fewer than two units.

    Example:
        >>> low, high = wilson_at_spread(
        ...     np.array([0.9]), np.array([0.3 / 50**0.5]), np.array([1e9]), trials=np.array([50.0])
        ... )
        >>> low.round(4), high.round(4)
        (array([0.7864]), array([0.9565]))
    """
    value = np.clip(value, 0.0, 1.0)
    # An estimate of 0 or 1 says nothing of its spread, even where it is not exactly 0.
    spread = (error > _ROUNDING) & (value * (1 - value) > _ROUNDING)
    variance = np.where(spread, error, 1.0) ** 2 + pseudo_variance
    effective = np.where(spread, value * (1 - value) / variance, trials)
    effective = effective * (student_factor(np.array(np.inf)) / student_factor(units)) ** 2
    usable = units > 1
    low, high = wilson(value, np.where(usable, effective, 1.0))
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)
