"""What all figures share: the small print under their titles, and the table beside each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmaudit.figures.theme import Words
from mmaudit.report import AuditReport
from mmaudit.report.labels import primary_score, scores_of, shorten, task_of
from mmaudit.report.numbers import count, number, with_interval
from mmaudit.report.schema import Estimate
from mmaudit.report.sentences import masks_text

__all__ = [
    "Cell",
    "Table",
    "capital",
    "cell",
    "cell_word",
    "gets",
    "hover",
    "join_names",
    "missing_reason",
    "named_cells",
    "no_values",
    "score_word",
    "second_score",
    "subtitle",
    "the_score",
]

Cell = Estimate | str
"""A cell of a data table: an estimate, or a text."""


class Table(NamedTuple):
    """The numbers of a figure, to be read."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """The first cell of a row is its name."""


def cell(value: Cell | None, digits: int = 2) -> str:
    """Write one cell; an exclamation mark says that the interval comes with a warning."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return with_interval(value, digits) + (" !" if value.warning else "")


def named_cells(
    names: Iterable[str], rows: Iterable[Iterable[Cell | None]], digits: int = 2
) -> tuple[tuple[str, ...], ...]:
    """Write the rows of a table, one for each name.

    Args:
        names: First cells of the rows.
        rows: The other cells of each row.
        digits: Of the numbers.

    Example:
        >>> named_cells(("audio",), [(Estimate(value=0.5), None)])
        (('audio', '.50', '–'),)
    """
    return tuple(
        (name, *(cell(value, digits) for value in row))
        for name, row in zip(names, rows, strict=True)
    )


def hover(estimate: Estimate | None, digits: int = 3) -> str:
    """Say everything about an estimate in one line."""
    if estimate is None:
        return "not measured"
    if estimate.value is None:
        return f"{with_interval(estimate)}: {estimate.undefined}"
    parts = [with_interval(estimate, digits), f"n = {count(estimate.n)}"]
    parts += [text for text in (estimate.method, estimate.warning) if text]
    return ", ".join(parts)


def subtitle(report: AuditReport, estimates: Iterable[Estimate], extra: str = "") -> str:
    """Say on how many samples, how masked and how the intervals were made."""
    used = [e for e in estimates if e.value is not None]
    sizes = sorted({e.n for e in used})
    methods = list(dict.fromkeys(e.method for e in used if e.method and e.low is not None))
    parts = []
    if sizes:
        parts.append(
            f"n = {count(sizes[0])}"
            if len(sizes) == 1
            else f"n = {count(sizes[0])} to {count(sizes[-1])}"
        )
    parts.append(f"mask: {shorten(masks_text(report.record), 80)}")
    if methods:
        parts.append(f"95 % intervals: {' or '.join(methods[:2])}")
    if any(e.warning for e in used):
        parts.append("some intervals come with a warning")
    if extra:
        parts.append(extra)
    return "; ".join(parts)


def missing_reason(report: AuditReport, key: str) -> str:
    """Why a measure has no value in a report."""
    result = report.measures.get(key)
    if result is not None and result.undefined is not None:
        return result.undefined
    for failure in report.failures:
        if failure.measure == key:
            return f"the measure failed: {failure.error}"
    if result is None:
        return "it was not measured"
    reasons = dict.fromkeys(row.estimate.undefined for row in result.rows)
    return next((reason for reason in reasons if reason), "it has no rows")


def no_values(
    report: AuditReport, key: str, title: str, lack: str, reason: str | None = None
) -> tuple[Words, str]:
    """What a figure says that has nothing to draw.

    Args:
        report: The report.
        key: Measure that has no value.
        title: Of the figure.
        lack: What is missing, as the beginning of a sentence; the reason follows.
        reason: Why; left out, :func:`missing_reason` is asked.

    Returns:
        The words, and the reason.
    """
    reason = missing_reason(report, key) if reason is None else reason
    return Words(title, subtitle(report, ()), f"{lack}: {reason}."), reason


def score_word(report: AuditReport) -> str:
    """Name of the score that a report is told in: ``accuracy``, of a regression ``R2``."""
    return primary_score(task_of(report.record))


def the_score(score: str) -> str:
    """The score's name in a sentence.

    Example:
        >>> the_score("accuracy"), the_score("R2")
        ('the accuracy', 'R2')
    """
    return "the accuracy" if score == "accuracy" else score


def gets(score: str, value: float, digits: int = 2) -> str:
    """What a model with this score does, after its name.

    Example:
        >>> gets("accuracy", 0.9), gets("R2", 0.9)
        ('gets .90 right', 'reaches R2 .90')
    """
    said = number(value, digits)
    return f"gets {said} right" if score == "accuracy" else f"reaches {score} {said}"


def capital(text: str) -> str:
    """The text as a sentence begins; its other letters stay.

    Example:
        >>> capital("log-likelihood of R2")
        'Log-likelihood of R2'
    """
    return text[:1].upper() + text[1:]


def second_score(report: AuditReport) -> tuple[str, str]:
    """Name of the other score, and its unit."""
    task = task_of(report.record)
    unit = "squared unit of the target" if task == "regression" else "nats"
    return scores_of(task)[1], unit


def cell_word(report: AuditReport) -> str:
    """What a class cell of a measure is: ``class``, ``label`` or ``number``."""
    return {"multilabel": "label", "regression": "number"}.get(task_of(report.record), "class")


def join_names(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Example:
        >>> join_names(["a", "b", "c"])
        'a, b and c'
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
