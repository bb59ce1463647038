"""What each modality alone could say, as far as probes find it: how far above chance, from its inputs and from its encoder."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, join_names, named_cells, no_values, score_word, subtitle
from mmaudit.figures.estimates import by_labels, defined
from mmaudit.figures.panels import Panel, draw_modality_panels
from mmaudit.figures.theme import Words, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = ["InformationInfo", "information_info", "information_table", "plot_information"]

_KEY = "information"
_KINDS = ("inputs", "encoder", "best")


class InformationInfo(NamedTuple):
    """What probes found, in the order of the spec."""

    words: Words
    modalities: tuple[str, ...]
    score: str
    """``accuracy``, or ``R2`` where numbers are predicted."""
    estimates: dict[tuple[str, ...], Estimate]
    """Modality, quantity (the score, ``above chance``, ``gain``) and features (``inputs``, ``encoder``, ``best``) -> estimate."""
    undefined: str | None = None

    def of(self, quantity: str, features: str) -> tuple[Estimate | None, ...]:
        """One estimate for each modality."""
        return tuple(self.estimates.get((name, quantity, features)) for name in self.modalities)


def information_info(report: AuditReport) -> InformationInfo:
    """Collect what probes found."""
    names = report.modalities
    found = by_labels(report, _KEY, "modality", "quantity", "features")
    score = score_word(report)
    best = {name: found.get((name, "above chance", "best")) for name in names}
    if not defined(best.values()):
        title = "No probe could be asked what modalities say"
        words, reason = no_values(report, _KEY, title, "No probe has an answer")
        return InformationInfo(words, names, score, found, reason)
    said = "; ".join(
        f"{name}: {with_interval(e, signed=True)} above the best constant answer"
        for name, e in best.items()
        if e is not None
    )
    words = Words(
        _title(best, score),
        subtitle(report, defined(best.values()), "probes: ridge on Fourier features, and trees"),
        f"{score} of probes of single modalities. {said}.",
    )
    return InformationInfo(words, names, score, found)


def plot_information(info: InformationInfo) -> go.Figure:
    """Draw how far probes are above chance, and the share of the target's entropy that they explain."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    unit = "R2" if info.score == "R2" else "fraction"
    return draw_modality_panels(
        info.words,
        info.modalities,
        (
            Panel("above chance, inputs", unit, info.of("above chance", "inputs")),
            Panel("above chance, encoder", unit, info.of("above chance", "encoder")),
            Panel("gain, better of both", "share", info.of("gain", "best"), (None, 1.0)),
        ),
    )


def information_table(info: InformationInfo) -> Table:
    """The same as a table, with the scores themselves."""
    headers = (
        "Modality",
        *(f"{info.score}, {kind}" for kind in _KINDS),
        *(f"Above chance, {kind}" for kind in _KINDS),
        *(f"Gain, {kind}" for kind in _KINDS),
    )
    rows = [
        [
            info.estimates.get((name, quantity, kind))
            for quantity in (info.score, "above chance", "gain")
            for kind in _KINDS
        ]
        for name in info.modalities
    ]
    return Table(headers, named_cells(info.modalities, rows))


def _title(best: dict[str, Estimate | None], score: str) -> str:
    """Who says nothing first: that is what the figure is looked at for."""
    known = {name: e for name, e in best.items() if e is not None and e.value is not None}
    silent = [shorten(name) for name, e in known.items() if e.low is None or e.low <= 0]
    says = [(e.value or 0.0, shorten(name)) for name, e in known.items() if (e.low or 0.0) > 0]
    if not says:
        return f"Probes find nothing about the target in {join_names(silent)}"
    value, name = max(says)
    most = f"{name} alone is worth {number(value)} of {score} above chance"
    return f"{most}; probes find nothing in {join_names(silent)}" if silent else most
