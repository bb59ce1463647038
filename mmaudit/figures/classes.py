"""Which classes lean on which modality: contributions class by class."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import (
    Table,
    capital,
    cell_word,
    missing_reason,
    named_cells,
    no_values,
    score_word,
    subtitle,
)
from mmaudit.figures.estimates import defined
from mmaudit.figures.heat import Heat, draw_heat
from mmaudit.figures.theme import Words, say_nothing
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import find

__all__ = ["MOST_CLASSES", "ClassesInfo", "classes_info", "classes_table", "plot_classes"]

MOST_CLASSES = 40


class ClassesInfo(NamedTuple):
    """Contributions to the score within each class, or u(m|rest) where there are none."""

    words: Words
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    """At most 40, in order; of more those whose values differ most between or from the modalities' overall values."""
    values: tuple[tuple[Estimate | None, ...], ...]
    """``values[class][m]``, fraction of the class's samples."""
    quantity: str
    total: int
    word: str = "class"
    """What a row is: ``class``, ``label`` or ``number``."""
    undefined: str | None = None


def classes_info(report: AuditReport) -> ClassesInfo:
    """Collect what a report says class by class."""
    names, total, word = report.modalities, len(report.classes), cell_word(report)
    quantity, measure, wanted = (
        "contribution",
        "contributions",
        {"quantity": "value", "score": score_word(report)},
    )
    table = _by_class(report, measure, wanted)
    if not defined(e for row in table.values() for e in row.values()):
        spare = _by_class(report, "utilization", {"quantity": "u"})
        if defined(e for row in spare.values() for e in row.values()):
            quantity, measure, wanted, table = "u(m|rest)", "utilization", {}, spare
    if not defined(e for row in table.values() for e in row.values()):
        reason = missing_reason(report, "contributions")
        if not table and report.rows("contributions"):
            reason = f"nothing was measured {word} by {word}"
        title, lack = f"Nothing is known {word} by {word}", f"No {word} has a value"
        words, reason = no_values(report, "contributions", title, lack, reason)
        return ClassesInfo(words, names, (), (), quantity, total, word, reason)
    extra_label = {"given": "rest"} if measure == "utilization" else {}
    overall = {name: find(report.record, measure, modality=name, **extra_label) for name in names}
    order = [name for name in report.classes if name in table] or list(table)
    shown = sorted(
        order, key=lambda name: -max(_distance(table[name].get(m), overall[m]) for m in names)
    )
    chosen = set(shown[:MOST_CLASSES])
    classes = tuple(name for name in order if name in chosen)
    values = tuple(tuple(table[name].get(m) for m in names) for name in classes)
    used = [e for row in values for e in row if e is not None]
    plural = f"{word}es" if word == "class" else f"{word}s"
    extra = f"{len(classes)} of {len(order)} {plural} shown" if len(classes) < len(order) else ""
    title = _title(word, classes, names, values, overall)
    takeaway = f"{capital(quantity)} to {score_word(report)} by {word} and modality. {title}."
    words = Words(title, subtitle(report, used, extra), takeaway)
    return ClassesInfo(words, names, classes, values, quantity, len(order), word)


def plot_classes(info: ClassesInfo) -> go.Figure:
    """Draw classes as rows and modalities as columns; intervals are in the hover text."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    heat = Heat(
        rows=info.classes,
        columns=info.modalities,
        cells=info.values,
        said=lambda name, modality: f"{info.word} {name}, {modality}",
        rows_title=info.word,
        columns_title="modality",
        bar_title=f"{info.quantity},<br>fraction",
    )
    return draw_heat(info.words, heat)


def classes_table(info: ClassesInfo) -> Table:
    """The same as a table."""
    rows = named_cells(info.classes, info.values)
    return Table((info.word.capitalize(), *info.modalities), rows)


def _by_class(
    report: AuditReport, measure: str, wanted: dict[str, str]
) -> dict[str, dict[str, Estimate]]:
    """Class -> modality -> estimate, read in one pass because there may be thousands of classes."""
    table: dict[str, dict[str, Estimate]] = {}
    modalities = set(report.modalities)
    for row in report.rows(measure, **wanted):
        name, modality = row.labels.get("class", "all"), row.labels.get("modality", "")
        if name != "all" and modality in modalities:
            table.setdefault(name, {})[modality] = row.estimate
    return table


def _distance(estimate: Estimate | None, overall: Estimate | None) -> float:
    if estimate is None or overall is None or estimate.value is None or overall.value is None:
        return -1.0
    return abs(estimate.value - overall.value)


def _title(
    word: str,
    classes: tuple[str, ...],
    names: tuple[str, ...],
    values: tuple[tuple[Estimate | None, ...], ...],
    overall: dict[str, Estimate | None],
) -> str:
    """The cell that is farthest from its modality's overall value, among those whose interval excludes that value.

    Intervals with a warning do not count: of many small classes one is always far away.
    """
    best: tuple[float, str, str, Estimate, Estimate] | None = None
    for name, row in zip(classes, values, strict=True):
        for modality, e in zip(names, row, strict=True):
            whole = overall[modality]
            if e is None or whole is None or whole.value is None or e.low is None or e.high is None:
                continue
            distance = _distance(e, whole)
            if (
                e.warning is None
                and not e.low <= whole.value <= e.high
                and (best is None or distance > best[0])
            ):
                best = (distance, name, modality, e, whole)
    if best is None:
        return f"No {word} is clearly apart from the others"
    _, name, modality, e, whole = best
    assert whole.value is not None
    return f"In {word} {shorten(name)}, {shorten(modality)} counts {with_interval(e)}, overall {number(whole.value)}"
