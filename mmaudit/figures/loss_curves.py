"""Train and validation loss of each head, the gap between them shaded, with the best checkpoint and where overfitting begins."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import Table, cell, join_names
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
from mmaudit.report.loss_record import ALL_RUNS, LossRecord
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import Estimate

__all__ = ["LossCurvesInfo", "loss_curves_info", "loss_curves_table", "plot_loss_curves"]

_HEIGHT = 230
_FAINT_RUNS = 12
_NAMED = 4
_FEWEST = 3


class HeadCurves(NamedTuple):
    """What is drawn of one head."""

    head: str
    style: Style
    train: Course
    validation: Course
    runs: tuple[tuple[list[float], list[float], list[float]], ...]
    """Places, train and validation losses of single runs, where there are several."""
    best: Estimate | None
    onset: Estimate | None


class LossCurvesInfo(NamedTuple):
    """The losses of all heads."""

    words: Words
    heads: tuple[HeadCurves, ...]
    axis: str
    undefined: str | None = None


def loss_curves_info(record: LossRecord) -> LossCurvesInfo:
    """Collect the losses of a record."""
    undefined = undefined_losses(record, "losses")
    if undefined is not None:
        words = Words("There are no losses to draw", loss_subtitle(record), f"{undefined}.")
        return LossCurvesInfo(words, (), axis_title(record), undefined)
    styles = head_styles(record)
    drawn = courses(record, "losses")
    heads = tuple(
        HeadCurves(
            head,
            styles[head],
            drawn[head, "train"],
            drawn[head, "validation"],
            tuple(run.of_head(head) for run in record.runs[:_FAINT_RUNS])
            if len(record.runs) > 1
            else (),
            _turn(record, head, "best checkpoint"),
            # Of losses that cannot be compared it would say where two different things part.
            None if head in record.unusable else _turn(record, head, "first overfitting"),
        )
        for head in shown_heads(record)
    )
    told = [
        f"{shorten(h.head, 40)}: train loss {cell(h.train.estimates[0], 3)} to {cell(h.train.estimates[-1], 3)}, validation loss "
        f"{cell(h.validation.estimates[0], 3)} to {cell(h.validation.estimates[-1], 3)}"
        for h in heads
    ]
    extra = "shaded: the overfitting gap, validation less train loss"
    words = Words(_title(record, heads), loss_subtitle(record, extra), "; ".join(told) + ".")
    return LossCurvesInfo(words, heads, axis_title(record))


def plot_loss_curves(info: LossCurvesInfo) -> go.Figure:
    """Draw a panel for each head: train loss dashed, validation loss solid, the gap shaded."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    wide = 2 if len(info.heads) > 1 else 1
    deep = -(-len(info.heads) // wide)
    figure = make_subplots(
        rows=deep,
        cols=wide,
        subplot_titles=[plain(shorten(h.head, 30)) for h in info.heads],
        horizontal_spacing=0.1,
        vertical_spacing=min(0.25, 0.32 / deep),
    )
    titles = tuple(figure.layout.annotations)
    make_figure(info.words, height=60 + _HEIGHT * deep, figure=figure, columns=12 * wide)
    for title in titles:
        title.update(font={"size": 13}, yshift=2)
    for place, curves in enumerate(info.heads):
        row, column = place // wide + 1, place % wide + 1
        _draw_head(figure, curves, row, column)
        figure.update_xaxes(
            title={"text": info.axis if place >= len(info.heads) - wide else ""},
            zeroline=False, row=row, col=column,
        )  # fmt: skip
        figure.update_yaxes(title={"text": "loss"}, zeroline=False, row=row, col=column)
    for name, dash in (("validation loss", "solid"), ("train loss", "dash")):
        figure.add_scatter(
            x=[None], y=[None], mode="lines", name=name, line={"color": "#7f8793", "dash": dash}
        )
    legend_below(figure, ("validation loss", "train loss"))
    return figure


def loss_curves_table(info: LossCurvesInfo) -> Table:
    """The same as a table; of many checkpoints every so many."""
    if not info.heads:
        return Table((), ())
    headers = [info.axis.capitalize()]
    for curves in info.heads:
        name = shorten(curves.head, 20)
        headers += [f"{name}, train", f"{name}, validation"]
    places = sorted({at for curves in info.heads for at in curves.train.at})
    found = [
        dict(zip(course.at, course.estimates, strict=True))
        for curves in info.heads
        for course in (curves.train, curves.validation)
    ]
    rows = [
        (f"{places[i]:g}", *(cell(course.get(places[i]), 3) for course in found))
        for i in thinned(len(places))
    ]
    return Table(tuple(headers), tuple(rows))


def _title(record: LossRecord, heads: tuple[HeadCurves, ...]) -> str:
    """Which heads overfit; of those alone whose losses can be compared and do not break off."""
    turning = [h.head for h in heads if h.onset is not None and h.onset.value is not None]
    shown = [shorten(name, 40) for name in turning]
    if shown:
        who = (
            join_names(shown)
            if len(shown) <= _NAMED
            else f"{len(shown)} of {len(record.heads)} heads"
        )
        verb = "overfits" if len(shown) == 1 else "overfit"
        return f"{who} {verb}: the validation loss rises while the train loss falls"
    left = set(record.unusable) | set(record.diverged)
    judged = [h.head for h in heads if h.head not in left and len(h.train.at) >= _FEWEST]
    if not judged:
        return "Train and validation losses; too little of them to say whether a head overfits"
    if len(judged) == len(heads):
        return "No rise of a validation loss beyond the noise was found"
    who = join_names([shorten(name, 40) for name in judged])
    if len(judged) > _NAMED:
        who = f"{len(judged)} of {len(heads)} heads"
    return f"No rise of the validation loss beyond the noise was found of {who}"


def _draw_head(figure: go.Figure, curves: HeadCurves, row: int, column: int) -> None:
    colour = curves.style.colour
    where = {"row": row, "col": column}
    for at, *both in curves.runs:
        for values, dash in zip(both, ("dash", "solid"), strict=True):
            figure.add_scatter(
                x=at, y=values, mode="lines", hoverinfo="skip", showlegend=False,
                line={"color": translucent(colour, 0.25), "width": 1, "dash": dash}, **where,
            )  # fmt: skip
    train, validation = curves.train, curves.validation
    # The gap is shaded where the validation loss is the higher one: the fill goes from the train loss to the higher of both.
    upper = [
        None if v is None or t is None else max(v, t)
        for v, t in zip(validation.values, train.values, strict=True)
    ]
    quiet = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "line": {"width": 0}}
    figure.add_scatter(x=train.at, y=train.values, **quiet, **where)
    figure.add_scatter(
        x=validation.at,
        y=upper,
        fill="tonexty",
        fillcolor=translucent(colour, 0.18),
        **quiet,
        **where,
    )
    marks = "lines+markers" if len(train.at) <= 40 else "lines"
    for name, found, dash in (("validation", validation, "solid"), ("train", train, "dash")):
        figure.add_scatter(
            x=found.at,
            y=found.values,
            mode=marks,
            showlegend=False,
            name=name,
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 5, "symbol": curves.style.symbol},
            customdata=[
                [plain(f"{shorten(curves.head, 40)}, {name} {with_interval(e, 3)}")]
                for e in found.estimates
            ],
            hovertemplate="%{x}: %{customdata[0]}<extra></extra>",
            **where,
        )
    if curves.onset is not None and curves.onset.value is not None:
        if curves.onset.low is not None and curves.onset.high is not None:
            figure.add_vrect(
                x0=curves.onset.low, x1=curves.onset.high, line_width=0,
                fillcolor="#7f8793", opacity=0.15, **where,
            )  # fmt: skip
        figure.add_vline(
            x=curves.onset.value, line={"color": "#7f8793", "width": 1.5, "dash": "dot"},
            annotation={"text": "overfits from here", "font": {"size": 11}, "yanchor": "top"}, **where,
        )  # fmt: skip


def _turn(record: LossRecord, head: str, quantity: str) -> Estimate | None:
    rows = record.rows("overfitting", head=head, run=ALL_RUNS, quantity=quantity)
    return rows[0].estimate if rows else None
