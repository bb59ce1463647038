"""What changed between two audits, laid out to be read and drawn. Every number comes from the comparison. Imports no Dash."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, hover
from mmaudit.figures.theme import (
    NEUTRAL,
    Words,
    error_bars,
    make_figure,
    modality_styles,
    plain,
    say_nothing,
)
from mmaudit.report.comparison import ComparedMeasure, Comparison, Difference
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count, number, with_interval

__all__ = [
    "HEADERS",
    "Change",
    "ChangesInfo",
    "changes_info",
    "changes_table",
    "main_changes",
    "measure_table",
    "p_text",
    "plot_changes",
]

HEADERS = ("What", "Before", "After", "Difference", "p, corrected", "Gained / lost")
_MOST_DRAWN = 24


class Change(NamedTuple):
    """One number that changed."""

    name: str
    modality: str | None
    row: Difference


class ChangesInfo(NamedTuple):
    """The differences that are drawn."""

    words: Words
    modalities: tuple[str, ...]
    changes: tuple[Change, ...]
    undefined: str | None = None


def main_changes(comparison: Comparison) -> tuple[Change, ...]:
    """The numbers that a diagnosis begins with: the accuracy, then what the model makes of each modality."""
    names = comparison.modalities
    found: list[tuple[str, str | None, Difference | None]] = [
        ("Accuracy", None, comparison.find("coalitions", coalition=coalition_name(names, names)))
    ]
    kinds: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("Contribution of {}", "contributions", {}),
        ("Utilization of {} given rest", "utilization", {"given": "rest"}),
        ("Response accuracy of {}", "responses", {}),
    )
    for title, measure, labels in kinds:
        for name in names:
            row = comparison.find(measure, modality=name, **labels)
            found.append((title.replace("{}", shorten(name)), name, row))
    return tuple(Change(title, name, row) for title, name, row in found if row is not None)


def changes_info(comparison: Comparison) -> ChangesInfo:
    """Collect the differences with a value."""
    shown = tuple(c for c in main_changes(comparison) if c.row.difference.value is not None)
    names = comparison.modalities
    if not shown:
        reason = "no number has a value in both records"
        return ChangesInfo(Words("Nothing can be compared", "", f"{reason}."), names, (), reason)
    methods = list(dict.fromkeys(c.row.difference.method for c in shown if c.row.difference.method))
    subtitle = f"after less before; n = {count(comparison.samples)}"
    if comparison.groups is not None:
        subtitle += f" in {count(comparison.groups)} groups"
    subtitle += "; the same samples in both"
    if methods:
        subtitle += f"; 95 % intervals: {' or '.join(methods[:2])}"
    takeaway = "; ".join(
        f"{c.name}: {with_interval(c.row.difference, 3, signed=True)}" for c in shown
    )
    words = Words(_title(shown), subtitle, f"Differences. {takeaway}.")
    return ChangesInfo(words, names, shown[:_MOST_DRAWN])


def plot_changes(info: ChangesInfo) -> go.Figure:
    """Draw each difference with its interval, beside the line of no change."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    labels = [c.name for c in info.changes]
    figure = make_figure(info.words, height=70 + 32 * len(labels), labels=labels)
    styles = modality_styles(info.modalities)
    for y, change in enumerate(info.changes):
        style = styles.get(change.modality) if change.modality is not None else None
        estimate = change.row.difference
        figure.add_scatter(
            x=[estimate.value],
            y=[y],
            mode="markers",
            marker={
                "symbol": style.symbol if style else "diamond-tall",
                "color": style.colour if style else NEUTRAL,
                "size": 11,
            },
            error_x=error_bars([estimate]),
            customdata=[[plain(f"{change.name}: {hover(estimate)}")]],
            hovertemplate="%{customdata[0]}<extra></extra>",
            showlegend=False,
        )
    figure.update_xaxes(
        title={"text": "difference (fraction of the samples, or of the accuracy)"}, zeroline=True
    )
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=[plain(shorten(name, 40)) for name in labels],
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return figure


def changes_table(changes: tuple[Change, ...]) -> Table:
    """The same as a table."""
    return Table(HEADERS, tuple((shorten(c.name, 80), *_cells(c.row)) for c in changes))


def measure_table(measure: ComparedMeasure, *, per_class: bool, most: int = 200) -> Table:
    """All rows of a measure.

    Args:
        measure: Of a comparison.
        per_class: Those about single classes, or those about all.
        most: At most so many rows.
    """
    chosen = [row for row in measure.rows if (row.labels.get("class", "all") != "all") == per_class]
    rows = tuple(
        (
            shorten(", ".join(f"{name} {value}" for name, value in row.labels.items()), 120),
            *_cells(row),
        )
        for row in chosen[:most]
    )
    return Table(HEADERS, rows)


def p_text(p: float | None) -> str:
    """Write a p-value.

    Example:
        >>> p_text(0.0204), p_text(0.00002), p_text(1.0), p_text(None)
        ('.020', '< .001', '1.000', '–')
    """
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else number(p, 3)


def _cells(row: Difference) -> tuple[str, ...]:
    moved = (
        "–"
        if row.gained is None or row.lost is None
        else f"{count(row.gained)} / {count(row.lost)}"
    )
    return (
        with_interval(row.before, 3),
        with_interval(row.after, 3),
        with_interval(row.difference, 3, signed=True) + (" !" if row.difference.warning else ""),
        p_text(row.p_holm),
        moved,
    )


def _title(shown: tuple[Change, ...]) -> str:
    """The accuracy, and what changed most among the modalities."""
    parts = []
    first = shown[0]
    if first.modality is None:
        parts.append(f"accuracy {number(first.row.difference.value or 0.0, 3, signed=True)}")
    rest = [c for c in shown if c.modality is not None]
    if rest:
        most = max(rest, key=lambda c: abs(c.row.difference.value or 0.0))
        name = most.name[:1].lower() + most.name[1:]
        parts.append(f"{name} {number(most.row.difference.value or 0.0, 3, signed=True)}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]
