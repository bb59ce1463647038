"""All differences of a comparison, laid out to be read. Every number comes from the comparison. Imports no Dash."""

from __future__ import annotations

from mmaudit.figures.base import Table, cell
from mmaudit.report.changes import p_text
from mmaudit.report.comparison import ComparedMeasure, Comparison, Difference
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count, with_interval

__all__ = ["HEADERS", "gained_and_lost", "is_per_class", "measure_table"]

HEADERS = ("What", "Before", "After", "Difference", "p, corrected")


def measure_table(measure: ComparedMeasure, *, per_class: bool, most: int = 200) -> Table:
    """Rows of a measure.

    Args:
        measure: Of a comparison.
        per_class: Those about single classes, or those about all.
        most: At most so many rows.
    """
    rows = [row for row in measure.rows if is_per_class(row) == per_class]
    return Table(HEADERS, tuple((_about(row), *_cells(row)) for row in rows[:most]))


def is_per_class(row: Difference) -> bool:
    """Whether a row is about a single class."""
    return row.labels.get("class", "all") != "all"


def gained_and_lost(comparison: Comparison) -> str | None:
    """How many samples the second model gets right where the first does not, and the other way round."""
    names = comparison.modalities
    row = comparison.find("coalitions", coalition=coalition_name(names, names))
    if row is None or row.gained is None or row.lost is None:
        return None
    return (
        f"Of {count(comparison.samples)} samples, {count(row.gained)} are right only after "
        f"and {count(row.lost)} only before."
    )


def _about(row: Difference) -> str:
    return shorten(", ".join(f"{name} {value}" for name, value in row.labels.items()), 120)


def _cells(row: Difference) -> tuple[str, ...]:
    difference = with_interval(row.difference, 3, signed=True)
    return (
        cell(row.before, 3),
        cell(row.after, 3),
        difference + (" !" if row.difference.warning else ""),
        p_text(row.p_holm).removeprefix("p ") or "–",
    )
