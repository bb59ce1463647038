"""How often the model becomes more confident when modalities are taken away: one bar for each set that is left."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, cell, hover, named_cells, no_values, subtitle
from mmaudit.figures.estimates import defined
from mmaudit.figures.marks import bar, write
from mmaudit.figures.theme import Words, make_figure, modality_styles, name_rows, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import EMPTY, others, shorten
from mmaudit.report.numbers import percent, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "ConfidenceMonotonicityInfo",
    "confidence_monotonicity_info",
    "confidence_monotonicity_table",
    "plot_confidence_monotonicity",
]

_KEY = "confidence_monotonicity"
_ANY = "any"
_MOST_SHOWN = 20


class ConfidenceMonotonicityInfo(NamedTuple):
    """Shares of samples, the largest first."""

    words: Words
    modalities: tuple[str, ...]
    coalitions: tuple[str, ...]
    """Names in the record of at most twenty sets of modalities that are left."""
    shares: tuple[Estimate, ...]
    anything: Estimate | None
    """Share of samples with a violation for at least one set."""
    total: int
    undefined: str | None = None


def confidence_monotonicity_info(report: AuditReport) -> ConfidenceMonotonicityInfo:
    """Collect the violations of a report."""
    names = report.modalities
    rows = {row.labels.get("coalition", ""): row.estimate for row in report.rows(_KEY)}
    # A modality may itself be called "any"; the row of all sets comes first.
    anything = rows.get(_ANY) if _ANY not in names else None
    single = {name: e for name, e in rows.items() if name != _ANY or anything is None}
    if not defined([*single.values(), anything]):
        title = "Nothing is known about confidence without modalities"
        words, reason = no_values(report, _KEY, title, "No share of violations has a value")
        return ConfidenceMonotonicityInfo(words, names, (), (), anything, len(single), reason)
    ranked = sorted(single, key=lambda name: -(single[name].value or 0.0))[:_MOST_SHOWN]
    shares = tuple(single[name] for name in ranked)
    extra = f"{len(ranked)} of {len(single)} sets shown" if len(ranked) < len(single) else ""
    said = "; ".join(
        f"{_in_words(name, names)}: {with_interval(e)}"
        for name, e in zip(ranked, shares, strict=True)
    )
    words = Words(
        _title(anything, ranked, shares, names),
        subtitle(report, [*shares, *defined([anything])], extra),
        "Share of samples whose confidence is higher with only these modalities than with all"
        f"{'' if anything is None else f' (any set: {with_interval(anything)})'}. {said}.",
    )
    return ConfidenceMonotonicityInfo(words, names, tuple(ranked), shares, anything, len(single))


def plot_confidence_monotonicity(info: ConfidenceMonotonicityInfo) -> go.Figure:
    """Draw one bar for each set that is left, and the share for any set on top."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    styles = modality_styles(info.modalities)
    bars = [
        (name, e, styles.get(name)) for name, e in zip(info.coalitions, info.shares, strict=True)
    ]
    labels = [_in_words(name, info.modalities) for name in info.coalitions]
    if info.anything is not None:
        bars.insert(0, (_ANY, info.anything, None))
        labels.insert(0, "any set")
    figure = make_figure(
        info.words,
        height=80 + (34 if len(bars) <= 12 else 24) * len(bars),
        labels=[shorten(label, 28) for label in labels],
        columns=8,
    )
    for y, ((_, estimate, style), label) in enumerate(zip(bars, labels, strict=True)):
        if estimate.value is None:
            write(figure, 0, y, with_interval(estimate))
            continue
        said = f"{shorten(label, 60)}: {hover(estimate)}"
        figure.add_bar(**bar(estimate, y, style, said, width=0.6))
    ends = [end for _, e, _ in bars for end in (e.value, e.high) if end is not None]
    figure.update_xaxes(
        title={"text": "samples that are more confident than with everything (fraction)"},
        range=[0, max(0.02, 1.06 * max(ends))],
    )
    name_rows(figure, [shorten(label, 28) for label in labels])
    return figure


def confidence_monotonicity_table(info: ConfidenceMonotonicityInfo) -> Table:
    """The same as a table."""
    names = [_in_words(name, info.modalities) for name in info.coalitions]
    rows = named_cells(names, zip(info.shares, strict=True))
    if info.anything is not None:
        rows = (("any set", cell(info.anything)), *rows)
    return Table(("Left", "Samples more confident than with everything"), rows)


def _in_words(name: str, modalities: tuple[str, ...]) -> str:
    if name == EMPTY and EMPTY not in modalities:
        return "nothing"
    if len(modalities) > 3:
        for gone in modalities:
            if name == others(gone, modalities):
                return f"all but {gone}"
    return name


def _title(
    anything: Estimate | None,
    ranked: list[str],
    shares: tuple[Estimate, ...],
    modalities: tuple[str, ...],
) -> str:
    if not ranked or shares[0].value is None:
        most = ""
    elif ranked[0] == EMPTY:
        most = f"{percent(shares[0].value)} with nothing at all"
    else:
        words = shorten(_in_words(ranked[0], modalities), 40)
        only = "" if words.startswith("all but") else "only "
        most = f"{percent(shares[0].value)} with {only}{words}"
    if anything is None or anything.value is None:
        return f"Samples that become more confident: {most}"
    if anything.value == 0:
        return "No sample becomes more confident when modalities are masked"
    title = (
        f"{percent(anything.value)} of the samples become more confident when something is masked"
    )
    return title if len(modalities) == 1 or not most else f"{title}; {most}"
