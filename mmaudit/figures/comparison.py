"""What a remedy changed: the main numbers of two records side by side, each with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, cell, hover
from mmaudit.figures.estimates import reach
from mmaudit.figures.marks import mark, write
from mmaudit.figures.theme import (
    NEUTRAL,
    Words,
    error_bars,
    make_figure,
    modality_styles,
    name_rows,
    plain,
    say_nothing,
)
from mmaudit.report.changes import Change, main_changes, p_text
from mmaudit.report.comparison import Comparison
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sides import sides_of

__all__ = ["ComparisonInfo", "comparison_info", "comparison_table", "plot_comparison"]

_MOST_MODALITIES = 6
_APART = 0.16
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ComparisonInfo(NamedTuple):
    """The main numbers of a comparison, in the order in which they are drawn."""

    words: Words
    modalities: tuple[str, ...]
    """All of them, for their colours."""
    changes: tuple[Change, ...]
    """Accuracy first; all in the same unit, a fraction."""
    undefined: str | None = None
    """Why there is nothing to draw."""
    sides: tuple[str, str] = ("Before", "After")
    """What the two records are called."""


def comparison_info(comparison: Comparison) -> ComparisonInfo:
    """Collect the main numbers of a comparison.

    Of more than six modalities those are taken that changed most; the subtitle says so.
    """
    names = comparison.modalities
    side = sides_of(comparison.before, comparison.after)
    sides = (shorten(side.before), shorten(side.after))
    first, second = _legend(sides)
    changes = main_changes(names, comparison.measures)
    known = tuple(c for c in changes if c.row.difference.value is not None)
    if not known:
        reason = "no number has a value in both records"
        words = Words("Nothing can be compared", _subtitle(comparison, ()), f"{reason}.")
        return ComparisonInfo(words, names, changes, reason, sides)
    extra = ""
    if len(names) > _MOST_MODALITIES:
        sizes = dict.fromkeys(names, 0.0)
        for change in known:
            if change.modality is not None:
                size = abs(change.row.difference.value or 0.0)
                sizes[change.modality] = max(sizes[change.modality], size)
        most = sorted(names, key=lambda name: -sizes[name])[:_MOST_MODALITIES]
        changes = tuple(c for c in changes if c.modality is None or c.modality in most)
        extra = f"the {_MOST_MODALITIES} of {len(names)} modalities that changed most"
    takeaway = "; ".join(
        f"{c.name} {with_interval(c.row.before)} {first}, {with_interval(c.row.after)} {second}, "
        f"difference {with_interval(c.row.difference, signed=True)}"
        for c in changes
    )
    words = Words(comparison.verdict.headline, _subtitle(comparison, known, extra), f"{takeaway}.")
    return ComparisonInfo(words, names, changes, sides=sides)


def plot_comparison(info: ComparisonInfo) -> go.Figure:
    """Draw each number before (hollow) and after (filled) with its interval, and by how much it changed behind them."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    labels = [change.name for change in info.changes]
    figure = make_figure(info.words, height=90 + 40 * len(labels), labels=labels)
    styles = modality_styles(info.modalities)
    called = dict(zip(("before", "after"), _legend(info.sides), strict=True))
    shown = []
    for side, offset in (("before", -_APART), ("after", _APART)):
        for y, change in enumerate(info.changes):
            estimate: Estimate = getattr(change.row, side)
            if estimate.value is None:
                continue
            style = styles[change.modality] if change.modality is not None else None
            colour = style.colour if style else NEUTRAL
            symbol = style.symbol if style else "diamond-wide"
            marker = {
                "symbol": f"{symbol}-open" if side == "before" else symbol,
                "color": colour,
                "size": 11,
                "line": {"color": colour, "width": 2},
            }
            said = f"{change.name} {called[side]}: {hover(estimate)}"
            figure.add_scatter(
                **mark(estimate.value, y + offset, marker, said),
                error_x={**error_bars([estimate]), "color": colour},
                name=plain(called[side]),
            )
            shown.append(estimate)
    # Room for the legend between subtitle and drawing; one entry for each side, in no modality's colour.
    figure.update_layout(
        margin={"t": figure.layout.margin.t + 26}, height=figure.layout.height + 26
    )
    for side, symbol in (("before", "circle-open"), ("after", "circle")):
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": symbol, "color": NEUTRAL, "size": 11},
            name=plain(called[side]),
        )
    low, high = reach(shown)
    spread = max(high - low, 0.01)
    for y, change in enumerate(info.changes):
        write(figure, high + 0.06 * spread, y, _said(change))
    step = next((step for step in _STEPS if spread / step <= 6), _STEPS[-1])
    figure.update_xaxes(
        title={"text": _unit(info.changes)},
        # Ticks end with the numbers; the room behind them is for the differences.
        tickvals=[
            k * step
            for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        ],
        range=[low - 0.06 * spread, high + 0.75 * spread],
        zeroline=True,
    )
    name_rows(figure, [shorten(name, 40) for name in labels], edge=0.5)
    return figure


def _legend(sides: tuple[str, str]) -> tuple[str, str]:
    """Names of remedies keep their capitals."""
    return ("before", "after") if sides == ("Before", "After") else sides


def _unit(changes: tuple[Change, ...]) -> str:
    score = next((change.kind for change in changes if change.modality is None), "accuracy")
    if score == "accuracy":
        return "fraction of the samples (utilization: of the accuracy)"
    return f"{score} (utilization: fraction of it)"


def comparison_table(info: ComparisonInfo) -> Table:
    """The same as a table."""
    rows = tuple(
        (
            shorten(c.name, 60),
            cell(c.row.before, 3),
            cell(c.row.after, 3),
            with_interval(c.row.difference, 3, signed=True)
            + (" !" if c.row.difference.warning else ""),
            p_text(c.row.p_holm).removeprefix("p ") or "–",
        )
        for c in info.changes
    )
    return Table(("What", *info.sides, "Difference", "p, corrected"), rows)


def _said(change: Change) -> str:
    row = change.row
    if row.difference.value is None:
        return "no difference: undefined"
    text = with_interval(row.difference, 2 if change.modality else 3, signed=True)
    mark = " !" if row.difference.warning else ""
    return f"{text}{mark}  {p_text(row.p_holm)}".rstrip()


def _subtitle(comparison: Comparison, changes: tuple[Change, ...], extra: str = "") -> str:
    parts = [f"the same {count(comparison.samples)} samples in both"]
    if comparison.groups is not None:
        parts[0] += f", {count(comparison.groups)} groups"
    masks = dict.fromkeys(comparison.masks.values())
    parts.append(f"mask: {shorten(', '.join(masks) or 'unknown', 80)}")
    methods = dict.fromkeys(c.row.difference.method for c in changes if c.row.difference.method)
    if methods:
        parts.append(f"differences with 95 % intervals: {' or '.join(list(methods)[:2])}")
    if any(c.row.difference.warning for c in changes):
        parts.append("some intervals come with a warning")
    return "; ".join([*parts, extra] if extra else parts)
