"""Which branch learns faster through the others: conditional learning speed, from logged gradient and weight norms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from mmaudit.evidence.recorded_norms import GroupNorms, Norms
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "NO_STEP_COUNTS",
    "LearningSpeeds",
    "conditional_learning_speed",
    "effective_updates",
    "speed_difference",
    "speeds_of",
]

NO_STEP_COUNTS = "no recorded step of the norms counts: at every one some norm is not finite or missing, or all weights of a group are 0"


class LearningSpeeds(NamedTuple):
    """How fast each branch learns, by itself and through the others, up to each recorded step."""

    modalities: tuple[str, ...]
    """Branches, M of them."""
    step: IntArray
    """Optimiser steps at which norms were recorded, shape ``(T,)``."""
    own: FloatArray
    """mu of the parameters of each branch, shape ``(M, T)``; 0 where none of them had a gradient."""
    crossing: FloatArray | None
    """mu of the parameters that carry the others into it, ``(M, T)``; ``None`` where there are none, as in late fusion."""
    speed: FloatArray | None
    """Conditional learning speeds s, log10, shape ``(M, T)``; NaN until both sums are above 0."""
    difference: FloatArray | None
    """Of the speeds: s_0 - s_1 for two branches, largest minus smallest for more; ``None`` for one branch."""
    left_out: IntArray
    """Recorded steps that do not count, shape ``(L,)``: norms were not finite, as where a loss scaler skips a step, all weights
    of a group were 0, or the step was written by half."""

    def to_frame(self) -> pd.DataFrame:
        """A row for each branch and step: ``step``, ``branch``, ``own``, and where there are such ``crossing`` and ``speed``."""
        columns = {"own": self.own, "crossing": self.crossing, "speed": self.speed}
        number = len(self.step)
        return pd.DataFrame(
            {
                "step": np.tile(self.step, len(self.modalities)),
                "branch": np.repeat(self.modalities, number),
                **{name: values.ravel() for name, values in columns.items() if values is not None},
            }
        )


def speeds_of(norms: Norms) -> LearningSpeeds:
    """Conditional learning speeds of one run (Wu et al. 2022).

    Sums run over the recorded steps. Where only every n-th step was recorded they stand for all steps.

    Args:
        norms: As they were recorded.

    Raises:
        UndefinedMeasureError: If no recorded step counts.
    """
    if not len(norms.step):
        raise UndefinedMeasureError(NO_STEP_COUNTS)
    own = _updates(norms.own)
    if norms.crossing is None:
        return LearningSpeeds(norms.branches, norms.step, own, None, None, None, norms.left_out)
    crossing = _updates(norms.crossing)
    speed = conditional_learning_speed(crossing, own)
    difference = speed_difference(speed) if len(norms.branches) > 1 else None
    return LearningSpeeds(
        norms.branches, norms.step, own, crossing, speed, difference, norms.left_out
    )


def effective_updates(gradients: FloatArray, weights: FloatArray) -> FloatArray:
    """How large a step's gradient is beside the weights, pooled over a group of parameters.

        mu(theta; t) = ||grad_t||^2 / ||theta_t||^2                     (Wu et al. 2022)

    Args:
        gradients: Squared gradient norms of the group's parameters, shape ``(..., P)``.
        weights: Squared norms of the parameters, the same shape.

    Returns:
        Shape ``(...)``: one ratio of the two sums, not a sum of ratios.

    Example:
        >>> float(effective_updates(np.array([1.0, 4.0]), np.array([10.0, 1.0])).round(6))
        0.454545
    """
    total = np.asarray(weights, dtype=np.float64).sum(axis=-1)
    if (total <= 0).any():
        raise UndefinedMeasureError(
            "the weights of a group are all 0: its learning speed is undefined"
        )
    return np.asarray(np.asarray(gradients, dtype=np.float64).sum(axis=-1) / total)


def conditional_learning_speed(crossing: FloatArray, own: FloatArray) -> FloatArray:
    """Log ratio of what a branch has learnt through the others and by itself, up to each step.

        s_m(t) = log10( sum_{j<=t} mu(theta'_m; j) / sum_{j<=t} mu(theta_m; j) )          (Wu et al. 2022; base 10 as in their code)

    Args:
        crossing: mu of the parameters that carry other modalities into the branch, shape ``(M, T)``.
        own: mu of the branch's own parameters, shape ``(M, T)``.

    Returns:
        Shape ``(M, T)``; NaN until both sums are above 0.

    Example:
        >>> s = conditional_learning_speed(np.array([[0.02, 0.03]]), np.array([[0.01, 0.005]]))
        >>> s.round(6).tolist()
        [[0.30103, 0.522879]]
    """
    above, below = (np.asarray(x, dtype=np.float64).cumsum(axis=-1) for x in (crossing, own))
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = np.log10(above / below)
    return np.where((above > 0) & (below > 0), speed, np.nan)


def speed_difference(speeds: FloatArray) -> FloatArray:
    """Imbalance of learning: s_0 - s_1 for two branches, largest minus smallest for more.

    Args:
        speeds: Shape ``(M, T)``, M at least 2.

    Returns:
        Shape ``(T,)``. Above 0 for two branches: branch 0 learns faster through the other, and is the one to care for.
    """
    speeds = np.asarray(speeds, dtype=np.float64)
    if len(speeds) < 2:
        raise UndefinedMeasureError("a difference of learning speeds needs at least two branches")
    if len(speeds) == 2:
        return np.asarray(speeds[0] - speeds[1])
    return np.asarray(speeds.max(axis=0) - speeds.min(axis=0))


def _updates(group: GroupNorms) -> FloatArray:
    return effective_updates(group.gradient[..., None], group.weight[..., None])
