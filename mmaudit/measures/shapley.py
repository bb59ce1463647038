"""Exact Shapley values and pairwise interactions of a game given by the worth of all its coalitions.

Both are linear in the worths, so each is a matrix that depends on M alone. The matrices are public: applied to class
scores instead of scalars (``einsum("ms,snk->mnk", shapley_matrix(M), logits)``) they give mono-modal responses, in numpy
as in torch.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.typing import FloatArray, GameValues

__all__ = [
    "game_size",
    "interaction_matrix",
    "modality_pairs",
    "shapley_interactions",
    "shapley_matrix",
    "shapley_values",
    "shapley_weights",
]


def shapley_weights(M: int) -> FloatArray:
    """Weight of a marginal contribution by the size of the coalition it is made to.

        w(s) = s! (M - s - 1)! / M!        (Shapley 1953)

    Args:
        M: Number of modalities, at least 1.

    Returns:
        Weights for ``s = 0 .. M-1``, shape ``(M,)``, float64. ``sum_s C(M-1, s) w(s) = 1``.

    Raises:
        UndefinedMeasureError: If M is below 1.

    Example:
        >>> shapley_weights(3)
        array([0.33333333, 0.16666667, 0.33333333])
    """
    if M < 1:
        raise UndefinedMeasureError(f"a game needs at least 1 player, got {M}")
    return np.array([1.0 / (M * math.comb(M - 1, s)) for s in range(M)])


def shapley_matrix(M: int) -> FloatArray:
    """Matrix that turns the worths of all coalitions into Shapley values.

    Args:
        M: Number of modalities, at least 1.

    Returns:
        Shape ``(M, 2**M)``, float64, columns in bit order (``mmaudit.typing``). Rows sum to 0; the
        first column is ``-1/M``, so zeroing it is the same as an empty coalition worth 0.

    Raises:
        UndefinedMeasureError: If M is below 1.
    """
    weights = shapley_weights(M)
    index = np.arange(2**M)
    size = _sizes(M)
    matrix = np.empty((M, 2**M))
    for m in range(M):
        has = (index >> m & 1).astype(bool)
        matrix[m, has] = weights[size[has] - 1]
        matrix[m, ~has] = -weights[size[~has]]
    return matrix


def shapley_values(values: GameValues) -> FloatArray:
    """Share of each modality in what the grand coalition is worth more than the empty one.

        phi_m = sum over S not containing m of  w(|S|) [v(S + m) - v(S)]        (Shapley 1953)

    Args:
        values: Worths, shape ``(..., 2**M)``, the last axis in bit order.

    Returns:
        Shape ``(..., M)``, float64, in the unit of the worths; sums to ``v(grand) - v(empty)``.

    Raises:
        UndefinedMeasureError: If the last axis is no power of two of at least 2.

    Example:
        >>> shapley_values(np.array([0, 1, 2, 5, 0, 1, 2, 8]))
        array([3., 4., 1.])
    """
    values = np.asarray(values, dtype=np.float64)
    return values @ shapley_matrix(game_size(values)).T


def modality_pairs(M: int) -> tuple[tuple[int, int], ...]:
    """Pairs ``(i, j)`` with ``i < j``, in the order of the rows of :func:`interaction_matrix`."""
    return tuple(combinations(range(M), 2))


def interaction_matrix(M: int) -> FloatArray:
    """Matrix that turns the worths of all coalitions into pairwise Shapley interactions.

    Args:
        M: Number of modalities, at least 1.

    Returns:
        Shape ``(M (M-1) / 2, 2**M)``, float64, rows as in :func:`modality_pairs`.
    """
    index = np.arange(2**M)
    size = _sizes(M)
    weights = shapley_weights(M - 1) if M > 1 else np.empty(0)
    matrix = np.zeros((len(modality_pairs(M)), 2**M))
    for row, (i, j) in enumerate(modality_pairs(M)):
        has_i, has_j = index >> i & 1, index >> j & 1
        sign = np.where(has_i == has_j, 1.0, -1.0)
        matrix[row] = sign * weights[size - has_i - has_j]
    return matrix


def shapley_interactions(values: GameValues) -> FloatArray:
    """Pairwise Shapley interactions: what two modalities are worth together beyond their separate worths.

        I_ij = sum over S without i, j of
               |S|! (M-|S|-2)! / (M-1)!  [v(S+i+j) - v(S+i) - v(S+j) + v(S)]    (Grabisch & Roubens 1999)

    Args:
        values: Worths, shape ``(..., 2**M)``, the last axis in bit order.

    Returns:
        Shape ``(..., M, M)``, float64, symmetric, in the unit of the worths. Positive: the two need
        each other (synergy); negative: they say the same (redundancy). The diagonal has no meaning
        and is 0.

    Raises:
        UndefinedMeasureError: If the last axis is no power of two of at least 2.

    Example:
        >>> shapley_interactions(np.array([0, 1, 1, 1]))
        array([[ 0., -1.],
               [-1.,  0.]])
    """
    values = np.asarray(values, dtype=np.float64)
    M = game_size(values)
    of_pairs = values @ interaction_matrix(M).T
    table = np.zeros((*values.shape[:-1], M, M))
    for row, (i, j) in enumerate(modality_pairs(M)):
        table[..., i, j] = table[..., j, i] = of_pairs[..., row]
    return table


def game_size(values: GameValues) -> int:
    """Number of modalities M of worths whose last axis has length ``2**M``.

    Raises:
        UndefinedMeasureError: If that length is no power of two of at least 2.
    """
    length = values.shape[-1] if values.ndim else 0
    M = length.bit_length() - 1
    if M < 1 or length != 2**M:
        raise UndefinedMeasureError(
            f"a game of M modalities has 2**M worths on its last axis (2, 4, 8, ...), got shape "
            f"{values.shape}; give the worth of every coalition, the empty one included"
        )
    return M


def _sizes(M: int) -> FloatArray:
    return np.array([c.bit_count() for c in range(2**M)])
