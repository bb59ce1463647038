"""A job as it is seen: what its folder says, together with the lock that a living job holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmaudit.jobs.errors import JobError
from mmaudit.jobs.states import (
    CANCEL,
    JobProgress,
    JobState,
    JobStatus,
    is_alive,
    read_progress,
    read_spec,
    read_status,
)

__all__ = ["Job", "look"]


@dataclass(frozen=True)
class Job:
    """A job as it is at the moment it is looked at.

    Attributes:
        id: 26 characters.
        state: ``queued``, ``running``, ``finished``, ``failed``, ``crashed`` or ``cancelled``.
        attempts: Attempts begun since it was submitted or last resumed; at most three.
        started: Start of the last attempt.
        progress: Of the last attempt.
        sentence: Last message, or the reason for the state.
        folder: ``jobs/<id>``.
        out: ``retrainings/<id>``, what the job writes.
        device: Of the last attempt.
    """

    id: str
    kind: str
    title: str
    remedy: str
    settings: Mapping[str, Any]
    state: JobState
    attempts: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    progress: JobProgress | None
    sentence: str
    folder: Path
    out: Path
    file_id: str = ""
    device: str | None = None
    damaged: bool = False
    """Whether its folder cannot be read; ``sentence`` says why."""

    @property
    def can_cancel(self) -> bool:
        """Whether there is something to cancel."""
        return self.state in ("queued", "running") and not self.damaged

    @property
    def can_resume(self) -> bool:
        """Whether it can go on."""
        return self.state in ("failed", "crashed", "cancelled") and not self.damaged


def look(folder: Path) -> Job:
    """See how a job is; one whose folder is damaged says so in its sentence.

    Args:
        folder: ``jobs/<id>`` of a workspace.
    """
    try:
        spec = read_spec(folder)
        if spec.id != folder.name:
            raise JobError(f"{folder.name}/spec.json belongs to another job")
    except JobError as error:
        return _damaged(folder, f"{error}; remove the folder if the job is not needed")
    out = folder.parents[1] / "retrainings" / spec.id
    known: dict[str, Any] = {
        "id": spec.id, "kind": spec.kind, "title": spec.title, "remedy": spec.remedy, "settings": spec.settings,
        "created": spec.created, "folder": folder, "out": out, "file_id": spec.file.id,
    }  # fmt: skip
    progress = read_progress(folder)
    try:
        status, alive = _status_and_life(folder)
    except JobError as error:
        living = _lives(folder)
        hint = "the job itself still runs" if living else "resume lets it go on"
        return Job(
            **known, state="running" if living else "crashed", attempts=0, started=None, ended=None,
            progress=progress, sentence=f"{error}; {hint}",
        )  # fmt: skip
    state, sentence = status.state, status.sentence
    wanted_to_stop = (folder / CANCEL).exists()
    if state == "running" and not alive and wanted_to_stop:
        state, sentence = "cancelled", "cancelled; resuming goes on from its last checkpoint"
    elif state == "running" and not alive:
        state = "crashed"
        sentence = "its process has gone without a word; a worker will let it go on from its last checkpoint"
    elif state == "running" and wanted_to_stop:
        sentence = "is being cancelled"
    if state != "running" and progress is not None:
        progress = progress.model_copy(update={"eta_seconds": None})
    return Job(
        **known, state=state, attempts=status.attempts, started=status.started, ended=status.ended,
        progress=progress, sentence=sentence, device=status.device,
    )  # fmt: skip


def _damaged(folder: Path, sentence: str) -> Job:
    try:
        made = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        made = datetime.fromtimestamp(0, UTC)
    return Job(
        id=folder.name, kind="retrain", title="(damaged)", remedy="", settings={}, state="failed", attempts=0,
        created=made, started=None, ended=None, progress=None, sentence=sentence, folder=folder,
        out=folder.parents[1] / "retrainings" / folder.name, damaged=True,
    )  # fmt: skip


def _lives(folder: Path) -> bool:
    try:
        return is_alive(folder)
    except JobError:
        return False


def _status_and_life(folder: Path) -> tuple[JobStatus, bool]:
    """The status, and whether the job lives, from the same moment."""
    status = read_status(folder)
    while status.state == "running":
        if is_alive(folder):
            return status, True
        # A job writes its end before it lets go: what was read first may have been overtaken.
        again = read_status(folder)
        if again == status:
            return status, False
        status = again
    return status, False
