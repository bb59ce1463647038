"""A report as Markdown, for pull requests, model cards and logs."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from mmaudit.export.opened import EVIDENCE_HEADERS, Opened, open_findings
from mmaudit.export.overview import make_overview
from mmaudit.report import AuditReport
from mmaudit.report.statements import Statement

__all__ = ["escaped", "statement_lines", "table_lines", "to_markdown"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+|~!$-])")


def to_markdown(report: AuditReport) -> str:
    """Write the first screen of a report as Markdown, and what lies behind each finding.

    Args:
        report: The report.

    Returns:
        Headings, lists and tables, a newline at the end. Names come from models and data: they are escaped.
    """
    overview = make_overview(report)
    parts = [f"# {escaped(overview.title)}", ""]
    parts += [f"- **{label}**: {escaped(', '.join(of_step))}" for label, of_step in overview.steps]
    parts += ["", f"## {overview.score}", ""]
    parts += table_lines(("Present", overview.score), overview.scores)
    if overview.model:
        parts += ["", "## The whole model", "", *statement_lines(overview.model)]
    parts += ["", "## Modalities", ""]
    parts += table_lines(overview.headers, overview.rows)
    if overview.conditions:
        parts += ["", *(f"- {escaped(text)}" for text in overview.conditions)]
    if overview.advice:
        parts += ["", "## What to do", "", *statement_lines(overview.advice)]
        parts += [f"- {escaped(overview.further)}"] if overview.further else []
    for heading, texts in (
        ("What stands out", overview.sentences),
        ("Warnings", overview.warnings),
        ("Notes", overview.notes),
    ):
        if texts:
            parts += ["", f"## {heading}", "", *(f"- {escaped(text)}" for text in texts)]
    opened = open_findings(report.record)
    if opened:
        parts += ["", "## Behind the findings"]
        for found in opened:
            parts += ["", *_opened_lines(found)]
    return "\n".join(parts) + "\n"


def statement_lines(statements: Iterable[Statement]) -> list[str]:
    """Findings as a list: the sentence, then what to do. The level stands before it as a word."""
    lines = []
    for found in statements:
        lines.append(f"- **{found.level}**: {escaped(found.text)}")
        lines += [f"  - {escaped(text)}" for text in found.below]
        if found.command is not None:
            lines.append(f"  - {_code(found.command)}")
    return lines


def _opened_lines(found: Opened) -> list[str]:
    verdict = f": {found.verdict}" if found.verdict else ""
    lines = [f"### {escaped(found.name)}{verdict}", "", escaped(found.text)]
    said = [("Rule", found.rule)] if found.rule else []
    said += [("Beside it", text) for text in found.conditions]
    said += [("Missing", text) for text in found.missing]
    if found.remedies:
        said.append(("Worth trying", ", ".join(found.remedies)))
    if said:
        lines += ["", *(f"- {label}: {escaped(text)}" for label, text in said)]
    if found.evidence:
        lines += ["", *table_lines(EVIDENCE_HEADERS, found.evidence)]
    if found.more:
        lines += ["", f"And {found.more} more estimates, all in the record."]
    return lines


def _code(text: str) -> str:
    """Inline code; its fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    lines = [f"| {' | '.join(headers)} |", f"|{' --- |' * len(headers)}"]
    return lines + [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows]


def escaped(text: str) -> str:
    """Keep a text from being read as Markdown or HTML; numbers with intervals stay readable in the source."""
    if re.fullmatch(r"[-+.,\d\s\[\]]+!?", text):
        return text.replace("[", "\\[")
    return html.escape(_SPECIAL.sub(r"\\\1", text), quote=False)
