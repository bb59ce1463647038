"""Lightning's ``metrics.csv``: sparse rows, and validations after the training that are no part of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mmaudit.evidence.readers.base import Columns, Run, Series, counted, files_below, said
from mmaudit.evidence.readers.csv_file import first_names, read_table
from mmaudit.evidence.readers.several import read_each
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.exceptions import LogError

__all__ = ["LightningReader", "without_later_rows"]

_NAME = "metrics.csv"


class LightningReader:
    """The CSV file of Lightning's ``CSVLogger``, or a folder: each ``metrics.csv`` in or below it is a run."""

    key = "lightning"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it has the columns ``epoch`` and ``step`` that Lightning writes, and its name."""
        if path.is_dir():
            return bool(files_below(path, _NAME))
        return path.name == _NAME and {"epoch", "step"} <= set(first_names(head))

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The runs of it, without what was logged after their training.

        Raises:
            LogError: If no file is a table with numbers.
        """
        if not path.is_dir():
            return _of_file(path, path.resolve().parent.name or path.stem, columns)

        def read(file: Path) -> list[Run]:
            place = file.parent.relative_to(path).as_posix()
            return _of_file(
                file, place if place != "." else file.resolve().parent.name or file.stem, columns
            )

        files = files_below(path, _NAME)
        if not files:
            raise LogError(f"{said(path.name)} holds no {_NAME}.")
        return read_each(files, read, path)


def _of_file(file: Path, title: str, columns: Columns) -> list[Run]:
    table = read_table(file)
    runs = runs_of_frame(
        file, "Lightning CSV", table.frame, columns, written=table.written, notes=table.notes
    )
    titles = [title] if len(runs) == 1 else [f"{title} {run.title}" for run in runs]
    return [
        without_later_rows(replace(run, title=own)) for run, own in zip(runs, titles, strict=True)
    ]


def without_later_rows(run: Run) -> Run:
    """The run without rows that ``trainer.validate`` and ``trainer.test`` wrote after its training.

    They carry an epoch that no row of the training has, and no step was taken since the validation before; or, from a trainer of their
    own, a step that training was long past. Counted in, they would be another checkpoint, on whatever data they were given.
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
    last_step = max(int(s.step.max()) for s in trained)
    kept: dict[str, Series] = {}
    dropped: dict[int, None] = {}
    for name, series in run.series.items():
        back = (series.step >= 0) & (series.step < last_step)
        later = (series.order > last_row) & ((series.epoch > last_epoch) | back)
        dropped.update(dict.fromkeys(series.order[later].tolist()))
        if not later.all():
            kept[name] = series.where(~later)
    if not dropped:
        return run
    text = f"{counted(len(dropped), 'row')} after the training (a validation or test of the finished model) left out."
    return replace(run, series=kept, notes=(*run.notes, text))
