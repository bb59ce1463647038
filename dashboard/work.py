"""The jobs of the workspace as the pages show them, and the few things that may be done with them. Imports no Dash.

Everything that is shown comes from what the queue has on the disk, so that it is the same after a reload, in a second tab and
after the app was started again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from dashboard.history import HISTORY_NAME, Curve, read_curves
from dashboard.shelf import signature
from mmaudit.exceptions import MMAuditError
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.offers import OFFERS
from mmaudit.jobs.queue import Job, Queue
from mmaudit.jobs.registry import RegisteredFile, registered
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import duration

__all__ = ["Desk", "FileView", "JobView", "without_folders"]

_log = logging.getLogger("mmaudit.app")
_ACTIVE = ("queued", "running")
_MOST_JOBS = 200
_PATH = re.compile(r"(?<![\w/.-])(?:/[^\s/:;,'\"()]+)*/(?=[^\s/:;,'\"()])")
"""The folders of an absolute path, as sentences of ours have them."""


class FileView(NamedTuple):
    """A registered audit file."""

    id: str
    title: str
    name: str
    """Of the file, without its folders."""
    problem: str | None
    """Why it cannot be trained now."""


class JobView(NamedTuple):
    """A job as it is at this moment."""

    id: str
    title: str
    remedy: str
    """Its name, not its key."""
    remedy_id: str
    file_id: str
    settings: tuple[tuple[str, str], ...]
    """Name and value, as the form has them."""
    state: str
    active: bool
    """Something may still happen by itself."""
    share: float | None
    """How far the present stage is, from 0 to 1."""
    stage: str
    """What is done now, with how far and how much longer; empty where nothing is."""
    sentence: str
    times: str
    created: datetime
    can_cancel: bool
    can_resume: bool
    out: str
    """Folder of its results, relative to the workspace."""


class Desk:
    """The queue of a workspace.

    Args:
        workspace: Its folder.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace.resolve()
        self._queue = Queue(self.workspace)

    def files(self) -> tuple[FileView, ...]:
        """The audit files that may be retrained, with what is wrong with them now."""
        try:
            return tuple(_file_view(file) for file in registered(self.workspace))
        except JobError as error:
            _log.warning("the registry of %s cannot be read: %s", self.workspace, error)
            return ()

    def file_of(self, report: AuditReport) -> str | None:
        """Id of the registered audit file whose model a report is about, by its title and code; ``None`` where there is none."""
        code = {(f.path, f.sha256) for f in report.subject.files if f.role == "code"}
        try:
            files = registered(self.workspace)
        except JobError:
            return None
        for file in files:
            if file.title == report.title and code & file.files.items():
                return file.id
        return None

    def jobs(self) -> tuple[JobView, ...]:
        """The jobs, the newest first."""
        return tuple(self._view(job) for job in self._queue.jobs()[:_MOST_JOBS])

    def job(self, job_id: str) -> JobView | None:
        """One job; ``None`` where there is none of this id."""
        try:
            return self._view(self._queue.job(job_id))
        except JobError:
            return None

    def active(self) -> int:
        """How many jobs wait or run."""
        return sum(job.active for job in self.jobs())

    def busy(self, file_id: str, remedy: str) -> JobView | None:
        """The job that already waits or runs for this file and remedy."""
        for job in self.jobs():
            if job.active and job.file_id == file_id and job.remedy_id == remedy:
                return job
        return None

    def last_duration(self, file_id: str, remedy: str) -> str | None:
        """How long the last finished job of this file and remedy took, and with what."""
        for job in self._queue.jobs():
            if (
                job.state == "finished"
                and (job.file_id, job.remedy) == (file_id, remedy)
                and job.started is not None
                and job.ended is not None
            ):
                took = duration((job.ended - job.started).total_seconds())
                return f"The last one, with {job.settings.get('epochs')} epochs, took {took}."
        return None

    def submit(
        self, file_id: str, remedy: str, settings: Mapping[str, Any], submit_id: str
    ) -> JobView:
        """Ask for a retraining; asking again with the same ``submit_id`` gives the same job.

        Raises:
            MMAuditError: If something is unknown or out of bounds, or the file has changed; :func:`without_folders` for people.
        """
        job = self._view(self._queue.submit("retrain", file_id, remedy, settings, submit_id))
        self.start_worker()
        return job

    def cancel(self, job_id: str) -> str | None:
        """Stop a job.

        Returns:
            Why it cannot be; ``None`` where it was done.
        """
        try:
            self._queue.cancel(job_id)
        except MMAuditError as error:
            return without_folders(str(error))
        # Somebody has to see to it that a running job stops.
        self.tend()
        return None

    def resume(self, job_id: str) -> str | None:
        """Let a job go on from its last checkpoint.

        Returns:
            Why it cannot; ``None`` where it was done.
        """
        try:
            self._queue.resume(job_id)
        except MMAuditError as error:
            return without_folders(str(error))
        self.start_worker()
        return None

    def tend(self) -> None:
        """See to it that what waits or runs is looked after, also where the worker was killed meanwhile."""
        if any(job.active for job in self.jobs()):
            self.start_worker()

    def start_worker(self) -> str | None:
        """See to it that a worker is at work; it outlives the app.

        Returns:
            A sentence on what was done.
        """
        try:
            started = self._queue.start_worker()
        except JobError as error:
            _log.warning("%s", error)
            return f"No worker was started: {error}"
        return (
            "A worker runs the jobs in the background and goes on when the app has ended."
            if started
            else "A worker is at work already."
        )

    def log(self, job_id: str) -> str:
        """The last lines that a job has printed."""
        try:
            return self._queue.log(job_id)
        except JobError:
            return ""

    def curves(self, job_id: str) -> tuple[Curve, ...]:
        """What a job's training has recorded so far, and the training of its control."""
        paths = self._histories(job_id)
        return tuple(
            curve
            for number, path in enumerate(paths)
            for curve in read_curves(path, control=number > 0)
        )

    def history_stamp(self, job_id: str) -> str:
        """Changes when a record of the training does."""
        stamps = (signature(path) for path in self._histories(job_id))
        return ";".join("-".join(map(str, stamp)) for stamp in stamps if stamp is not None)

    def out(self, job_id: str) -> Path | None:
        """Folder of a job's results; ``None`` where there is no such job."""
        try:
            return self._queue.job(job_id).out
        except JobError:
            return None

    def _histories(self, job_id: str) -> tuple[Path, ...]:
        out = self.out(job_id)
        if out is None:
            return ()
        return tuple(folder / "training" / HISTORY_NAME for folder in (out, out / "control"))

    def _view(self, job: Job) -> JobView:
        offer = OFFERS.get(job.remedy)
        names = {setting.name: setting.title for setting in offer.form} if offer else {}
        share, stage = _progress(job)
        return JobView(
            id=job.id,
            title=shorten(job.title, 120),
            remedy=offer.title if offer else shorten(job.remedy, 40),
            remedy_id=job.remedy,
            file_id=job.file_id,
            settings=tuple(
                (names.get(name, shorten(name, 40)), _said(value))
                for name, value in job.settings.items()
            ),
            state=job.state,
            # A crashed job that a worker will try again is not over.
            active=job.state in _ACTIVE
            or (job.state == "crashed" and job.ended is None and not job.damaged),
            share=share,
            stage=stage,
            sentence="" if job.sentence == job.state else job.sentence,
            times=_times(job),
            created=job.created,
            can_cancel=job.can_cancel,
            can_resume=job.can_resume,
            out=job.out.relative_to(self.workspace).as_posix(),
        )


