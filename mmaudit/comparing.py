"""Two records of the same samples: every measure before, after and by how much it changed, tested on the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import mmaudit
from mmaudit.exceptions import RecordError, SpecError
from mmaudit.measures import MEASURES
from mmaudit.measures.differences import compare_measure
from mmaudit.measures.pairing import PairedSums, Table, pair_tables
from mmaudit.measures.ratios import RATIOS
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.seeds import SeedLevel, seed_level
from mmaudit.report import AuditReport
from mmaudit.report.changes import make_verdict
from mmaudit.report.comparable import comparison_notes, why_not_comparable
from mmaudit.report.comparison import Audited, Comparison
from mmaudit.report.labels import task_of
from mmaudit.report.schema import MeasureResult, Note
from mmaudit.report.tables import count_rows
from mmaudit.typing import TaskName

__all__ = ["SeedLevel", "compare", "seed_level"]

_TABLE = "coalitions"
_MOST_CLASS_ROWS = 5_000
"""Beyond so many numbers for single classes only all classes together are compared."""


def compare(
    before: AuditReport | Path | str,
    after: AuditReport | Path | str,
    *,
    replicates: int = 2000,
    seed: int = 0,
    common: bool = False,
) -> Comparison:
    """Compare two audits of the same samples, such as those of a model before and after a remedy.

    Args:
        before: A report, or its folder.
        after: Another; modalities are matched by name and samples by id.
        replicates: Bootstrap replicates behind intervals and tests, at least 100.
        seed: Of the resampling; equal records and seeds give an equal comparison.
        common: Where the data differ, compare the samples that both have.

    Returns:
        Every measure of the coalition scores that both have, before, after and as a difference with its interval, p-value (exact McNemar test for
        accuracies of independent samples, else the paired bootstrap) and Holm's correction; and a verdict. The intervals are
        about the choice of samples; about other training seeds they say nothing (:func:`seed_level` does).

    Raises:
        RecordError: If the two cannot be compared: data, task, classes, modalities, masks or groups differ, or a table is
            missing, damaged or of another audit.
        SpecError: If there are fewer than 100 replicates or the seed is negative.

    Example:
        >>> comparison = mmaudit.compare("runs/before", "runs/after")               # doctest: +SKIP
        >>> print(comparison.verdict.sentence)                                      # doctest: +SKIP
    """
    if replicates < 100:
        raise SpecError(f"{replicates} bootstrap replicates are too few: expected at least 100.")
    if seed < 0:
        raise SpecError(f"seed is {seed}; expected an integer of at least 0.")
    first, second = (
        report if isinstance(report, AuditReport) else AuditReport.load(report)
        for report in (before, after)
    )
    reason = why_not_comparable(first.record, second.record, common=common)
    if reason is not None:
        raise RecordError(f"'{first.title}' and '{second.title}' cannot be compared: {reason}.")
    pairs = pair_tables(
        _table(first),
        _table(second),
        classes=first.classes,
        grouped=first.data.groups is not None,
        seed=seed,
        replicates=replicates,
        task=cast("TaskName", task_of(first.record)),
    )
    notes = [
        *comparison_notes(first.record, second.record),
        *_left_out(first, second, pairs, common),
    ]
    keys = [key for key in RATIOS if key in first.measures and key in second.measures]
    apart = [key for key in first.measures if key in second.measures and key not in RATIOS]
    if apart:
        text = f"not compared, and told by each record alone: {', '.join(apart)}"
        notes.append(Note(kind="information", topic="measures", text=text))
    classes = _class_rows(first, keys) <= _MOST_CLASS_ROWS
    if not classes:
        text = f"only all classes together are compared: {len(first.classes)} classes would make more than {_MOST_CLASS_ROWS} numbers"
        notes.append(Note(kind="information", topic="measures", text=text))
    if pairs.same:
        notes.append(_nothing_changed(pairs))
    measures = {}
    for key in keys:
        one = _estimates(first, key, pairs.before, stored=pairs.whole)
        other = _estimates(
            second, key, pairs.after, stored=pairs.whole and first.modalities == second.modalities
        )
        measures[key] = compare_measure(key, pairs, one, other, classes=classes)
    audited = (_audited(first), _audited(second))
    return Comparison(
        mmaudit_version=mmaudit.__version__,
        before=audited[0],
        after=audited[1],
        modalities=first.modalities,
        classes=first.classes,
        masks=first.masks,
        samples=pairs.before.samples,
        groups=pairs.before.groups,
        settings={**pairs.before.settings(), "common": common},
        same_answers=pairs.same,
        measures=measures,
        verdict=make_verdict(
            *audited, first.modalities, measures, samples=pairs.before.samples, same=pairs.same
        ),
        notes=tuple(notes),
    )


def _table(report: AuditReport) -> Table:
    folder = report.table(_TABLE)
    return Table(folder, report.modalities, count_rows(folder))


def _audited(report: AuditReport) -> Audited:
    record = report.record
    return Audited(
        title=report.title,
        report_id=record.report_id,
        created=record.created,
        model=report.subject.model,
        samples=report.data.samples,
        lineage=record.lineage,
    )


def _estimates(report: AuditReport, key: str, sums: UnitSums, *, stored: bool) -> MeasureResult:
    """A record's own estimates where they are about the compared samples, else estimates of these."""
    return report.measures[key] if stored else MEASURES[key]().compute(sums)


def _class_rows(report: AuditReport, keys: list[str]) -> int:
    rows = (row for key in keys for row in report.measures[key].rows)
    return sum(row.labels.get("class", "all") != "all" for row in rows)


def _left_out(
    before: AuditReport, after: AuditReport, pairs: PairedSums, common: bool
) -> list[Note]:
    """What is not compared; a table that lacks more than its audit left out is refused."""
    if not common:
        for which, missing, allowed in (
            ("after", pairs.only_before, after.evidence.nonfinite),
            ("before", pairs.only_after, before.evidence.nonfinite),
        ):
            # A sample may have several rows; how many those of one that was left out had is not known.
            several = before.data.group_column == "sample" and allowed
            if missing > allowed and not several:
                raise RecordError(
                    f"the table of the record {which} lacks {missing} samples that the other has, though its audit left out "
                    f"{allowed}: the table is not whole; audit again"
                )
    notes = []
    missing = pairs.only_before + pairs.only_after + pairs.not_finite
    if missing:
        text = (
            f"{pairs.before.samples} samples are compared; left out: {pairs.only_before} that only the record before has, "
            f"{pairs.only_after} that only the record after has, {pairs.not_finite} with values that are not finite"
        )
        notes.append(Note(kind="warning", topic="data", text=text))
    return notes


def _nothing_changed(pairs: PairedSums) -> Note:
    text = f"the two models answer all {pairs.before.samples} samples alike, whatever is masked: all differences are 0"
    return Note(kind="information", topic="evidence", text=text)
