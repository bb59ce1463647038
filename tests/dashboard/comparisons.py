"""Comparisons as they are stored, made of two reports by plain subtraction: for the tests of all that reads them."""

from __future__ import annotations

from mmaudit.report import AuditReport
from mmaudit.report.comparison import (
    Audited,
    ComparedMeasure,
    Comparison,
    Difference,
    Verdict,
)
from mmaudit.report.schema import Estimate, Note


def make_comparison(before: AuditReport, after: AuditReport) -> Comparison:
    """Compare two reports of the same samples; p is invented from the size of the difference."""
    measures = {}
    for key, measure in before.measures.items():
        rows = tuple(
            _difference(old, new)
            for old, new in zip(measure.rows, after.measures[key].rows, strict=True)
        )
        measures[key] = ComparedMeasure(
            key=key, title=measure.title, unit=measure.unit, rows=rows, undefined=measure.undefined
        )
    return Comparison(
        mmaudit_version="0.0",
        before=_audited(before),
        after=_audited(after),
        modalities=before.modalities,
        classes=before.classes,
        masks=before.masks,
        samples=before.data.samples,
        settings={"seed": 0, "replicates": 2000},
        measures=measures,
        verdict=Verdict(
            kind="does not help",
            headline="No clear change",
            sentence="The accuracy is the same within its interval.",
            caveats=("One seed was tried.",),
        ),
        notes=(Note(kind="warning", topic="data", text="An invented warning."),),
    )


def _audited(report: AuditReport) -> Audited:
    return Audited(
        title=report.title,
        report_id=report.record.report_id,
        created=report.record.created,
        model=report.subject.model,
        samples=report.data.samples,
        lineage=report.record.lineage,
    )


def _difference(old, new) -> Difference:
    before, after = old.estimate, new.estimate
    if before.value is None or after.value is None:
        gone = Estimate(undefined="one of the two has no value")
        return Difference(labels=old.labels, before=before, after=after, difference=gone)
    value = after.value - before.value
    accuracy = old.labels.get("score") == "accuracy" and "coalition" in old.labels
    return Difference(
        labels=old.labels,
        before=before,
        after=after,
        difference=Estimate(
            value=value, low=value - 0.02, high=value + 0.02, n=before.n, method="paired bootstrap"
        ),
        p=max(0.0, 1 - 20 * abs(value)),
        p_holm=max(0.0, 1 - 10 * abs(value)),
        family=2,
        test="paired bootstrap",
        gained=7 if accuracy else None,
        lost=3 if accuracy else None,
    )
