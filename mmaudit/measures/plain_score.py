"""The score of one set of predictions with its interval, from rows in memory: accuracy, or R2 of a regression."""

from __future__ import annotations

import numpy as np

from mmaudit.measures.intervals import mean_intervals, proportion_intervals
from mmaudit.measures.resampling import bootstrap_weights
from mmaudit.measures.target_spread import apart_from_mean
from mmaudit.report.schema import Estimate
from mmaudit.report.spread import Spread
from mmaudit.typing import FloatArray, IntArray

__all__ = ["accuracy_estimate", "r2_estimate"]

_REPLICATES = 2000


def accuracy_estimate(correct: FloatArray, groups: IntArray | None = None) -> Estimate:
    """Share of correct rows, with Wilson's interval over rows or groups.

    Args:
        correct: 0 or 1 (or a share), shape ``(r,)``, at least one row.
        groups: Group of each row, numbered from 0, shape ``(r,)``; ``None`` where rows are independent.

    Example:
        >>> accuracy_estimate(np.array([1.0, 1.0, 0.0, 1.0])).value
        0.75
    """
    units, number = _units(len(correct), groups)
    successes = np.bincount(units, correct, number)[:, None].astype(np.float64)
    counts = np.bincount(units, minlength=number)[:, None].astype(np.float64)
    found = proportion_intervals(successes, counts, grouped=groups is not None)
    return found.estimate(0, n=len(correct), groups=None if groups is None else number)


def r2_estimate(
    off: FloatArray,
    truth: FloatArray,
    cells: IntArray,
    groups: IntArray | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """R2 with its interval; of several numbers the mean of their R2, those left out that do not vary.

    Args:
        off: Squared errors, shape ``(r,)``, at least one row.
        truth: The true numbers, shape ``(r,)``.
        cells: Which number a row is about, from 0, shape ``(r,)``.
        groups: As in :func:`accuracy_estimate`.
        seed: Of the bootstrap.

    Example:
        >>> r2_estimate(np.array([0.0, 1.0, 1.0, 0.0]), np.arange(4.0), np.zeros(4, int)).value
        0.6
    """
    spread = Spread(int(cells.max()) + 1)
    spread.add(truth, cells)
    if not spread.varies.any():
        return Estimate(
            undefined="R2 divides by the spread of the target, and the target is the same in all samples",
            n=len(off),
        )
    units, number = _units(len(off), groups)
    K = len(spread.count)
    per = np.where(spread.varies, 1 / np.where(spread.varies, spread.squares, 1.0), 0.0)[cells]
    shares, errors = np.zeros((number, K)), np.zeros((number, K))
    np.add.at(shares, (units, cells), (truth - spread.mean[cells]) ** 2 * per)
    np.add.at(errors, (units, cells), off * per)
    weight = shares.sum(axis=1, keepdims=True)
    left = weight - errors.sum(axis=1, keepdims=True)
    left -= apart_from_mean(shares, -errors.sum(axis=0)[:, None])
    counts = np.bincount(units, minlength=number)[:, None].astype(np.float64)
    found = mean_intervals(
        left, weight, weights=lambda n: bootstrap_weights(n, _REPLICATES, seed), units=counts
    )
    return found.estimate(0, n=len(off), groups=None if groups is None else number)


def _units(rows: int, groups: IntArray | None) -> tuple[IntArray, int]:
    return (np.arange(rows), rows) if groups is None else (groups, int(groups.max()) + 1)
