"""Which branch learns faster through the others: conditional learning speed, from logged gradient and weight norms."""

from __future__ import annotations

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.typing import FloatArray

__all__ = ["conditional_learning_speed", "effective_updates", "speed_difference"]


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
