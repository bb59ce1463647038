"""Overfitting-to-generalization ratio along the training, with the generalization it is relative to beside it.

An OGR near 0 where nothing was learnt looks good and is not: the two panels are read together.
"""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import Table, cell
from mmaudit.figures.loss_parts import (
    Course,
    axis_title,
    courses,
    head_styles,
    legend_below,
    loss_subtitle,
    shown_heads,
    thinned,
    translucent,
    undefined_losses,
)
from mmaudit.figures.theme import Style, Words, make_figure, plain, say_nothing
from mmaudit.report.labels import shorten
from mmaudit.report.loss_outcomes import numbers_apart, ogr_margin
from mmaudit.report.loss_record import ALL_RUNS, LossRecord
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import Estimate

__all__ = ["OGRInfo", "ogr_info", "ogr_table", "plot_ogr"]

_CUMULATIVE = "cumulative"
_LEAST = 1e-3
_MOST = 1e4


class HeadOGR(NamedTuple):
    """OGR and dG of one head."""

    head: str
    style: Style
    ratio: Course
    """Since the first checkpoint."""
    gained: Course
    """dG since the first checkpoint."""
    local: Course
    """OGR between checkpoints that are one lag apart."""


class OGRInfo(NamedTuple):
    """The trajectories of all heads."""

    words: Words
    heads: tuple[HeadOGR, ...]
    axis: str
    lag: str
    undefined: str | None = None


def ogr_info(record: LossRecord) -> OGRInfo:
    """Collect the trajectories of a record; heads whose losses cannot be compared are left out."""
    undefined = undefined_losses(record, "ogr")
    lag = str(record.settings.get("lag", 1))
    styles = head_styles(record)
    usable = [head for head in shown_heads(record) if head not in record.unusable]
    if undefined is None and not usable:
        undefined = "the train and validation losses of no head can be compared"
    if undefined is not None:
        words = Words("There is no OGR to draw", loss_subtitle(record), f"{undefined}.")
        return OGRInfo(words, (), axis_title(record), lag, undefined)
    since, near = courses(record, "ogr", lag=_CUMULATIVE), courses(record, "ogr", lag=lag)
    nothing = Course((), ())
    heads = tuple(
        HeadOGR(
            head,
            styles[head],
            since.get((head, "OGR"), nothing),
            since.get((head, "dG"), nothing),
            near.get((head, "OGR"), nothing),
        )
        for head in usable
    )
    whole = {
        row.labels["head"]: row.estimate
        for row in record.rows("overfitting", run=ALL_RUNS, quantity="OGR")
    }
    ends = {h.head: whole[h.head] for h in heads if h.head in whole}
    written = dict(zip(ends, numbers_apart(list(ends.values())), strict=True))
    told = [
        f"{shorten(h.head, 40)}: OGR {_marked(written, ends, h.head)}, dG {cell(h.gained.estimates[-1], 3)}"
        for h in heads
        if h.gained.estimates
    ]
    left = [shorten(head, 30) for head in record.heads if head in record.unusable]
    extra = "since the first checkpoint; dotted: " + (
        "from one checkpoint to the next" if lag == "1" else f"over {lag} checkpoints"
    )
    if left:
        extra += f"; without {', '.join(left[:4])}, whose losses cannot be compared"
    return OGRInfo(
        Words(_title(ends), loss_subtitle(record, extra), "; ".join(told) + "."),
        heads,
        axis_title(record),
        lag,
    )


