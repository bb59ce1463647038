"""An audit's record as a person uses it: look numbers up, take tables out, save it, read it back.

The record (:mod:`mmaudit.report.schema`) is data; ``AuditReport`` adds the folder with the per-sample tables and the ways
out. It imports neither torch nor pandas until a table is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaudit.exceptions import RecordError, UndefinedMeasureError
from mmaudit.report.labels import LABELS, complete, primary_score, task_of
from mmaudit.report.numbers import count, with_interval
from mmaudit.report.record_file import (
    RECORD_NAME,
    is_binary,
    read_record,
    save_record,
    whereabouts,
)
from mmaudit.report.schema import (
    DataRecord,
    Estimate,
    EvidenceRecord,
    FailureRecord,
    LabelledEstimate,
    MeasureResult,
    Note,
    Record,
    SubjectRecord,
)
from mmaudit.report.sentences import standout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RECORD_NAME", "AuditReport"]

_SAMPLES = "coalitions"
_LEFT_OUT = "it was not asked for, or the subject lacks what it needs"
_NEEDS = {
    "capacity_gap": "it needs 'references' in the audit file, models of single modalities; 'mmaudit unimodal AUDIT.yaml --out DIR'"
    " trains them and says what to add"
}
"""Measure -> why a record may lack it, where that is known."""


class AuditReport:
    """A record, and where its per-sample tables lie.

    Two reports are equal when their records are, wherever their tables lie.

    Args:
        record: What the audit found.
        folder: Folder that ``record.tables`` is relative to; ``None`` where there are no tables.

    Example:
        >>> report = AuditReport.load("runs/audit")                           # doctest: +SKIP
        >>> report.estimate("utilization", modality="audio", given="image")   # doctest: +SKIP
        >>> report.to_frame("contributions")                                  # doctest: +SKIP
    """

    def __init__(self, record: Record, folder: Path | str | None = None) -> None:
        self.record = record
        self.folder = Path(folder) if folder is not None else None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the spec."""
        return self.record.modalities

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.record.data.classes

    @property
    def title(self) -> str:
        """What was audited, in a few words."""
        return self.record.subject.title

    @property
    def subject(self) -> SubjectRecord:
        """Model and files."""
        return self.record.subject

    @property
    def data(self) -> DataRecord:
        """The samples."""
        return self.record.data

    @property
    def evidence(self) -> EvidenceRecord:
        """How the coalitions were evaluated."""
        return self.record.evidence

    @property
    def masks(self) -> dict[str, str]:
        """Modality -> its mask in words."""
        return self.record.masks

    @property
    def measures(self) -> dict[str, MeasureResult]:
        """Measure -> its rows."""
        return self.record.measures

    @property
    def notes(self) -> tuple[Note, ...]:
        """Fallbacks, warnings, information."""
        return self.record.notes

    @property
    def failures(self) -> tuple[FailureRecord, ...]:
        """Measures that raised."""
        return self.record.failures

    @property
    def task(self) -> str:
        """What the model predicts: ``multiclass``, ``binary``, ``segments``, ``multilabel`` or ``regression``."""
        return task_of(self.record)

    @property
    def accuracy(self) -> Estimate:
        """Accuracy of the whole model; undefined where it was not measured, and for a regression."""
        if self.task == "regression":
            return Estimate(
                undefined="a regression has no accuracy: its score is R2 (report.score)"
            )
        return self.score

    @property
    def score(self) -> Estimate:
        """Primary score of the whole model: accuracy, of a regression R2; undefined where it was not measured."""
        try:
            return self.estimate("coalitions", coalition="+".join(self.modalities))
        except (RecordError, UndefinedMeasureError) as error:
            return Estimate(undefined=str(error))

    def measure(self, key: str) -> MeasureResult:
        """One measure whole.

        Raises:
            UndefinedMeasureError: If it has no value here or failed; the message is the recorded reason.
            RecordError: If the record has no such measure.
        """
        result = self.record.measures.get(key)
        if result is not None and result.undefined is None:
            return result
        if result is not None:
            raise UndefinedMeasureError(f"{key} has no value in this audit: {result.undefined}")
        for failure in self.record.failures:
            if failure.measure == key:
                raise UndefinedMeasureError(f"{key} failed in this audit: {failure.error}")
        if key in LABELS:
            raise RecordError(f"this audit has no {key}: {_NEEDS.get(key, _LEFT_OUT)}")
        has = ", ".join(self.record.measures) or "none"
        raise RecordError(f"expected one of the measures of this audit ({has}), found '{key}'")

    def rows(self, key: str, **labels: str) -> list[LabelledEstimate]:
        """Rows of a measure that have these labels; none where the measure has no value here.

        Args:
            key: Measure.
            **labels: Exact labels, nothing filled in.
        """
        result = self.record.measures.get(key)
        rows = result.rows if result is not None else ()
        wanted = labels.items()
        return [row for row in rows if wanted <= row.labels.items()]

    def estimate(self, key: str, /, **labels: str) -> Estimate:
        """Look one number up.

        Args:
            key: Measure: ``coalitions``, ``responses``, ``contributions``, ``interactions``, ``utilization``.
            **labels: Such as ``modality="audio", given="image"``. Left out, ``class`` is ``all``, ``score`` is ``accuracy``,
                ``empty`` is ``exact`` and ``quantity`` is ``value``, of responses ``Acc``, of utilization ``u``; of a regression
                ``R2`` stands in the place of ``accuracy`` and ``Acc``. ``given="rest"`` means all
                other modalities; a coalition may be written in any order. ``class`` is a Python keyword: ``**{"class": "3"}``.

        Returns:
            The estimate; it may be undefined, with its reason.

        Raises:
            UndefinedMeasureError: If the whole measure has no value here.
            RecordError: If there is no such measure or row.
        """
        result = self.measure(key)
        filled = complete(key, labels, self.modalities, self.task)
        found = [row for row in result.rows if filled.items() <= row.labels.items()]
        if len(found) == 1:
            return found[0].estimate
        asked = ", ".join(f"{name}={value!r}" for name, value in filled.items())
        if found:
            free = [name for name in found[0].labels if name not in filled]
            raise RecordError(
                f"{key} has {len(found)} rows with {asked}: say also {', '.join(free)}"
            )
        raise RecordError(f"{key} has no row with {asked}; it has {_choices(result)}")

    def to_frame(self, table: str, limit: int | None = None) -> pd.DataFrame:
        """Take a table out as a tidy DataFrame.

        Args:
            table: A measure (``responses``, ``contributions``, ``interactions``, ``utilization``, ``coalitions``), or
                ``samples``.
            limit: At most so many rows.

        Returns:
            Of a measure: one column per label, then ``value``, ``low``, ``high``, ``n``, ``method``, ``undefined``,
            ``warning`` and ``unit``; a value that does not exist is missing and ``undefined`` says why. Of ``samples``: one
            row per sample, with ``sample_id``, ``position``, ``target``, ``group``, ``present[audio]`` and so on, then
            ``correct[audio+image]``, ``loglik[...]``, ... per coalition and ``response_score_exact[audio]``, ... per
            modality (:func:`mmaudit.report.tables.coalition_schema` has the units).

        Raises:
            UndefinedMeasureError: If the measure has no value here.
            RecordError: If there is no such table, or it is damaged.
        """
        # Here and not above: pandas and pyarrow take longer to load than a record takes to read.
        from mmaudit.report.frames import measure_frame, samples_frame

        if table == "samples":
            return samples_frame(self.table(_SAMPLES), self.modalities, limit)
        return measure_frame(self.measure(table), limit)

    def table(self, name: str) -> Path:
        """Folder of a table's shards.

        Raises:
            RecordError: If the audit kept no such table, or its folder is missing.
        """
        relative = self.record.tables.get(name)
        if relative is None or self.folder is None:
            raise RecordError(
                f"this report has no table '{name}'; load it from the folder in which the audit wrote its tables"
            )
        folder = self.folder / relative
        if not folder.resolve().is_relative_to(self.folder.resolve()):
            raise RecordError(
                f"table '{name}' lies at '{relative}', outside the folder of its record"
            )
        if not folder.is_dir():
            raise RecordError(f"table '{name}' is missing: expected the folder {folder}")
        return folder

    def summary(self) -> list[str]:
        """At most three sentences on what stands out, each with its number and interval."""
        return standout(self.record)

    def figures(self) -> dict[str, Any]:
        """Draw all figures that this report has numbers for.

        Returns:
            Key -> plotly ``Figure``, in the order of the pages.
        """
        # By name, because the report lies below figures and export and must not import them.
        draw_all = importlib.import_module("mmaudit.figures").draw_all
        figures: dict[str, Any] = draw_all(self)
        return figures

    def html(self, path: Path | str) -> Path:
        """Write the report as one file that opens offline.

        Args:
            path: The file to write; an existing one is replaced.

        Returns:
            The path.
        """
        target = Path(path)
        importlib.import_module("mmaudit.export.html").write_html(self, target)
        return target

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the record, and copy its tables where they lie elsewhere; all or nothing.

        The record comes last: a folder that has a ``report.json`` has a whole audit.

        Args:
            folder: Where to; made if missing.
            overwrite: Replace the audit that is there. It stays valid until the new one is whole.

        Returns:
            Path of the ``report.json``.

        Raises:
            RecordError: If an audit is there already, or writing fails.
        """
        sources = (
            {name: self.table(name) for name in self.record.tables}
            if self.folder is not None
            else {}
        )
        return save_record(self.record, sources, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, path: Path | str) -> AuditReport:
        """Read a report back.

        Args:
            path: Its folder, or its ``report.json``.

        Raises:
            RecordError: If it is missing, damaged, or of an unknown version.
        """
        given = Path(path)
        file = given / RECORD_NAME if given.is_dir() else given
        if not file.is_file():
            raise RecordError(
                f"no report at {file}: expected a folder with a {RECORD_NAME}{whereabouts(given)}"
            )
        if given.is_file() and is_binary(given):
            raise RecordError(
                f"{given} is no record: expected the folder of an audit, found a binary file; 'mmaudit init' drafts an audit file"
                " for a checkpoint, and 'mmaudit audit' makes its record"
            )
        return cls(read_record(file), file.parent)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AuditReport):
            return NotImplemented
        return self._what_was_found() == other._what_was_found()

    def __hash__(self) -> int:
        return hash(self.record.report_id)

    def __repr__(self) -> str:
        names = ", ".join(self.modalities)
        score = f"{primary_score(self.task)} {with_interval(self.score, 3)}"
        return (
            f"<AuditReport '{self.title}': {names}; {count(self.data.samples)} samples, "
            f"{score}; {len(self.measures)} measures, {len(self.failures)} failures>"
        )

    def _repr_html_(self) -> str:
        text: str = importlib.import_module("mmaudit.export.html").notebook_html(self)
        return text

    def _what_was_found(self) -> Record:
        return self.record.model_copy(update={"tables": dict.fromkeys(self.record.tables, "")})


def _choices(result: MeasureResult) -> str:
    """The values that each label takes, for the message about a row that is not there."""
    values: dict[str, dict[str, None]] = {}
    for row in result.rows:
        for name, value in row.labels.items():
            values.setdefault(name, {})[value] = None
    parts = []
    for name, seen in values.items():
        shown = list(seen)[:6]
        parts.append(f"{name} {', '.join(shown)}{', ...' if len(seen) > len(shown) else ''}")
    return "; ".join(parts) or "no rows"
