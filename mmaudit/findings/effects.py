"""Estimates as findings read them: how sure one can be that they lie above or below a limit, and Holm's correction.

A record holds intervals, no tests. Each interval here is read as that of a Student's t with ``n - 1`` (or ``groups - 1``)
degrees of freedom around its value, each side with its own standard error: the p-value of "not above c" is 0.025 exactly where
the lower end is c. An interval without width is exact: the p-value is 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scipy import stats

from mmaudit.report.schema import Estimate, FindingEvidence

__all__ = ["Effect", "any_of", "difference", "effect_of", "holm"]

_HALF_LEVEL = 0.975
_MOST_DEGREES = 1e6


@dataclass(frozen=True)
class Effect:
    """A number with its interval, and the rows of the record that it was read from.

    Args:
        value: Point value.
        low: Lower end of the 95 % interval; ``None`` where there is none.
        high: Upper end.
        degrees: Degrees of freedom of Student's t.
        rows: Measure, labels and estimate of each row behind it.
    """

    value: float
    low: float | None
    high: float | None
    degrees: float = _MOST_DEGREES
    rows: tuple[tuple[str, dict[str, str], Estimate], ...] = field(default=(), compare=False)

    def p_above(self, limit: float) -> float:
        """One-sided p-value of the claim that the truth is above a limit.

        Example:
            >>> round(Effect(0.1, 0.02, 0.18).p_above(0.02), 6), Effect(0.1, 0.1, 0.1).p_above(0.0)
            (0.025, 0.0)
        """
        return self._tail(self.value - limit, self.low)

    def p_below(self, limit: float) -> float:
        """One-sided p-value of the claim that the truth is below a limit."""
        return self._tail(limit - self.value, self.high)

    def p_within(self, limit: float) -> float:
        """P-value of the claim that the truth lies inside (-limit, limit): the larger of two one-sided ones."""
        return max(self.p_above(-limit), self.p_below(limit))

    def within(self, limit: float) -> bool:
        """Whether the whole 95 % interval lies inside (-limit, limit)."""
        return (
            self.low is not None
            and self.high is not None
            and -limit < self.low
            and self.high < limit
        )

    def under(self, limit: float) -> bool:
        """Whether the whole 95 % interval lies below a limit."""
        return self.high is not None and self.high < limit

    @property
    def error(self) -> float:
        """Standard error, from the wider side; infinite where there is no interval."""
        if self.low is None or self.high is None:
            return math.inf
        half = max(self.value - self.low, self.high - self.value)
        return half / float(stats.t.ppf(_HALF_LEVEL, self.degrees))

    def scaled(self, factor: float) -> Effect:
        """The same in another unit."""
        ends = (
            None if self.low is None else self.low * factor,
            None if self.high is None else self.high * factor,
        )
        low, high = ends if factor >= 0 else ends[::-1]
        return Effect(self.value * factor, low, high, self.degrees, self.rows)

    def evidence(self, says: str = "") -> tuple[FindingEvidence, ...]:
        """The rows behind it, for a finding."""
        return tuple(
            FindingEvidence(measure=measure, labels=labels, estimate=estimate, says=says)
            for measure, labels, estimate in self.rows
        )

    def _tail(self, distance: float, end: float | None) -> float:
        if end is None:
            return 1.0
        half = abs(self.value - end)
        if half <= 1e-12:
            return 0.0 if distance > 0 else 1.0
        scale = half / float(stats.t.ppf(_HALF_LEVEL, self.degrees))
        return float(stats.t.sf(distance / scale, self.degrees))


def effect_of(measure: str, labels: dict[str, str], estimate: Estimate) -> Effect | None:
    """Read an estimate; ``None`` where it is undefined."""
    if estimate.value is None:
        return None
    units = estimate.groups if estimate.groups is not None else estimate.n
    degrees = float(min(max(units - 1, 1), _MOST_DEGREES))
    row = (measure, labels, estimate)
    return Effect(estimate.value, estimate.low, estimate.high, degrees, (row,))


def difference(first: Effect, second: Effect, factor: float = 1.0) -> Effect:
    """``first - factor * second`` of two estimates whose errors are taken for independent.

    Where both rest on the same samples their errors mostly go together, and the interval is wider than it need be.

    Example:
        >>> found = difference(Effect(0.5, 0.4, 0.6), Effect(0.2, 0.2, 0.2))
        >>> [round(end, 3) for end in (found.value, found.low, found.high)]
        [0.3, 0.2, 0.4]
    """
    value = first.value - factor * second.value
    rows = (*first.rows, *second.rows)
    degrees = min(first.degrees, second.degrees)
    if None in (first.low, first.high, second.low, second.high):
        return Effect(value, None, None, degrees, rows)
    half = math.hypot(first.error, factor * second.error)
    half *= float(stats.t.ppf(_HALF_LEVEL, degrees))
    return Effect(value, value - half, value + half, degrees, rows)


def any_of(p_values: Sequence[float]) -> float | None:
    """One p-value for a claim that any of several estimates can support (Bonferroni); ``None`` where there are none."""
    return min(1.0, min(p_values) * len(p_values)) if p_values else None


def holm(p_values: Iterable[float | None]) -> list[float]:
    """P-values corrected for their number (Holm 1979): a claim holds where its own is at most the level.

    Args:
        p_values: One for each claim; ``None`` where none was to be made, which counts for nothing.

    Returns:
        As many, in [0, 1]; 1 for ``None``.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, 1.0, 0.06]
    """
    given = list(p_values)
    order = sorted((p, i) for i, p in enumerate(given) if p is not None)
    corrected, largest = [1.0] * len(given), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[i] = largest
    return corrected
