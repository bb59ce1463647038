"""``mmaudit inspect``: the module tree with the modality behind each module, and what could not be determined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mmaudit.checkpoint.structure import inspect_structure
from mmaudit.checkpoint.tree import structure_tree
from mmaudit.command_line.opening import open_audit_file
from mmaudit.evidence.collecting import described
from mmaudit.report.labels import clean, shorten
from mmaudit.report.schema import StructureRecord

__all__ = ["COLOURS", "inspect_audit_file", "print_structure"]

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""Of modalities, in the order of the spec; names always stand beside them."""

_ARROW = "<- "
_TREE_LINE = re.compile(
    r"(?P<module>.*?)<- (?P<seen>.+?) +(?P<role>[a-z]+(, \d+ calls)?, [\d,]+ parameters)$"
)
_INDENT = 12


def inspect_audit_file(
    audit_file: Path, *, device: str | None = None, trust: bool = False
) -> tuple[str, tuple[str, ...], StructureRecord]:
    """Find the structure of the model of an audit file on its first batch.

    Args:
        audit_file: The audit file.
        device: Where to run; left out, a GPU if there is one.
        trust: Load a checkpoint that runs code when it is loaded.

    Returns:
        Title, modalities, structure.

    Raises:
        MMAuditError: If model or data cannot be loaded or do not fit together.
    """
    with open_audit_file(audit_file, device=device, trust=trust) as opened:
        batch = opened.first_batch()
        subject = opened.subject
        with described(batch):
            structure = inspect_structure(subject.model, batch.data, subject.spec)
        return subject.title, subject.spec.names, structure.record


def print_structure(
    title: str, modalities: Sequence[str], record: StructureRecord, console: Console
) -> None:
    """Print the tree in colour.

    Args:
        title: Of the model.
        modalities: Names in the order of the spec.
        record: The structure.
        console: Where to; decides width and colour.
    """
    console.print(Text(shorten(title, 160), style="bold"))
    legend = Text("Modalities: ")
    for number, name in enumerate(modalities):
        legend.append(", " if number else "").append(clean(name), style=_style(number))
    console.print(legend, "")
    lines = structure_tree(record).splitlines()
    seen = [match["seen"] for line in lines if (match := _TREE_LINE.match(line))]
    for line in lines:
        match = _TREE_LINE.match(line)
        if match is None:
            _print_hanging(console, line)
        else:
            width = max(map(len, seen))
            console.print(_tree_line(match, width, list(modalities)), soft_wrap=True)
    if not record.unknown:
        console.print("Everything could be determined.")


def _tree_line(match: re.Match[str], width: int, modalities: list[str]) -> Text:
    text = Text(match["module"] + _ARROW)
    for number, name in enumerate(match["seen"].split(" + ")):
        style = _style(modalities.index(name)) if name in modalities else "dim"
        text.append(" + " if number else "").append(name, style=style)
    return text.append(f"{'':<{width - len(match['seen'])}}  {match['role']}")


def _print_hanging(console: Console, line: str) -> None:
    if line.startswith("! "):
        pieces = Text(line[2:]).wrap(console, max(console.width - 3, 20))
        for number, piece in enumerate(pieces):
            console.print(
                Text("   " if number else " ! ", style="bold yellow") + Text(piece.plain.rstrip())
            )
        return
    head, rest = line[:_INDENT], line[_INDENT:]
    for piece in Text(rest).wrap(console, max(console.width - _INDENT, 20)) or [Text("")]:
        console.print(Text(head + piece.plain.rstrip()))
        head = " " * _INDENT


def _style(number: int) -> str:
    return f"bold {COLOURS[number % len(COLOURS)]}"
