"""Which modality decides single samples: how often each has the largest value, carries a sample alone, or works against it."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, cell, defined, missing_reason, subtitle
from mmaudit.figures.panels import Panel, draw_panels
from mmaudit.figures.theme import Words, modality_styles, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import percent, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import find

__all__ = ["DominanceInfo", "dominance_info", "dominance_table", "plot_dominance"]

_KEY = "dominance"
_QUANTITIES = {
    "share": "has the largest value",
    "alone": "carries the sample alone",
    "against": "works against the truth",
}
_DRAWN = {"share": "largest value", "alone": "carries it alone", "against": "against the truth"}


class DominanceInfo(NamedTuple):
    """Shares of the samples that have each modality, in the order of the spec."""

    words: Words
    modalities: tuple[str, ...]
    values: dict[str, tuple[Estimate | None, ...]]
    """Quantity -> one share for each modality."""
    undefined: str | None = None


def dominance_info(report: AuditReport) -> DominanceInfo:
    """Collect the shares of a report."""
    names = report.modalities
    values = {
        quantity: tuple(
            find(report.record, _KEY, modality=name, quantity=quantity) for name in names
        )
        for quantity in _QUANTITIES
    }
    used = defined(e for column in values.values() for e in column)
    if not used:
        reason = missing_reason(report, _KEY)
        words = Words(
            "Nothing is known about single samples",
            subtitle(report, ()),
            f"No share of samples has a value: {reason}.",
        )
        return DominanceInfo(words, names, values, reason)
    said = "; ".join(
        f"{name} {words} in {with_interval(e)}"
        for quantity, words in _QUANTITIES.items()
        for name, e in zip(names, values[quantity], strict=True)
        if e is not None
    )
    words = Words(_title(names, values), subtitle(report, used), f"Shares of samples. {said}.")
    return DominanceInfo(words, names, values)


def plot_dominance(info: DominanceInfo) -> go.Figure:
    """Draw the three shares side by side, one row for each modality."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    styles = modality_styles(info.modalities)
    panels = tuple(
        Panel(title, "fraction of samples", info.values[quantity], (0.0, 1.0))
        for quantity, title in _DRAWN.items()
    )
    rows = tuple(styles[name] for name in info.modalities)
    return draw_panels(info.words, info.modalities, rows, panels)


def dominance_table(info: DominanceInfo) -> Table:
    """The same as a table."""
    rows = [
        (name, *(cell(column[m]) for column in info.values.values()))
        for m, name in enumerate(info.modalities)
    ]
    headers = [words[:1].upper() + words[1:] for words in _QUANTITIES.values()]
    return Table(("Modality", *headers), tuple(rows))


def _title(names: tuple[str, ...], values: dict[str, tuple[Estimate | None, ...]]) -> str:
    def most(quantity: str) -> tuple[float, str] | None:
        known = [
            (e.value, shorten(name))
            for name, e in zip(names, values[quantity], strict=True)
            if e is not None and e.value is not None
        ]
        return max(known, default=None)

    leads, against = most("share"), most("against")
    told = []
    if leads is not None:
        told.append(f"{leads[1]} has the largest value in {percent(leads[0])} of the samples")
    if against is not None and against[0] > 0:
        of = "" if told else " of the samples"
        told.append(f"{against[1]} works against the truth in {percent(against[0])}{of}")
    return "; ".join(told) or "No modality works against the truth in any sample"
