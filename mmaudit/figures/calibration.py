"""Whether the model is as often right as it says, and what leaving out the least sure gains, with every set of modalities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, named_cells, no_values, subtitle
from mmaudit.figures.estimates import by_labels, defined
from mmaudit.figures.panels import Panel, draw_panels
from mmaudit.figures.theme import Words, modality_styles, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import EMPTY, coalition_name, coalition_names, others, shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = ["CalibrationInfo", "calibration_info", "calibration_table", "plot_calibration"]

_KEY = "calibration"
_QUANTITIES = ("ece", "overconfidence", "selective risk", "risk at 80 %")
_DRAWN = {
    "ece": "calibration error",
    "overconfidence": "confidence − accuracy",
    "risk at 80 %": "risk, surest 80 %",
}
_WHOLE_TABLE = 5
"""Up to so many modalities every set may have a row."""


class CalibrationInfo(NamedTuple):
    """Calibration and selective risk of sets of modalities, few present ones first."""

    words: Words
    modalities: tuple[str, ...]
    coalitions: tuple[frozenset[str], ...]
    names: tuple[str, ...]
    """Of the coalitions, in words."""
    values: dict[str, tuple[Estimate | None, ...]]
    """Quantity -> one estimate for each coalition; fractions."""
    undefined: str | None = None


def calibration_info(report: AuditReport) -> CalibrationInfo:
    """Collect the calibration of a report."""
    modalities = report.modalities
    rows = by_labels(report, _KEY, "coalition", "quantity")
    here = {coalition for coalition, _ in rows}
    shown = [(members, name) for members, name in _candidates(modalities) if name in here]
    coalitions = tuple(members for members, _ in shown)
    names = tuple(_in_words(members, modalities) for members in coalitions)
    values = {
        quantity: tuple(rows.get((name, quantity)) for _, name in shown) for quantity in _QUANTITIES
    }
    used = defined(e for column in values.values() for e in column)
    if not used:
        title, lack = "The calibration is undefined", "No calibration has a value"
        words, reason = no_values(report, _KEY, title, lack)
        return CalibrationInfo(words, modalities, coalitions, names, values, reason)
    said = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{quantity} {with_interval(e)}"
            for quantity, column in values.items()
            if (e := column[place]) is not None
        )
        for place, name in enumerate(names)
    )
    words = Words(
        _title(coalitions, names, values["ece"], len(modalities)),
        subtitle(report, used, "ECE in 15 bins of equal width, corrected for noise"),
        f"Calibration by present modalities. {said}.",
    )
    return CalibrationInfo(words, modalities, coalitions, names, values)


def plot_calibration(info: CalibrationInfo) -> go.Figure:
    """Draw calibration error, overconfidence and the risk of the surest samples side by side."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    styles = modality_styles(info.modalities)
    single = [
        styles[next(iter(members))] if len(members) == 1 else None for members in info.coalitions
    ]
    panels = tuple(
        Panel(
            title,
            "fraction",
            info.values[quantity],
            (None if quantity == "overconfidence" else 0.0, 1.0),
        )
        for quantity, title in _DRAWN.items()
    )
    return draw_panels(info.words, info.names, tuple(single), panels)


def calibration_table(info: CalibrationInfo) -> Table:
    """The same as a table, with the area under the risk-coverage curve."""
    rows = named_cells(info.names, zip(*info.values.values(), strict=True))
    headers = ("ECE", "Confidence − accuracy", "Selective risk, area", "Risk at 80 % coverage")
    return Table(("Present", *headers), rows)


def _candidates(modalities: tuple[str, ...]) -> Iterator[tuple[frozenset[str], str]]:
    """Sets that may have rows, and their names in the record; few present ones first."""
    if len(modalities) <= _WHOLE_TABLE:
        sets = [
            frozenset(name for m, name in enumerate(modalities) if index >> m & 1)
            for index in range(2 ** len(modalities))
        ]
        pairs = list(zip(sets, coalition_names(modalities), strict=True))
        yield from sorted(pairs, key=lambda pair: len(pair[0]))
        return
    everything = frozenset(modalities)
    yield frozenset(), EMPTY
    for name in modalities:
        yield frozenset({name}), name
    for name in modalities:
        yield everything - {name}, others(name, modalities)
    yield everything, coalition_name(modalities, modalities)


def _in_words(members: frozenset[str], modalities: tuple[str, ...]) -> str:
    gone = [name for name in modalities if name not in members]
    if not members:
        return "all masked"
    if not gone and len(modalities) > 1:
        return "all"
    if len(gone) == 1 and len(modalities) > 3:
        return f"all but {gone[0]}"
    return coalition_name(members, modalities)


def _title(
    coalitions: tuple[frozenset[str], ...],
    names: tuple[str, ...],
    errors: tuple[Estimate | None, ...],
    M: int,
) -> str:
    known = [
        (e.value, place) for place, e in enumerate(errors) if e is not None and e.value is not None
    ]
    if not known:
        return "Calibration with every set of modalities"
    whole = next((value for value, place in known if len(coalitions[place]) == M), None)
    worst, place = max(known)
    name = names[place]
    said = f"{number(worst)} with {'all modalities' if name == 'all' else _said(name)}"
    if whole is None:
        return f"The calibration error is up to {said}"
    everything = "all modalities" if M > 1 else _said(names[-1])
    title = f"The calibration error is {number(whole)} with {everything}"
    if number(worst) == number(whole):
        return f"{title}, and no larger with fewer"
    return f"{title}, and up to {said}"


def _said(name: str) -> str:
    return "all of them masked" if name == "all masked" else shorten(name, 40)
