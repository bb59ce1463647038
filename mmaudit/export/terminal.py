"""A report on a terminal: readable in 80 columns, without colour and in a log file. Colour only repeats what words say."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmaudit.exceptions import RecordError
from mmaudit.export.opened import EVIDENCE_HEADERS, Opened, open_findings
from mmaudit.export.overview import Overview, make_overview
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.requirements import did_you_mean
from mmaudit.report.statements import Statement

__all__ = ["print_advice", "print_finding", "print_report"]

_BETWEEN = "   "
_WIDE = 100
_LONGEST_VERDICT = 13
_VERDICTS = {
    "harmful": "bold red",
    "under-used": "bold yellow",
    "well used": "bold green",
    "redundant": "bold blue",
    "uninformative": "bold",
    "undetermined": "bold magenta",
}
_LEVELS = {
    "problem": "bold red",
    "attention": "bold yellow",
    "information": "bold",
    "good": "bold green",
}


def print_report(report: AuditReport, console: Console) -> None:
    """Print what was audited, whether it can be trusted, the scores, one row per modality with its verdict, and what to do.

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
    _print_step(console, overview.score, scores, "bold")
    console.print()
    if overview.model:
        for found in overview.model:
            _print_statement(console, found)
        console.print()
    console.print(_modalities(overview, console.width))
    for text in overview.conditions:
        _print_marked(console, " ", text, "dim")
    console.print()
    _print_told(overview, console)
    for text in overview.warnings:
        _print_marked(console, "!", text, "bold yellow")
    for text in overview.notes:
        _print_marked(console, "i", text, "dim")


def print_advice(report: AuditReport, console: Console) -> None:
    """Print only what to do, or what stands out where the record has no findings."""
    _print_told(make_overview(report), console)


def print_finding(report: AuditReport, name: str, console: Console) -> None:
    """Print what lies behind a modality's verdict, or behind the findings about the model.

    Args:
        report: The report.
        name: A modality, or ``model``.
        console: Where to; decides width and colour.

    Raises:
        RecordError: If there is no such modality, or the record has no findings.
    """
    found = open_findings(report.record)
    wanted = [opened for opened in found if opened.modality == name]
    if not wanted and name == "model":
        wanted = [opened for opened in found if not opened.verdict]
    if not wanted:
        known = list(report.modalities)
        if not found:
            raise RecordError(
                "this record has no findings; audit again with this version of mmaudit"
            )
        if name == "model":
            raise RecordError("nothing was found about the whole model; ask for a modality")
        shown = ", ".join(shorten(one, 40) for one in known)
        raise RecordError(
            f"expected one of the modalities {shown}, or model, found '{shorten(name, 40)}'{did_you_mean(name, known)}"
        )
    for place, opened in enumerate(wanted):
        if place:
            console.print()
        _print_opened(console, opened)


def _print_told(overview: Overview, console: Console) -> None:
    for found in overview.advice:
        _print_statement(console, found)
    if overview.further:
        _print_marked(console, "i", overview.further, "dim")
    for sentence in overview.sentences:
        _print_marked(console, "-", sentence, "bold")


def _print_opened(console: Console, opened: Opened) -> None:
    if opened.verdict:
        head = Text(f"{opened.name}: ", style="bold")
        console.print(head.append(opened.verdict, style=_VERDICTS[opened.verdict]))
        _print_marked(console, " ", opened.meaning, "dim")
    else:
        console.print(Text(opened.name, style="bold"))
    _print_marked(console, opened.mark, opened.text, _LEVELS[opened.level])
    parts = [
        ("Rule", (opened.rule,) if opened.rule else ()),
        ("Beside it", opened.conditions),
        ("Missing", opened.missing),
        ("Worth trying", (", ".join(opened.remedies),) if opened.remedies else ()),
    ]
    console.print()
    for label, texts in parts:
        for place, text in enumerate(texts):
            _print_step(console, "" if place else label, (text,), "bold")
    if opened.evidence:
        console.print()
        console.print(_evidence(opened, console.width))
    if opened.more:
        console.print(Text(f" and {opened.more} more, all in the record", style="dim"))


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


def _modalities(overview: Overview, width: int) -> Table:
    between = 2 if width >= _WIDE else 1
    judged = "Verdict" in overview.headers
    first = 2 if judged else 1
    numbers = [text for row in overview.rows for text in row[first:]]
    verdict = min(_LONGEST_VERDICT, width // 6) if judged else 0
    # Names are broken before numbers are, as far as the line allows.
    least = max(12, min(max(map(cell_len, numbers), default=12), (width - 32) // 3))
    rest = verdict + least * (len(overview.headers) - first)
    table = Table(box=None, padding=(0, between, 0, 1), header_style="bold", pad_edge=True)
    for place, header in enumerate(overview.headers):
        if place == 0:
            most = max(8, width - rest - (between + 1) * len(overview.headers))
            table.add_column(header, overflow="fold", max_width=most)
        else:
            wide = verdict if header == "Verdict" else least
            table.add_column(header, overflow="fold", min_width=wide)
    for row in overview.rows:
        cells = [Text(text) for text in row]
        if judged:
            cells[1].stylize(_VERDICTS.get(row[1], ""))
        table.add_row(*cells)
    return table


def _evidence(opened: Opened, width: int) -> Table:
    """Estimates behind a finding; what they are about is broken before numbers are."""
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold", pad_edge=True)
    about = EVIDENCE_HEADERS.index("About")
    columns = list(zip(EVIDENCE_HEADERS, *opened.evidence, strict=True))
    rest = sum(max(map(cell_len, texts)) + 2 for texts in columns) - max(
        map(cell_len, columns[about])
    )
    for place, header in enumerate(EVIDENCE_HEADERS):
        most = max(16, width - rest) if place == about else None
        table.add_column(header, overflow="fold", max_width=most)
    for row in opened.evidence:
        table.add_row(*(Text(text) for text in row))
    return table


def _print_statement(console: Console, found: Statement) -> None:
    _print_marked(console, found.mark, found.text, _LEVELS[found.level])
    for text in found.below:
        _print_marked(console, " " * len(found.mark), text, "dim")
    if found.command is not None:
        # Not wrapped: it is there to be copied.
        indent = " " * (len(found.mark) + 2)
        console.print(Text(f"{indent}{found.command}", style="bold"), soft_wrap=True)


def _print_marked(console: Console, mark: str, text: str, style: str) -> None:
    head = mark
    for piece in Text(text).wrap(console, max(console.width - len(mark) - 2, 20)):
        console.print(
            Text(f" {head} ", style=style).append(
                piece.plain.rstrip(), style="not dim not bold default"
            )
        )
        head = " " * len(mark)
