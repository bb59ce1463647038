"""How sure one run is of where it turns: a block bootstrap of what its losses scatter around their course.

It covers the scatter from one checkpoint to the next (few validation samples, a large learning rate), not what another training
with another seed would give: for that, repeat the training. Simulated with independent scatter (40 and 100 checkpoints, 40 runs of
each of 12 curves), the interval of the onset covers the true one in 95 to 100 % of the runs where the loss falls up to the turn, and
in 68 to 88 % where it has been flat for long before it: see :func:`flat_valley`, for which the estimate carries a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.measures.onset import fit_valley, noise_level
from mmaudit.typing import FloatArray

__all__ = ["FEWEST_CHECKPOINTS", "can_be_resampled", "flat_valley", "interval_of", "resampled"]

FEWEST_CHECKPOINTS = 30
"""Fewer show too little scatter to draw from."""

_REPLICATES = 200
_LEAST_NOISE = 1e-9


def can_be_resampled(validation: FloatArray) -> bool:
    """Whether a run has enough checkpoints, and scatter, in all heads.

    Args:
        validation: Shape ``(H, T)``.
    """
    return validation.shape[1] >= FEWEST_CHECKPOINTS and all(
        noise_level(row) > _LEAST_NOISE * abs(float(np.mean(row))) for row in validation
    )


def flat_valley(validation: FloatArray) -> bool:
    """Whether a validation loss stays near its lowest for more than a tenth of the checkpoints, so that its turn is ill-determined.

    Args:
        validation: Shape ``(T,)``.
    """
    fit, bottom = fit_valley(validation)
    near = int((fit - fit[bottom] <= noise_level(validation)).sum())
    return near > max(3.0, 0.1 * len(validation))


def resampled(
    train: FloatArray, validation: FloatArray, *, seed: int = 0
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Draw runs with the same course and other scatter.

    The course is the curve that falls and then rises; what is left is drawn in blocks of neighbours, the same ones for all heads
    and both splits, so that whatever goes together stays together.

    Args:
        train: Shape ``(H, T)``.
        validation: Shape ``(H, T)``.
        seed: Of the draws.

    Yields:
        Train and validation losses, each ``(H, T)``.
    """
    rng = np.random.default_rng(seed)
    both = np.concatenate([train, validation])
    course = np.array([fit_valley(row).fit for row in both])
    rest = both - course
    H, T = train.shape
    length = max(1, round(T ** (1 / 3)))
    # The fit follows part of the scatter: what is left is made as large again as third differences say it is.
    for row, losses in zip(rest, both, strict=True):
        spread = float(row.std())
        if spread > 0:
            row *= max(1.0, noise_level(losses) / spread)
    for _ in range(_REPLICATES):
        starts = rng.integers(0, T, size=-(-T // length))
        places = (starts[:, None] + np.arange(length)).ravel()[:T] % T
        drawn = course + rest[:, places]
        yield drawn[:H], drawn[H:]


def interval_of(values: FloatArray) -> tuple[float, float]:
    """Where the middle 95 % of the replicates lie.

    Args:
        values: Finite.
    """
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