def without_folders(sentence: str) -> str:
    """Leave the folders out of the paths in a sentence: the browser is told names, not where they lie.

    Example:
        >>> without_folders("/home/ada/av/train.py has changed since /home/ada/av/audit.yaml was registered")
        'train.py has changed since audit.yaml was registered'
    """
    return _PATH.sub("", sentence)


def _file_view(file: RegisteredFile) -> FileView:
    problem = file.unchanged()
    return FileView(
        file.id,
        shorten(file.title, 120),
        shorten(file.path.name, 80),
        None if problem is None else without_folders(problem),
    )


def _progress(job: Job) -> tuple[float | None, str]:
    found = job.progress
    if found is None or job.state != "running":
        return None, ""
    share = None
    text = found.stage
    if found.total:
        share = min(1.0, found.done / found.total)
        text += f": {found.done:,} of {found.total:,}"
    if found.eta_seconds is not None:
        text += f", about {duration(found.eta_seconds)} left"
    return share, text


def _times(job: Job) -> str:
    parts = [f"asked for {_when(job.created)}"]
    if job.started is not None:
        end = job.ended if job.ended is not None else datetime.now(UTC)
        if job.state != "queued":
            parts.append(
                f"last begun {_when(job.started)}, {duration(max(0.0, (end - job.started).total_seconds()))}"
            )
    if job.attempts > 1:
        parts.append(f"attempt {job.attempts}")
    if job.device:
        parts.append(f"on {shorten(job.device, 30)}")
    return "; ".join(parts)


def _when(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
