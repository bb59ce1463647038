"""Lightning's ``metrics.csv``: sparse rows, and validations after the training that are no part of it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmaudit.evidence.readers.base import Columns, Run, Series, runs_of_frame
from mmaudit.evidence.readers.csv_file import read_table

__all__ = ["LightningReader", "without_later_rows"]


class LightningReader:
    """The CSV file of Lightning's ``CSVLogger``, or the folder that holds it."""

    key = "lightning"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it has the columns ``epoch`` and ``step`` that Lightning writes, and its name."""
        if path.is_dir():
            return (path / "metrics.csv").is_file()
        if path.name != "metrics.csv":
            return False
        first = head.decode("utf-8", "replace").splitlines()[:1]
        names = set(next(csv.reader(first), []))
        return {"epoch", "step"} <= names

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The run of it, without what was logged after its training."""
        file = path / "metrics.csv" if path.is_dir() else path
        frame, written = read_table(file)
        runs = runs_of_frame(file, "Lightning CSV", frame, columns, written=written)
        title = file.resolve().parent.name or file.stem
        return [without_later_rows(replace(run, title=title)) for run in runs]


def without_later_rows(run: Run) -> Run:
    """The run without rows that ``trainer.validate`` and ``trainer.test`` wrote after its training.

    They carry an epoch that no row of the training has, and no step was taken since the validation before: counted in, they would be
    another checkpoint, on whatever data they were given.
    """
    trained = [
        series
        for name, series in run.series.items()
        if "train" in name.lower() and len(series.value)
    ]
    if not trained:
        return run
    last_epoch = max(
        float(np.nanmax(s.epoch)) if np.isfinite(s.epoch).any() else -1 for s in trained
    )
    last_row = max(int(s.order.max()) for s in trained)
    kept: dict[str, Series] = {}
    dropped: dict[int, None] = {}
    for name, series in run.series.items():
        later = (series.order > last_row) & (series.epoch > last_epoch)
        dropped.update(dict.fromkeys(series.order[later].tolist()))
        if not later.all():
            kept[name] = series.where(~later)
    if not dropped:
        return run
    text = (
        f"{len(dropped)} row{'s' if len(dropped) > 1 else ''} after the training (a validation or test of the finished model)"
        " left out."
    )
    return replace(run, series=kept, notes=(*run.notes, text))
