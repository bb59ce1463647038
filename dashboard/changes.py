"""All differences of a comparison, laid out to be read. Every number comes from the comparison. Imports no Dash."""

from __future__ import annotations

from mmaudit.figures.base import Table, cell
from mmaudit.report.changes import p_text
from mmaudit.report.comparison import ComparedMeasure, Comparison, Difference
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count, with_interval
from mmaudit.report.sides import Sides, model_name, sides_of

__all__ = ["gained_and_lost", "is_per_class", "measure_table"]


def measure_table(
    measure: ComparedMeasure, sides: Sides, *, per_class: bool, most: int = 200
) -> Table:
    """Rows of a measure.

    Args:
        measure: Of a comparison.
        sides: What its two records are called.
        per_class: Those about single classes, or those about all.
        most: At most so many rows.
    """
    rows = [row for row in measure.rows if is_per_class(row) == per_class]
    headers = ("What", shorten(sides.before), shorten(sides.after), "Difference", "p, corrected")
    return Table(headers, tuple((_about(row), *_cells(row)) for row in rows[:most]))


def is_per_class(row: Difference) -> bool:
    """Whether a row is about a single class."""
    return row.labels.get("class", "all") != "all"


def gained_and_lost(comparison: Comparison) -> str | None:
    """How many samples the second model gets right where the first does not, and the other way round."""
    names = comparison.modalities
    row = comparison.find("coalitions", coalition=coalition_name(names, names))
    if row is None or row.gained is None or row.lost is None:
        return None
    sides = sides_of(comparison.before, comparison.after)
    if sides.against:
        first = f"with {model_name(comparison.before, comparison.after)}"
        second = f"with {model_name(comparison.after, comparison.before)}"
    else:
        first, second = "before", "after"
    return (
        f"Of {count(comparison.samples)} samples, {count(row.gained)} are right only {second} "
        f"and {count(row.lost)} only {first}."
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
