"""What joint training cost each modality: the share of its concept that a linear probe does not find in the joint latent."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, named_cells, no_values, subtitle
from mmaudit.figures.estimates import by_labels, defined, ranked
from mmaudit.figures.panels import Panel, draw_modality_panels
from mmaudit.figures.theme import Words, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = ["CompetitionInfo", "competition_info", "competition_table", "plot_competition"]

_KEY = "competition"


class CompetitionInfo(NamedTuple):
    """Competition strengths, in the order of the spec."""

    words: Words
    modalities: tuple[str, ...]
    penalties: tuple[str, ...]
    """How the probe's penalty was chosen, the main one first."""
    estimates: dict[tuple[str, ...], Estimate]
    """Modality, quantity and penalty -> estimate."""
    undefined: str | None = None

    def of(self, quantity: str, penalty: str) -> tuple[Estimate | None, ...]:
        """One estimate for each modality."""
        return tuple(self.estimates.get((name, quantity, penalty)) for name in self.modalities)


def competition_info(report: AuditReport) -> CompetitionInfo:
    """Collect the competition strengths of a report."""
    names = report.modalities
    found = by_labels(report, _KEY, "modality", "quantity", "penalty")
    ordered = tuple(dict.fromkeys(penalty for _, _, penalty in found))
    pooled = {name: found.get((name, "pooled", ordered[0])) for name in names} if ordered else {}
    if not defined(pooled.values()):
        title, lack = "The competition strength is undefined", "No competition strength has a value"
        words, reason = no_values(report, _KEY, title, lack)
        return CompetitionInfo(words, names, ordered, found, reason)
    said = "; ".join(
        f"{name}: {with_interval(e)}"
        for name, e in pooled.items()
        if e is not None and e.value is not None
    )
    words = Words(
        _title(pooled),
        subtitle(report, defined(pooled.values()), f"penalty of the probe: {ordered[0]}"),
        f"Share of what a modality alone knows that the joint latent does not hold. {said}.",
    )
    return CompetitionInfo(words, names, ordered, found)


def plot_competition(info: CompetitionInfo) -> go.Figure:
    """Draw the strengths, pooled and whitened, and the pooled one under the other penalty; 0 is no competition."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    main, *others = info.penalties
    panels = [
        Panel("d, pooled", "fraction", info.of("pooled", main)),
        Panel("d, whitened", "fraction", info.of("whitened", main)),
        *(Panel(f"d, pooled, penalty {p}", "fraction", info.of("pooled", p)) for p in others),
    ]
    return draw_modality_panels(info.words, info.modalities, tuple(panels))


def competition_table(info: CompetitionInfo) -> Table:
    """The same as a table, with the chosen penalties and the widths behind them."""
    quantities = ("pooled", "whitened", "rank", "lambda", "latent width")
    columns = [(quantity, penalty) for penalty in info.penalties for quantity in quantities]
    headers = [f"{quantity}, penalty {penalty}" for quantity, penalty in columns]
    rows = [
        [info.estimates.get((name, quantity, penalty)) for quantity, penalty in columns]
        for name in info.modalities
    ]
    return Table(("Modality", *headers), named_cells(info.modalities, rows))


def _title(pooled: dict[str, Estimate | None]) -> str:
    """Who lost most."""
    known = ranked(pooled, pooled.values())
    value, name = known[0]
    if value >= 1:
        return f"The joint latent holds nothing linear of what {name} alone knows (d = {number(value)})"
    more = ", most of all modalities" if len(known) > 1 else ""
    return f"The joint latent lacks {number(value)} of what {name} alone knows{more}"
