"""How far each set of modalities gets: scores above a matrix of dots that says who is present (an UpSet plot)."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import (
    Table,
    capital,
    gets,
    hover,
    named_cells,
    no_values,
    score_word,
    subtitle,
    the_score,
)
from mmaudit.figures.estimates import lowest_score
from mmaudit.figures.marks import filling, told
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
from mmaudit.report import AuditReport
from mmaudit.report.labels import EMPTY, coalition_name, shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = ["MOST_SHOWN", "CoalitionsInfo", "coalitions_info", "coalitions_table", "plot_coalitions"]

MOST_SHOWN = 32
_MOST_NUMBERED = 8


class CoalitionsInfo(NamedTuple):
    """Scores of coalitions, few present modalities first, then the higher score first."""

    words: Words
    modalities: tuple[str, ...]
    coalitions: tuple[frozenset[str], ...]
    """At most 32 of them: empty, grand, singles, all but one, then the best of the others."""
    scores: tuple[Estimate, ...]
    total: int
    """How many coalitions the report has."""
    score: str = "accuracy"
    """Name of the score: ``accuracy``, of a regression ``R2``."""
    undefined: str | None = None


def coalitions_info(report: AuditReport) -> CoalitionsInfo:
    """Collect the scores of a report's coalitions."""
    names, score = report.modalities, score_word(report)
    found: dict[frozenset[str], Estimate] = {}
    for row in report.rows("coalitions", score=score, **{"class": "all"}):
        found[_members(row.labels.get("coalition", ""), names)] = row.estimate
    if not any(e.value is not None for e in found.values()):
        title = f"{capital(the_score(score))} of every coalition is undefined"
        words, reason = no_values(report, "coalitions", title, f"No {score} has a value")
        return CoalitionsInfo(words, names, (), (), len(found), score, reason)
    shown = sorted(found, key=lambda members: _importance(members, found[members], len(names)))[
        :MOST_SHOWN
    ]
    shown.sort(key=lambda members: (len(members), -_value(found[members])))
    extra = f"{len(shown)} of {len(found)} coalitions shown" if len(shown) < len(found) else ""
    scores = tuple(found[members] for members in shown)
    takeaway = "; ".join(
        f"{coalition_name(members, names)}: {with_interval(e, 3)}"
        for members, e in zip(shown, scores, strict=True)
    )
    words = Words(
        _title(found, names, score),
        subtitle(report, scores, extra),
        f"{capital(score)} by present modalities. {takeaway}.",
    )
    return CoalitionsInfo(words, names, tuple(shown), scores, len(found), score)


