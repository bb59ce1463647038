"""What becomes of attempts once they run: cancelled ones are seen to stop, dead ones are noticed, and what they leave is ended.

An attempt is known by its folder, its locks and its token, never by being a child of this worker: it may have been started by one
that was killed. Being its parent only tells, in addition, how it ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from mmaudit.jobs.errors import JobError
from mmaudit.jobs.processes import attempts, boot_id, is_running, send, sweep
from mmaudit.jobs.registry import identifier
from mmaudit.jobs.states import (
    CANCEL,
    JobStatus,
    ProcessRecord,
    change,
    is_alive,
    read_status,
)

__all__ = ["Overseer"]

_PATIENCE = 2.0
"""Seconds in which helpers of an attempt that is over end by themselves."""


class Overseer:
    """Looks after the attempts of a workspace.

    Args:
        workspace: Its folder.
        grace: Seconds between asking a cancelled job to stop and killing it.
        pause: Seconds before a crashed job is run on.

    Attributes:
        remnants: Processes of attempts that are over, which have been asked to go.
    """

    def __init__(self, workspace: Path, *, grace: float, pause: float) -> None:
        self._jobs = workspace / "jobs"
        self._grace, self._pause = grace, pause
        # What begins so belongs to this workspace, so that another one's worker leaves it alone.
        self._prefix = f"{identifier(str(workspace.resolve()))[:12]}."
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._codes: dict[Path, int] = {}
        self._cancelled: dict[str, float] = {}
        self._cleaned = float("-inf")
        self.remnants: set[ProcessRecord] = set()

    @property
    def in_a_hurry(self) -> bool:
        """Whether a job is being cancelled, which somebody waits for."""
        return bool(self._cancelled)

    def new_token(self, folder: Path) -> str:
        """A token for an attempt at a job."""
        return f"{self._prefix}{folder.name}.{os.urandom(16).hex()}"

    def has_started(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        """Take note of an attempt that this worker has started."""
        self._children[folder] = process

    def see(self, folder: Path, status: JobStatus) -> JobStatus:
        """Do what is due for a job, and give the status that holds then."""
        if status.state == "running" and not is_alive(folder):
            status = self._died(folder)
        elif status.state == "running":
            self._oversee(folder, status)
        if status.state != "running":
            self._cancelled.pop(status.token, None)
        return status

    def close(self) -> None:
        """Let go of everything; the jobs run on."""
        for process in self._children.values():
            if process.poll() is None:
                # It lives on without us: Popen would complain that nobody has waited for it.
                process.returncode = 0
        self._children.clear()

    def _oversee(self, folder: Path, status: JobStatus) -> None:
        """See that a job which is to stop does, and that nothing survives its process."""
        process = status.process
        if process is None:  # it has not reported yet, and will look for the wish to stop itself
            return
        if not is_running(process):
            # Something that it had forked holds its locks.
            sweep(status.token)
            return
        if not (folder / CANCEL).exists():
            return
        since = self._cancelled.get(status.token)
        if since is None:
            # To it alone: were its loaders to die first, their death would reach it in place of the interrupt.
            send(process, signal.SIGTERM)
            self._cancelled[status.token] = time.monotonic()
        elif time.monotonic() - since > self._grace:
            sweep(status.token, session=process.pid)
            send(process, signal.SIGKILL)

    def clean(self) -> None:
        """End what attempts that are over have left behind, where their guard was killed too."""
        if time.monotonic() - self._cleaned < _PATIENCE:
            return
        self._cleaned = time.monotonic()
        over = {process for token, process in attempts(self._prefix) if self._is_over(token)}
        # Whoever was there the last time has had the time to end by itself.
        for process in over & self.remnants:
            send(process, signal.SIGKILL)
        self.remnants = over

    def _is_over(self, token: str) -> bool:
        try:
            status = read_status(self._jobs / token.split(".")[1])
        except (JobError, IndexError):
            return False
        if status.token != token:
            return True
        # A process whose job has ended may take its time to shut down.
        leader = status.process
        return status.state != "running" and not (leader is not None and is_running(leader))

    def _died(self, folder: Path) -> JobStatus:
        """A job whose process has gone without writing its end: cancelled if that was wanted, else run on or given up."""
        code = self.exit_status(folder)

        def decide(status: JobStatus) -> JobStatus | None:
            if status.state != "running" or is_alive(folder):
                return None
            sweep(status.token)
            if (folder / CANCEL).exists():
                forced = status.token in self._cancelled and code in (None, -signal.SIGKILL)
                how = (
                    f"did not stop within {self._grace:g} s and was killed"
                    if forced
                    else "cancelled"
                )
                return status.to("cancelled", f"{how}; resuming goes on from its last checkpoint")
            return status.again(_cause(status, code), pause=self._pause)

        return change(folder, decide)

    def reap(self) -> bool:
        """Collect children that have ended; whether there were any."""
        ended = [folder for folder, process in self._children.items() if process.poll() is not None]
        for folder in ended:
            self._codes[folder] = self._children.pop(folder).returncode
        return bool(ended)

    def exit_status(self, folder: Path) -> int | None:
        """How a job's process ended, asked once; ``None`` if it was no child of this worker."""
        process = self._children.get(folder)
        if process is not None:
            # Its locks are free: it is about to end, if it has not.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        self.reap()
        return self._codes.pop(folder, None)


def _cause(status: JobStatus, code: int | None) -> str:
    """Why a process ended without a word."""
    if code is None and status.process is None:
        return "it ended before it had begun"
    if code is None:
        if status.process is not None and status.process.boot != boot_id():
            return "the machine was restarted"
        return "its process disappeared: killed, probably out of memory"
    if code == -signal.SIGKILL:
        return "killed, probably out of memory"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with status {code} before its end was written"
