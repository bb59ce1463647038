"""Hugging Face's ``trainer_state.json``: the log history of a Trainer, with any number of evaluation sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmaudit.evidence.readers.base import (
    Columns,
    Run,
    files_below,
    flat_items,
    said,
)
from mmaudit.evidence.readers.json_file import runs_of_rows
from mmaudit.evidence.readers.jsonl import valid_names
from mmaudit.evidence.readers.several import read_each
from mmaudit.evidence.readers.text_file import read_document
from mmaudit.exceptions import LogError

__all__ = ["TRAINER", "HuggingFaceReader"]

TRAINER = "Hugging Face Trainer"
"""Format of a trainer's state."""

_NAME = "trainer_state.json"
_CHECKPOINT = "checkpoint-"
_ABOUT_SPEED = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time")


class HuggingFaceReader:
    """``trainer_state.json``, or a folder of trainings: of each its newest checkpoint's, which holds the whole history."""

    key = "huggingface"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether there is a log history in it."""
        if path.is_dir():
            return bool(_states(path))
        return path.name == _NAME or (head.lstrip().startswith(b"{") and b'"log_history"' in head)

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The runs of it; the train loss is the series ``loss``, as the Trainer calls it.

        Raises:
            LogError: If it is no state of a Trainer.
        """
        if not path.is_dir():
            return _of_file(path, _run_folder(path.resolve()).name or path.stem, columns)
        states = {file: folder for folder, file in _states(path).items()}
        if not states:
            raise LogError(f"{said(path.name)} holds no {_NAME}.")

        def read(file: Path) -> list[Run]:
            folder = states[file]
            title = folder.relative_to(path).as_posix() if folder != path else ""
            return _of_file(file, title or folder.resolve().name, columns)

        return read_each(states, read, path)


def _of_file(file: Path, title: str, columns: Columns) -> list[Run]:
    notes: list[str] = []
    try:
        found = read_document(file, notes)
    except LogError as error:
        name = said(file.name)
        reason = str(error).removeprefix(f"{name} ")
        raise LogError(f"{name} is no state of a Hugging Face Trainer: it {reason}") from None
    rows = found.get("log_history") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LogError(
            f"{said(file.name)} is no state of a Hugging Face Trainer; expected JSON with a 'log_history' of rows."
        )
    kept = [
        {k: v for k, v in valid_names(dict(flat_items(row))).items() if _is_logged(k, row)}
        for row in rows
    ]
    runs = runs_of_rows(file, TRAINER, kept, columns, tuple(notes))
    if len(runs) == 1:
        return [replace(runs[0], title=title)]
    return [replace(run, title=f"{title} {run.title}") for run in runs]


def _is_logged(name: str, row: dict[str, Any]) -> bool:
    """Whether a value is of a point in the training: neither a speed nor part of the summary that the last row is."""
    if name.endswith(_ABOUT_SPEED):
        return False
    return "train_runtime" not in row or name in ("step", "epoch")


def _states(folder: Path) -> dict[Path, Path]:
    """Folder of each training -> the state that was written last."""
    found: dict[Path, tuple[int, Path]] = {}
    for file in files_below(folder, _NAME):
        of_run = _run_folder(file)
        number = file.parent.name.rpartition("-")[2]
        # The state beside the checkpoints is written when the training has ended.
        place = int(number) if of_run != file.parent and number.isdecimal() else 2**62
        if of_run not in found or place > found[of_run][0]:
            found[of_run] = (place, file)
    return {run: file for run, (_, file) in sorted(found.items())}


def _run_folder(file: Path) -> Path:
    return file.parent.parent if file.parent.name.startswith(_CHECKPOINT) else file.parent
