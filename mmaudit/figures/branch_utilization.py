"""What each branch of a model owes to the others: its accuracy as it is, and cut off from them."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, cell, hover, missing_reason, named_cells
from mmaudit.figures.estimates import defined
from mmaudit.figures.marks import bar, write
from mmaudit.figures.theme import (
    NEUTRAL,
    Words,
    make_figure,
    modality_styles,
    name_rows,
    plain,
    say_nothing,
)
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count, number, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "BranchUtilizationInfo",
    "CutBranch",
    "branch_utilization_info",
    "branch_utilization_table",
    "plot_branch_utilization",
]

_KEY = "branch_utilization"
_ALL_DRAWN = 4
"""Up to so many modalities a branch that is cut off from a single other one has bars of its own."""


_FAINT = "rgba(127, 135, 147, 0.45)"
"""The neutral colour as a branch that is cut off is drawn."""


class CutBranch(NamedTuple):
    """One branch, cut off from one or all of the others."""

    branch: str
    gained_from: str
    """Names of those it is cut off from, joined by ``+``."""
    rate: Estimate
    """u: share of the branch's accuracy that is lost, at most 1."""
    accuracy: Estimate | None
    """Of the branch as it is, in [0, 1]."""
    cut: Estimate | None
    """Of the branch cut off."""
    from_all: bool


class BranchUtilizationInfo(NamedTuple):
    """All cuts, in the order of the branches; of each that from all others first."""

    words: Words
    modalities: tuple[str, ...]
    cuts: tuple[CutBranch, ...]
    spread: Estimate | None
    """d_util."""
    undefined: str | None = None


def branch_utilization_info(report: AuditReport) -> BranchUtilizationInfo:
    """Collect what a report says of its branches."""
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    spread = None
    for row in report.rows(_KEY):
        labels = row.labels
        if labels["quantity"] == "d_util":
            spread = row.estimate
        else:
            found.setdefault((labels["given"], labels["modality"]), {})[labels["quantity"]] = (
                row.estimate
            )
    whole: dict[str, Estimate] = {}
    cuts = []
    for (branch, gained), values in found.items():
        if "u" not in values:
            continue
        from_all = branch not in whole
        if from_all and "accuracy" in values:
            whole[branch] = values["accuracy"]
        cuts.append(
            CutBranch(
                branch,
                gained,
                values["u"],
                whole.get(branch),
                values.get("accuracy cut"),
                from_all,
            )
        )
    names = report.modalities
    if not defined(cut.rate for cut in cuts):
        reason = missing_reason(report, _KEY)
        words = Words(
            "The utilization of branches is undefined",
            "by cutting branches, not by masking",
            f"No branch has a rate: {reason}.",
        )
        return BranchUtilizationInfo(words, names, tuple(cuts), spread, reason)
    said = "; ".join(
        f"the branch of {cut.branch} cut off from {cut.gained_from}: u = {with_interval(cut.rate)}"
        + (f", accuracy {with_interval(cut.cut)}" if cut.cut is not None else "")
        + (
            f" instead of {with_interval(cut.accuracy)}"
            if cut.accuracy is not None and cut.cut is not None
            else ""
        )
        for cut in cuts
    )
    used = [e for cut in cuts for e in (cut.rate, cut.accuracy, cut.cut) if e is not None]
    words = Words(_title(cuts), _small_print(used), f"Utilization by cutting. {said}.")
    return BranchUtilizationInfo(words, names, tuple(cuts), spread)


def plot_branch_utilization(info: BranchUtilizationInfo) -> go.Figure:
    """Draw two bars for each cut, the branch as it is and cut off, with u at their end."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    few = len(info.modalities) <= _ALL_DRAWN
    cuts = [cut for cut in info.cuts if few or cut.from_all]
    labels = [f"{shorten(c.branch, 16)} without {shorten(c.gained_from, 16)}" for c in cuts]
    figure = make_figure(info.words, height=100 + 58 * len(cuts), labels=labels)
    styles = modality_styles(info.modalities)
    for name, colour in (("as it is", NEUTRAL), ("cut off", _FAINT)):
        marker = {"color": colour}
        figure.add_bar(x=[None], y=[None], orientation="h", name=name, marker=marker)
    for row, cut in enumerate(cuts):
        style = styles[cut.branch]
        for estimate, shift, opacity, what in (
            (cut.accuracy, -0.19, 1.0, "as it is"),
            (cut.cut, 0.19, 0.45, f"cut off from {cut.gained_from}"),
        ):
            if estimate is None or estimate.value is None:
                continue
            said = shorten(f"{cut.branch}, {what}", 60), hover(estimate)
            drawn = bar(estimate, row + shift, style, *said, width=0.34)
            drawn["marker"]["opacity"] = opacity
            figure.add_bar(**drawn)
        ends = [e.high or e.value or 0.0 for e in (cut.accuracy, cut.cut) if e is not None]
        text, reason = f"u = {cell(cut.rate)}", plain(hover(cut.rate))
        write(figure, max([0.0, *ends]), row, text, xshift=8, hovertext=reason)
    # Room on the right for the rates.
    figure.update_xaxes(
        title={"text": "accuracy of the branch (fraction)"},
        range=[0, 1.42],
        tickvals=[0, 0.2, 0.4, 0.6, 0.8, 1],
    )
    # Below: subtitles of several lines would run into a legend above the bars.
    figure.update_layout(legend={"y": -46 / (58 * len(cuts)), "yanchor": "top"})
    name_rows(figure, labels)
    return figure


def branch_utilization_table(info: BranchUtilizationInfo) -> Table:
    """The same as a table, every pair included."""
    names = [f"{cut.branch} without {cut.gained_from}" for cut in info.cuts]
    rows = named_cells(names, ((cut.rate, cut.accuracy, cut.cut) for cut in info.cuts))
    if info.spread is not None:
        rows += named_cells(["difference, d_util"], [(info.spread, None, None)])
    return Table(
        ("Branch", "u by cutting, share of accuracy", "Accuracy as it is", "Accuracy cut off"),
        rows,
    )


def _small_print(used: list[Estimate]) -> str:
    """How many samples, and how the intervals were made; masks have no part in it."""
    parts = ["by cutting branches, not by masking"]
    known = defined(used)
    parts.append(f"n = {count(max(e.n for e in known))}")
    methods = list(dict.fromkeys(e.method for e in known if e.method and e.low is not None))
    if methods:
        parts.append(f"95 % intervals: {' or '.join(methods[:2])}")
    if any(e.warning for e in known):
        parts.append("some intervals come with a warning")
    return "; ".join(parts)


def _title(cuts: list[CutBranch]) -> str:
    """The branch that owes most to others, and the one that owes least."""
    known = sorted(
        (cut for cut in cuts if cut.from_all and cut.rate.value is not None),
        key=lambda cut: -(cut.rate.value or 0.0),
    )
    if not known:
        return "Utilization by cutting branches"
    first = known[0]
    title = f"{shorten(first.branch)}'s branch {_owes(first)}"
    if len(known) > 1:
        last = known[-1]
        title += f", {shorten(last.branch)}'s branch {_owes(last)}"
    return title


def _owes(cut: CutBranch) -> str:
    value = cut.rate.value or 0.0
    if value < 0:
        return f"loses {number(-value)} of its accuracy to {shorten(cut.gained_from)}"
    return f"owes {number(value)} of its accuracy to {shorten(cut.gained_from)}"
