"""The queue of a workspace as people and the app see it: submit, look, cancel, resume.

A job is a folder, and its state is what the folder says together with the lock that a living job holds. So it is the same after
a reload, from a second program, and after the app, the worker or the machine was restarted. Nothing here runs a job: that is the
worker's, which :meth:`Queue.start_worker` starts. Importable without torch.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmaudit.checkpoint.wording import shown
from mmaudit.exceptions import RecordError
from mmaudit.jobs.bell import Bell
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.job import Job, look
from mmaudit.jobs.lease import held, locked, needs_linux
from mmaudit.jobs.offers import check_settings
from mmaudit.jobs.registry import RegisteredFile, identifier, registered
from mmaudit.jobs.states import (
    CANCEL,
    LOG,
    STATE_LOCK,
    FileOfJob,
    JobSpec,
    JobStatus,
    change,
    is_alive,
    now,
    read_spec,
    read_status,
    write_spec,
    write_status,
)
from mmaudit.report.store import sync_folder, write_text_atomic

__all__ = ["MOST_QUEUED", "Job", "Queue"]

MOST_QUEUED = 20
"""Jobs that may wait at a time."""

BELL = "bell.db"
WORKER_LOCK = "worker.lock"
WORKER_LOG = "worker.log"

_ID = re.compile(r"[a-z2-7]{26}")
_SUBMIT_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_TAIL = 256 * 1024


class Queue:
    """The jobs of a workspace.

    Args:
        workspace: Its folder.
    """

    def __init__(self, workspace: Path | str) -> None:
        self.workspace = Path(workspace).absolute()
        self.folder = self.workspace / "jobs"

    def submit(
        self, kind: str, file_id: str, remedy: str, settings: Mapping[str, Any], submit_id: str
    ) -> Job:
        """Put a job into the queue, once for each ``submit_id``.

        When this returns the job is on the disk and will be run. Every argument may come from a browser.

        Args:
            kind: ``retrain``.
            file_id: Id of a registered audit file.
            remedy: Key of :data:`mmaudit.jobs.offers.OFFERS`.
            settings: Of that offer; what is left out takes its default.
            submit_id: 8 to 64 letters, digits, ``-`` and ``_`` that stand for this request: asking again gives the same job.

        Raises:
            JobError: If something is unknown or out of bounds, the audit file has changed, or too many jobs wait.
            RecordError: If the job cannot be written; there is none then.
        """
        if kind != "retrain":
            raise JobError(f"'{shown(kind, 40)}' is no kind of job; there is: retrain")
        if not isinstance(submit_id, str) or not _SUBMIT_ID.fullmatch(submit_id):
            raise JobError("expected a submit id of 8 to 64 letters, digits, '-' and '_'")
        checked = check_settings(remedy, settings)
        file = self._registered(file_id)
        changed = file.unchanged()
        if changed is not None:
            raise JobError(changed)
        spec = JobSpec(
            id=identifier(f"{kind} {submit_id}"),
            kind="retrain",
            submit_id=submit_id,
            title=file.title,
            file=FileOfJob(id=file.id, path=file.path, folder=file.folder, sha256=file.sha256),
            remedy=remedy,
            settings=checked.model_dump(),
            created=now(),
        )
        with self._alone():
            if not self._is_there(spec):
                self._must_have_room()
                self._create(spec)
        self._ring(spec.id)
        return self.job(spec.id)

    def jobs(self) -> list[Job]:
        """Every job, the newest first; one whose folder is damaged says so in its sentence."""
        found = [look(folder) for folder in self.folders()]
        return sorted(found, key=lambda job: (job.created, job.id), reverse=True)

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            JobError: If there is none of this id.
        """
        return look(self._folder(job_id))

    def cancel(self, job_id: str) -> Job:
        """Stop a job: a waiting one at once, a running one as soon as it has saved its state, else by force.

        Cancelling again, or cancelling a cancelled job, does nothing.

        Raises:
            JobError: If there is no such job, or it has ended otherwise.
            RecordError: If that cannot be written.
        """
        folder = self._folder(job_id)

        def decide(status: JobStatus) -> JobStatus | None:
            if status.state == "queued" or (status.state == "running" and not is_alive(folder)):
                return status.to("cancelled", "cancelled before it ran on; it can be resumed")
            if status.state == "running":
                write_text_atomic(folder / CANCEL, f"{now().isoformat()}\n")
            elif status.state != "cancelled":
                raise JobError(
                    f"job {job_id[:8]} is {status.state} already: there is nothing to cancel"
                )
            return None

        change(folder, decide)
        self._ring(job_id)
        return self.job(job_id)

    def resume(self, job_id: str) -> Job:
        """Let a failed, crashed or cancelled job go on from its last checkpoint, with three attempts again.

        Raises:
            JobError: If there is no such job, it is finished, too many jobs wait, or its ``spec.json`` is damaged.
            RecordError: If that cannot be written.
        """
        folder = self._folder(job_id)
        read_spec(folder)

        def decide(status: JobStatus) -> JobStatus | None:
            if status.state == "finished":
                raise JobError(f"job {job_id[:8]} is finished: submit a new one to train once more")
            alive = is_alive(folder)
            if status.state == "queued" or (status.state == "running" and alive):
                if (folder / CANCEL).exists():
                    raise JobError(
                        f"job {job_id[:8]} is being cancelled: wait until it has stopped, then resume it"
                    )
                return None
            self._must_have_room()
            try:
                (folder / CANCEL).unlink(missing_ok=True)
            except OSError as error:
                raise RecordError(
                    f"cannot remove {folder / CANCEL}: {error.strerror or error}"
                ) from error
            return status.to("queued", "waits to go on", attempts=0, not_before=None)

        with self._alone():
            self._mend(folder)
            change(folder, decide)
        self._ring(job_id)
        return self.job(job_id)

    def log(self, job_id: str, lines: int = 200) -> str:
        """The last lines that a job has printed.

        Raises:
            JobError: If there is no such job, or its log cannot be read.
        """
        path = self._folder(job_id) / LOG
        try:
            if not path.is_file():
                return ""
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                text = file.read(_TAIL).decode("utf-8", errors="replace")
        except OSError as error:
            raise JobError(f"cannot read {path}: {error.strerror or error}") from error
        return "\n".join(deque(text.splitlines(), maxlen=lines))

    def worker_is_running(self) -> bool:
        """Whether a worker is at work in this workspace.

        Raises:
            JobError: Where the operating system has no such locks.
        """
        return held(self.folder / WORKER_LOCK)

    def start_worker(self) -> bool:
        """Start a worker that outlives this process, unless one is at work.

        Returns:
            Whether one was started.

        Raises:
            JobError: If it cannot be started, or jobs cannot run on this system.
        """
        needs_linux()
        _started[:] = [process for process in _started if process.poll() is None]
        if self.worker_is_running():
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / WORKER_LOG).open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "mmaudit.jobs.worker", str(self.workspace)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    close_fds=True,
                )
        except OSError as error:
            raise JobError(f"cannot start a worker: {error.strerror or error}") from error
        _started.append(process)
        return True

    def folders(self) -> list[Path]:
        """The folders that look like jobs."""
        try:
            with os.scandir(self.folder) as entries:
                names = [
                    e.name
                    for e in entries
                    if _ID.fullmatch(e.name) and e.is_dir(follow_symlinks=False)
                ]
        except OSError:
            return []
        return [self.folder / name for name in sorted(names)]

    def _registered(self, file_id: object) -> RegisteredFile:
        for file in registered(self.workspace):
            if file.id == file_id:
                return file
        raise JobError(
            f"no registered audit file has the id '{shown(file_id, 40)}'; mmaudit register allows one"
        )

    def _folder(self, job_id: object) -> Path:
        # The pattern is what keeps paths out: it has neither dots nor slashes.
        if isinstance(job_id, str) and _ID.fullmatch(job_id):
            folder = self.folder / job_id
            if folder.is_dir() and not folder.is_symlink():
                return folder
        raise JobError(f"there is no job '{shown(job_id, 40)}' in this workspace")

    def _alone(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        return locked(self.folder / "queue.lock")

    def _is_there(self, spec: JobSpec) -> bool:
        folder = self.folder / spec.id
        if not folder.exists():
            return False
        before = read_spec(folder)
        if before.model_copy(update={"created": spec.created}) != spec:
            raise JobError(
                "this submit id already stands for a job that was asked for otherwise; take a new one"
            )
        return True

    def _must_have_room(self) -> None:
        waiting = sum(look(folder).state == "queued" for folder in self.folders())
        if waiting >= MOST_QUEUED:
            raise JobError(
                f"{waiting} jobs wait already, and at most {MOST_QUEUED} may: wait, or cancel one"
            )

    def _create(self, spec: JobSpec) -> None:
        """The folder appears whole, by a rename, or not at all."""
        partial = self.folder / f".{spec.id}.{secrets.token_hex(6)}.partial"
        try:
            partial.mkdir(mode=0o700)
            write_spec(partial, spec)
            write_status(partial, JobStatus(state="queued").to("queued", "waits for its turn"))
            partial.rename(self.folder / spec.id)
            sync_folder(self.folder)
        except OSError as error:
            raise RecordError(f"cannot write the job: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _mend(self, folder: Path) -> None:
        """Give a job whose ``state.json`` is damaged one that can be read, once its process has ended."""
        with locked(folder / STATE_LOCK):
            try:
                read_status(folder)
            except JobError:
                if is_alive(folder):
                    raise
                write_status(
                    folder, JobStatus(state="crashed").to("crashed", "its state.json was damaged")
                )

    def _ring(self, job_id: str) -> None:
        bell = Bell(self.folder / BELL)
        bell.ring(job_id)
        bell.close()


_started: list[subprocess.Popen[bytes]] = []
"""Workers started here, kept so that they are reaped."""
