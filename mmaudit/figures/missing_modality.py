"""What is left of the score when modalities go missing: expected with its interval, and the worst case."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, hover, named_cells, no_values, score_word, subtitle
from mmaudit.figures.estimates import defined
from mmaudit.figures.theme import Words, error_bars, make_figure, plain, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.numbers import number, percent, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "MissingModalityInfo",
    "missing_modality_info",
    "missing_modality_table",
    "plot_missing_modality",
]

_KEY = "missing_modality"
_EXPECTED, _WORST = "#0072B2", "#D55E00"
_BAND = "rgba(0, 114, 178, 0.18)"


class MissingModalityInfo(NamedTuple):
    """Scores by the share of (sample, modality) cells that are missing."""

    words: Words
    rates: tuple[float, ...]
    """Ascending, from 0."""
    expected: tuple[Estimate, ...]
    worst: tuple[Estimate | None, ...]
    """``None`` at rates at which no whole number of modalities is missing."""
    area: Estimate | None
    """Mean of the expected scores over all rates."""
    score: str
    undefined: str | None = None


def missing_modality_info(report: AuditReport) -> MissingModalityInfo:
    """Collect the curve of a report."""
    score = score_word(report)
    found: dict[str, dict[float, Estimate]] = {"expected": {}, "worst": {}}
    area = None
    for row in report.rows(_KEY):
        rate, quantity = row.labels.get("rate", ""), row.labels.get("quantity", "")
        if quantity == "area":
            area = row.estimate
        elif quantity in found:
            found[quantity][float(rate)] = row.estimate
    rates = tuple(sorted(found["expected"]))
    expected = tuple(found["expected"][rate] for rate in rates)
    worst = tuple(found["worst"].get(rate) for rate in rates)
    if not defined([*expected, *worst]):
        title = "There is no curve for missing modalities"
        lack = "No score with missing modalities has a value"
        words, reason = no_values(report, _KEY, title, lack)
        return MissingModalityInfo(words, rates, expected, worst, area, score, reason)
    said = "; ".join(
        f"{percent(rate)} missing: {with_interval(e)} expected"
        + (f", {with_interval(low)} at worst" if low is not None else "")
        for rate, e, low in zip(rates, expected, worst, strict=True)
    )
    words = Words(
        _title(rates, expected, worst, score),
        subtitle(report, expected, "every sample keeps at least one modality"),
        f"The {score} by the share of missing modalities. {said}.",
    )
    return MissingModalityInfo(words, rates, expected, worst, area, score)


def plot_missing_modality(info: MissingModalityInfo) -> go.Figure:
    """Draw the expected score as a line in its band, and the worst patterns as marks."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    figure = make_figure(info.words, height=350, columns=2 * len(info.rates))
    known = [
        (rate, e) for rate, e in zip(info.rates, info.expected, strict=True) if e.value is not None
    ]
    banded = [(r, e.low, e.high) for r, e in known if e.low is not None and e.high is not None]
    if banded:
        rates = [rate for rate, _, _ in banded]
        figure.add_scatter(
            x=rates + rates[::-1],
            y=[low for _, low, _ in banded] + [high for _, _, high in banded[::-1]],
            mode="lines",
            fill="toself",
            fillcolor=_BAND,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=[rate for rate, _ in known],
        y=[e.value for _, e in known],
        mode="lines+markers",
        name="expected",
        line={"color": _EXPECTED, "width": 2},
        marker={"size": 7},
        customdata=[[plain(f"{percent(rate)} missing: {hover(e)}")] for rate, e in known],
        hovertemplate="%{customdata[0]}<extra></extra>",
    )
    worst = [
        (rate, e)
        for rate, e in zip(info.rates, info.worst, strict=True)
        if e is not None and e.value is not None
    ]
    figure.add_scatter(
        x=[rate for rate, _ in worst],
        y=[e.value for _, e in worst],
        mode="lines+markers",
        name="worst modalities missing",
        line={"color": _WORST, "width": 1, "dash": "dot"},
        marker={"size": 8, "symbol": "diamond-open"},
        error_y={**error_bars([e for _, e in worst]), "color": _WORST},
        customdata=[[plain(f"{percent(rate)} missing: {hover(e)}")] for rate, e in worst],
        hovertemplate="%{customdata[0]}<extra></extra>",
    )
    figure.update_xaxes(
        title={"text": "missing (sample, modality) cells (fraction)"},
        range=[-0.02, max(info.rates) + 0.03],
        zeroline=False,
    )
    figure.update_yaxes(title={"text": f"{info.score} (fraction)"}, **_range(info))
    # A curve may be anywhere in the drawing, so the legend lies below it.
    figure.update_layout(legend={"y": -0.22, "yanchor": "top"})
    return figure


def missing_modality_table(info: MissingModalityInfo) -> Table:
    """The same as a table, with the mean over all rates in the last row."""
    rows = named_cells(map(percent, info.rates), zip(info.expected, info.worst, strict=True))
    if info.area is not None:
        rows += named_cells(["mean over the rates"], [(info.area, None)])
    return Table(("Missing", f"Expected {info.score}", f"Worst {info.score}"), rows)


def _range(info: MissingModalityInfo) -> dict[str, object]:
    """An accuracy from 0 on; an R2, which may be far below 0, as its values ask for."""
    if info.score != "accuracy":
        return {}
    estimates = defined([*info.expected, *info.worst])
    return {"range": [0, min(1.03, 1.15 * max(e.high or e.value or 0.0 for e in estimates) + 0.01)]}


def _title(
    rates: tuple[float, ...],
    expected: tuple[Estimate, ...],
    worst: tuple[Estimate | None, ...],
    score: str,
) -> str:
    known = [
        (rate, e.value) for rate, e in zip(rates, expected, strict=True) if e.value is not None
    ]
    lowest = [e.value for e in worst if e is not None and e.value is not None]
    if not known:
        return f"With the worst modalities missing the {score} is {number(min(lowest))}"
    (least, first), (_, last) = known[0], known[-1]
    start = "with nothing missing" if least == 0 else f"with {percent(least)} missing"
    bad = f", or {number(lowest[-1])} at worst" if lowest else ""
    if len(known) == 1:
        return f"The {score} is {number(first)} {start}{bad}"
    moves = "falls" if last < first else "goes"
    return (
        f"The expected {score} {moves} from {number(first)} {start} to {number(last)} "
        f"when one modality is left{bad}"
    )
