"""The plain score of a model over some batches: accuracy, or R2 of a regression."""

from __future__ import annotations

import numpy as np

from mmaudit.evidence.rows import Rows
from mmaudit.evidence.scoring import ValueFunction
from mmaudit.report.spread import Spread

__all__ = ["PlainScore"]


class PlainScore:
    """Sums up what the value function says of batch after batch.

    Args:
        value: Of the task; it has seen outputs when the first rows are added.

    Attributes:
        rows: Rows seen.
    """

    def __init__(self, value: ValueFunction) -> None:
        self._value = value
        self.rows = 0
        self._right = 0.0
        self._spread: Spread | None = None
        self._errors = np.zeros(0)

    def add(self, judged: dict[str, np.ndarray], rows: Rows) -> None:
        """Add rows, and what :meth:`ValueFunction.judged` says of their predictions (of the first version there)."""
        self.rows += len(rows)
        if "correct" in judged:
            self._right += float(judged["correct"][:, 0].sum())
            return
        if self._spread is None:
            cells = self._value.classes or 1
            self._spread, self._errors = Spread(cells), np.zeros(cells)
        self._spread.add(rows.truth.astype(np.float64), rows.target)
        self._errors -= np.bincount(rows.target, judged["loglik"][:, 0], len(self._errors))

    def value(self) -> float | None:
        """Accuracy, or R2 (of several numbers the mean of their R2, as scikit-learn's ``r2_score`` takes it).

        Returns:
            ``None`` where there are no rows, or the numbers do not vary.
        """
        if not self.rows:
            return None
        if self._spread is None:
            return self._right / self.rows
        varies = self._spread.varies
        if not varies.any():
            return None
        return float((1 - self._errors[varies] / self._spread.squares[varies]).mean())
