"""What a measure is: a name, a unit and a function from unit sums to estimates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.resampling import UnitSums
from mmaudit.report.schema import LabelledEstimate, MeasureResult
from mmaudit.typing import TaskName

__all__ = ["NOT_HERE", "EvidenceMeasure", "Measure", "coalition_name"]

NOT_HERE = "no sample here has this modality"
"""Why nothing is said of a modality: masking what is not there changes nothing, which is no finding about the model."""


class Measure(ABC):
    """One measure of the coalition table.

    A child sets the class attributes and yields its rows; what the rows need has been summed in one
    pass over the table and is shared by all measures.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    regression_unit: ClassVar[str] = ""
    """Unit in a regression, where it is another; so are the bounds then."""
    regression_bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    direction: ClassVar[Literal["higher", "lower", "balanced"]] = "balanced"
    reference: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    """Tables beside the coalition table that it reads, if the audit has them."""

    @abstractmethod
    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Yield the estimates; all rows carry the same label keys.

        Raises:
            UndefinedMeasureError: If the whole measure has no value; the message is recorded.
        """

    def compute(self, sums: UnitSums) -> MeasureResult:
        """Evaluate the measure.

        Args:
            sums: What one pass over the coalition table has summed.

        Returns:
            All estimates, or the reason why there are none.
        """
        return self._result(lambda: self.rows(sums), sums.settings(), sums.task)

    def available(self, evidence: Evidence) -> bool:
        """Whether the audit collected what the measure reads; it is left out of the record where not."""
        return True

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure on an audit's tables."""
        return self.compute(evidence.sums)

    def _result(
        self,
        rows: Callable[[], Iterator[LabelledEstimate]],
        settings: dict[str, Any],
        task: TaskName = "multiclass",
    ) -> MeasureResult:
        found: tuple[LabelledEstimate, ...] = ()
        undefined = None
        try:
            found = tuple(rows())
        except UndefinedMeasureError as error:
            undefined = str(error)
        other = task == "regression" and bool(self.regression_unit)
        return MeasureResult(
            key=self.key,
            title=self.title,
            unit=self.regression_unit if other else self.unit,
            bounds=self.regression_bounds if other else self.bounds,
            direction=self.direction,
            reference=self.reference,
            settings=settings,
            rows=found,
            undefined=undefined,
        )


class EvidenceMeasure(Measure):
    """A measure that reads more than the sums of the coalition table.

    A child says in ``tables`` which tables it needs; it is evaluated where the audit has all of them.
    """

    tables: ClassVar[tuple[str, ...]] = ()
    """Tables that it cannot do without."""

    def available(self, evidence: Evidence) -> bool:
        """Whether all tables are there."""
        return all(evidence.table(name) is not None for name in self.tables)

    @abstractmethod
    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Yield the estimates; all rows carry the same label keys.

        Raises:
            UndefinedMeasureError: If the whole measure has no value; the message is recorded.
        """

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure on an audit's tables."""
        settings = {**evidence.sums.settings(), **evidence.settings(self.tables)}
        return self._result(lambda: self.rows_of(evidence), settings, evidence.task)

    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Not from sums alone."""
        raise TypeError(f"{self.key} reads tables, not sums: call of(evidence)")


def coalition_name(index: int, modalities: tuple[str, ...]) -> str:
    """Names of the present modalities joined by ``+``; ``none`` for the empty coalition.

    Example:
        >>> coalition_name(5, ("audio", "image", "text"))
        'audio+text'
    """
    return "+".join(name for m, name in enumerate(modalities) if index >> m & 1) or "none"
