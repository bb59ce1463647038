"""Where a validation loss turns: the best fall followed by a rise, under noise from checkpoint to checkpoint.

The lowest of many noisy values is low by chance, and lies anywhere in a flat valley. So the curve that falls and then rises
(:mod:`mmaudit.measures.valley`) is compared with the best one that never rises: how much better it fits, over all checkpoints, beside
the noise, says whether there is a rise. That is the likelihood ratio for normal noise; of pure noise it grows with the logarithm of
the number of checkpoints, and the limit with it.

How large the noise is, few checkpoints do not say. A steep fall makes third differences large, and a fit that is free to follow every
fall finds none where nothing goes up and down. The noise is the smaller of the two, each taken together with one more observation of
1 % of the lowest loss, which decides in a log of 5 checkpoints and hardly counts in one of 50.
"""

from __future__ import annotations

import numpy as np

from mmaudit.measures.valley import Valley, fit_fall, fit_valley, levels
from mmaudit.typing import FloatArray, IntArray

__all__ = ["Valley", "find_onset", "fit_valley", "noise_level"]

_FEWEST_FOR_NOISE = 5
_USUAL = 0.01
_FREE = 1.5
_LIMIT = 12.0
_LIMIT_PER_LOG = 3.0
_MOST_ALIKE = 0.9
_FROM_THE_START = 0.1
_SURE = 4.0
_STRAY = 2.5
_CLEARLY = 0.5
_ONE_MAY_BE_ALL = 8
_CREEP = 0.15
_SLOWER = 0.25
_PACE = 3


def noise_level(losses: FloatArray) -> float:
    """Standard deviation of a loss from one checkpoint to the next, beside its smooth course; 0 for fewer than 5 checkpoints.

    From third differences, in which a smooth course nearly vanishes, where the course is not at its steepest: the first fall of a short
    log does not vanish there. By their median, which a few jumps do not move.

    Example:
        >>> noise_level(np.linspace(2, 1, 20)) < 1e-12
        True
    """
    losses = np.asarray(losses, dtype=np.float64)
    if len(losses) < _FEWEST_FOR_NOISE:
        return 0.0
    third = np.abs(np.diff(losses, n=3))[_calm(fit_valley(losses).fit)]
    # 1.4826: from the median of a normal variable's size to its deviation; 20: sum of the squares of 1, 3, 3, 1.
    return float(1.4826 * np.median(third) / np.sqrt(20))


def find_onset(train: FloatArray, validation: FloatArray, *, margin: float) -> int | None:
    """First checkpoint from which on a head overfits.

    Its validation loss rises from there to the end by more than a margin and more than noise explains, while the train loss does not
    rise along with it. It is no such rise if it is made good later, or is as short and low as an earlier one that was (the last wave of
    a cyclic learning rate), or, with 8 checkpoints or more, if it is one value at the end. Nor does overfitting begin with the small
    creep of a plateau, before the gap between the two losses opens.

    ``None`` means that no rise beyond the noise was found, not that there is none. Simulated (5 to 300 checkpoints, falls to a tenth,
    then rises of 8 to 100 % of six shapes): without noise, and with .3 or 1 % from one checkpoint to the next, over 95 % are found
    within a checkpoint or a twentieth of them; with 3 %, 8 of 10, and most that are missed are rises of less than 20 %. Of curves that
    do not overfit, waves, spikes and correlated noise among them, less than 1 % are said to; of 7 to 12 checkpoints with 3 %, 1 to 5 %.

    Args:
        train: Shape ``(T,)``.
        validation: Shape ``(T,)``.
        margin: Share of the lowest validation loss by which it must end higher.

    Returns:
        The checkpoint after the bottom at which the rise begins; ``None`` where none was found.

    Example:
        >>> find_onset(np.array([2.0, 1, 0.6, 0.4, 0.3]), np.array([2.1, 1.4, 1.2, 1.5, 1.9]), margin=0.01)
        3
    """
    train, validation = (np.asarray(x, dtype=np.float64) for x in (train, validation))
    onset = _risen(train, validation, margin)
    return None if onset is None else _after_creep(train, validation, onset)


