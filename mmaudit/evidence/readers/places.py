"""Where the rows of a table lie in the training: their steps and epochs, and which of them have none that can be used."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import Columns, Kind, counted, known_column, said
from mmaudit.evidence.readers.cells import numbers
from mmaudit.typing import FloatArray, IntArray

__all__ = ["Places"]

_LARGEST = 2**53


class _Clock(NamedTuple):
    """One kind of places."""

    value: np.ndarray
    good: np.ndarray
    """Whether there is one that can be used, bool."""
    wrong: np.ndarray
    """Whether something else was written, bool."""
    column: str | None
    """The first that holds it."""


class Places(NamedTuple):
    """Steps and epochs of n rows."""

    step: IntArray
    """Int64; -1 where there is none."""
    epoch: FloatArray
    """NaN where there is none."""
    clocks: dict[Kind, _Clock]

    @classmethod
    def of(cls, frame: pd.DataFrame, columns: Columns) -> Places:
        """Places of the rows of a table, by the columns that were named, else by all that are known to hold them."""
        clocks: dict[Kind, _Clock] = {
            "step": _clock(frame, "step", columns),
            "epoch": _clock(frame, "epoch", columns),
        }
        step, epoch = clocks["step"], clocks["epoch"]
        return cls(
            np.where(step.good, step.value, -1).astype(np.int64),
            np.where(epoch.good, epoch.value, np.nan),
            clocks,
        )

    def odd(self, path: Path, used: np.ndarray) -> list[str]:
        """A sentence for each kind of place that rows with a value lack, or have and cannot use.

        Args:
            path: Of the log.
            used: Rows with a value, bool ``(n,)``.
        """
        notes = []
        placed = self.clocks["step"].good | self.clocks["epoch"].good
        for kind, clock in self.clocks.items():
            if clock.column is None or not (clock.good | clock.wrong).any():
                continue
            number = int((used & (clock.wrong | (~clock.good & ~placed))).sum())
            if number:
                range_ = " or negative" if kind == "step" else ""
                notes.append(
                    f"{counted(number, 'row')} of {said(path.name)} without a usable {kind} in '{said(clock.column)}' (missing, not finite{range_}, or no number)."
                )
        return notes


def _clock(frame: pd.DataFrame, kind: Kind, columns: Columns) -> _Clock:
    named = columns.step if kind == "step" else columns.epoch
    others = columns.named() - {named}
    known = (
        [named]
        if named
        else [n for n in frame.columns if known_column(n) == kind and n not in others]
    )
    found = np.full(len(frame), np.nan)
    there = np.zeros(len(frame), bool)
    for name in known:
        found = np.where(np.isnan(found), numbers(frame[name]), found)
        there |= frame[name].notna().to_numpy()
    good = np.isfinite(found) & (np.abs(found) < _LARGEST)
    if kind == "step":
        good &= found >= 0
    return _Clock(found, good, there & ~good, known[0] if known else None)
