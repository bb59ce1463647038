"""Curves that fall and then rise, by least squares.

No shape is assumed beyond that (two isotonic regressions; Robertson, Wright & Dykstra 1988), so that neighbours speak for each other,
and the distances between checkpoints do not matter. Of a curve without noise that falls and then rises it is the curve itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmaudit.typing import FloatArray

__all__ = ["Valley", "fit_fall", "fit_valley", "levels"]

_ROUNDING = 1e-9


class Valley(NamedTuple):
    """A curve that falls and then rises."""

    fit: FloatArray
    """Shape ``(T,)``."""
    bottom: int
    """Last checkpoint at its lowest."""


def fit_valley(losses: FloatArray) -> Valley:
    """Least-squares curve that falls and then rises.

    Args:
        losses: Shape ``(T,)``, finite.

    Example:
        >>> found = fit_valley(np.array([3.0, 1.0, 2.0, 1.0, 0.5, 0.9]))
        >>> found.fit.round(2).tolist(), found.bottom
        ([3.0, 1.5, 1.5, 1.0, 0.5, 0.9], 4)
    """
    losses = np.asarray(losses, dtype=np.float64)
    falling, rising = _errors(losses), _errors(losses[::-1])[::-1]
    # The first k values fall, the others rise.
    total = np.append(0.0, falling) + np.append(rising, 0.0)
    # Of equally good curves the one that turns first, whatever rounding says.
    rounding = _ROUNDING * len(losses) * float(np.ptp(losses)) ** 2
    k = int(np.flatnonzero(total <= total.min() + rounding)[0])
    fit = np.concatenate([fit_fall(losses[:k]), fit_fall(losses[k:][::-1])[::-1]])
    return Valley(fit, int(np.flatnonzero(fit <= fit.min())[-1]))


def fit_fall(losses: FloatArray) -> FloatArray:
    """Least-squares curve that never rises, shape ``(T,)``.

    Args:
        losses: Shape ``(T,)``, finite.

    Example:
        >>> fit_fall(np.array([3.0, 1.0, 2.0, 1.0])).tolist()
        [3.0, 1.5, 1.5, 1.0]
    """
    means: list[float] = []
    sizes: list[int] = []
    for value in losses.tolist():
        mean, size = value, 1
        while means and means[-1] < mean:
            other, count = means.pop(), sizes.pop()
            mean = (mean * size + other * count) / (size + count)
            size += count
        means.append(mean)
        sizes.append(size)
    return np.repeat(means, sizes)


def levels(fit: FloatArray) -> int:
    """How many different levels a fitted curve goes through.

    Args:
        fit: Shape ``(T,)``.

    Example:
        >>> levels(np.array([3.0, 1.5, 1.5, 1.0]))
        3
    """
    return 1 + int((np.abs(np.diff(fit)) > _ROUNDING * float(np.ptp(fit))).sum())


def _errors(values: FloatArray) -> FloatArray:
    """Squared error of the best falling curve through the first 1, 2, ..., T values."""
    means: list[float] = []
    sizes: list[int] = []
    errors: list[float] = []
    total, found = 0.0, []
    for value in values.tolist():
        mean, size, error = value, 1, 0.0
        while means and means[-1] < mean:
            other, count, own = means.pop(), sizes.pop(), errors.pop()
            total -= own
            error += own + (other - mean) ** 2 * size * count / (size + count)
            mean = (mean * size + other * count) / (size + count)
            size += count
        means.append(mean)
        sizes.append(size)
        errors.append(error)
        total += error
        found.append(total)
    return np.array(found)