def _calm(fit: FloatArray) -> IntArray:
    """Which four neighbours, by the first, lie where a fitted course is no steeper than at half of its places."""
    steep = np.ptp(np.lib.stride_tricks.sliding_window_view(fit, 4), axis=1)
    return np.flatnonzero(steep <= np.median(steep))


def _scatter(losses: FloatArray, fit: FloatArray) -> float:
    """Noise of a loss, in a log of any length."""
    usual = _USUAL * abs(float(fit.min()))
    calm = len(_calm(fit)) if len(fit) >= _FEWEST_FOR_NOISE else 0
    by_differences = calm * noise_level(losses) ** 2
    squares = float(((losses - fit) ** 2).sum())
    return min(
        float(np.sqrt((sum_ + usual**2) / (number + 1)))
        for sum_, number in ((by_differences, calm), (squares, _left_free(fit)))
    )


def _left_free(fit: FloatArray) -> float:
    """Degrees of freedom that a fit of falls and rises leaves: each of its levels takes 1.5 (Meyer & Woodroofe 2000)."""
    return max(0.0, len(fit) - _FREE * levels(fit))


def _risen(train: FloatArray, validation: FloatArray, margin: float) -> int | None:
    """Where a lasting rise begins."""
    fit, bottom = fit_valley(validation)
    noise = _scatter(validation, fit)
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
    if len(validation) - onset < 2 and len(validation) >= _ONE_MAY_BE_ALL:
        return None  # one value at the end may be a bump
    rise = float(above[onset:].mean())
    # What rose and was made good speaks neither for a rise nor against it.
    kept = np.concatenate([validation[: bottom + 1], validation[first:]])
    if rise <= least or not _beyond_noise(kept, noise, rise):
        return None
    if _like_one_made_good(validation[: bottom + 1], rise, len(validation) - onset):
        return None
    if float(train[onset:].mean() - train[bottom]) >= 0.5 * rise:
        return None
    return onset


def _beyond_noise(losses: FloatArray, noise: float, rise: float) -> bool:
    """Whether losses fit a fall and a rise so much better than a fall alone that noise does not explain it."""
    fit = fit_valley(losses).fit
    gained = float(((losses - fit_fall(losses)) ** 2).sum() - ((losses - fit) ** 2).sum())
    limit = _LIMIT + _LIMIT_PER_LOG * float(np.log(len(losses)))
    return gained > limit * _variance_near(losses, fit, noise, rise)


def _variance_near(losses: FloatArray, fit: FloatArray, noise: float, rise: float) -> float:
    """Variance of losses around a fit, as far as it matters to their mean, at most a rise above the bottom when they come down.

    Waves and single spikes are no noise from one checkpoint to the next, though they too make a loss end high. Neighbours that go
    astray together count for fewer (by the correlation of one with the next).
    """
    start = int(np.flatnonzero(fit - fit.min() <= rise)[0])
    rest = (losses - fit)[start:]
    squares = float((rest**2).sum())
    variance = (squares + noise**2) / (_left_free(fit[start:]) + 1)
    together = float((rest[1:] * rest[:-1]).sum())
    if together > 0:
        # As if there were three more that do not go together: a few neighbours are alike by chance.
        alike = min(together / (squares + 3 * noise**2), _MOST_ALIKE)
        variance *= (1 + alike) / (1 - alike)
    return max(noise**2, variance)


def _like_one_made_good(falling: FloatArray, rise: float, length: int) -> bool:
    """Whether a loss was up before for as long, and as high on average, and came down again: the last wave of many does too."""
    above = falling - np.minimum.accumulate(falling)
    edges = np.flatnonzero(np.diff(above > 0, prepend=False, append=False))
    bumps = (above[i:j] for i, j in zip(edges[::2], edges[1::2], strict=True))
    return any(
        len(bump) >= length and float(np.sort(bump)[-length:].mean()) >= rise for bump in bumps
    )


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
