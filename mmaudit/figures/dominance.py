"""Which modality decides single samples: how often each has the largest value, carries a sample alone, or works against it."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, capital, named_cells, no_values, subtitle
from mmaudit.figures.estimates import defined, ranked
from mmaudit.figures.panels import Panel, draw_modality_panels
from mmaudit.figures.theme import Words, say_nothing
from mmaudit.report import AuditReport
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
        title, lack = "Nothing is known about single samples", "No share of samples has a value"
        words, reason = no_values(report, _KEY, title, lack)
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
    panels = tuple(
        Panel(title, "fraction of samples", info.values[quantity], (0.0, 1.0))
        for quantity, title in _DRAWN.items()
    )
    return draw_modality_panels(info.words, info.modalities, panels)


def dominance_table(info: DominanceInfo) -> Table:
    """The same as a table."""
    rows = named_cells(info.modalities, zip(*info.values.values(), strict=True))
    return Table(("Modality", *map(capital, _QUANTITIES.values())), rows)


def _title(names: tuple[str, ...], values: dict[str, tuple[Estimate | None, ...]]) -> str:
    def most(quantity: str) -> tuple[float, str] | None:
        return next(iter(ranked(names, values[quantity])), None)

    leads, against = most("share"), most("against")
    told = []
    if leads is not None:
        told.append(f"{leads[1]} has the largest value in {percent(leads[0])} of the samples")
    if against is not None and against[0] > 0:
        of = "" if told else " of the samples"
        told.append(f"{against[1]} works against the truth in {percent(against[0])}{of}")
    return "; ".join(told) or "No modality works against the truth in any sample"
