"""A report as Markdown, for pull requests, model cards and logs."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from mmaudit.export.overview import HEADERS, make_overview
from mmaudit.report import AuditReport

__all__ = ["escaped", "table_lines", "to_markdown"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+|~!$-])")


def to_markdown(report: AuditReport) -> str:
    """Write the first screen of a report as Markdown.

    Args:
        report: The report.

    Returns:
        Headings, lists and two tables, a newline at the end. Names come from models and data: they are escaped.
    """
    overview = make_overview(report)
    parts = [f"# {escaped(overview.title)}", ""]
    parts += [f"- **{label}**: {escaped(', '.join(of_step))}" for label, of_step in overview.steps]
    parts += ["", "## Accuracy", ""]
    parts += table_lines(("Present", "Accuracy"), overview.scores)
    parts += ["", "## Modalities", ""]
    parts += table_lines(HEADERS, overview.rows)
    for heading, texts in (
        ("What stands out", overview.sentences),
        ("Warnings", overview.warnings),
        ("Notes", overview.notes),
    ):
        if texts:
            parts += ["", f"## {heading}", "", *(f"- {escaped(text)}" for text in texts)]
    return "\n".join(parts) + "\n"


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    lines = [f"| {' | '.join(headers)} |", f"|{' --- |' * len(headers)}"]
    return lines + [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows]


def escaped(text: str) -> str:
    """Keep a text from being read as Markdown or HTML; numbers with intervals stay readable in the source."""
    if re.fullmatch(r"[-+.,\d\s\[\]]+!?", text):
        return text.replace("[", "\\[")
    return html.escape(_SPECIAL.sub(r"\\\1", text), quote=False)
