"""A comparison on a terminal and as Markdown: the verdict, one row for each main number, what to know before trusting them."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmaudit.export.markdown import escaped, table_lines
from mmaudit.report.changes import Change, is_significant, main_changes, p_text
from mmaudit.report.comparison import Comparison, Difference
from mmaudit.report.labels import clean, shorten
from mmaudit.report.numbers import count, number, with_interval
from mmaudit.report.sides import sides_of

__all__ = ["comparison_markdown", "print_comparison"]

_MOST = 6
_WIDTH = 400
_WIDEST_SIDE = 11


class _Story(NamedTuple):
    """What both renderers lay out; foreign texts are cleaned and bounded, but not escaped."""

    titles: tuple[tuple[str, str], ...]
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    also: tuple[str, ...]
    """Other numbers that changed."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what was compared, the main numbers of both sides, and the verdict.

    Args:
        comparison: Of two records.
        console: Where to; decides width and colour.
    """
    story = _story(comparison)
    # Everything goes through Text: names come from models and data and must not be read as markup.
    widest = max(cell_len(label) for label, _ in story.titles)
    for label, title in story.titles:
        _print_labelled(console, label + " " * (widest - cell_len(label)), title, "bold")
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold", pad_edge=True)
    for place, header in enumerate(story.headers):
        # Values are short: a long name of a side stands in two lines and leaves its room to the differences.
        most = _WIDEST_SIDE if place in (1, 2) else None
        table.add_column(header, overflow="fold", min_width=6 if place else 8, max_width=most)
    for row in story.rows:
        table.add_row(*(Text(text) for text in row))
    console.print(table)
    console.print()
    _print_labelled(console, "Verdict:", clean(comparison.verdict.sentence), "bold")
    for text in story.also:
        _print_labelled(console, "-", text, "bold")
    for text in story.warnings:
        _print_labelled(console, "!", text, "bold yellow")
    for text in story.notes:
        _print_labelled(console, "i", text, "dim")


def comparison_markdown(comparison: Comparison) -> str:
    """Write a comparison as Markdown, for pull requests and logs.

    Args:
        comparison: Of two records.

    Returns:
        Headings, a table and lists, a newline at the end. Names come from models and data: they are escaped.
    """
    story = _story(comparison)
    parts = [f"# {escaped(sides_of(comparison.before, comparison.after).heading)}", ""]
    parts += [f"- **{label}**: {escaped(title)}" for label, title in story.titles]
    parts += ["", f"**Verdict**: {escaped(clean(comparison.verdict.sentence))}", ""]
    parts += table_lines([escaped(header) for header in story.headers], story.rows)
    for heading, texts in (
        ("What else changed", story.also),
        ("Warnings", story.warnings),
        ("Notes", story.notes),
    ):
        if texts:
            parts += ["", f"## {heading}", "", *(f"- {escaped(text)}" for text in texts)]
    return "\n".join(parts) + "\n"


def _print_labelled(console: Console, label: str, text: str, style: str) -> None:
    """Print a text behind its label; further lines stand under the first."""
    indent = cell_len(label) + 2
    head = label
    for piece in Text(text).wrap(console, max(console.width - indent, 20)):
        line = Text(f" {head:<{indent - 1}}", style=style)
        console.print(line.append(piece.plain.rstrip(), style="not dim not bold default"))
        head = ""


def _story(comparison: Comparison) -> _Story:
    changes = main_changes(comparison.modalities, comparison.measures)
    groups = "" if comparison.groups is None else f", {count(comparison.groups)} groups"
    notes = [
        f"{note.topic}: {note.text}" for note in comparison.notes if note.kind == "information"
    ]
    warnings = _warnings(comparison, changes)
    said = {text.lower() for text in warnings}
    sides = sides_of(comparison.before, comparison.after)
    # Said among the warnings, perhaps of several numbers at once.
    caveats = [text for text in comparison.verdict.caveats if not _told(text, said)]
    return _Story(
        titles=(
            (sides.before, shorten(comparison.before.title, 160)),
            (sides.after, shorten(comparison.after.title, 160)),
        ),
        headers=(
            "",
            shorten(sides.before),
            shorten(sides.after),
            f"Difference, {count(comparison.samples)} samples{groups}",
            "p",
        ),
        rows=tuple(_row(change) for change in changes),
        also=_also(comparison, changes),
        warnings=_bounded(warnings),
        notes=_bounded([*caveats, *_tests(comparison), *notes]),
    )


def _told(caveat: str, said: set[str]) -> bool:
    what, _, why = caveat.lower().rstrip(".").partition(": ")
    return any(text.startswith(what) and text.endswith(f": {why}") for text in said)


def _row(change: Change) -> tuple[str, ...]:
    row, digits = change.row, 2 if change.modality else 3
    mark = " !" if row.difference.warning else ""
    return (
        shorten(change.name, 40),
        with_interval(row.before, digits).split(" [")[0],
        with_interval(row.after, digits).split(" [")[0],
        with_interval(row.difference, digits + 1 if change.modality else 3, signed=True) + mark,
        p_text(row.p_holm).removeprefix("p "),
    )


def _also(comparison: Comparison, shown: tuple[Change, ...]) -> tuple[str, ...]:
    """One sentence that counts the other numbers that changed, and names the largest."""
    rows = {id(change.row) for change in shown}
    others = [
        (measure.key, row)
        for measure in comparison.measures.values()
        for row in measure.rows
        if row.p is not None and id(row) not in rows
    ]
    moved = [(key, row) for key, row in others if is_significant(row)]
    if not others:
        return ()
    if not moved:
        return (f"None of {count(len(others))} other numbers changed (corrected p below .05).",)
    # An example about all classes says more than one about a single class.
    key, row = min(
        moved,
        key=lambda item: (
            item[1].labels.get("class", "all") != "all",
            item[1].p_holm,
            -_size(item[1]),
        ),
    )
    about = ", ".join(value for value in row.labels.values() if value != "all")
    said = f"{key} ({about}) {with_interval(row.difference, 3, signed=True)}"
    text = f"{count(len(moved))} of {count(len(others))} other numbers changed too (corrected p below .05), for example {said}."
    return (shorten(text, _WIDTH),)


def _size(row: Difference) -> float:
    """How far a difference is from 0, in half-widths of its interval."""
    estimate = row.difference
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return 0.0
    return abs(estimate.value) / max(estimate.high - estimate.low, 1e-12)


def _warnings(comparison: Comparison, changes: tuple[Change, ...]) -> list[str]:
    texts = [
        f"{note.topic}: {clean(note.text)}"
        for note in comparison.notes
        if note.kind != "information"
    ]
    texts += [
        f"{key} is undefined, {clean(measure.undefined)}"
        for key, measure in comparison.measures.items()
        if measure.undefined and key != "interactions"
    ]
    reasons: dict[str, list[str]] = {}
    for change in changes:
        text = change.row.difference.warning or change.row.difference.undefined
        if text is not None:
            reasons.setdefault(clean(text), []).append(change.name)
    texts += [
        f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}: {text}"
        for text, names in reasons.items()
    ]
    return texts


def _tests(comparison: Comparison) -> list[str]:
    """How the p-values were made, and what they can resolve."""
    tests = dict.fromkeys(
        row.test for measure in comparison.measures.values() for row in measure.rows if row.test
    )
    if not tests:
        return []
    text = f"p: {' (accuracies) and '.join(sorted(tests))}, two-sided, corrected for the number of modalities (Holm)"
    replicates = comparison.settings.get("replicates")
    if "paired bootstrap" in tests and isinstance(replicates, int):
        text += f"; the bootstrap gives none below {number(1 / (replicates + 1), 4)}"
    return [f"{text}."]


def _bounded(texts: list[str]) -> tuple[str, ...]:
    shown = [shorten(text, _WIDTH) for text in dict.fromkeys(texts)]
    if len(shown) > _MOST:
        shown = [*shown[:_MOST], f"and {len(shown) - _MOST} more, all in the comparison"]
    return tuple(shown)
