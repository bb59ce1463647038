"""Where a validation loss turns: the best fall followed by a rise, under noise from checkpoint to checkpoint.

The lowest of many noisy values is low by chance, and lies anywhere in a flat valley. The fit here is the least-squares curve that
falls and then rises, with no shape assumed beyond that (two isotonic regressions; Robertson, Wright & Dykstra 1988), so that
neighbours speak for each other. Of a curve without noise that falls and then rises it is the curve itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmaudit.typing import FloatArray

__all__ = ["Valley", "find_onset", "fit_valley", "noise_level"]

_FEWEST_FOR_NOISE = 8
_FROM_THE_START = 0.1
_SURE = 4.0
_STRAY = 2.5
_CLEARLY = 0.5
_SHORT = 16
_LARGE = 0.1
_CREEP = 0.15
_SLOWER = 0.25
_PACE = 3


class Valley(NamedTuple):
    """A curve that falls and then rises."""

    fit: FloatArray
    """Shape ``(T,)``."""
    bottom: int
    """Last checkpoint at its lowest."""


def noise_level(losses: FloatArray) -> float:
    """Standard deviation of a loss from one checkpoint to the next, beside its smooth course; 0 for fewer than 8 checkpoints.

    From third differences, in which a smooth course nearly vanishes, by their median, which a few jumps do not move.

    Example:
        >>> noise_level(np.linspace(2, 1, 20)) < 1e-12
        True
    """
    if len(losses) < _FEWEST_FOR_NOISE:
        return 0.0
    third = np.abs(np.diff(losses, n=3))
    # 1.4826: from the median of a normal variable's size to its deviation; 20: sum of the squares of 1, 3, 3, 1.
    return float(1.4826 * np.median(third) / np.sqrt(20))


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
    rounding = 1e-9 * len(losses) * float(np.ptp(losses)) ** 2
    k = int(np.flatnonzero(total <= total.min() + rounding)[0])
    fit = np.concatenate([_fall(losses[:k]), _fall(losses[k:][::-1])[::-1]])
    return Valley(fit, int(np.flatnonzero(fit <= fit.min())[-1]))


def find_onset(train: FloatArray, validation: FloatArray, *, margin: float) -> int | None:
    """First checkpoint from which on a head overfits.

    Its validation loss rises from there to the end by more than a margin and more than noise explains, while the train loss does not
    rise along with it. A rise that is made good later is none, and so is the small creep of a plateau before the gap between the two
    losses opens.

    Args:
        train: Shape ``(T,)``.
        validation: Shape ``(T,)``.
        margin: Share of the lowest validation loss by which it must end higher.

    Returns:
        The checkpoint after the bottom at which the rise begins; ``None`` where there is none.
    """
    fit, bottom = fit_valley(validation)
    onset = _risen(train, validation, fit, bottom, noise_level(validation), margin)
    if onset is None and len(validation) < _SHORT:
        # In a short log a steep course passes for noise. What the curve leaves unexplained is less than it, so that the rise has to
        # be large beside the fall.
        left = 2 * float(np.sqrt(np.mean((validation - fit) ** 2)))
        if validation[-1] - fit[bottom] > _LARGE * (fit[0] - fit[bottom]):
            onset = _risen(train, validation, fit, bottom, left, margin)
    return None if onset is None else _after_creep(train, validation, onset)


def _risen(
    train: FloatArray,
    validation: FloatArray,
    fit: FloatArray,
    bottom: int,
    noise: float,
    margin: float,
) -> int | None:
    """Where the rise begins, beside noise of a known level."""
    lowest = float(fit[bottom])
    least = margin * abs(lowest)
    above = validation - lowest
    # A value that falls back to the bottom, by more than noise does, makes the rise good.
    back = np.flatnonzero(above[bottom + 1 :] <= _FROM_THE_START * least - _STRAY * noise)
    first = bottom + 1 + (int(back[-1]) + 1 if len(back) else 0)
    # In a flat valley the lowest fitted value is low by chance: the rise is counted from the valley's mean.
    level = float(validation[fit - lowest <= noise].mean())
    risen = np.flatnonzero(fit[first:] - level > max(_FROM_THE_START * least, _CLEARLY * noise))
    if not len(risen):
        return None
    onset = first + int(risen[0])
    after = len(validation) - onset
    rise = float(above[onset:].mean())
    at_bottom = max(1, int((fit <= lowest).sum()))
    if after < 2 and len(validation) >= _FEWEST_FOR_NOISE:
        return None  # one value at the end may be a bump
    if rise <= least or rise <= _SURE * noise * np.sqrt(1 / after + 1 / at_bottom):
        return None
    if float(train[onset:].mean() - train[bottom]) >= 0.5 * rise:
        return None
    return onset


def _after_creep(train: FloatArray, validation: FloatArray, onset: int) -> int:
    """The onset without a plateau before it, on which a validation loss that has nothing left to learn creeps upwards.

    There the gap between the losses hardly opens. It opens where overfitting begins: what comes before is a plateau where it is a small
    part of the whole rise, and the gap opens at less than a quarter of the pace that follows.
    """
    gap = validation - train
    noise = noise_level(gap)
    first, last = onset - 1, len(gap) - 1
    level = float(validation[first])
    best, contrast = onset, 0.0
    for place in range(onset, last):
        if float(validation[place]) - level > _CREEP * (float(validation[last]) - level):
            break
        end = min(place + _PACE, last)
        before = float(gap[place] - gap[first]) / (place - first)
        after = float(gap[end] - gap[place]) / (end - place)
        steep = gap[end] - gap[place] > _SURE * noise and before < _SLOWER * after
        if steep and after - before > contrast:
            best, contrast = place + 1, after - before
    return best


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


def _fall(values: FloatArray) -> FloatArray:
    means: list[float] = []
    sizes: list[int] = []
    for value in values.tolist():
        mean, size = value, 1
        while means and means[-1] < mean:
            other, count = means.pop(), sizes.pop()
            mean = (mean * size + other * count) / (size + count)
            size += count
        means.append(mean)
        sizes.append(size)
    return np.repeat(means, sizes)
