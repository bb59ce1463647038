"""How much the model knows from each modality: score and loss of the mono-modal Shapley responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import (
    Table,
    cell,
    cell_word,
    defined,
    hover,
    missing_reason,
    score_word,
    second_score,
    subtitle,
)
from mmaudit.figures.theme import (
    NEUTRAL,
    Words,
    error_bars,
    make_figure,
    modality_styles,
    plain,
    say_nothing,
)
from mmaudit.report import AuditReport
from mmaudit.report.labels import response_score, shorten, task_of
from mmaudit.report.numbers import NO_RESPONSE, number, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import find

__all__ = ["ResponsesInfo", "plot_responses", "responses_info", "responses_table"]

_RULES = ("exact", "zero")


class ResponsesInfo(NamedTuple):
    """Responses of all modalities; the second index is the empty coalition's value: exact, or zero."""

    words: Words
    modalities: tuple[str, ...]
    scores: tuple[tuple[Estimate, ...], ...]
    """Acc^m, in [0, 1]; of a regression R2, at most 1."""
    losses: tuple[tuple[Estimate, ...], ...]
    """s^m, nats; of a regression the mean squared error."""
    classes: int
    """K; a guess is right in 1/K and has a loss of ln K where classes are equally frequent. 0: unknown, or there is no such guess."""
    score: str = "accuracy"
    loss_unit: str = "nats"
    undefined: str | None = None


def responses_info(report: AuditReport) -> ResponsesInfo:
    """Collect the responses of a report."""
    names, score = report.modalities, score_word(report)
    scores = tuple(_both(report, name, response_score(task_of(report.record))) for name in names)
    losses = tuple(_both(report, name, "s") for name in names)
    exact = [pair[0] for pair in scores]
    silent = [
        name for name, e in zip(names, exact, strict=True) if NO_RESPONSE in (e.undefined or "")
    ]
    known = sorted(
        (
            (e.value, shorten(name))
            for name, e in zip(names, exact, strict=True)
            if e.value is not None
        ),
        reverse=True,
    )
    unit = second_score(report)[1]
    K = len(report.classes) if cell_word(report) == "class" else 0
    everything = [e for pair in (*scores, *losses) for e in pair]
    if not defined(everything) and not silent:
        reason = missing_reason(report, "responses")
        words = Words(
            "The responses are undefined",
            subtitle(report, ()),
            f"No response has a value: {reason}.",
        )
        return ResponsesInfo(words, names, scores, losses, K, score, unit, reason)
    if not known:
        title = (
            "The model responds to no modality"
            if silent
            else f"The {score} of the responses is undefined"
        )
    elif len(known) == 1:
        title = f"The response to {known[0][1]} alone {_gets(score, known[0][0])}"
    else:
        title = (
            f"The response to {known[0][1]} {_gets(score, known[0][0])}, "
            f"to {known[-1][1]} {number(known[-1][0])}"
        )
    if known and silent:
        title += f"; no response to {shorten(silent[0])}" + (
            f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        )
    takeaway = "; ".join(
        f"{name}: {score} {with_interval(acc[0])}, loss {with_interval(loss[0])} {unit}"
        for name, acc, loss in zip(names, scores, losses, strict=True)
    )
    words = Words(
        title,
        subtitle(report, exact, "filled marks: empty coalition exact, open marks: zero"),
        f"Mono-modal responses. {takeaway}.",
    )
    return ResponsesInfo(words, names, scores, losses, K, score, unit)


def plot_responses(info: ResponsesInfo) -> go.Figure:
    """Draw Acc^m above s^m: filled marks with the empty coalition's exact value, open marks with zero in its place."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    M = len(info.modalities)
    figure = make_subplots(rows=2, cols=1, vertical_spacing=min(0.5, 75 / (150 + 80 * M)))
    make_figure(info.words, height=190 + 84 * M, figure=figure, labels=info.modalities)
    _add_marks(figure, info.modalities, info.scores, row=1)
    _add_marks(figure, info.modalities, info.losses, row=2)
    if info.classes > 1:
        _mark_guess(figure, 1 / info.classes, "guess, 1/K", row=1)
        _mark_guess(figure, math.log(info.classes), "guess, ln K", row=2)
    figure.update_xaxes(
        title={
            "text": f"response {info.score}{', Acc' if info.score == 'accuracy' else ''} (fraction)"
        },
        range=[min(-0.02, 1.05 * _lowest(info)), 1.02],
        row=1,
        col=1,
    )
    figure.update_xaxes(
        title={"text": f"response loss, s ({info.loss_unit}, less is better)"},
        rangemode="tozero",
        row=2,
        col=1,
    )
    figure.update_yaxes(
        tickvals=list(range(M)),
        ticktext=[plain(shorten(name)) for name in info.modalities],
        range=[M - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    return figure


def responses_table(info: ResponsesInfo) -> Table:
    """The same as a table."""
    rows = [
        (name, *(cell(e) for e in (*accuracy, *loss)))
        for name, accuracy, loss in zip(info.modalities, info.scores, info.losses, strict=True)
    ]
    score, loss = info.score[:1].upper() + info.score[1:], f"Loss in {info.loss_unit}"
    headers = ("Modality", *(f"{what}, empty {rule}" for what in (score, loss) for rule in _RULES))
    return Table(headers, tuple(rows))


def _gets(score: str, value: float) -> str:
    return (
        f"gets {number(value)} right" if score == "accuracy" else f"reaches {score} {number(value)}"
    )


def _lowest(info: ResponsesInfo) -> float:
    """R2 may lie below 0; far below says no more than below -1."""
    ends = [
        end for pair in info.scores for e in pair for end in (e.value, e.low) if end is not None
    ]
    return max(min([0.0, *ends]), -1.0)


def _mark_guess(figure: go.Figure, x: float, text: str, *, row: int) -> None:
    figure.add_vline(
        x=x,
        line={"color": NEUTRAL, "dash": "dot", "width": 1.5},
        annotation={
            "text": text,
            "font": {"size": 11},
            "yanchor": "bottom",
            "y": 1,
            "x": x,
            "xanchor": "center",
        },
        row=row,
        col=1,
    )


def _both(report: AuditReport, name: str, quantity: str) -> tuple[Estimate, ...]:
    missing = Estimate(undefined=missing_reason(report, "responses"))
    return tuple(
        find(report.record, "responses", modality=name, quantity=quantity, empty=rule) or missing
        for rule in _RULES
    )


def _add_marks(
    figure: go.Figure,
    modalities: Sequence[str],
    estimates: Sequence[Sequence[Estimate]],
    *,
    row: int,
) -> None:
    styles = modality_styles(modalities)
    for y, (name, pair) in enumerate(zip(modalities, estimates, strict=True)):
        if all(e.value is None for e in pair):
            figure.add_annotation(
                x=0,
                y=y,
                text=plain(with_interval(pair[0])),
                showarrow=False,
                xanchor="left",
                xshift=6,
                row=row,
                col=1,
            )
            continue
        for shift, rule, open_, e in zip((-0.12, 0.12), _RULES, ("", "-open"), pair, strict=True):
            if e.value is None:
                continue
            figure.add_scatter(
                x=[e.value],
                y=[y + shift],
                mode="markers",
                marker={
                    "symbol": styles[name].symbol + open_,
                    "color": styles[name].colour,
                    "size": 10,
                },
                error_x=error_bars([e]),
                customdata=[[plain(f"{shorten(name, 60)}, empty {rule}: {hover(e)}")]],
                hovertemplate="%{customdata[0]}<extra></extra>",
                showlegend=False,
                row=row,
                col=1,
            )
