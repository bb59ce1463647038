"""What each modality could say alone, and what the joint model takes from it: dumbbells between the two."""

from __future__ import annotations

from typing import Any, NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import (
    Table,
    hover,
    join_names,
    named_cells,
    no_values,
    score_word,
    subtitle,
)
from mmaudit.figures.estimates import by_labels, defined
from mmaudit.figures.marks import mark, write
from mmaudit.figures.theme import (
    NEUTRAL,
    Words,
    error_bars,
    make_figure,
    modality_styles,
    name_rows,
    say_nothing,
)
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "CapacityGapInfo",
    "CapacityGapRow",
    "capacity_gap_info",
    "capacity_gap_table",
    "plot_capacity_gap",
]

_KEY = "capacity_gap"
_MASKS = ("first", "second")


class CapacityGapRow(NamedTuple):
    """One modality."""

    modality: str
    alone: Estimate | None
    """Score of the model of the modality alone."""
    above_chance: Estimate | None
    gaps: dict[str, Estimate]
    """Mask -> what that model has over the joint model given the modality alone."""
    advantage: Estimate | None
    """What the joint model has over that model."""
    drop_without: Estimate | None
    """What the joint model has over a model without the modality."""

    def less(self, estimate: Estimate | None) -> float | None:
        """The score that differs from that of the modality alone by so much."""
        if self.alone is None or self.alone.value is None:
            return None
        if estimate is None or estimate.value is None:
            return None
        return self.alone.value - estimate.value

    @property
    def chance(self) -> float | None:
        """Score of the best constant prediction."""
        return self.less(self.above_chance)

    @property
    def joint(self) -> float | None:
        """Score of the joint model on the same samples."""
        away = self.less(self.advantage)
        return None if away is None or self.alone is None else 2 * (self.alone.value or 0.0) - away


class CapacityGapInfo(NamedTuple):
    """What the models of single modalities were compared with."""

    words: Words
    score: str
    """``accuracy``, or ``R2`` where numbers are predicted."""
    rows: tuple[CapacityGapRow, ...]
    undefined: str | None = None


def capacity_gap_info(report: AuditReport) -> CapacityGapInfo:
    """Collect the comparison with models of single modalities."""
    found = by_labels(report, _KEY, "modality", "quantity", "mask")
    rows = tuple(
        CapacityGapRow(
            name,
            found.get((name, "alone", "none")),
            found.get((name, "above chance", "none")),
            {mask: e for mask in _MASKS if (e := found.get((name, "gap", mask))) is not None},
            found.get((name, "joint advantage", "none")),
            found.get((name, "drop without", "none")),
        )
        for name in report.modalities
    )
    score = score_word(report)
    if not defined(e for row in rows for e in (row.alone, row.drop_without)):
        title = "Nothing was compared with models of single modalities"
        words, reason = no_values(report, _KEY, title, "No comparison has a value")
        return CapacityGapInfo(words, score, rows, reason)
    extra = ""
    second = getattr(report.record, "second_masks", {})
    if any("second" in row.gaps for row in rows) and second:
        kinds = list(dict.fromkeys(second.get(name, "unknown") for name in report.modalities))
        extra = f"second mask: {shorten(', '.join(kinds), 80)}"
    used = [e for row in rows for e in (row.alone, *row.gaps.values()) if e is not None]
    said = "; ".join(
        f"{row.modality}: alone {with_interval(row.alone)}"
        + "".join(
            f", {with_interval(gap, signed=True)} over the joint model given it alone ({mask} mask)"
            for mask, gap in row.gaps.items()
        )
        for row in rows
        if row.alone is not None and row.alone.value is not None
    )
    takeaway = f"{score} of models of single modalities. {said or 'None was named'}."
    return CapacityGapInfo(
        Words(_title(rows, score), subtitle(report, used, extra), takeaway), score, rows
    )


