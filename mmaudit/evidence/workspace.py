"""The folder of an audit: what it holds stays until the new record is whole, and an interrupted audit can go on.

An audit works in ``.running`` inside its folder: the shards of the table, what each process spent, and ``audit-state.json``,
which says what was begun. The record is renamed into place last.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import mmaudit
from mmaudit.checkpoint.subject import Subject
from mmaudit.evidence.processes import Processes
from mmaudit.exceptions import RecordError, SpecError
from mmaudit.report.record_file import RECORD_NAME, RUNNING, RUNNING_STATE
from mmaudit.report.store import write_json_atomic

__all__ = ["TABLE", "claim", "fingerprint", "opened_folder"]

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


def claim(
    folder: Path,
    subject: Subject,
    settings: dict[str, Any],
    processes: Processes,
    *,
    resume: bool,
    overwrite: bool,
) -> Path:
    """Make sure that nothing in the folder is lost or mixed up with another audit.

    Args:
        folder: Of the audit.
        subject: What is audited.
        settings: What was asked for.
        processes: Who takes part; the main one writes.
        resume: Go on with what was begun here.
        overwrite: Replace what is here, once the new record is whole.

    Returns:
        The work folder.

    Raises:
        RecordError: If the folder holds something else, cannot be written to, or there is nothing to resume.
    """
    begun = fingerprint(subject, settings)
    work = folder / RUNNING
    if processes.main:
        if resume:
            _check_resumable(folder, begun)
        else:
            if not overwrite and (folder / RECORD_NAME).exists():
                raise RecordError(
                    f"{folder} holds a finished audit: name another folder, or say overwrite=True (--overwrite)."
                )
            if not overwrite and (folder / RUNNING_STATE).exists():
                raise RecordError(
                    f"{folder} holds an interrupted audit: say resume=True (--resume) or overwrite=True (--overwrite)."
                )
            try:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(parents=True)
                state = {"fingerprint": begun, "settings": settings}
                write_json_atomic(folder / RUNNING_STATE, state)
            except OSError as error:
                reason = error.strerror or error
                raise RecordError(f"{folder} cannot be written to: {reason}.") from None
    processes.wait()
    return work


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
        raise RecordError(
            f"{state} is damaged: start again with overwrite=True (--overwrite)."
        ) from None
    if found != begun:
        raise RecordError(
            f"the audit in {folder} was started with another model, spec or settings: start again with overwrite=True (--overwrite)."
        )


def fingerprint(subject: Subject, settings: dict[str, Any]) -> str:
    """SHA-256 of what decides the numbers of the table; a module in memory counts by its weights."""
    digest = hashlib.sha256()
    decisive = {k: v for k, v in settings.items() if k not in ("replicates", "device")}
    files = [file.sha256 for file in subject.files]
    text = [subject.spec.model_dump(mode="json"), decisive, files, mmaudit.__version__]
    digest.update(json.dumps(text, sort_keys=True, default=str).encode())
    if not subject.files and isinstance(subject.model, torch.nn.Module):
        for name, tensor in subject.model.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                digest.update(name.encode())
                values = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()
