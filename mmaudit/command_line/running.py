"""Around commands that run the owner's code, and where results are printed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaudit.command_line.ending import StoppedError, interrupt_status, only_ours_on_stdout

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["owners_code", "results_console", "resumable_in"]


@contextlib.contextmanager
def owners_code() -> Iterator[None]:
    """Around everything that runs the owner's code: its prints leave stdout alone, and the current folder is importable.

    It comes last, as a way to find what neither the audit file's own folder nor the installed packages have.
    """
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        with only_ours_on_stdout():
            yield
    finally:
        if here in sys.path:
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


@contextlib.contextmanager
def resumable_in(context: Any, out: Path) -> Iterator[None]:
    """Around what ``--resume`` goes on with: Ctrl-C ends it with the command that does.

    Args:
        context: Of the command.
        out: Where it writes.

    Raises:
        StoppedError: Instead of ``KeyboardInterrupt``.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        from mmaudit.command_line.places import resume_command

        text = "interrupted before anything was computed: nothing to resume."
        if out.is_dir():
            text = f"interrupted: go on with  {resume_command(context, out)}"
        raise StoppedError(text, interrupt_status(stop)) from stop


def results_console(*, tables: bool = False) -> Console:
    """Where results go; in files and pipes, tables are as wide as they are."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() or not tables else 1000)
