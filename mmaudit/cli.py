"""The console script.

The commands and their libraries take a good part of a second to import. They are imported here, inside :func:`main`, so that
Ctrl-C at that time ends with a sentence too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmaudit.command_line.application import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command that the process was started with, and end the process."""
    before: Any = None
    # Signals belong to the main thread, and may be ignored on purpose, as those of a job in the background are.
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        # An interpreter that is importing may swallow the exception that Ctrl-C is, or turn it into another.
        before = signal.signal(signal.SIGINT, _leave)
    try:
        from mmaudit.command_line.application import app

        if before is not None:
            signal.signal(signal.SIGINT, before)
        app(prog_name="mmaudit")
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _leave(number: int, frame: Any) -> None:
    """End at once: nothing was begun."""
    os.write(2, b"interrupted.\n")
    os._exit(128 + number)


def __getattr__(name: str) -> Any:
    """``app``, which is imported when it is asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmaudit.command_line import application

    return application.app
