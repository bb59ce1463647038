"""The worker of a workspace: starts each job in a process of its own, one per device, and looks after what became of it.

``python -m mmaudit.jobs.worker WORKSPACE``; there is one at a time, for as long as it holds the workspace's lock. It keeps nothing
in memory that matters: killed at any moment, the next one reads the job folders and goes on, and the jobs, which are no children
of its session, run on meanwhile.
"""

from __future__ import annotations

import contextlib
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
from mmaudit.jobs.devices import find_devices, lease_path
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.lease import Lease, needs_linux
from mmaudit.jobs.processes import TOKEN, attempts, boot_id, is_running, send, sweep
from mmaudit.jobs.queue import BELL, WORKER_LOCK, Queue
from mmaudit.jobs.registry import identifier
from mmaudit.jobs.run import PAUSE
from mmaudit.jobs.states import (
    ALIVE,
    CANCEL,
    ENDED,
    LOG,
    PROGRESS,
    STATE,
    JobSpec,
    JobStatus,
    ProcessRecord,
    change,
    is_alive,
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
        self._grace, self._pause, self._poll = grace, pause, poll
        self._bell = Bell(self.queue.folder / BELL)
        self._children: dict[Path, subprocess.Popen[bytes]] = {}
        self._codes: dict[Path, int] = {}
        self._cancelled: dict[str, float] = {}
        self._settled: dict[Path, tuple[int, int, int]] = {}
        self._said: dict[Path, str] = {}
        self._tokens = f"{identifier(str(self.queue.workspace.resolve()))[:12]}."
        self._over: set[ProcessRecord] = set()
        self._cleaned = float("-inf")
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
        self._clean()
        due = [
            job
            for job in waiting
            if job.status.not_before is None or job.status.not_before <= now()
        ]
        self._start(sorted(due, key=lambda job: (job.spec.created, job.spec.id)))
        return busy or bool(self._over)

    def close(self) -> None:
        """Let go of everything; the jobs run on."""
        self._bell.close()
        for process in self._children.values():
            if process.poll() is None:
                # It lives on without us: Popen would complain that nobody has waited for it.
                process.returncode = 0
        self._children.clear()

    def _work(self, idle: float | None) -> None:
        sweep_leftovers(self.queue.folder)
        since = time.monotonic()
        while not self._stopping:
            busy = self.step()
            at = time.monotonic()
            since = at if busy else since
            if idle is not None and at - since > idle:
                return
            self._wait(at + (_SETTLE if self._cancelled else _SCAN))

    def _wait(self, until: float) -> None:
        """Until then, or until something has happened."""
        while not self._stopping and time.monotonic() < until:
            if self._bell.heard() or self._reap():
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
        status = read_status(folder)
        if status.state == "running" and not is_alive(folder):
            status = self._died(folder)
        elif status.state == "running":
            self._oversee(folder, status)
        if status.state in ENDED:
            self._cancelled.pop(status.token, None)
            self._settled[folder] = written
            return None
        return _Waiting(folder, read_spec(folder), status)

    def _start(self, waiting: list[_Waiting]) -> None:
        """Start as many jobs, the first first, as there are free devices."""
        left = list(waiting)
        for device in self._find_devices() if left else ():
            with _optional(Lease.take(lease_path(device, self.queue.folder))) as lease:
                started = lease is None
                while left and not started and lease is not None:
                    job = left.pop(0)
                    with (
                        self._despite(job.folder),
                        _optional(Lease.take(job.folder / ALIVE)) as alive,
                    ):
                        # Nobody can take it while the last attempt is not quite gone.
                        started = alive is not None and self._spawn(
                            job.folder, device, alive, lease
                        )

    def _spawn(self, folder: Path, device: str, alive: Lease, lease: Lease) -> bool:
        """Start an attempt; whether one was started."""
        token = f"{self._tokens}{folder.name}.{os.urandom(16).hex()}"
        handles = (alive.fileno(), lease.fileno())
        self._exit_status(folder)
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
                self._children[folder] = subprocess.Popen(
                    [*self._runner, str(folder), token, device, *map(str, handles)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**os.environ, TOKEN: token, "PYTHONUNBUFFERED": "1"},
                    # Its own session: it outlives this worker and the terminal or app that started it.
                    start_new_session=True,
                    close_fds=True,
                    pass_fds=handles,
                )
        except OSError as error:
            why = f"it could not be started: {error.strerror or error}"
            change(folder, lambda status: status.again(why, pause=self._pause))
            return False
        return True

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

    def _clean(self) -> None:
        """End what attempts that are over have left behind, where their guard was killed too."""
        if time.monotonic() - self._cleaned < _SCAN:
            return
        self._cleaned = time.monotonic()
        over = {process for token, process in attempts(self._tokens) if self._is_over(token)}
        # Whoever was there the last time has had the time to end by itself.
        for process in over & self._over:
            send(process, signal.SIGKILL)
        self._over = over

    def _is_over(self, token: str) -> bool:
        try:
            status = read_status(self.queue.folder / token.split(".")[1])
        except (JobError, IndexError):
            return False
        if status.token != token:
            return True
        # A process whose job has ended may take its time to shut down.
        leader = status.process
        return status.state != "running" and not (leader is not None and is_running(leader))

    def _died(self, folder: Path) -> JobStatus:
        """A job whose process has gone without writing its end: cancelled if that was wanted, else run on or given up."""
        code = self._exit_status(folder)

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

        status = change(folder, decide)
        self._cancelled.pop(status.token, None)
        return status

    def _reap(self) -> bool:
        """Collect children that have ended; whether there were any."""
        ended = [folder for folder, process in self._children.items() if process.poll() is not None]
        for folder in ended:
            self._codes[folder] = self._children.pop(folder).returncode
        return bool(ended)

    def _exit_status(self, folder: Path) -> int | None:
        """How a job's process ended, asked once; ``None`` if it was no child of this worker."""
        process = self._children.get(folder)
        if process is not None:
            # Its locks are free: it is about to end, if it has not.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        self._reap()
        return self._codes.pop(folder, None)

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
