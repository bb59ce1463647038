"""How much the model knows from each modality: score and loss of the mono-modal Shapley responses."""

from __future__ import annotations

import math
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import (
    Table,
    capital,
    cell_word,
    gets,
    missing_reason,
    named_cells,
    no_values,
    score_word,
    second_score,
    subtitle,
)
from mmaudit.figures.estimates import defined, lowest_score, ranked
from mmaudit.figures.pairs import add_pairs
from mmaudit.figures.theme import NEUTRAL, Words, make_figure, name_rows, say_nothing
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
    known = ranked(names, exact)
    unit = second_score(report)[1]
    K = len(report.classes) if cell_word(report) == "class" else 0
    everything = [e for pair in (*scores, *losses) for e in pair]
    if not defined(everything) and not silent:
        title, lack = "The responses are undefined", "No response has a value"
        words, reason = no_values(report, "responses", title, lack)
        return ResponsesInfo(words, names, scores, losses, K, score, unit, reason)
    if not known:
        title = (
            "The model responds to no modality"
            if silent
            else f"The {score} of the responses is undefined"
        )
    elif len(known) == 1:
        title = f"The response to {known[0][1]} alone {gets(score, known[0][0])}"
    else:
        title = (
            f"The response to {known[0][1]} {gets(score, known[0][0])}, "
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
    sides = [f"empty {rule}" for rule in _RULES]
    for row, estimates in enumerate((info.scores, info.losses), start=1):
        add_pairs(figure, info.modalities, estimates, sides, apart=0.12, row=row)
    if info.classes > 1:
        _mark_guess(figure, 1 / info.classes, "guess, 1/K", row=1)
        _mark_guess(figure, math.log(info.classes), "guess, ln K", row=2)
    figure.update_xaxes(
        title={
            "text": f"response {info.score}{', Acc' if info.score == 'accuracy' else ''} (fraction)"
        },
        range=[min(-0.02, 1.05 * lowest_score(e for pair in info.scores for e in pair)), 1.02],
        row=1,
        col=1,
    )
    figure.update_xaxes(
        title={"text": f"response loss, s ({info.loss_unit}, less is better)"},
        rangemode="tozero",
        row=2,
        col=1,
    )
    name_rows(figure, [shorten(name) for name in info.modalities])
    return figure


def responses_table(info: ResponsesInfo) -> Table:
    """The same as a table."""
    rows = [(*score, *loss) for score, loss in zip(info.scores, info.losses, strict=True)]
    whats = capital(info.score), f"Loss in {info.loss_unit}"
    headers = ("Modality", *(f"{what}, empty {rule}" for what in whats for rule in _RULES))
    return Table(headers, named_cells(info.modalities, rows))


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