def plot_capacity_gap(info: CapacityGapInfo) -> go.Figure:
    """Draw, for each modality, the score alone (filled) and inside the joint model (open), with chance and the joint model."""
    drawn = [row for row in info.rows if row.alone is not None and row.alone.value is not None]
    if info.undefined is not None or not drawn:
        reason = info.undefined or "no model of a single modality was named; the table has the rest"
        return say_nothing(info.words, reason)
    names = tuple(row.modality for row in info.rows)
    figure = make_figure(info.words, height=80 + 52 * len(names), labels=names)
    styles = modality_styles(names)
    for y, row in enumerate(info.rows):
        if row.alone is None or row.alone.value is None:
            write(figure, 0, y, "no model of it alone", xshift=6)
            continue
        style = styles[row.modality]
        for place, (mask, gap) in enumerate(row.gaps.items()):
            inside = row.less(gap)
            if inside is None:
                continue
            height = y + (0.16 if place else 0.0)
            figure.add_scatter(
                x=[inside, row.alone.value],
                y=[height, y],
                mode="lines",
                line={"color": style.colour, "width": 1 if place else 3},
                hoverinfo="skip",
                showlegend=False,
            )
            said = f"{shorten(row.modality, 60)} inside the joint model, {mask} mask: {number(inside, 3)}; gap {hover(gap)}"
            symbol = "x-thin-open" if place else f"{style.symbol}-open"
            look = _look(symbol, style.colour, 9 if place else 12)
            figure.add_scatter(**mark(inside, height, look, said))
        for value, symbol, what in (
            (row.chance, "line-ns-open", "the best constant prediction"),
            (row.joint, "star-open", "the joint model given everything"),
        ):
            if value is not None:
                look = _look(symbol, NEUTRAL, 14)
                figure.add_scatter(**mark(value, y, look, f"{what}: {number(value, 3)}"))
        said = f"{shorten(row.modality, 60)} alone: {hover(row.alone)}"
        alone = mark(row.alone.value, y, _look(style.symbol, style.colour, 12), said)
        figure.add_scatter(**alone, error_x=error_bars([row.alone]))
    shown = [
        ("circle", "alone"),
        ("circle-open", "inside the joint model"),
        *([("x-thin-open", "the same, second mask")] * any("second" in r.gaps for r in drawn)),
        ("star-open", "joint model"),
        ("line-ns-open", "best constant"),
    ]
    # Room for the legend, two lines on a narrow page; its marks are in no modality's colour.
    room = 46
    figure.update_layout(
        margin={"t": figure.layout.margin.t + room}, height=figure.layout.height + room
    )
    for symbol, what in shown:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=what,
            marker=_look(symbol, NEUTRAL, 10),
        )  # fmt: skip
    figure.update_xaxes(title={"text": f"{info.score} ({'1' if info.score == 'R2' else 'fraction'})"})  # fmt: skip
    name_rows(figure, [shorten(name) for name in names])
    return figure


def capacity_gap_table(info: CapacityGapInfo) -> Table:
    """The same as a table, with what the joint model has over models without a modality."""
    masks = [mask for mask in _MASKS if any(mask in row.gaps for row in info.rows)]
    headers = (
        "Modality",
        f"Alone ({info.score})",
        "Above the best constant",
        *(f"Gap: alone less inside, {mask} mask" for mask in masks),
        "Joint model less alone",
        "Joint model less a model without",
    )
    rows = [
        (
            row.alone,
            row.above_chance,
            *(row.gaps.get(mask) for mask in masks),
            row.advantage,
            row.drop_without,
        )
        for row in info.rows
    ]
    return Table(headers, named_cells([row.modality for row in info.rows], rows))


def _look(symbol: str, colour: str, size: int) -> dict[str, Any]:
    return {"symbol": symbol, "color": colour, "size": size, "line": {"width": 2}}


def _title(rows: tuple[CapacityGapRow, ...], score: str) -> str:
    """Fusion that does harm first, then what is left unread."""
    worse = [
        (row.advantage.value, row)
        for row in rows
        if row.advantage is not None
        and row.advantage.value is not None
        and row.advantage.high is not None
        and row.advantage.high < 0
    ]
    if worse:
        value, row = min(worse, key=lambda pair: pair[0])
        alone = row.alone.value if row.alone is not None else None
        said = f" ({number(alone)})" if alone is not None else ""
        return f"{shorten(row.modality)} alone{said} beats the joint model by {number(-value)} of {score}"
    gaps = [
        (gap.value, row.modality)
        for row in rows
        if (gap := row.gaps.get("first")) is not None
        and gap.value is not None
        and gap.low is not None
        and gap.low > 0
    ]
    if gaps:
        value, name = max(gaps)
        more = [shorten(other) for _, other in gaps if other != name]
        also = (
            f"; {join_names(more)} {'has' if len(more) == 1 else 'have'} a gap too" if more else ""
        )
        least = f"{shorten(name)} alone reaches {number(value)} more {score} than the joint model reads from it"
        return f"{least}{also}"
    if any(row.gaps.get("first") and row.gaps["first"].value is not None for row in rows):
        return "From no modality does the joint model read less than a model of it alone"
    return "The joint model beside models without a modality"
