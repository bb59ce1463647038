"""What R2 compares squared errors with: how far the targets of a regression spread.

    R2 = 1 - sum e^2 / sum (y - mean y)^2

Both sums run over the same rows, so R2 is a ratio of two sums over units once the mean is known. That takes a pass over the
targets before the values are summed; squared errors and squared distances are then divided by the whole table's sum of
squares, so that what units have of the latter adds up to 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mmaudit.measures.intervals import Intervals
from mmaudit.measures.table_rows import finite_rows
from mmaudit.report.spread import Spread
from mmaudit.typing import FloatArray

__all__ = ["Spreads", "apart_from_mean", "rescaled", "squared_columns", "target_spreads"]


class Spreads(NamedTuple):
    """How far the targets of a regression spread: what squared errors are measured by."""

    numbers: Spread
    """Of each of the K predicted numbers."""
    heard: Spread
    """The same over the rows that have a modality, number by number with the modalities running fastest, K * M of them."""


def target_spreads(
    chunks: Iterable[dict[str, np.ndarray]], M: int, K: int, *, only_finite: bool = False
) -> Spreads:
    """How far the targets of a regression spread.

    Args:
        chunks: Rows with ``target``, ``truth`` and ``present``; with all values where only finite rows are to count.
        M: Modalities.
        K: Predicted numbers.
        only_finite: Leave out rows with a value that is not finite.
    """
    numbers, heard = Spread(K), Spread(K * M)
    for chunk in chunks:
        target, truth = chunk["target"].astype(np.int64), chunk["truth"].astype(np.float64)
        used = finite_rows(chunk, M) if only_finite else np.isfinite(truth)
        used &= (target >= 0) & (target < K)
        numbers.add(truth[used], target[used])
        for m in range(M):
            has = used & (chunk["present"] >> m & 1).astype(bool)
            heard.add(truth[has], target[has] * M + m)
    return Spreads(numbers, heard)


def squared_columns(
    chunk: dict[str, np.ndarray], off: FloatArray, has: np.ndarray, spreads: Spreads, K: int
) -> dict[str, FloatArray]:
    """What rows of a regression bring to the sums.

    Args:
        chunk: n rows of the coalition table.
        off: Negative squared errors of all coalitions, shape ``(n, 2**M)``.
        has: Whether a row has a modality, shape ``(n, M)``, bool.
        spreads: Of the whole table.
        K: How many numbers are predicted.

    Returns:
        ``score`` and ``response_score_*``, the negative squared errors as shares of the sum of squares; ``square`` and
        ``response_square``, the row's own share of it; ``response_loglik_*``, the errors as they are; for several numbers also
        ``squares`` ``(n, K)`` and ``response_squares`` ``(n, K * M)``, in which a row has an entry at its own number.
    """
    n, M = has.shape
    numbers, heard = spreads
    target = chunk["target"].astype(np.int64)
    cells = target[:, None] * M + np.arange(M)
    per, per_heard = _per(numbers)[target][:, None], np.where(has, _per(heard)[cells], 0.0)
    truth = chunk["truth"].astype(np.float64)[:, None]
    square = (truth - numbers.mean[target][:, None]) ** 2 * per
    response_square = (truth - heard.mean[cells]) ** 2 * per_heard
    found = {"score": off * per, "square": square, "response_square": response_square}
    for empty in ("exact", "zero"):
        alone = np.where(has, chunk[f"response_loglik_{empty}"], 0.0)
        found[f"response_loglik_{empty}"] = alone
        found[f"response_score_{empty}"] = alone * per_heard
    if K > 1:
        own = np.zeros((n, K, 1 + M))
        own[np.arange(n), target] = np.hstack([square, response_square])
        found["squares"] = own[:, :, 0]
        found["response_squares"] = own[:, :, 1:].reshape(n, K * M)
    return found


def apart_from_mean(shares: FloatArray, totals: FloatArray) -> FloatArray:
    """What turns the sum over several numbers into the mean of their R2, to first order for every unit.

    The mean of K ratios is no ratio of two sums. With this taken off its numerators it has the value, and by how much each
    unit changes it, of one: ``sum_k share_uk (R2_k - R2)``.

    Args:
        shares: Of each unit in the sum of squares of each number, shape ``(U, K)``, or ``(U, K, M)`` where they differ by
            modality; each number's add up to 1, or to 0 where it does not vary.
        totals: ``R2 - 1`` of each number, shape ``(K, c)``, or ``(K, M)``.

    Returns:
        Shape ``(U, c)`` or ``(U, M)``.
    """
    by_modality = shares.ndim == 3
    varies = shares.sum(axis=0) > 0
    varies = varies if by_modality else varies[:, None]
    each = np.where(varies, 1 + totals, 0.0)
    mean = each.sum(axis=0) / np.maximum(varies.sum(axis=0), 1)
    apart = np.where(varies, each - mean, 0.0)
    return np.asarray(np.einsum("ukm,km->um", shares, apart) if by_modality else shares @ apart)


def rescaled(intervals: Intervals, factor: float) -> Intervals:
    """Intervals of a quantity in another unit.

    What is rounding and what is not is judged at order 1; squared errors may be of any order, and are brought there first.
    """
    value, low, high = (end * factor for end in (intervals.value, intervals.low, intervals.high))
    return replace(intervals, value=value, low=low, high=high)


def _per(spread: Spread) -> FloatArray:
    """One over the sum of squares; 0 where the numbers do not vary, so that they count for nothing."""
    varies = spread.varies
    return np.where(varies, 1 / np.where(varies, spread.squares, 1.0), 0.0)