def plot_ogr(info: OGRInfo) -> go.Figure:
    """Draw OGR on a logarithmic axis, and dG beside it."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    make_figure(info.words, height=340, figure=figure, columns=26)
    for found in info.heads:
        _add_course(figure, found, found.ratio, "OGR", 1, banded=True, positive=True)
        _add_course(figure, found, found.gained, "dG", 2, banded=True)
        figure.add_scatter(
            x=found.local.at,
            y=[_clipped(v) for v in found.local.values],
            mode="lines",
            line={"color": translucent(found.style.colour, 0.55), "width": 1, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=plain(found.head),
            row=1,
            col=1,
        )
    figure.add_hline(y=1, line={"color": "#7f8793", "width": 1, "dash": "dash"}, row=1, col=1)
    figure.update_yaxes(type="log", title={"text": "OGR, |dO / dG| (ratio)"}, dtick=1, row=1, col=1)
    figure.update_yaxes(
        title={"text": "dG, fall of the validation loss"}, zeroline=True, row=1, col=2
    )
    figure.update_xaxes(title={"text": info.axis}, zeroline=False)
    legend_below(figure, [shorten(found.head, 30) for found in info.heads])
    return figure


def ogr_table(info: OGRInfo) -> Table:
    """The same as a table; of many checkpoints every so many."""
    if not info.heads:
        return Table((), ())
    headers = [info.axis.capitalize()]
    for found in info.heads:
        name = shorten(found.head, 20)
        headers += [f"{name}, OGR", f"{name}, dG", f"{name}, OGR of lag {info.lag}"]
    places = sorted({at for found in info.heads for at in found.ratio.at})
    columns = [
        (dict(zip(course.at, course.estimates, strict=True)), digits)
        for found in info.heads
        for course, digits in ((found.ratio, 3), (found.gained, 3), (found.local, 3))
    ]
    rows = [
        (f"{places[i]:g}", *(cell(of.get(places[i]), digits) for of, digits in columns))
        for i in thinned(len(places))
    ]
    return Table(tuple(headers), tuple(rows))


def _title(ends: dict[str, Estimate]) -> str:
    """The highest OGR; that it is the highest only where it is so by more than counts as none, and by more than the intervals."""
    known = {head: e for head, e in ends.items() if e.value is not None}
    if not known:
        return "OGR is undefined at the end: the validation losses did not change"
    ranked = sorted(known, key=lambda head: -(known[head].value or 0.0))
    most = ranked[0]
    if len(ranked) == 1:
        return (
            f"Over the whole training OGR is {with_interval(known[most])} for {shorten(most, 40)}"
        )
    first, second = known[most], known[ranked[1]]
    shown = numbers_apart([first, second])
    title = f"Over the whole training OGR is {shown[0]} for {shorten(most, 40)}"
    values = first.value or 0.0, second.value or 0.0
    if values[0] - values[1] <= ogr_margin(*values):
        return f"{title}, about the same as for {shorten(ranked[1], 40)}: {shown[1]}"
    if first.low is not None and second.high is not None and first.low <= second.high:
        return f"{title}, and the intervals overlap for {shorten(ranked[1], 40)}: {shown[1]}"
    return f"{title}, the highest"


def _marked(written: dict[str, str], ends: dict[str, Estimate], head: str) -> str:
    return f"{written.get(head, '–')}{' !' if head in ends and ends[head].warning else ''}"


def _add_course(
    figure: go.Figure,
    found: HeadOGR,
    drawn: Course,
    name: str,
    column: int,
    *,
    banded: bool,
    positive: bool = False,
) -> None:
    values = [_clipped(v) if positive else v for v in drawn.values]
    if banded and drawn.banded:
        ends = [
            (at, e.low, e.high)
            for at, e in zip(drawn.at, drawn.estimates, strict=True)
            if e.low is not None and e.high is not None
        ]
        xs = [at for at, _, _ in ends]
        low = [_clipped(x) if positive else x for _, x, _ in ends]
        high = [_clipped(x) if positive else x for _, _, x in ends]
        figure.add_scatter(
            x=[*xs, *reversed(xs)],
            y=[*high, *reversed(low)],
            mode="lines",
            fill="toself",
            fillcolor=translucent(found.style.colour, 0.15),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=plain(found.head),
            row=1,
            col=column,
        )
    figure.add_scatter(
        x=drawn.at,
        y=values,
        mode="lines+markers" if len(drawn.at) <= 40 else "lines",
        name=plain(shorten(found.head, 30)),
        legendgroup=plain(found.head),
        showlegend=column == 1,
        line={"color": found.style.colour, "width": 2},
        marker={"symbol": found.style.symbol, "size": 6},
        customdata=[
            [plain(f"{shorten(found.head, 40)}, {name} {with_interval(e, 3)}")]
            for e in drawn.estimates
        ],
        hovertemplate="%{x}: %{customdata[0]}<extra></extra>",
        row=1,
        col=column,
    )


def _clipped(value: float | None) -> float | None:
    """A ratio as a logarithmic axis can show it; what is smaller or larger lies on its edge."""
    return None if value is None else min(max(value, _LEAST), _MOST)
