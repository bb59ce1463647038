"""What measures of probes share: beside the probes' answers for each sample a table that says how each probe came about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from mmaudit.measures.base import EvidenceMeasure
from mmaudit.measures.evidence import Evidence
from mmaudit.report.schema import MeasureResult
from mmaudit.report.tables import read_chunks

__all__ = ["ProbeMeasure"]


class ProbeMeasure(EvidenceMeasure):
    """A measure that reads what probes said, and keeps in its settings how each of them came about.

    A child names the table of the probes, and has it among its ``tables``.
    """

    probes: ClassVar[str]
    """Table with a row for each probe, small enough for the record."""

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure; its settings say how each probe came about."""
        settings = {**evidence.settings(self.tables), "probes": list(self.probes_of(evidence))}
        return self._result(lambda: self.rows_of(evidence), settings)

    def probes_of(self, evidence: Evidence) -> Iterator[dict[str, Any]]:
        """Column -> value, for each probe."""
        folder = evidence.table(self.probes)
        assert folder is not None
        for chunk in read_chunks(folder):
            columns = {name: values.tolist() for name, values in chunk.items()}
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))
