"""What became of the requirements on a record, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmaudit.report.labels import clean, shorten

if TYPE_CHECKING:
    from mmaudit.checking import Outcome

__all__ = ["print_outcomes"]

_HOLDS, _FAILS = "bold green", "bold red"


def print_outcomes(title: str, outcomes: Sequence[Outcome], console: Console) -> None:
    """Print one row per requirement, then why those that fail do.

    Args:
        title: Of the record.
        outcomes: What :func:`mmaudit.checking.check` gave.
        console: Where to; decides width and colour.
    """
    # Everything goes through Text: names come from models and data and must not be read as markup.
    console.print(Text(shorten(title, 160), style="bold"))
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold", pad_edge=True)
    table.add_column("Requirement", overflow="fold")
    table.add_column("Found", overflow="fold", min_width=9)
    table.add_column("Compared", overflow="fold", min_width=9)
    table.add_column("", no_wrap=True)
    reasons: list[str] = []
    for outcome in outcomes:
        mark = ""
        if outcome.reason:
            text = clean(outcome.reason)
            if text not in reasons:
                reasons.append(text)
            mark = f" [{reasons.index(text) + 1}]"
        table.add_row(
            Text(shorten(outcome.requirement, 120)),
            Text(clean(outcome.found) + mark),
            Text(outcome.compared),
            Text("holds", style=_HOLDS) if outcome.holds else Text("fails", style=_FAILS),
        )
    console.print(table)
    for number, text in enumerate(reasons, start=1):
        console.print(Text(f" [{number}] {text}"))
    failed = sum(not outcome.holds for outcome in outcomes)
    said = f"{failed} of {len(outcomes)} fail" if failed else f"all {len(outcomes)} hold"
    console.print(Text(f" {said}", style=_FAILS if failed else _HOLDS))
