"""What changed between two records of the same samples: the versioned schema of ``comparison.json``.

Every number stands three times: before, after, and as a difference with an interval and a test on the same samples. What has
no value is ``undefined`` with a reason, never NaN or 0. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmaudit.exceptions import RecordError, UndefinedMeasureError
from mmaudit.report.json_file import read_model, save_model
from mmaudit.report.labels import complete, task_in
from mmaudit.report.schema import Estimate, Note

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COMPARISON_NAME",
    "COMPARISON_VERSION",
    "Audited",
    "ComparedMeasure",
    "Comparison",
    "Difference",
    "Verdict",
    "find_difference",
]

COMPARISON_NAME = "comparison.json"
COMPARISON_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class Audited(_Frozen):
    """One of the two records."""

    title: str
    report_id: str
    created: datetime
    model: str
    samples: int
    """Samples of its data."""
    lineage: dict[str, str] = Field(default_factory=dict)


class Difference(_Frozen):
    """One number before and after, and by how much it changed."""

    labels: dict[str, str]
    """What it is about; the keys are the same in all rows of a measure."""
    before: Estimate
    after: Estimate
    difference: Estimate
    """After less before, in the measure's unit; undefined where one of them is. The interval is for the same samples."""
    p: float | None = Field(default=None, ge=0, le=1)
    """Of the hypothesis that nothing changed, two-sided; ``None`` where there is no difference or no test."""
    p_holm: float | None = Field(default=None, ge=0, le=1)
    """The same, corrected for the number of hypotheses in its family (Holm 1979)."""
    family: int = 0
    """Hypotheses in the family: the modalities (pairs, coalitions of one size) of one quantity; for single classes, times
    classes."""
    test: str = ""
    """How p was found: ``exact McNemar`` or ``paired bootstrap``."""
    smallest_p: float | None = Field(default=None, ge=0, le=1)
    """The smallest p that the test can give with these data."""
    gained: int | None = None
    """Samples that are correct after alone, where the value is an accuracy."""
    lost: int | None = None
    """Samples that are correct before alone."""

    @model_validator(mode="after")
    def _tested_where_defined(self) -> Difference:
        if (self.p is None) != (self.p_holm is None):
            raise ValueError("a p-value stands with its correction, or neither does")
        if self.difference.value is None and self.p is not None:
            raise ValueError("what is undefined cannot be tested")
        return self


class ComparedMeasure(_Frozen):
    """All differences of one measure."""

    key: str
    title: str
    unit: str
    direction: Literal["higher", "lower", "balanced"] = "balanced"
    rows: tuple[Difference, ...] = ()
    undefined: str | None = None
    """Why the whole measure has no value in one of the records."""


class Verdict(_Frozen):
    """What the comparison comes to."""

    kind: Literal["helps", "hurts", "does not help", "too little data"]
    """About the score of the whole model."""
    headline: str
    """In a few words, for a title."""
    sentence: str
    """The verdict, what changed and by how much."""
    caveats: tuple[str, ...] = ()
    """What it does not cover."""


