"""The folder of a series of checkpoints: a file for each that is evaluated, written whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmaudit.evidence.checkpoint_order import Place
from mmaudit.evidence.processes import Processes
from mmaudit.exceptions import RecordError
from mmaudit.report.labels import shorten
from mmaudit.report.store import write_json_atomic

__all__ = ["claimed_series", "read_row", "row_path", "stamp_of"]

_REQUEST, _ROWS, _LOCK = "series.json", "checkpoints", ".lock"


def row_path(out: Path, place: Place) -> Path:
    """Where what was found at a checkpoint is written."""
    digest = hashlib.sha256(str(place.path.absolute()).encode()).hexdigest()[:12]
    plain = "".join(c if c.isalnum() or c in "=-." else "_" for c in place.label)[-80:]
    return out / _ROWS / f"{plain}-{digest}.json"


def read_row(out: Path, place: Place) -> dict[str, Any] | None:
    """What was found at a checkpoint before; ``None`` if nothing was, or the file has changed since.

    Raises:
        RecordError: If it is damaged.
    """
    path = row_path(out, place)
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = held["stamp"] == stamp_of(place.path)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise RecordError(f"{path} is damaged: remove it, and go on with resume.") from None
    return held if same else None


def stamp_of(path: Path) -> list[int]:
    """What changes when a checkpoint is written again: sizes and times of its files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [file.stat() for file in files if file.is_file()]
    return [
        len(states),
        sum(state.st_size for state in states),
        max((state.st_mtime_ns for state in states), default=0),
    ]


@contextmanager
def claimed_series(
    out: Path, request: Mapping[str, Any], processes: Processes, *, resume: bool
) -> Iterator[None]:
    """Make sure that nothing in the folder is lost, mixed up, or written by two at once.

    Args:
        out: The folder.
        request: What was asked for; a series only goes on with the same.
        processes: Who takes part; the main one writes.
        resume: Go on with what was begun here; where nothing was found yet, it is begun anew in any case.

    Raises:
        RecordError: If it holds something else, cannot be written to, or is in use.
    """
    if not processes.main:
        processes.wait()
        yield
        return
    path = out / _REQUEST
    with _locked(out):
        begun = path.exists() and any((out / _ROWS).glob("*.json"))
        if begun and not resume:
            raise RecordError(
                f"{out} holds a series of checkpoints: go on with it (--resume), or name another folder."
            )
        if begun:
            _check_same(path, request)
        else:
            # Of what ended before anything was found, nothing has to be kept.
            write_json_atomic(path, dict(request))
        processes.wait()
        yield


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder, as the only process that works in it.

    Raises:
        RecordError: If it holds something else, cannot be written to, or is in use.
    """
    try:
        foreign = out.exists() and {path.name for path in out.iterdir()} - {_LOCK}
        if foreign and not (out / _REQUEST).exists():
            raise RecordError(
                f"{out} is not empty and holds no series of checkpoints: name another folder."
            )
        out.mkdir(parents=True, exist_ok=True)
        file = (out / _LOCK).open("w")
    except OSError as error:
        raise RecordError(f"cannot write to {out}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(
                f"another process is working in {out}: wait for it, or name another folder."
            ) from None
        yield


def _check_same(path: Path, request: Mapping[str, Any]) -> None:
    """Refuse to go on with another request.

    Raises:
        RecordError: With what was asked for before, and now.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        changed = {key: held.get(key) for key in request if held.get(key) != request[key]}
    except (ValueError, AttributeError):
        raise RecordError(f"{path} is damaged: name another folder.") from None
    if changed:
        said = [
            f"{key} ({shorten(str(before), 60)}; now {shorten(str(request[key]), 60)})"
            for key, before in changed.items()
        ]
        raise RecordError(
            f"{path.parent} was begun with another {', '.join(said)}: go on with the same, or name another folder."
        )
