"""How much of the score each modality brings: Shapley values with their intervals."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import (
    Table,
    cell,
    hover,
    missing_reason,
    score_word,
    second_score,
    subtitle,
    the_score,
)
from mmaudit.figures.theme import (
    Words,
    error_bars,
    hatching,
    make_figure,
    modality_styles,
    plain,
    say_nothing,
)
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import find

__all__ = ["ContributionsInfo", "contributions_info", "contributions_table", "plot_contributions"]


class ContributionsInfo(NamedTuple):
    """Contributions of all modalities, in the order of the spec."""

    words: Words
    modalities: tuple[str, ...]
    values: tuple[Estimate, ...]
    """Shapley values of the score; of accuracy in [-1, 1]."""
    shares: tuple[Estimate | None, ...]
    log_likelihoods: tuple[Estimate | None, ...]
    """Shapley values of the second score: log-likelihood of the target, or negative squared error."""
    score: str = "accuracy"
    second: tuple[str, str] = ("log-likelihood", "nats")
    """Name and unit of the second score."""
    undefined: str | None = None
    """Why there is nothing to draw."""


def contributions_info(report: AuditReport) -> ContributionsInfo:
    """Collect the contributions of a report."""
    names, score, second = report.modalities, score_word(report), second_score(report)
    values = tuple(
        find(report.record, "contributions", modality=name)
        or Estimate(undefined=missing_reason(report, "contributions"))
        for name in names
    )
    shares = tuple(
        find(report.record, "contributions", modality=name, quantity="share") for name in names
    )
    nats = tuple(
        find(report.record, "contributions", modality=name, score=second[0]) for name in names
    )
    known = sorted(
        (
            (e.value, shorten(name))
            for name, e in zip(names, values, strict=True)
            if e.value is not None
        ),
        reverse=True,
    )
    if not known:
        reason = missing_reason(report, "contributions")
        words = Words(
            "The contributions are undefined",
            subtitle(report, ()),
            f"No contribution has a value: {reason}.",
        )
        return ContributionsInfo(words, names, values, shares, nats, score, second, reason)
    if len(known) == 1:
        title = f"{known[0][1]} contributes {number(known[0][0])} of {score}"
    elif len(known) == 2:
        title = f"{known[0][1]} contributes {number(known[0][0])} of {score}, {known[1][1]} {number(known[1][0])}"
    else:
        title = (
            f"{known[0][1]} contributes most to {the_score(score)} ({number(known[0][0])}), "
            f"{known[-1][1]} least ({number(known[-1][0])})"
        )
    takeaway = "; ".join(
        f"{name}: {with_interval(e)}" for name, e in zip(names, values, strict=True)
    )
    words = Words(title, subtitle(report, values), f"Contribution to {score}. {takeaway}.")
    return ContributionsInfo(words, names, values, shares, nats, score, second)


def plot_contributions(info: ContributionsInfo) -> go.Figure:
    """Draw one bar per modality, its interval over it."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    figure = make_figure(info.words, height=70 + 46 * len(info.modalities), labels=info.modalities)
    styles = modality_styles(info.modalities)
    for row, (name, estimate) in enumerate(zip(info.modalities, info.values, strict=True)):
        if estimate.value is None:
            figure.add_annotation(
                x=0,
                y=row,
                text=plain(with_interval(estimate)),
                showarrow=False,
                xanchor="left",
                xshift=6,
            )
            continue
        figure.add_bar(
            x=[estimate.value],
            y=[row],
            orientation="h",
            width=0.55,
            marker={
                "color": styles[name].colour,
                "pattern": hatching(styles[name].pattern),
            },
            error_x=error_bars([estimate]),
            customdata=[[plain(shorten(name, 60)), plain(hover(estimate))]],
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
            showlegend=False,
        )
        end = max(estimate.value, estimate.high or estimate.value, 0)
        figure.add_annotation(
            x=end, y=row, text=plain(cell(estimate)), showarrow=False, xanchor="left", xshift=8
        )
    ends = [end for e in info.values for end in (e.value, e.low, e.high) if end is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    spread = max(high - low, 0.01)
    # Room on the right for the numbers behind the bars.
    figure.update_xaxes(
        title={"text": f"contribution to {info.score} (fraction)"},
        range=[low - 0.04 * spread, high + 0.42 * spread],
        zeroline=True,
    )
    figure.update_yaxes(
        tickvals=list(range(len(info.modalities))),
        ticktext=[plain(shorten(name)) for name in info.modalities],
        range=[len(info.modalities) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return figure


def contributions_table(info: ContributionsInfo) -> Table:
    """The same as a table."""
    rows = [
        (name, cell(value), cell(share), cell(nats))
        for name, value, share, nats in zip(
            info.modalities, info.values, info.shares, info.log_likelihoods, strict=True
        )
    ]
    (second, unit), score = info.second, info.score
    capital, other = (text[:1].upper() + text[1:] for text in (score, second))
    return Table(("Modality", capital, f"Share of {score} gained", f"{other}, {unit}"), tuple(rows))
