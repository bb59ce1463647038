"""Hugging Face's ``trainer_state.json``: the log history of a Trainer, with any number of evaluation sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmaudit.evidence.readers.base import (
    Columns,
    Run,
    check_size,
    files_below,
    flat_items,
    said,
)
from mmaudit.evidence.readers.jsonl import valid_names
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.exceptions import LogError

__all__ = ["HuggingFaceReader"]

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
        runs: list[Run] = []
        for folder, file in _states(path).items():
            title = folder.relative_to(path).as_posix() if folder != path else ""
            runs += _of_file(file, title or folder.resolve().name, columns)
        if not runs:
            raise LogError(f"{said(path.name)} holds no {_NAME}.")
        return runs


def _of_file(file: Path, title: str, columns: Columns) -> list[Run]:
    check_size(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
        rows = found["log_history"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LogError(
            f"{said(file.name)} is no state of a Hugging Face Trainer; expected JSON with a 'log_history'."
        ) from None
    kept = [
        {k: v for k, v in valid_names(dict(flat_items(row))).items() if _is_logged(k, row)}
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in kept for name in row))
    written = {name: pd.Series([row.get(name) is not None for row in kept]) for name in names}
    frame = pd.DataFrame.from_records(kept, columns=names)
    runs = runs_of_frame(file, "Hugging Face Trainer", frame, columns, written=written)
    return [replace(run, title=title) for run in runs]


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
