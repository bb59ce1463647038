"""The folder of an audit: what it holds stays until the new record is whole, and an interrupted audit can go on.

An audit works in ``.running`` inside its folder: the shards of the table, what each process spent, and ``audit-state.json``,
which says what was begun. The record is renamed into place last.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

import mmaudit
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.data import Source
from mmaudit.evidence.processes import Processes
from mmaudit.exceptions import RecordError, SpecError
from mmaudit.masking.paths import tensor_paths
from mmaudit.report.record_file import RECORD_NAME, RUNNING, RUNNING_STATE
from mmaudit.report.store import write_json_atomic
from mmaudit.report.tables import shard_paths

__all__ = ["TABLE", "claim", "finish", "must_be_full", "opened_folder", "start_over"]

_LOCK = "lock"
TABLE = "coalitions"
"""Name of the coalition table, in the work folder and beside the record."""


@contextmanager
def opened_folder(out: Path | str | None, processes: Processes) -> Iterator[Path]:
    """The audit's folder; a temporary one where none is named, removed again if the audit fails.

    Raises:
        SpecError: If several processes are to share a folder that none of them was told.
    """
    if out is not None:
        yield Path(out)
        return
    if processes.number > 1:
        raise SpecError("several processes need a folder they share: name it with 'out'.")
    folder = Path(tempfile.mkdtemp(prefix="mmaudit-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def claim(
    folder: Path,
    subject: Subject,
    source: Source,
    settings: dict[str, Any],
    processes: Processes,
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[Path]:
    """Make sure that nothing in the folder is lost or mixed up with another audit.

    Args:
        folder: Of the audit.
        subject: What is audited.
        source: The data it is audited on.
        settings: What was asked for.
        processes: Who takes part; the main one writes.
        resume: Go on with what was begun here.
        overwrite: Replace what is here, once the new record is whole.

    Yields:
        The work folder. It is removed again if the audit fails before its first shard: there is nothing to resume then.

    Raises:
        RecordError: If the folder holds something else, cannot be written to, is in use, or there is nothing to resume.
    """
    begun = fingerprint(subject, source, settings)
    work = folder / RUNNING
    with ExitStack() as stack:
        if processes.main:
            _begin(folder, begun, settings, resume=resume, overwrite=overwrite)
            stack.enter_context(_locked(folder))
        processes.wait()
        try:
            yield work
        except Exception:
            if processes.main and not shard_paths(work / TABLE):
                shutil.rmtree(work, ignore_errors=True)
            raise


def finish(folder: Path) -> None:
    """Remove the work folder; the state first, so that what is left of a killed removal is not taken for an audit."""
    (folder / RUNNING_STATE).unlink(missing_ok=True)
    shutil.rmtree(folder / RUNNING, ignore_errors=True)


def must_be_full(folder: Path) -> str | None:
    """Why an interrupted audit has to go on with full passes, if it has to."""
    found = json.loads((folder / RUNNING_STATE).read_text()).get("full_passes")
    return None if found is None else str(found)


def start_over(folder: Path, reason: str) -> None:
    """Drop the table; from now on, also after an interruption, every coalition is a pass of its own."""
    state = json.loads((folder / RUNNING_STATE).read_text())
    write_json_atomic(folder / RUNNING_STATE, {**state, "full_passes": reason})
    shutil.rmtree(folder / RUNNING / TABLE, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; a lock of the operating system goes with the process, however it ends."""
    with (folder / RUNNING / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(
                f"another audit is working in {folder}: wait for it, or name another folder."
            ) from None
        yield


def _begin(
    folder: Path, begun: str, settings: dict[str, Any], *, resume: bool, overwrite: bool
) -> None:
    work = folder / RUNNING
    if (work / _LOCK).exists():
        with _locked(folder):  # refuses while another audit is at it
            pass
    if resume:
        _check_resumable(folder, begun)
        return
    if not overwrite and (folder / RECORD_NAME).exists():
        raise RecordError(
            f"{folder} holds a finished audit: name another folder, or overwrite it (--overwrite)."
        )
    if not overwrite and (folder / RUNNING_STATE).exists():
        raise RecordError(
            f"{folder} holds an interrupted audit: go on with it (--resume) or overwrite it (--overwrite)."
        )
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json_atomic(folder / RUNNING_STATE, {"fingerprint": begun, "settings": settings})
    except OSError as error:
        raise RecordError(f"{folder} cannot be written to: {error.strerror or error}.") from None


def _check_resumable(folder: Path, begun: str) -> None:
    state = folder / RUNNING_STATE
    if (folder / RECORD_NAME).exists() and not state.exists():
        raise RecordError(f"the audit in {folder} is finished: there is nothing to resume.")
    try:
        found = json.loads(state.read_text())["fingerprint"]
    except FileNotFoundError:
        raise RecordError(
            f"{folder} holds no interrupted audit: start one without resume."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise RecordError(f"{state} is damaged: start again with --overwrite.") from None
    if found != begun:
        raise RecordError(
            f"the audit in {folder} was started with another model, data, spec or settings: start again with --overwrite."
        )


def fingerprint(subject: Subject, source: Source, settings: dict[str, Any]) -> str:
    """SHA-256 of what decides the numbers of the table.

    A module in memory counts by its weights, data by its files, its size and the values of its first batch.
    """
    digest = hashlib.sha256()
    decisive = {k: v for k, v in settings.items() if k not in ("replicates", "device")}
    # What the audit file says is in the spec; a comment in it decides nothing.
    files = [file.sha256 for file in subject.files if file.role != "audit file"]
    first = source.first()
    data = [
        source.description,
        source.length,
        source.samples,
        [f.sha256 for f in source.files],
        first.ids,
    ]
    text = [subject.spec.model_dump(mode="json"), decisive, files, data, mmaudit.__version__]
    digest.update(json.dumps(text, sort_keys=True, default=str).encode())
    if not files and isinstance(subject.model, torch.nn.Module):
        for name, value in subject.model.state_dict().items():
            if isinstance(value, torch.Tensor):
                _update(digest, name, value)
    for path, value in tensor_paths(first.data).items():
        _update(digest, path, value)
    return digest.hexdigest()


def _update(digest: Any, name: str, tensor: torch.Tensor) -> None:
    tensor = tensor.detach().cpu()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
