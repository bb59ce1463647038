"""Tells the job's folder how far the job is, not more often than anybody looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mmaudit.jobs.states import CANCEL, JobProgress, now, write_progress

__all__ = ["Progress", "Reporter"]

_LEAST_SECONDS = 0.25
"""Between two writings: four a second at most."""


class Progress(Protocol):
    """What a job tells how far it is."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` are done in a stage."""


class Reporter:
    """The ``progress`` of a job: writes ``progress.json`` and looks whether the job is to stop.

    Args:
        folder: Of the job.
        stop: Called where the job is to stop, which also works where no signal reaches it; it may raise.
    """

    def __init__(self, folder: Path, *, stop: Callable[[], None]) -> None:
        self._folder, self._stop = folder, stop
        self._stages: set[str] = set()
        self._stage, self._first, self._began = "", 0, 0.0
        self._written = float("-inf")
        self._unwritten: tuple[int, int | None] | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Say that ``done`` of ``total`` are done in a stage."""
        at = time.monotonic()
        if stage != self._stage:
            self._stage, self._first, self._began = stage, done, at
        wait = self._written + _LEAST_SECONDS - at
        if wait > 0:
            # The name of a new stage is worth a moment: the next word may be an epoch away.
            if stage in self._stages:
                self._unwritten = done, total
                return
            time.sleep(wait)
        self._write(done, total)
        if (self._folder / CANCEL).exists():
            self._stop()

    def flush(self) -> None:
        """Write what was said last, which may have come too soon after what was said before it."""
        if self._unwritten is not None:
            time.sleep(max(0.0, self._written + _LEAST_SECONDS - time.monotonic()))
            self._write(*self._unwritten)

    def _write(self, done: int, total: int | None) -> None:
        self._stages.add(self._stage)
        progress = JobProgress(
            stage=self._stage[:200],
            done=max(0, done),
            total=total,
            eta_seconds=self._left(done, total),
            at=now(),
        )
        write_progress(self._folder, progress)
        self._written, self._unwritten = time.monotonic(), None

    def _left(self, done: int, total: int | None) -> float | None:
        """Seconds to the end of the stage at the pace since this attempt came to it."""
        here, spent = done - self._first, time.monotonic() - self._began
        if not total or here <= 0 or spent <= 0:
            return None
        return max(0.0, (total - done) * spent / here)
