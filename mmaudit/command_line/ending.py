"""How a command ends: with its result, or with one sentence on stderr and an exit status that scripts can rely on.

0 is success; 2 is the user's to mend (bad options, specs, data, checkpoints, missing files); 1 is a fault of ours; 130 and 143
are Ctrl-C and SIGTERM. A traceback appears only with ``--debug`` or ``MMAUDIT_DEBUG=1``. This sits in the group of commands
and not in the console script, so that it holds however the group is called.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from mmaudit.exceptions import MMAuditError, first_line

__all__ = [
    "Commands",
    "StoppedError",
    "TerminatedError",
    "debugging",
    "interrupt_status",
    "only_ours_on_stdout",
    "rank",
    "say",
]

_DEBUG = "MMAUDIT_DEBUG"


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came. A kind of Ctrl-C, so that no ``except Exception`` of foreign code keeps it."""


class StoppedError(Exception):
    """A command was interrupted; the message says how to go on.

    Args:
        message: For the user.
        status: Exit status, 130 for Ctrl-C and 143 for SIGTERM.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Commands(TyperGroup):
    """The group of all commands."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and end the process, as the module says."""
        extra["standalone_mode"] = False
        with _sigterm_as_exception():
            status = _status(lambda: super(Commands, self).main(*args, **extra))
        sys.exit(status)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Understand the command line; an interrupt gets a sentence here too."""
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt as stop:
            raise StoppedError("interrupted.", interrupt_status(stop)) from stop

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an interrupt that it does not explain itself gets a sentence."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise StoppedError("interrupted.", interrupt_status(stop)) from stop


def interrupt_status(stop: KeyboardInterrupt) -> int:
    """Exit status of an interrupt, as shells know it."""
    return 128 + (signal.SIGTERM if isinstance(stop, TerminatedError) else signal.SIGINT)


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(_DEBUG, "") not in ("", "0")


def rank() -> int:
    """Number of this process among those that ``torchrun`` or the like started together."""
    value = os.environ.get("RANK", "0")
    return int(value) if value.isdigit() else 0


def say(text: str = "") -> None:
    """Print text on stderr, where everything goes that is not the result.

    Args:
        text: One line or several; what would control a terminal, in the name of a file perhaps, becomes blank.
    """
    _print(_harmless(text))


def _harmless(text: str) -> str:
    # Half of a surrogate pair, as names of files may have it, is written out by stderr itself.
    return "".join(
        c if c.isprintable() or c in "\n" or "\ud800" <= c <= "\udfff" else " " for c in text
    )


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def only_ours_on_stdout() -> Iterator[None]:
    """Send to stderr what models, data and their libraries print meanwhile, so that stdout holds the result alone."""
    sys.stdout.flush()
    saved = None
    # Native code and worker processes write to the descriptor, not to sys.stdout.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stdout.fileno() == 1:
            saved = os.dup(1)
            os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise TerminatedError

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals belong to whoever called
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status(run: Callable[[], Any]) -> int:
    """Run a command, print what went wrong, and give the exit status."""
    try:
        result = run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as ``head`` does. Python would complain about it once more while it shuts down.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except typer.Abort:  # Ctrl-C or the end of the input at a question
        say("\ninterrupted: nothing was written.")
        return 128 + signal.SIGINT
    except KeyboardInterrupt as stop:
        say("interrupted.")
        return interrupt_status(stop)
    except StoppedError as stop:
        say(str(stop))
        return stop.status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        return _failed(error)
    return result if isinstance(result, int) else 0


def _failed(error: Exception) -> int:
    if debugging():
        traceback.print_exc()
    if isinstance(error, MMAuditError):
        return _complain(str(error))
    if hasattr(error, "format_message"):  # every usage error of typer's parser
        return _complain(_usage(error))
    if isinstance(error, OSError) and (error.strerror or error.filename):
        where = f"{error.filename}: " if error.filename is not None else ""
        return _complain(
            f"{where}{error.strerror or 'cannot be used'}; nothing was lost, check it and try again."
        )
    _complain(
        f"mmaudit failed with {type(error).__name__}: {first_line(error)}. This is a fault of mmaudit: please report it with "
        f"the traceback that --debug (or {_DEBUG}=1) shows."
    )
    return 1


def _complain(sentence: str) -> int:
    head = typer.style("Error:", fg="red", bold=True) if _in_colour() else "Error:"
    number = rank()
    _print(f"{head} {f'process {number}: ' if number else ''}{_harmless(sentence)}")
    return 2


def _usage(error: Any) -> str:
    sentence = " ".join(error.format_message().split()).rstrip(".")
    sentence = sentence.replace("Value error, ", "").removeprefix("Invalid value: ")
    sentence = sentence[:1].lower() + sentence[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return f"{sentence}."
    return (
        f"{sentence}{' See' if sentence.endswith('?') else '; see'} {context.command_path} --help"
    )


def _in_colour() -> bool:
    return (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
