"""How much of the score each modality brings: Shapley values with their intervals."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import (
    Table,
    capital,
    cell,
    hover,
    missing_reason,
    named_cells,
    no_values,
    score_word,
    second_score,
    subtitle,
    the_score,
)
from mmaudit.figures.estimates import ranked, reach
from mmaudit.figures.marks import bar, write
from mmaudit.figures.theme import Words, make_figure, modality_styles, name_rows, say_nothing
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
    known = ranked(names, values)
    if not known:
        title, lack = "The contributions are undefined", "No contribution has a value"
        words, reason = no_values(report, "contributions", title, lack)
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
            write(figure, 0, row, with_interval(estimate), xshift=6)
            continue
        said = shorten(name, 60), hover(estimate)
        figure.add_bar(**bar(estimate, row, styles[name], *said, width=0.55))
        end = max(estimate.value, estimate.high or estimate.value, 0)
        write(figure, end, row, cell(estimate), xshift=8)
    low, high = reach(info.values)
    spread = max(high - low, 0.01)
    # Room on the right for the numbers behind the bars.
    figure.update_xaxes(
        title={"text": f"contribution to {info.score} (fraction)"},
        range=[low - 0.04 * spread, high + 0.42 * spread],
        zeroline=True,
    )
    name_rows(figure, [shorten(name) for name in info.modalities], edge=0.5)
    return figure


def contributions_table(info: ContributionsInfo) -> Table:
    """The same as a table."""
    columns = info.values, info.shares, info.log_likelihoods
    (second, unit), score = info.second, info.score
    headers = capital(score), f"Share of {score} gained", f"{capital(second)}, {unit}"
    return Table(("Modality", *headers), named_cells(info.modalities, zip(*columns, strict=True)))
