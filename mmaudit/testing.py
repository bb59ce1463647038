"""Requirements on an audit as a test: for pytest, or any other way of running asserts. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from mmaudit.checking import check
from mmaudit.report import AuditReport

__all__ = ["assert_audit"]


def assert_audit(
    report: AuditReport | Path | str, *requirements: str, point: bool = False
) -> AuditReport:
    """Assert that an audit meets requirements, on the ends of its intervals.

    Args:
        report: A report, or the folder of its record.
        *requirements: Such as ``"utilization.audio >= 0.05"``, ``"accuracy >= 0.93"`` or ``"verdict.audio != harmful"``;
            :mod:`mmaudit.report.requirements` has the grammar.
        point: Where an estimate has no interval, compare its value.

    Returns:
        The report, for further asserts.

    Raises:
        AssertionError: If a requirement does not hold; the message has a line for each, those that fail first.
        RequirementError: If a requirement is malformed or names what there is not, or none is given.
        RecordError: If there is no readable record.

    Example:
        >>> def test_the_model_listens():
        ...     assert_audit("runs/audit", "utilization.audio >= 0.05", "accuracy >= 0.93")
    """
    __tracebackhide__ = True
    read = report if isinstance(report, AuditReport) else AuditReport.load(report)
    outcomes = check(read, requirements, point=point)
    failed = [outcome for outcome in outcomes if not outcome.holds]
    if failed:
        held = [outcome for outcome in outcomes if outcome.holds]
        lines = [f"  {outcome.sentence}" for outcome in (*failed, *held)]
        head = f"{len(failed)} of {len(outcomes)} requirements on '{read.title}' fail:"
        raise AssertionError("\n".join([head, *lines]))
    return read
