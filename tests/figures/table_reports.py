"""Reports with invented rows of the measures that are read from the coalition table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmaudit.report import AuditReport
from mmaudit.report.labels import LABELS
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from tests.report.fixtures import empty_report


def estimate(value: float, half: float = 0.02, **others) -> Estimate:
    """With an interval of this half-width."""
    return Estimate(
        value=value, low=value - half, high=value + half, n=400, method="Wilson", **others
    )


def report_of(
    key: str,
    rows: Mapping[tuple[str, ...], Estimate | float],
    modalities: Sequence[str],
    *,
    task: str = "multiclass",
) -> AuditReport:
    """A report of one measure: labels in the order of ``LABELS`` -> estimate, or a value with an interval around it."""
    labelled = tuple(
        LabelledEstimate(
            labels=dict(zip(LABELS[key], labels, strict=True)),
            estimate=value if isinstance(value, Estimate) else estimate(value),
        )
        for labels, value in rows.items()
    )
    record = empty_report(modalities).record
    result = MeasureResult(key=key, title=key, unit="", rows=labelled)
    return AuditReport(
        record.model_copy(
            update={
                "measures": {key: result},
                "failures": (),
                "spec": {**record.spec, "task": task},
            }
        )
    )


def undefined_report(key: str, reason: str) -> AuditReport:
    """A report whose measure has no value at all."""
    record = empty_report().record
    result = MeasureResult(key=key, title=key, unit="", undefined=reason)
    return AuditReport(record.model_copy(update={"measures": {key: result}, "failures": ()}))
