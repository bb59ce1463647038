"""A record of losses as a person uses it: look numbers up, take tables out, draw, save, read back. Importable without torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaudit.exceptions import RecordError, UndefinedMeasureError
from mmaudit.report.labels import shorten
from mmaudit.report.loss_record import LOSS_RECORD_NAME, LossFlag, LossRecord, loss_labels
from mmaudit.report.schema import Estimate, Finding, MeasureResult
from mmaudit.report.store import write_text_atomic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LossReport"]


class LossReport:
    """Overfitting against generalization along a training.

    Args:
        record: What was measured.

    Example:
        >>> report = mmaudit.ogr("lightning_logs")                                    # doctest: +SKIP
        >>> report.estimate("overfitting", head="audio").value                        # doctest: +SKIP
        12.0
        >>> report.to_frame("ogr").query("lag == 'cumulative'")                       # doctest: +SKIP
    """

    def __init__(self, record: LossRecord) -> None:
        self.record = record

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads."""
        return self.record.heads

    @property
    def measures(self) -> dict[str, MeasureResult]:
        """Measure -> its rows: ``losses``, ``ogr``, ``overfitting``, ``blend_weights``, and ``learning_speed`` where norms were recorded."""
        return self.record.measures

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What it means, the most pressing first."""
        return self.record.findings

    @property
    def flags(self) -> tuple[LossFlag, ...]:
        """What makes the comparison doubtful."""
        return self.record.flags

    def measure(self, key: str) -> MeasureResult:
        """One measure whole.

        Raises:
            RecordError: If there is no such measure.
        """
        found = self.record.measures.get(key)
        if found is None:
            has = ", ".join(self.record.measures)
            raise RecordError(
                f"expected one of the measures {has}, found '{shorten(str(key), 40)}'"
            )
        return found

    def estimate(self, key: str, /, **labels: str) -> Estimate:
        """Look one number up.

        Args:
            key: Measure.
            **labels: Such as ``head="audio", checkpoint="12"``. Left out, ``run`` is ``all``, ``window`` the whole training,
                ``quantity`` of ``losses`` is ``validation``, of ``ogr`` ``OGR``, of ``overfitting`` ``first overfitting``, of
                ``blend_weights`` ``weight`` and of ``learning_speed`` ``speed`` (say also ``branch`` and ``checkpoint``).

        Raises:
            UndefinedMeasureError: If the whole measure has no value here.
            RecordError: If there is no such measure or row.
        """
        result = self.measure(key)
        if result.undefined is not None:
            raise UndefinedMeasureError(f"{key} has no value here: {result.undefined}")
        filled = loss_labels(key, labels)
        found = [row for row in result.rows if filled.items() <= row.labels.items()]
        if len(found) != 1:
            asked = ", ".join(f"{name}={value!r:.60}" for name, value in filled.items())
            free = [name for name in result.rows[0].labels if name not in filled]
            more = f": say also {', '.join(free)}" if found and free else _choices(result)
            raise RecordError(f"{key} has {len(found)} rows with {asked}{more}")
        return found[0].estimate

    def to_frame(self, measure: str, *, limit: int | None = None) -> pd.DataFrame:
        """Take a measure out as a tidy DataFrame: a column for each label, then value, low, high, n, method, ...

        Raises:
            RecordError: If there is no such measure.
        """
        from mmaudit.report.frames import measure_frame

        return measure_frame(self.measure(measure), limit)

    def summary(self) -> list[str]:
        """At most three sentences on what stands out."""
        return [finding.text for finding in self.findings[:3]]

    def figures(self) -> dict[str, Any]:
        """Draw the loss curves, the trajectories of OGR, the blend weights and, where recorded, the learning speeds.

        Returns:
            Key -> plotly ``Figure``; without those that have no numbers.
        """
        drawn: dict[str, Any] = importlib.import_module("mmaudit.figures.of_losses").draw_losses(
            self.record
        )
        return drawn

    def markdown(self) -> str:
        """The report as Markdown."""
        text: str = importlib.import_module("mmaudit.export.losses").losses_markdown(self.record)
        return text

    def html(self, path: Path | str) -> Path:
        """Write the report as one file that opens offline.

        Raises:
            RecordError: If the file cannot be written; an older one stays as it was.
        """
        target = Path(path)
        text = importlib.import_module("mmaudit.export.losses_html").losses_html(self.record)
        write_text_atomic(target, text)
        return target

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write ``losses.json`` into a folder, which is made if missing.

        Raises:
            RecordError: If there is one already, or it cannot be written.
        """
        place = Path(folder)
        file = place / LOSS_RECORD_NAME
        if file.exists() and not overwrite:
            raise RecordError(
                f"{file} exists already; choose another folder, or overwrite it (overwrite=True)"
            )
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"cannot make the folder {place}: {error.strerror}") from None
        return self.record.save(file)

    @classmethod
    def load(cls, path: Path | str) -> LossReport:
        """Read a report back from its folder or its ``losses.json``.

        Raises:
            RecordError: If it is missing, damaged, or of an unknown version.
        """
        return cls(LossRecord.load(path))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LossReport) and self.record == other.record

    def __hash__(self) -> int:
        return hash((self.record.title, self.record.created))

    def __repr__(self) -> str:
        record = self.record
        names = ", ".join(shorten(name) for name in record.heads)
        return (
            f"<LossReport '{shorten(record.title, 60)}': {names}; {_counted(len(record.runs), 'run')}, "
            f"{_counted(max(len(run.at) for run in record.runs), 'checkpoint')}; {_counted(len(record.findings), 'finding')}>"
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _choices(result: MeasureResult) -> str:
    values: dict[str, dict[str, None]] = {}
    for row in result.rows:
        for name, value in row.labels.items():
            values.setdefault(name, {})[value] = None
    return "; it has " + "; ".join(f"{name}: {_some(list(seen))}" for name, seen in values.items())


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(shorten(value, 30) for value in values[:6])
    return shown + (", ..." if len(values) > 6 else "")
