"""A report on a terminal: readable in 80 columns, without colour and in a log file. Colour only repeats what words say."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmaudit.export.overview import HEADERS, make_overview
from mmaudit.report import AuditReport

__all__ = ["print_report"]

_BETWEEN = "   "


def print_report(report: AuditReport, console: Console) -> None:
    """Print what was audited, whether it can be trusted, the scores, one row per modality and what stands out.

    Args:
        report: The report.
        console: Where to; decides width and colour.
    """
    overview = make_overview(report)
    # Everything goes through Text: names come from models and data and must not be read as markup.
    console.print(Text(overview.title, style="bold"))
    console.print()
    for label, parts in overview.steps:
        _print_step(console, label, parts, "dim")
    console.print()
    scores = [f"{who} {score}" for who, score in overview.scores]
    _print_step(console, "Accuracy", scores, "bold")
    console.print()
    console.print(_modalities(overview.rows))
    console.print()
    for sentence in overview.sentences:
        _print_marked(console, "-", sentence, "bold")
    for text in overview.warnings:
        _print_marked(console, "!", text, "bold yellow")
    for text in overview.notes:
        _print_marked(console, "i", text, "dim")


def _print_step(console: Console, label: str, parts: Sequence[str], style: str) -> None:
    indent = 14
    width = max(console.width - indent, 20)
    lines = [""]
    for part in parts:
        # Lines end between parts; only a part that is longer than a line is broken.
        if lines[-1] and cell_len(lines[-1] + _BETWEEN + part) > width:
            lines.append("")
        lines[-1] += (_BETWEEN if lines[-1] else "") + part
    head = label
    for line in lines:
        for piece in Text(line).wrap(console, width):
            text = Text(f" {head:<{indent - 1}}", style=style)
            console.print(text.append(piece.plain.rstrip(), style="not dim not bold"))
            head = ""


def _modalities(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold", pad_edge=True)
    table.add_column(HEADERS[0], overflow="fold")
    for header in HEADERS[1:]:
        table.add_column(header, overflow="fold", min_width=12)
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    return table


def _print_marked(console: Console, mark: str, text: str, style: str) -> None:
    head = mark
    for piece in Text(text).wrap(console, max(console.width - 3, 20)):
        console.print(
            Text(f" {head} ", style=style).append(
                piece.plain.rstrip(), style="not dim not bold default"
            )
        )
        head = " "
