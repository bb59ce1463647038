"""How far an audit is: a bar on a terminal, a few plain lines in a log, nothing where nobody wants it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mmaudit.command_line.ending import say
from mmaudit.report.numbers import count, duration, percent

__all__ = ["PlainLines", "SeriesLines", "show_progress"]


class Report(Protocol):
    """What ``mmaudit.audit`` takes as ``progress``."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """``done`` samples of ``total`` in a stage."""


_LEAST_SECONDS = 2.0
_LEAST_SHARE = 0.1
_SIGN_OF_LIFE = 60.0
_OF_SERIES = re.compile(
    r"(?P<name>.*) \((?P<part>[^()]*), (?P<nth>\d+) of (?P<all>\d+)\)", re.DOTALL
)


@contextlib.contextmanager
def show_progress(*, quiet: bool = False, series: bool = False) -> Iterator[Report]:
    """Show progress on stderr while the block runs.

    Args:
        quiet: Show nothing.
        series: Stages are parts of checkpoints, ``epoch=3 (train, 4 of 20)``: a log gets a line for each checkpoint.

    Yields:
        What is to be told how far things are.
    """
    console = Console(stderr=True)
    if quiet:
        yield _nothing
    elif console.is_terminal and not console.is_dumb_terminal:
        with _Bar(console) as bar:
            yield bar
    elif series:
        lines = SeriesLines(say)
        yield lines
        lines.finish()
    else:
        yield PlainLines(say)


class PlainLines:
    """Progress for logs: a line per stage, then one whenever 2 s and a tenth have passed, or a minute.

    Args:
        write: Takes a line.
        clock: Seconds.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._stage = ""
        self._began, self._at_first = 0.0, 0
        self._last, self._at_last = 0.0, 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Told how far a stage is."""
        now = self._clock()
        if stage != self._stage:
            self._stage = stage
            self._began, self._at_first = now, done
        else:
            waited, more = now - self._last, done - self._at_last
            enough = more >= _LEAST_SHARE * (total or 10 * self._at_last)
            if waited < _LEAST_SECONDS or not (enough or waited >= _SIGN_OF_LIFE):
                return
        self._last, self._at_last = now, done
        self._write(self._line(done, total, now))

    def _line(self, done: int, total: int | None, now: float) -> str:
        if not done:
            return self._stage
        if not total:
            return f"{self._stage:<12} {count(done)} {_unit(self._stage)}"
        line = f"{self._stage:<12} {count(done)} of {count(total)} {_unit(self._stage)} ({percent(done / total)})"
        here = done - self._at_first
        if here and now > self._began and done < total:
            line += f", about {duration((total - done) * (now - self._began) / here)} left"
        return line


class SeriesLines:
    """Progress of a series for logs: a line for each finished checkpoint; before that one a minute, as a sign of life.

    Args:
        write: Takes a line.
        clock: Seconds.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._other = PlainLines(write, clock)
        self._at: tuple[str, int, int] | None = None
        self._began, self._last, self._finished = clock(), clock(), 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Told how far a stage is; a stage of another checkpoint says that the one before is finished."""
        found = _OF_SERIES.fullmatch(stage)
        if found is None:
            self._other(stage, done, total)
            return
        at = found["name"], int(found["nth"]), int(found["all"])
        if at != self._at:
            self.finish()
            self._at = at
        now = self._clock()
        if now - self._last >= _SIGN_OF_LIFE:
            self._last = now
            share = f" of {count(total)} samples ({percent(done / total)})" if total else " samples"
            self._write(f"{_nth(at)}, {found['part']}: {count(done)}{share}")

    def finish(self) -> None:
        """Tell of the checkpoint that was last worked on; called when there is nothing to come."""
        if self._at is None:
            return
        now = self._clock()
        self._last, self._finished = now, self._finished + 1
        left = self._at[2] - self._at[1]
        line = f"{_nth(self._at)} done"
        if left:
            line += f", about {duration(left * (now - self._began) / self._finished)} left"
        self._at = None
        self._write(line)


class _Bar:
    """Progress for people who watch; it leaves nothing behind."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[share]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            # Foreign prints are left where they were sent.
            redirect_stdout=False,
        )
        self._stage = ""
        self._task = TaskID(0)

    def __enter__(self) -> _Bar:
        self._progress.start()
        self("Loading", 0, None)
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        share = (
            f"{count(done)} of {count(total)} {_unit(stage)}"
            if total
            else f"{count(done)} {_unit(stage)}"
            if done
            else ""
        )
        if stage != self._stage:
            if self._stage:
                self._progress.remove_task(self._task)
            self._stage = stage
            self._task = self._progress.add_task(stage, total=total, completed=done, share=share)
        else:
            self._progress.update(self._task, completed=done, total=total, share=share)


def _nth(at: tuple[str, int, int]) -> str:
    name, number, every = at
    return f"Checkpoint {count(number)} of {count(every)}: {name}"


def _unit(stage: str) -> str:
    return "steps" if stage.startswith("Training") else "samples"


def _nothing(stage: str, done: int, total: int | None) -> None:
    """Nobody wants to know."""
