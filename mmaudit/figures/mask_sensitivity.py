"""Whether what an audit says hangs on how modalities are hidden: contribution and utilization under both masks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import Table, capital, named_cells, no_values, subtitle
from mmaudit.figures.estimates import by_labels, defined, reach
from mmaudit.figures.pairs import add_pairs
from mmaudit.figures.theme import Words, make_figure, name_rows, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "MaskSensitivityInfo",
    "mask_sensitivity_info",
    "mask_sensitivity_table",
    "plot_mask_sensitivity",
]

_KEY = "mask_sensitivity"
_MASKS = ("first", "second")
_QUANTITIES = ("contribution", "drop", "utilization", "distance")
_DRAWN = {"contribution": "contribution", "utilization": "utilization given the rest"}


class MaskSensitivityInfo(NamedTuple):
    """The main estimates of each modality under one or two masks."""

    words: Words
    modalities: tuple[str, ...]
    masks: tuple[str, ...]
    """In words, the first mask first; one where the audit had no second."""
    values: dict[str, tuple[tuple[Estimate | None, ...], ...]]
    """Quantity -> ``[modality][mask]``; quantities without any value are left out."""
    flips: tuple[str, ...]
    """Signs and rankings that the second mask turns round, both intervals clear of each other; a sentence each."""
    undefined: str | None = None


def mask_sensitivity_info(report: AuditReport) -> MaskSensitivityInfo:
    """Collect the estimates under both masks of a report."""
    names = report.modalities
    rows = by_labels(report, _KEY, "quantity", "modality", "mask")
    masks = tuple(mask for mask in _MASKS if any(key[2] == mask for key in rows))
    words_of = tuple(_in_words(report, mask) for mask in masks)
    values = {
        quantity: tuple(tuple(rows.get((quantity, name, mask)) for mask in masks) for name in names)
        for quantity in _QUANTITIES
    }
    values = {
        quantity: table
        for quantity, table in values.items()
        if defined(e for row in table for e in row)
    }
    if not values:
        title, lack = "Nothing is known about the masks", "No estimate has a value"
        words, reason = no_values(report, _KEY, title, lack)
        return MaskSensitivityInfo(words, names, words_of, {}, (), reason)
    flips = tuple(_flips(names, values)) if len(masks) == 2 else ()
    used = [e for row in values.get("contribution", ()) for e in row if e is not None]
    extra = ""
    if len(masks) == 2:
        extra = f"filled marks: first mask, open marks: second mask ({shorten(words_of[1], 80)})"
    said = "; ".join(
        f"{quantity} of {name}: "
        + ", ".join(
            f"{with_interval(e)} under {shorten(mask, 60)}"
            for mask, e in zip(words_of, row, strict=True)
            if e is not None
        )
        for quantity, table in values.items()
        for name, row in zip(names, table, strict=True)
        if any(e is not None for e in row)
    )
    words = Words(
        _title(_torn(report), names, words_of, values, flips),
        subtitle(report, used, extra),
        f"The main estimates under each mask. {' '.join(flips)} {said}.".replace("  ", " "),
    )
    return MaskSensitivityInfo(words, names, words_of, values, flips)


def plot_mask_sensitivity(info: MaskSensitivityInfo) -> go.Figure:
    """Draw contributions, and below them utilization: filled marks for the first mask, open ones for the second."""
    drawn = [quantity for quantity in _DRAWN if quantity in info.values]
    if info.undefined is not None or not drawn:
        reason = info.undefined or "only distances were measured; they are in the table"
        return say_nothing(info.words, reason)
    M, panels = len(info.modalities), len(drawn)
    panel = 60 + 44 * M
    figure = make_subplots(
        rows=panels, cols=1, vertical_spacing=0 if panels == 1 else 70 / (panels * panel + 70)
    )
    make_figure(info.words, height=panels * panel + 70 + 20, figure=figure, labels=info.modalities)
    for place, quantity in enumerate(drawn, start=1):
        sides = [_ordinal(mask, info.masks) for mask in range(len(info.masks))]
        add_pairs(figure, info.modalities, info.values[quantity], sides, apart=0.14, row=place)
        figure.update_xaxes(
            title={"text": f"{_DRAWN[quantity]} (fraction)"},
            zeroline=True,
            range=_range(info, quantity),
            row=place,
            col=1,
        )
    name_rows(figure, [shorten(name) for name in info.modalities])
    return figure


def mask_sensitivity_table(info: MaskSensitivityInfo) -> Table:
    """The same as a table, with the score that is lost without each modality and the distance from the data."""
    headers = [
        f"{capital(quantity)}, {_ordinal(place, info.masks)}"
        for quantity in info.values
        for place in range(len(info.masks))
    ]
    rows = [
        [e for table in info.values.values() for e in table[m]] for m in range(len(info.modalities))
    ]
    return Table(("Modality", *headers), named_cells(info.modalities, rows))


def _range(info: MaskSensitivityInfo, quantity: str) -> list[float]:
    """From 0 or below to the largest end, with room for the marks."""
    low, high = reach(e for row in info.values[quantity] for e in row)
    room = 0.04 * max(high - low, 0.01)
    return [low - room, high + room]


def _ordinal(place: int, masks: tuple[str, ...]) -> str:
    return f"{_MASKS[place]} mask ({shorten(masks[place], 24)})"


def _in_words(report: AuditReport, mask: str) -> str:
    """A mask in a few words: that of all modalities where they share it."""
    words = report.masks if mask == "first" else report.record.second_masks
    kinds = list(dict.fromkeys(words.get(name, "unknown") for name in report.modalities))
    return kinds[0] if len(kinds) == 1 else f"the {mask} masks"


def _flips(
    names: tuple[str, ...], values: Mapping[str, tuple[tuple[Estimate | None, ...], ...]]
) -> list[str]:
    """What the second mask turns round beyond the intervals."""
    told = []
    for quantity in _DRAWN:
        table = values.get(quantity, ())
        for name, row in zip(names, table, strict=bool(table)):
            signs = [_sign(e) for e in row]
            if signs[0] * signs[1] < 0:
                told.append(f"The {quantity} of {shorten(name)} changes its sign.")
        for (one, first), (other, second) in itertools.combinations(
            zip(names, table, strict=bool(table)), 2
        ):
            orders = [_order(a, b) for a, b in zip(first, second, strict=True)]
            if orders[0] * orders[1] < 0:
                above, below = (one, other) if orders[0] > 0 else (other, one)
                told.append(
                    f"The {quantity} of {shorten(above)} is above that of {shorten(below)} under the first mask, "
                    "below it under the second."
                )
    return told


def _sign(estimate: Estimate | None) -> int:
    if estimate is None or estimate.low is None or estimate.high is None:
        return 0
    return (estimate.low > 0) - (estimate.high < 0)


def _order(one: Estimate | None, other: Estimate | None) -> int:
    """1 where the first is above the second beyond their intervals, -1 below, 0 undecided."""
    if one is None or other is None:
        return 0
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return 0
    return (one.low > other.high) - (one.high < other.low)


def _torn(report: AuditReport) -> str | None:
    """What the findings say of the masks: empty where they say nothing, ``None`` where the record has no findings."""
    if not report.record.findings:
        return None
    rule = "depends on the mask"
    return next((found.text for found in report.record.findings if found.rule == rule), "")


def _title(
    torn: str | None,
    names: tuple[str, ...],
    masks: tuple[str, ...],
    values: Mapping[str, tuple[tuple[Estimate | None, ...], ...]],
    flips: tuple[str, ...],
) -> str:
    if len(masks) < 2:
        return "One mask was measured: whether another would say the same is not known"
    if flips:
        more = f" (and {len(flips) - 1} more)" if len(flips) > 1 else ""
        # Where the findings see nothing that depends on the mask, the figure tells what changes and no more.
        lead = "" if torn == "" else "It depends on the mask. "
        return f"{lead}{flips[0].rstrip('.')}{more}"
    if torn:
        return torn.rstrip(".")
    quantity = "contribution" if "contribution" in values else next(iter(values))
    apart = [
        (abs(first.value - second.value), name, first.value, second.value)
        for name, (first, second) in zip(names, values[quantity], strict=True)
        if first is not None
        and second is not None
        and first.value is not None
        and second.value is not None
        and _order(first, second) != 0
    ]
    if not apart:
        if not any(None not in row for row in values[quantity]):
            return "The two masks cannot be compared"
        return f"Both masks agree: no {quantity} changes beyond its interval"
    _, name, first, second = max(apart)
    same = f"The {quantity} of {shorten(name)} is {number(first)} under {shorten(masks[0], 40)}"
    return f"{same}, {number(second)} under {shorten(masks[1], 40)}; no sign or ranking flips"