class Comparison(_Frozen):
    """``comparison.json``, whole.

    Example:
        >>> comparison = Comparison.load("runs/agm/comparison.json")                  # doctest: +SKIP
        >>> comparison.row("responses", modality="audio").difference                  # doctest: +SKIP
        >>> comparison.to_frame().query("p_holm < 0.05")                              # doctest: +SKIP
    """

    schema_version: int = COMPARISON_VERSION
    mmaudit_version: str
    before: Audited
    after: Audited
    modalities: tuple[str, ...]
    """In the order of the record before."""
    classes: tuple[str, ...]
    masks: dict[str, str] = Field(default_factory=dict)
    samples: int
    """Samples that both records have, and that all differences are about."""
    groups: int | None = None
    """Groups of samples that were resampled whole."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Seed, replicates, what was resampled, ``common``."""
    same_answers: bool = False
    """The two models answer every sample alike."""
    measures: dict[str, ComparedMeasure] = Field(default_factory=dict)
    verdict: Verdict
    notes: tuple[Note, ...] = ()

    def rows(self, measure: str, **labels: str) -> list[Difference]:
        """Rows of a measure that have these labels; none where the measure was not compared.

        Args:
            measure: Its key.
            **labels: Exact labels, nothing filled in.
        """
        found = self.measures.get(measure)
        return _found(found, labels) if found else []

    def row(self, measure: str, /, **labels: str) -> Difference:
        """Look one number up.

        Args:
            measure: ``coalitions``, ``responses``, ``contributions``, ``interactions``, ``utilization``.
            **labels: As in :meth:`mmaudit.AuditReport.estimate`; what is left out is filled in likewise.

        Raises:
            UndefinedMeasureError: If the measure has no value in one of the records.
            RecordError: If there is no such measure or row, or more than one.
        """
        found = self.measures.get(measure)
        if found is None:
            has = ", ".join(self.measures) or "none"
            raise RecordError(
                f"expected one of the measures that both records have ({has}), found '{measure}'"
            )
        if found.undefined is not None:
            raise UndefinedMeasureError(f"{measure} has no difference here: {found.undefined}")
        rows = _found(found, _completed(found, labels, self.modalities))
        if len(rows) != 1:
            asked = ", ".join(f"{name}={value!r}" for name, value in labels.items())
            raise RecordError(
                f"{measure} has {len(rows)} rows with {asked or 'no labels'}; expected one"
            )
        return rows[0]

    def find(self, measure: str, /, **labels: str) -> Difference | None:
        """Look one number up as :meth:`row` does; ``None`` where there is none."""
        return find_difference(self.measures, self.modalities, measure, **labels)

    def to_frame(self, measure: str | None = None) -> pd.DataFrame:
        """Take the differences out as a tidy DataFrame.

        Args:
            measure: Of this measure alone.

        Returns:
            One row per number: ``measure``, a column per label (missing where a measure does not have it), ``before``,
            ``before_low``, ``before_high``, ``after``, ``after_low``, ``after_high``, ``difference``, ``low``, ``high``,
            ``p``, ``p_holm``, ``family``, ``test``, ``smallest_p``, ``gained``, ``lost``, ``n``, ``groups``, ``method``,
            ``undefined``, ``warning`` and ``unit``.

        Raises:
            RecordError: If there is no such measure.
        """
        # Here and not above: pandas takes longer to load than a comparison takes to read.
        from mmaudit.report.comparison_frame import comparison_frame

        if measure is not None and measure not in self.measures:
            self.row(measure)
        return comparison_frame(self, measure)

    def save(self, path: Path | str) -> Path:
        """Write the comparison in one step.

        Args:
            path: The file, or a folder that gets a ``comparison.json``. An existing one is replaced.

        Returns:
            The file.

        Raises:
            RecordError: If it cannot be written.
        """
        return save_model(_file(path), self, what="comparison")

    @classmethod
    def load(cls, path: Path | str) -> Comparison:
        """Read a comparison back.

        Args:
            path: The file, or a folder with a ``comparison.json``.

        Raises:
            RecordError: If it is missing, damaged, or of an unknown version.
        """
        return read_model(_file(path), cls, what="comparison", version=COMPARISON_VERSION)


def find_difference(
    measures: Mapping[str, ComparedMeasure],
    modalities: Sequence[str],
    measure: str,
    /,
    **labels: str,
) -> Difference | None:
    """Look one number up; ``None`` where there is none, or more than one.

    Args:
        measures: By key.
        modalities: In the order of the record before.
        measure: Key.
        **labels: What is left out is filled in as in :meth:`mmaudit.AuditReport.estimate`.
    """
    result = measures.get(measure)
    rows = _found(result, _completed(result, labels, modalities)) if result else []
    return rows[0] if len(rows) == 1 else None


def _completed(
    measure: ComparedMeasure, labels: Mapping[str, str], modalities: Sequence[str]
) -> dict[str, str]:
    task = task_in(row.labels for row in measure.rows)
    return complete(measure.key, labels, modalities, task)


def _found(measure: ComparedMeasure, labels: Mapping[str, str]) -> list[Difference]:
    wanted = labels.items()
    return [row for row in measure.rows if wanted <= row.labels.items()]


def _file(path: Path | str) -> Path:
    given = Path(path)
    return given / COMPARISON_NAME if given.is_dir() else given
