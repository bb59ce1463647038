"""Lightning's ``metrics.csv``: sparse rows, and validations after the training that are no part of it.

The name alone says little: other tools and scripts call their tables so, and write one series after another. What is true of Lightning
alone is said of a file only if it is laid out as ``CSVLogger`` lays it out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mmaudit.evidence.readers.base import Columns, Run, Series, counted, files_below, said
from mmaudit.evidence.readers.csv_file import first_names, read_table
from mmaudit.evidence.readers.groups import texts
from mmaudit.evidence.readers.names import splits_in
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
        file, "CSV", table.frame, columns, written=table.written, notes=table.notes
    )
    titles = [title] if len(runs) == 1 else [f"{title} {run.title}" for run in runs]
    runs = [replace(run, title=own) for run, own in zip(runs, titles, strict=True)]
    words = any(
        len(found) for name in table.frame if (found := texts(table.frame[name])) is not None
    )
    if words or not all(map(_logged_along_the_training, runs)):
        return runs
    return [without_later_rows(replace(run, format="Lightning CSV")) for run in runs]


def _logged_along_the_training(run: Run) -> bool:
    """Whether rows lie as ``CSVLogger`` writes them: in the order of the training, train and validation losses in rows of their own."""
    train = [s.order for name, s in run.series.items() if "train" in name.lower()]
    held = [
        s.order for name, s in run.series.items() if {"validation", "test"} & set(splits_in(name))
    ]
    if train and held and np.isin(np.concatenate(held), np.concatenate(train)).all():
        return False
    return _in_turn(list(run.series.values()))


def _in_turn(series: list[Series]) -> bool:
    """Whether steps go back only where a series goes back itself: not where one series is written after another."""
    placed = [s.where(s.step >= 0) for s in series]
    order, first = np.unique(np.concatenate([s.order for s in placed]), return_index=True)
    step = np.concatenate([s.step for s in placed])[first]
    back = order[1:][np.diff(step) < 0]
    # A test of the finished model is the one point of its series.
    begins = [s.order[0] for s in placed if len(np.unique(s.step)) > 1]
    goes_on = np.concatenate([s.order[1:] for s in placed])
    return not (np.isin(back, begins) & ~np.isin(back, goes_on)).any()


def without_later_rows(run: Run) -> Run:
    """The run without rows that ``trainer.validate`` and ``trainer.test`` wrote after its training.

    They carry an epoch that no row of the training has, and no step was taken since the validation before; or, from a trainer of their
    own, a step that training was long past. Counted in, they would be another checkpoint, on whatever data they were given.
    Only the end of a series is left out: what the training itself measured is never among it, and a series with several places that are
    all later was not measured by a finished model, but written behind the others.
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
    later: dict[str, np.ndarray] = {}
    for name, series in run.series.items():
        back = (series.step >= 0) & (series.step < last_step)
        after = (series.order > last_row) & ((series.epoch > last_epoch) | back)
        later[name] = np.logical_and.accumulate(after[::-1])[::-1]
    validated = any(
        "validation" in splits_in(name) and not later[name].all() for name in run.series
    )
    kept: dict[str, Series] = {}
    dropped: dict[int, None] = {}
    for name, series in run.series.items():
        end = later[name]
        if end.all() and (not validated or len(np.unique(series.step)) > 1):
            end = np.zeros(len(end), bool)
        dropped.update(dict.fromkeys(series.order[end].tolist()))
        if not end.all():
            kept[name] = series.where(~end)
    if not dropped:
        return run
    text = f"{counted(len(dropped), 'row')} after the training (a validation or test of the finished model) left out."
    return replace(run, series=kept, notes=(*run.notes, text))
