"""Findings on a page: sentences with their level, the row of each modality with its verdict, and what lies behind each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dash import html

from dashboard.components.browser import aria
from dashboard.components.tables import data_table
from dashboard.components.texts import folded
from mmaudit.export.opened import EVIDENCE_HEADERS, Opened
from mmaudit.export.overview import Overview
from mmaudit.report.statements import Statement

__all__ = ["modality_table", "opened_finding", "statement_list", "verdict_chip"]


def verdict_chip(verdict: str) -> html.Span:
    """A verdict as a word in a frame; colour and kind of line only repeat it."""
    return html.Span(verdict, className=f"verdict verdict-{verdict.replace(' ', '-')}")


def statement_list(found: Sequence[Statement], label: str) -> html.Ul:
    """Sentences, each with its level before it and what to do below it.

    Args:
        found: What was found.
        label: What the list holds, for screen readers.
    """
    items = []
    for one in found:
        parts: list[Any] = [html.Span(one.level, className="level"), f" {one.text}"]
        for text in one.below:
            parts += [html.Br(), text]
        if one.command is not None:
            parts += [html.Br(), html.Code(one.command)]
        items.append(html.Li(parts, className=f"level-{one.level}"))
    return html.Ul(items, className="statements", **aria(label=label))


def modality_table(overview: Overview) -> html.Div:
    """One row per modality: its verdict, where there is one, and its main numbers."""
    rows: list[Sequence[Any]] = list(overview.rows)
    if overview.headers[1] == "Verdict":
        rows = [(row[0], verdict_chip(row[1]), *row[2:]) for row in overview.rows]
    caption = "Values with 95 % intervals; ! marks an interval with a warning"
    return data_table(caption, overview.headers, rows)


def opened_finding(found: Opened) -> html.Details:
    """A finding that opens to the rule, the estimates behind it, and what is missing."""
    head: list[Any] = [found.name]
    if found.verdict:
        head += [": ", verdict_chip(found.verdict)]
    said = [("Means", found.meaning), ("Rule", found.rule)]
    said += [("Beside it", text) for text in found.conditions]
    said += [("Missing", text) for text in found.missing]
    said.append(("Worth trying", ", ".join(found.remedies)))
    terms: list[Any] = []
    before = ""
    for label, text in said:
        if text:
            terms += [html.Dt("" if label == before else label), html.Dd(text)]
            before = label
    parts: list[Any] = [html.P(found.text), html.Dl(terms, className="steps")]
    if found.evidence:
        parts.append(data_table("Estimates behind it", EVIDENCE_HEADERS, found.evidence))
    if found.more:
        parts.append(html.P(f"And {found.more} more, all in the record.", className="soft"))
    return folded(head, parts)