def plot_coalitions(info: CoalitionsInfo) -> go.Figure:
    """Draw bars with intervals above the dots of the present modalities."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    M = len(info.modalities)
    dots = 34 * M + 20
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.02,
        row_heights=[260 / (260 + dots), dots / (260 + dots)],
    )
    make_figure(
        info.words,
        height=270 + dots,
        figure=figure,
        labels=info.modalities,
        columns=len(info.coalitions),
    )
    _add_bars(figure, info)
    _add_dots(figure, info)
    figure.update_yaxes(
        title={"text": f"{info.score} (fraction)"}, range=_range(info.scores), row=1, col=1
    )
    name_rows(figure, [shorten(name) for name in info.modalities], row=2, col=1)
    figure.update_xaxes(
        showticklabels=False,
        showgrid=False,
        zeroline=False,
        range=[-0.6, len(info.coalitions) - 0.4],
    )
    figure.update_xaxes(title={"text": "present modalities (filled)"}, row=2, col=1)
    return figure


def coalitions_table(info: CoalitionsInfo) -> Table:
    """The same as a table."""
    names = [coalition_name(members, info.modalities) for members in info.coalitions]
    rows = named_cells(names, zip(info.scores, strict=True), 3)
    return Table(("Present", capital(info.score)), rows)


def _members(name: str, modalities: tuple[str, ...]) -> frozenset[str]:
    if name == EMPTY and EMPTY not in modalities:
        return frozenset()
    # A modality's own name may hold a plus.
    return frozenset({name}) if name in modalities else frozenset(name.split("+"))


def _value(estimate: Estimate) -> float:
    return -1.0 if estimate.value is None else estimate.value


def _importance(members: frozenset[str], estimate: Estimate, M: int) -> tuple[int, float]:
    return (0 if len(members) in (0, 1, M - 1, M) else 1, -_value(estimate))


def _title(found: dict[frozenset[str], Estimate], names: tuple[str, ...], score: str) -> str:
    whole = found.get(frozenset(names))
    if whole is None or whole.value is None:
        return f"{capital(the_score(score))} of the whole model is undefined"
    only = shorten(names[0])
    if len(names) == 1:
        nothing = found.get(frozenset())
        if nothing is None or nothing.value is None:
            return f"{only} {gets(score, whole.value, 3)}"
        return (
            f"{only} {gets(score, whole.value, 3)}, the model without it {number(nothing.value, 3)}"
        )
    singles = [
        (e.value, name)
        for name in names
        if (e := found.get(frozenset({name}))) and e.value is not None
    ]
    together = "both together" if len(names) == 2 else f"all {len(names)} together"
    if not singles:
        return f"{together}: {score} {number(whole.value, 3)}"
    best, name = max(singles)
    return f"{shorten(name)} alone {gets(score, best, 3)}, {together} {number(whole.value, 3)}"


def _range(scores: tuple[Estimate, ...]) -> list[float]:
    """From 0, of R2 from where it begins, to 1, with room for the numbers."""
    return [1.08 * lowest_score(scores), 1.08]


def _add_bars(figure: go.Figure, info: CoalitionsInfo) -> None:
    styles = modality_styles(info.modalities)
    single = {frozenset({name}): style for name, style in styles.items()}
    # One trace a bar: plotly cannot lay hatching over colours that come as a list.
    for x, (members, estimate) in enumerate(zip(info.coalitions, info.scores, strict=True)):
        style = single.get(members)
        name = shorten(coalition_name(members, info.modalities), 90)
        figure.add_bar(
            x=[x],
            y=[estimate.value],
            width=0.62,
            marker=filling(style),
            error_y=error_bars([estimate]),
            **told(name, hover(estimate)),
            row=1,
            col=1,
        )
    for x, estimate in enumerate(info.scores):
        if estimate.value is None or len(info.coalitions) <= _MOST_NUMBERED:
            known = estimate.value is not None
            figure.add_annotation(
                x=x,
                y=max(estimate.value or 0.0, estimate.high or 0.0),
                text=number(estimate.value, 3)
                if estimate.value is not None
                else plain(with_interval(estimate)),
                textangle=0 if known else -90,
                showarrow=False,
                yanchor="bottom",
                row=1,
                col=1,
            )


def _add_dots(figure: go.Figure, info: CoalitionsInfo) -> None:
    styles = modality_styles(info.modalities)
    for x, members in enumerate(info.coalitions):
        rows = [m for m, name in enumerate(info.modalities) if name in members]
        if len(rows) > 1:
            figure.add_scatter(
                x=[x, x],
                y=[rows[0], rows[-1]],
                mode="lines",
                line={"color": NEUTRAL, "width": 2},
                hoverinfo="skip",
                showlegend=False,
                row=2,
                col=1,
            )
    for m, name in enumerate(info.modalities):
        inside = [name in members for members in info.coalitions]
        figure.add_scatter(
            x=list(range(len(info.coalitions))),
            y=[m] * len(info.coalitions),
            mode="markers",
            marker={
                "size": 11,
                "color": [styles[name].colour if there else "rgba(0,0,0,0)" for there in inside],
                "symbol": styles[name].symbol,
                "line": {
                    "width": 1,
                    "color": [styles[name].colour if there else NEUTRAL for there in inside],
                },
            },
            hovertemplate=[
                f"{plain(shorten(name, 60))} {'present' if there else 'masked'}<extra></extra>".replace(
                    "%{", "% {"
                )
                for there in inside
            ],
            showlegend=False,
            row=2,
            col=1,
        )
