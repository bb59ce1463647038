"""Picking estimates out of a report: by their labels, those with a value, the largest, and how far they reach."""

from __future__ import annotations

from collections.abc import Iterable

from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.schema import Estimate

__all__ = ["by_labels", "defined", "lowest_score", "ranked", "reach"]


def by_labels(report: AuditReport, key: str, *labels: str) -> dict[tuple[str, ...], Estimate]:
    """Estimates of a measure by the values of some of their labels, in the order of the record.

    Args:
        report: The report.
        key: Of the measure; without it there are no estimates.
        *labels: Their names; a row that lacks one has an empty text in its place.
    """
    return {
        tuple(row.labels.get(label, "") for label in labels): row.estimate
        for row in report.rows(key)
    }


def defined(estimates: Iterable[Estimate | None]) -> list[Estimate]:
    """Those that have a value."""
    return [e for e in estimates if e is not None and e.value is not None]


def ranked(names: Iterable[str], estimates: Iterable[Estimate | None]) -> list[tuple[float, str]]:
    """Values and short names of those that have a value, the largest first.

    Example:
        >>> ranked(("a", "b", "c"), (Estimate(value=0.1), None, Estimate(value=0.2)))
        [(0.2, 'c'), (0.1, 'a')]
    """
    known = [
        (e.value, shorten(name))
        for name, e in zip(names, estimates, strict=True)
        if e is not None and e.value is not None
    ]
    return sorted(known, reverse=True)


def reach(estimates: Iterable[Estimate | None]) -> tuple[float, float]:
    """Smallest and largest end of values and intervals, 0 among them.

    Example:
        >>> reach([Estimate(value=0.5, low=0.4, high=0.6, method="Wilson"), None])
        (0.0, 0.6)
    """
    ends = [
        end
        for e in estimates
        if e is not None
        for end in (e.value, e.low, e.high)
        if end is not None
    ]
    return min([0.0, *ends]), max([0.0, *ends])


def lowest_score(estimates: Iterable[Estimate]) -> float:
    """Where the axis of a score begins: R2 may lie below 0, and far below says no more than below -1.

    Example:
        >>> lowest_score([Estimate(value=0.9)]), lowest_score([Estimate(value=-7.0)])
        (0.0, -1.0)
    """
    ends = [end for e in estimates for end in (e.value, e.low) if end is not None]
    return max(min([0.0, *ends]), -1.0)
