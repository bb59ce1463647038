"""The loss record of a training: one JSON object a line, appended as the run goes.

A line is ``{"step", "epoch", "split", "name", "value"}``. It is plain text so that a run can be watched, and read by
anything. A line torn by a crash is dropped when the record is read again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pandas as pd

from mmaudit.exceptions import RecordError
from mmaudit.training.state import write_atomically

__all__ = ["Recorder", "Split", "read_history"]

Split: TypeAlias = Literal["train", "validation", "remedy"]
"""``remedy``: the coefficients that a remedy applied during the epoch."""
_COLUMNS = ("step", "epoch", "split", "name", "value")


class Recorder:
    """Appends to a loss record; what an interrupted run wrote after its last checkpoint is cut off.

    Args:
        path: The ``.jsonl`` file.
        keep_epochs: Epochs already in the file that stay; -1 starts anew.
    """

    def __init__(self, path: Path, *, keep_epochs: int = -1) -> None:
        self.path = path
        rows = [row for row in _rows(path) if row["epoch"] <= keep_epochs] if path.exists() else []
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def record(self, *, step: int, epoch: int, split: Split, values: dict[str, float]) -> None:
        """Append one line per value.

        Args:
            step: Optimiser steps taken so far.
            epoch: Epochs finished; 0 is the model before training.
            split: Data the values were measured on.
            values: Name -> finite value.

        Raises:
            ValueError: If a value is not finite.
        """
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(f"expected finite values, '{bad[0]}' is {values[bad[0]]}")
        lines = [
            json.dumps(dict(zip(_COLUMNS, (step, epoch, split, name, value), strict=True)))
            for name, value in values.items()
        ]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))


def read_history(path: Path) -> pd.DataFrame:
    """Read a loss record.

    Args:
        path: The ``.jsonl`` file, or the folder of the training.

    Returns:
        Columns ``step``, ``epoch`` (integers), ``split`` (``train``, ``validation`` or ``remedy``), ``name`` and ``value`` (float).

    Raises:
        RecordError: If there is no such file or a line before the last is damaged.
    """
    path = path / "history.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise RecordError(f"{path}: no loss record there; expected the folder of a training")
    return pd.DataFrame(_rows(path), columns=list(_COLUMNS))


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            row = json.loads(line)
            rows.append({column: row[column] for column in _COLUMNS})
        except (ValueError, KeyError, TypeError):
            if number < len(lines) - 1:
                raise RecordError(
                    f"{path}: line {number + 1} is not a record of step, epoch, split, name and value"
                ) from None
    return rows
