"""Sentences about data that went wrong."""

from __future__ import annotations

import itertools
from typing import Any

from mmaudit.report.schema import Note

__all__ = ["IN_WORKER", "data_note", "explain", "shortened"]

IN_WORKER = "Original Traceback"
"""What torch writes into the message of an error that it brings back from a worker."""


def explain(error: BaseException) -> str:
    """Class and message of an error in one line; of an error in a worker, its own and not its traceback."""
    text = str(error).strip()
    if IN_WORKER in text:
        lines = text.splitlines()
        frame = max(
            i for i, line in enumerate(lines) if line.startswith("  File ") or IN_WORKER in line
        )
        return shortened(
            " ".join(
                " ".join(
                    itertools.dropwhile(lambda line: line[:1] == " ", lines[frame + 1 :])
                ).split()
            )
        )
    return shortened(
        f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__
    )


def shortened(text: str, length: int = 300) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= length else text[: length - 3] + "..."


def data_note(kind: Any, text: str) -> Note:
    """A note about the data."""
    return Note(kind=kind, topic="data", text=text)
