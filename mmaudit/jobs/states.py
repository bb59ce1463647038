"""The files of a job's folder, which are the truth about it.

``spec.json`` says what was asked for and never changes. ``state.json`` says what became of it and is changed only under the
folder's ``state.lock``. ``alive.lock`` is held by the process of the job as long as that lives. ``progress.json`` and ``log.txt``
are written by that process alone; ``cancel`` is there once somebody wants the job to stop. Each file is renamed into place whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mmaudit.checkpoint.wording import shown
from mmaudit.jobs.errors import JobError
from mmaudit.jobs.lease import held, locked
from mmaudit.report.store import write_json_atomic

__all__ = [
    "ALIVE",
    "CANCEL",
    "ENDED",
    "LOG",
    "MOST_ATTEMPTS",
    "Event",
    "FileOfJob",
    "JobKind",
    "JobProgress",
    "JobSpec",
    "JobState",
    "JobStatus",
    "ProcessRecord",
    "change",
    "is_alive",
    "now",
    "read_progress",
    "read_spec",
    "read_status",
    "sentence_of",
    "write_progress",
    "write_spec",
    "write_status",
]

JobKind: TypeAlias = Literal["retrain"]
JobState: TypeAlias = Literal["queued", "running", "finished", "failed", "crashed", "cancelled"]
ENDED: frozenset[JobState] = frozenset({"finished", "failed", "crashed", "cancelled"})
"""States that a job stays in until somebody asks for more."""

MOST_ATTEMPTS = 3
"""Attempts in all, after which a job that always crashes stays crashed."""

SPEC = "spec.json"
STATE = "state.json"
PROGRESS = "progress.json"
LOG = "log.txt"
CANCEL = "cancel"
ALIVE = "alive.lock"
STATE_LOCK = "state.lock"

_LARGEST_FILE = 1_000_000
_LONGEST_SENTENCE = 600
_MOST_EVENTS = 100

Text = Annotated[str, Field(max_length=2000)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileOfJob(_File):
    """The registered audit file that a job works on, as it was when the job was submitted."""

    id: Text
    path: Path
    folder: Path
    """Folder whose modules the audit file may import, as when it was registered."""
    sha256: Text


class JobSpec(_File):
    """What was asked for."""

    version: Literal[1] = 1
    id: Text
    kind: JobKind
    submit_id: Text
    title: Text
    file: FileOfJob
    remedy: Text
    settings: dict[str, int | float | str | bool]
    created: AwareDatetime


class ProcessRecord(_File):
    """A process beyond doubt: its number may be given again, together with its start it is not."""

    pid: Annotated[int, Field(gt=0)]
    start: Annotated[int, Field(ge=0)]
    """Clock ticks after the machine started."""
    boot: Text
    """Which start of the machine that was."""


class Event(_File):
    """A change of state."""

    at: AwareDatetime
    state: JobState
    token: Text
    sentence: Text


class JobStatus(_File):
    """What became of a job.

    Attributes:
        token: Names the attempt; only the process that was given it may end the job.
        attempts: Attempts begun since the job was submitted, or last resumed by a person.
        begun: Attempts begun in all.
        not_before: When the next attempt may start.
        started: When the last attempt began.
        process: Of the last attempt, once it has reported.
    """

    version: Literal[1] = 1
    state: JobState
    token: Text = ""
    attempts: Annotated[int, Field(ge=0)] = 0
    begun: Annotated[int, Field(ge=0)] = 0
    not_before: AwareDatetime | None = None
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    device: Text | None = None
    process: ProcessRecord | None = None
    sentence: Text = ""
    events: tuple[Event, ...] = ()

    def to(self, state: JobState, sentence: str, **fields: Any) -> JobStatus:
        """The status after a change of state, with the change among its events.

        Args:
            state: The new state; an ended one gets its time.
            sentence: Why, for people.
            fields: What else changes.
        """
        at, text = now(), sentence_of(sentence)
        changed = {
            "state": state,
            "sentence": text,
            "ended": at if state in ENDED else None,
            **fields,
        }
        event = Event(at=at, state=state, token=fields.get("token", self.token), sentence=text)
        changed["events"] = (*self.events, event)[-_MOST_EVENTS:]
        return self.model_copy(update=changed)

    def again(self, why: str, *, pause: float) -> JobStatus:
        """The status after an attempt without an end: the next one waits, or the job stays crashed.

        Args:
            why: What happened to the attempt.
            pause: Seconds before the next one.
        """
        said = f"attempt {self.attempts} of {MOST_ATTEMPTS}: {why}"
        if self.attempts >= MOST_ATTEMPTS:
            return self.to("crashed", f"{said}; look at its log")
        return self.to("crashed", said).to(
            "queued",
            f"{said}; goes on from its last checkpoint",
            not_before=now() + timedelta(seconds=pause),
        )


class JobProgress(_File):
    """How far an attempt is; ``total`` and ``eta_seconds`` where they are known."""

    stage: Text
    done: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)] | None = None
    eta_seconds: Annotated[float, Field(ge=0)] | None = None
    at: AwareDatetime


_F = TypeVar("_F", bound=_File)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def sentence_of(text: object) -> str:
    """What somebody said, as one line of at most 600 characters."""
    return shown(" ".join(str(text).split()), _LONGEST_SENTENCE)


def read_spec(folder: Path) -> JobSpec:
    """Read ``spec.json``.

    Raises:
        JobError: If it is missing, cannot be read or is damaged.
    """
    return _read(folder / SPEC, JobSpec)


def read_status(folder: Path) -> JobStatus:
    """Read ``state.json``.

    Raises:
        JobError: If it is missing, cannot be read or is damaged.
    """
    return _read(folder / STATE, JobStatus)


def read_progress(folder: Path) -> JobProgress | None:
    """Read ``progress.json``; ``None`` where there is none that can be read."""
    try:
        return _read(folder / PROGRESS, JobProgress)
    except JobError:
        return None


def write_spec(folder: Path, spec: JobSpec) -> None:
    """Write ``spec.json``.

    Raises:
        RecordError: If it cannot be written.
    """
    write_json_atomic(folder / SPEC, spec.model_dump(mode="json"))


def write_status(folder: Path, status: JobStatus) -> None:
    """Write ``state.json`` where nobody else can be writing; elsewhere use :func:`change`.

    Raises:
        RecordError: If it cannot be written.
    """
    write_json_atomic(folder / STATE, status.model_dump(mode="json"))


def write_progress(folder: Path, progress: JobProgress) -> None:
    """Replace ``progress.json``; a full disk loses the progress and nothing else.

    Written often, so that it is not flushed to the disk: after a power cut it may be an older one.
    """
    partial = folder / f".{PROGRESS}.{os.getpid()}.partial"
    with contextlib.suppress(OSError):
        try:
            partial.write_text(progress.model_dump_json(), encoding="utf-8")
            partial.replace(folder / PROGRESS)
        finally:
            partial.unlink(missing_ok=True)


def change(folder: Path, decide: Callable[[JobStatus], JobStatus | None]) -> JobStatus:
    """Change a job's status as the only one to do so.

    Args:
        folder: Of the job.
        decide: Gets the status that is there and returns the new one, or ``None`` to leave it. It may raise.

    Returns:
        The status that holds now.

    Raises:
        JobError: If the status cannot be read, or another process does not let go of it.
        RecordError: If it cannot be written; the old one holds.
    """
    with locked(folder / STATE_LOCK):
        before = read_status(folder)
        after = decide(before)
        if after is None:
            return before
        write_status(folder, after)
        return after


def is_alive(folder: Path) -> bool:
    """Whether a process of the job, or one that it has forked, lives."""
    return held(folder / ALIVE)


def _read(path: Path, kind: type[_F]) -> _F:
    place = f"{path.parent.name}/{path.name}"
    try:
        found = path.stat()
        # Whatever lies there in its place, a named pipe would hang the reader and a huge file fill its memory.
        if not stat.S_ISREG(found.st_mode):
            raise JobError(f"{place} is no file")
        if found.st_size > _LARGEST_FILE:
            raise JobError(f"{place} is larger than 1 MB, which no such file is")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise JobError(f"{place} is missing") from None
    except OSError as error:
        raise JobError(f"{place} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise JobError(f"{place} is damaged: not readable as JSON") from None
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(shown(step, 40) for step in fault["loc"]) or "the whole"
        raise JobError(f"{place} is damaged: {where}: {shown(fault['msg'])}") from None
