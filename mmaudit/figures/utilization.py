"""What a modality still adds when others are there: conditional utilization u(m|S), rows m, columns S."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import (
    Table,
    missing_reason,
    named_cells,
    no_values,
    score_word,
    subtitle,
    the_score,
)
from mmaudit.figures.estimates import defined
from mmaudit.figures.heat import Heat, draw_heat
from mmaudit.figures.theme import Words, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import EMPTY, coalition_names, others, shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import find

__all__ = ["UtilizationInfo", "plot_utilization", "utilization_info", "utilization_table"]

_WHOLE_MATRIX = 4
"""Up to so many modalities every u(m|S) has its cell."""


class UtilizationInfo(NamedTuple):
    """A matrix of utilization rates; each the share of the score that is lost when m is masked."""

    words: Words
    modalities: tuple[str, ...]
    given: tuple[str, ...]
    """Columns: names of S; of more than four modalities ``nothing else``, ``a set on average`` and ``all others``."""
    rates: tuple[tuple[Estimate | None, ...], ...]
    """``rates[m][column]``, at most 1; ``None`` where S contains m."""
    score: str = "accuracy"
    undefined: str | None = None


def utilization_info(report: AuditReport) -> UtilizationInfo:
    """Collect the utilization rates of a report."""
    names = report.modalities
    if len(names) <= _WHOLE_MATRIX:
        columns = sorted(
            coalition_names(names)[:-1], key=lambda name: (name != EMPTY, name.count("+"))
        )
        given = tuple("nothing else" if name == EMPTY else name for name in columns)
        rates = tuple(
            tuple(
                find(report.record, "utilization", modality=name, given=column)
                for column in columns
            )
            for name in names
        )
    else:
        given = ("nothing else", "a set on average", "all others")
        rates = tuple(
            (
                find(report.record, "utilization", modality=name, given=EMPTY),
                _average(report, name),
                find(report.record, "utilization", modality=name, given="rest"),
            )
            for name in names
        )
    cells = [e for row in rates for e in row if e is not None]
    if not defined(cells):
        title, lack = "The utilization is undefined", "No utilization rate has a value"
        words, reason = no_values(report, "utilization", title, lack)
        return UtilizationInfo(words, names, given, rates, score_word(report), reason)
    takeaway = "; ".join(
        f"{name} given {there}: {with_interval(e)}"
        for name, row in zip(names, rates, strict=True)
        for there, e in zip(given, row, strict=True)
        if e is not None
    )
    words = Words(
        _title(report),
        subtitle(report, cells),
        f"Share of {the_score(score_word(report))} lost when masked. {takeaway}.",
    )
    return UtilizationInfo(words, names, given, rates, score_word(report))


def plot_utilization(info: UtilizationInfo) -> go.Figure:
    """Draw the matrix; cells where the modality is itself in S stay empty."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    heat = Heat(
        rows=info.modalities,
        columns=info.given,
        cells=info.rates,
        said=lambda name, there: f"{name} given {there}",
        rows_title="modality m",
        columns_title="modalities already there, S",
        bar_title=f"u(m|S), share<br>of {info.score}",
        row_height=44,
    )
    return draw_heat(info.words, heat)


def utilization_table(info: UtilizationInfo) -> Table:
    """The same as a table."""
    rows = named_cells(info.modalities, info.rates)
    return Table(("Modality", *(f"given {there}" for there in info.given)), rows)


def _average(report: AuditReport, name: str) -> Estimate:
    rows = report.rows("utilization", quantity="u", modality=name, **{"class": "all"})
    found = [row.estimate for row in rows]
    known = [e for e in found if e.value is not None]
    if not known:
        return Estimate(undefined=missing_reason(report, "utilization"))
    mean = sum(e.value or 0.0 for e in known) / len(known)
    return Estimate(
        value=mean, n=min(e.n for e in known), method=f"mean over {len(known)} sets, no interval"
    )


def _title(report: AuditReport) -> str:
    """The modality that adds least once all others are there, which is what the matrix is read for."""
    names, score = report.modalities, score_word(report)
    rates = [
        (name, find(report.record, "utilization", modality=name, given="rest")) for name in names
    ]
    known = [(e.value, name) for name, e in rates if e is not None and e.value is not None]
    if not known:
        return "What each modality adds to others; undefined once all others are there"
    value, name = min(known, key=lambda pair: pair[0])
    rest, name = others(name, names), shorten(name)
    if rest == EMPTY:
        return f"{number(value)} of {the_score(score)} is lost without {name}"
    there = f"{shorten(rest)} is there" if len(names) == 2 else "all others are there"
    if value < 0:
        return f"{name} takes {number(-value)} of {the_score(score)} away once {there}"
    return f"{name} adds {number(value)} of {the_score(score)} once {there}"
