"""How well a concept is predicted, per sample: what competition strengths are sums of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.typing import FloatArray, IntArray

__all__ = ["StrengthTerms", "strength_terms"]

_CONSTANT = 1e-12
_NULL = 1e-6
"""Directions in which the concept varies less than this share of its largest variance count as none."""


class StrengthTerms(NamedTuple):
    """Parts of both competition strengths, ``(n,)`` each: a strength is the sum of one over the sum of another."""

    error: FloatArray
    """Squared error of the prediction."""
    scatter: FloatArray
    """Squared distance of the concept from its mean; ``d_pooled`` is sum of errors over sum of these."""
    whitened: FloatArray
    """Whitened squared error; sums to ``d_whitened``."""
    weight: FloatArray
    """What the sample has in the whitening; sums to 1. ``whitened - d weight`` is how far the sample moves d."""
    bias: FloatArray
    """Sums to how far ``d_whitened`` is expected to be off, since the scatter that it is measured by is estimated as well."""
    rank: int
    """Of the scatter of the concept."""


def strength_terms(
    concept: FloatArray, predicted: FloatArray, units: IntArray | None = None
) -> StrengthTerms:
    """Compare a concept with its prediction.

        d_pooled   = sum_i ||e_i||^2 / sum_i ||c_i - mean c||^2                (Li et al. 2023, eq 13)
        d_whitened = (n - 1) / n  1/q  sum_i e_i' S^+ e_i                      (their released code)

    with ``e_i`` the error of the prediction and S the scatter ``sum_i (c_i - mean c)(c_i - mean c)'``. The pseudo-inverse drops
    directions below 1e-6 of the largest eigenvalue (the released code drops none, so that in double precision a direction without any
    variance dominates the sum), and the division is by the full q.

    Args:
        concept: Shape ``(n, q)``.
        predicted: Shape ``(n, q)``.
        units: What each sample belongs to, running numbers ``(n,)``; left out, samples are independent.

    Returns:
        The terms of every sample.

    Raises:
        UndefinedMeasureError: If the concept does not vary, or there are fewer than two samples.

    Example:
        >>> c = np.array([[1.0, 0], [0, 2], [-1, 0], [0, -2]])
        >>> terms = strength_terms(c, np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
        >>> float(terms.error.sum() / terms.scatter.sum()), round(float(terms.whitened.sum()), 9), terms.rank
        (0.2, 0.09375, 2)
    """
    concept = np.asarray(concept, dtype=np.float64)
    n, q = concept.shape
    if n < 2:
        raise UndefinedMeasureError(f"{n} evaluated samples have the modality: expected at least 2")
    error = np.asarray(predicted, dtype=np.float64) - concept
    centred = concept - concept.mean(0)
    scatter = (centred**2).sum(1)
    if scatter.sum() <= _CONSTANT * max((concept**2).sum(), np.finfo(np.float64).tiny):
        raise UndefinedMeasureError("its concept is the same for all evaluated samples")
    values, vectors = np.linalg.eigh(centred.T @ centred)
    kept = values > _NULL * values[-1]
    whitener = vectors[:, kept] / np.sqrt(values[kept])
    errors, centred = error @ whitener, centred @ whitener
    scale = (n - 1) / (n * q)
    # d tr(S^+ A) = tr(S^+ dA) - tr(S^+ dS S^+ A): what a sample adds to the errors, and to what they are measured by.
    pull = errors.T @ errors
    weight = ((centred @ pull) * centred).sum(1)
    total = weight.sum()
    share = weight / total if total > 0 else np.full(n, 1 / n)
    bias = scale * _second_order(centred, errors, pull, np.arange(n) if units is None else units)
    whitened = scale * (errors**2).sum(1)
    return StrengthTerms((error**2).sum(1), scatter, whitened, share, bias, int(kept.sum()))


def _second_order(
    centred: FloatArray, errors: FloatArray, pull: FloatArray, units: IntArray
) -> FloatArray:
    """Terms ``tr(dS dS A) - tr(dS dA)`` of every unit in whitened coordinates, on the first sample of each unit."""
    terms = np.zeros(len(units))
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=units[order][:1] - 1))
    if len(starts) == len(units):
        own = (centred**2).sum(1) * ((centred @ pull) * centred).sum(1)
        return np.asarray(own - (centred * errors).sum(1) ** 2)
    for rows in np.split(order, starts[1:]):
        c, e = centred[rows], errors[rows]
        inner = c @ c.T
        terms[rows[0]] = ((c @ pull @ c.T) * inner).sum() - ((c @ e.T) ** 2).sum()
    return terms
