"""The worker of a workspace: starts each job in a process of its own, one per device, and looks after what became of it.

``python -m mmaudit.jobs.worker WORKSPACE``; there is one at a time, for as long as it holds the workspace's lock. It keeps nothing
in memory that matters: killed at any moment, the next one reads the job folders and goes on, and the jobs, which are no children
of its session, run on meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mmaudit.exceptions import MMAuditError
from mmaudit.jobs.bell import Bell
from mmaudit.jobs.devices import environment, find_devices, lease_path
from mmaudit.jobs.lease import Lease, needs_linux
from mmaudit.jobs.overseer import Overseer
from mmaudit.jobs.processes import TOKEN
from mmaudit.jobs.queue import BELL, WORKER_LOCK, Queue
from mmaudit.jobs.run import PAUSE
from mmaudit.jobs.states import (
    ALIVE,
    ENDED,
    LOG,
    PROGRESS,
    STATE,
    JobSpec,
    JobStatus,
    change,
    now,
    read_spec,
    read_status,
)
from mmaudit.report.store import sweep_leftovers

__all__ = ["Worker", "main", "work"]

GRACE = 60.0
"""Seconds that a cancelled job has to save its state."""

_SCAN = 2.0
"""Seconds between two looks at everything, for what nobody has rung for."""
_SETTLE = 0.05
"""Seconds between two looks while something is about to happen."""


@dataclass
class _Waiting:
    """A queued job whose turn it may be."""

    folder: Path
    spec: JobSpec
    status: JobStatus


class Worker:
    """Runs the queued jobs of a workspace, the oldest first.

    Args:
        workspace: Its folder.
        runner: Command that runs an attempt, to which five words are added (see :func:`mmaudit.jobs.run.main`).
        devices: What jobs may run on, one each; left out, found out.
        grace: Seconds between asking a cancelled job to stop and killing it.
        pause: Seconds before a crashed job is run on.
        poll: Seconds between two questions whether the bell was rung.

    Raises:
        JobError: Where the system cannot run jobs.
    """

    def __init__(
        self,
        workspace: Path | str,
        *,
        runner: Sequence[str] = (sys.executable, "-P", "-m", "mmaudit.jobs.run"),
        devices: Sequence[str] | None = None,
        grace: float = GRACE,
        pause: float = PAUSE,
        poll: float = 0.2,
    ) -> None:
        needs_linux()
        self.queue = Queue(workspace)
        self.queue.folder.mkdir(parents=True, exist_ok=True)
        self._runner = tuple(runner)
        self._devices = tuple(devices) if devices is not None else None
        self._pause, self._poll = pause, poll
        self._overseer = Overseer(self.queue.workspace, grace=grace, pause=pause)
        self._bell = Bell(self.queue.folder / BELL)
        self._settled: dict[Path, tuple[int, int, int]] = {}
        self._said: dict[Path, str] = {}
        self._stopping = False

    def run(self, *, idle: float | None = None) -> bool:
        """Work until told to stop.

        Args:
            idle: Leave after so many seconds without a job that waits or runs; left out, never.

        Returns:
            Whether this was the workspace's worker; ``False`` if another one is at work.
        """
        worked = False
        while not self._stopping:
            lease = Lease.take(self.queue.folder / WORKER_LOCK)
            if lease is None:
                return worked
            with lease:
                self._work(idle)
            worked = True
            # Who submitted just now saw the lock held and started no worker: so look once more.
            if not self._has_work():
                break
        return True

    def stop(self) -> None:
        """Leave after the present look; the jobs run on."""
        self._stopping = True

    def step(self) -> bool:
        """Look at every job once and do what is due.

        Returns:
            Whether any job waits or runs.
        """
        waiting: list[_Waiting] = []
        busy = False
        for folder in self.queue.folders():
            with self._despite(folder):
                found = self._look(folder)
                busy = busy or found is not None
                if found is not None and found.status.state == "queued":
                    waiting.append(found)
        self._overseer.clean()
        due = [
            job
            for job in waiting
            if job.status.not_before is None or job.status.not_before <= now()
        ]
        self._start(sorted(due, key=lambda job: (job.spec.created, job.spec.id)))
        return busy or bool(self._overseer.remnants)

    def close(self) -> None:
        """Let go of everything; the jobs run on."""
        self._bell.close()
        self._overseer.close()

    def _work(self, idle: float | None) -> None:
        sweep_leftovers(self.queue.folder)
        since = time.monotonic()
        while not self._stopping:
            busy = self.step()
            at = time.monotonic()
            since = at if busy else since
            if idle is not None and at - since > idle:
                return
            self._wait(at + (_SETTLE if self._overseer.in_a_hurry else _SCAN))

    def _wait(self, until: float) -> None:
        """Until then, or until something has happened."""
        while not self._stopping and time.monotonic() < until:
            if self._bell.heard() or self._overseer.reap():
                return
            time.sleep(min(self._poll, max(0.0, until - time.monotonic())))

    def _has_work(self) -> bool:
        return any(job.state == "queued" for job in self.queue.jobs())

    def _look(self, folder: Path) -> _Waiting | None:
        """See to one job; returned if it waits or runs."""
        found = (folder / STATE).stat()
        written = (found.st_mtime_ns, found.st_ino, found.st_size)
        if self._settled.get(folder) == written:
            return None
        status = self._overseer.see(folder, read_status(folder))
        if status.state in ENDED:
            self._settled[folder] = written
            return None
        return _Waiting(folder, read_spec(folder), status)

    def _start(self, waiting: list[_Waiting]) -> None:
        """Start as many jobs, the first first, as there are free devices."""
        left = list(waiting)
        for device in self._find_devices() if left else ():
            with (
                self._despite(self.queue.folder),
                _optional(Lease.take(lease_path(device, self.queue.folder))) as lease,
            ):
                while lease is not None and left:
                    if self._try(left.pop(0).folder, device, lease):
                        break

    def _try(self, folder: Path, device: str, lease: Lease) -> bool:
        """Start an attempt at a job if it is free; whether one was started."""
        started = False
        with self._despite(folder), _optional(Lease.take(folder / ALIVE)) as alive:
            if alive is not None:  # else the last attempt is not quite gone
                started = self._spawn(folder, device, alive, lease)
        return started

    def _spawn(self, folder: Path, device: str, alive: Lease, lease: Lease) -> bool:
        """Start an attempt; whether one was started."""
        token = self._overseer.new_token(folder)
        handles = (alive.fileno(), lease.fileno())
        self._overseer.exit_status(folder)
        sweep_leftovers(folder)

        def decide(status: JobStatus) -> JobStatus | None:
            if status.state != "queued":
                return None
            return status.to(
                "running", f"runs on {device}", token=token, attempts=status.attempts + 1, begun=status.begun + 1,
                started=now(), device=device, process=None, not_before=None,
            )  # fmt: skip

        if change(folder, decide).token != token:
            return False
        try:
            (folder / PROGRESS).unlink(missing_ok=True)
            with (folder / LOG).open("ab") as log:
                process = subprocess.Popen(
                    [*self._runner, str(folder), token, device, *map(str, handles)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={
                        **os.environ,
                        **environment(device),
                        TOKEN: token,
                        "PYTHONUNBUFFERED": "1",
                    },
                    # Its own session: it outlives this worker and the terminal or app that started it.
                    start_new_session=True,
                    close_fds=True,
                    pass_fds=handles,
                )
        except OSError as error:
            why = f"it could not be started: {error.strerror or error}"
            change(folder, lambda status: status.again(why, pause=self._pause))
            return False
        self._overseer.has_started(folder, process)
        return True

    def _find_devices(self) -> tuple[str, ...]:
        if self._devices is None:
            self._devices = find_devices()
        return self._devices

    @contextmanager
    def _despite(self, folder: Path) -> Iterator[None]:
        """One job that cannot be dealt with, whatever the reason, does not keep the others from running."""
        try:
            yield
        except Exception as error:
            said = f"{folder.name[:8]}: {error}"
            if self._said.get(folder) != said:
                self._said[folder] = said
                print(f"{now():%Y-%m-%d %H:%M:%S} {said}", file=sys.stderr, flush=True)
                if not isinstance(error, (MMAuditError, OSError)):
                    traceback.print_exc()


@contextmanager
def _optional(lease: Lease | None) -> Iterator[Lease | None]:
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()


def work(worker: Worker, *, idle: float | None) -> bool:
    """Let a worker work until SIGTERM or Ctrl-C, which leave its jobs running.

    Args:
        worker: The worker; closed afterwards.
        idle: As in :meth:`Worker.run`.

    Returns:
        Whether it was the workspace's worker.
    """

    def leave(number: int, frame: Any) -> None:
        worker.stop()

    # Not as an exception: between a job's state and its process there is no good moment for one.
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return worker.run(idle=idle)
    finally:
        worker.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def main(
    workspace: Annotated[Path, typer.Argument(help="Folder of the workspace.")],
    idle: Annotated[float, typer.Option(help="Leave after so many seconds without work.")] = 300.0,
) -> None:
    """Run the jobs of a workspace until there have been none for a while."""
    work(Worker(workspace), idle=idle)


if __name__ == "__main__":
    typer.run(main)
