"""Hugging Face's ``trainer_state.json``: the log history of a Trainer, with any number of evaluation sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mmaudit.evidence.readers.base import Columns, Run, check_size, flat_items, runs_of_frame
from mmaudit.exceptions import LogError

__all__ = ["HuggingFaceReader"]

_NAME = "trainer_state.json"
_ABOUT_SPEED = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time")


class HuggingFaceReader:
    """``trainer_state.json``, or a folder of a Trainer: its newest checkpoint's, which holds the whole history."""

    key = "huggingface"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether there is a log history in it."""
        if path.is_dir():
            return _state_of(path) is not None
        return path.name == _NAME or (head.lstrip().startswith(b"{") and b'"log_history"' in head)

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The run of it; the train loss is the series ``loss``, as the Trainer calls it.

        Raises:
            LogError: If it is no state of a Trainer.
        """
        file = _state_of(path) if path.is_dir() else path
        assert file is not None
        check_size(file)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            rows = found["log_history"]
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise LogError(
                f"{file.name} is no state of a Hugging Face Trainer; expected JSON with a 'log_history'."
            ) from None
        kept = [{k: v for k, v in flat_items(row) if not k.endswith(_ABOUT_SPEED)} for row in rows]
        written = {
            name: pd.Series([row.get(name) is not None for row in kept])
            for name in {name for row in kept for name in row}
        }
        frame = pd.DataFrame.from_records(kept)
        title = file.resolve().parent.name
        runs = runs_of_frame(file, "Hugging Face Trainer", frame, columns, written=written)
        return [Run(title, run.format, run.files, run.series, run.notes) for run in runs]


def _state_of(folder: Path) -> Path | None:
    direct = folder / _NAME
    if direct.is_file():
        return direct
    numbered: list[tuple[int, Path]] = []
    for path in folder.glob(f"checkpoint-*/{_NAME}"):
        step: Any = path.parent.name.rpartition("-")[2]
        if step.isdigit() and path.is_file():
            numbered.append((int(step), path))
    return max(numbered)[1] if numbered else None
