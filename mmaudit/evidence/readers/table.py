"""From a table to runs: wide, with a column for each series, or long, with a name and a value in each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_COLUMNS,
    Columns,
    Run,
    Series,
    check_points,
    counted,
    known_column,
    listed,
    said,
)
from mmaudit.evidence.readers.cells import numbers
from mmaudit.evidence.readers.epochs import with_epochs
from mmaudit.evidence.readers.groups import group_names, texts, with_heads, with_split
from mmaudit.evidence.readers.joining import join_splits
from mmaudit.evidence.readers.names import read_name, split_of, splits_in
from mmaudit.evidence.readers.places import Places
from mmaudit.exceptions import LogError
from mmaudit.typing import FloatArray, IntArray

__all__ = ["runs_of_frame"]

_NAMES = ("name", "metric", "tag", "key")
_RUNS = (
    "run",
    "run_id",
    "run_name",
    "run_uuid",
    "fold",
    "seed",
    "trial",
    "repeat",
    "cv_fold",
    "run.hash",
    "run.name",
)
_VALUES = ("value", "values", "scalar")
_UNNAMED = "Unnamed: "
_MOST_RUNS = 10_000


def runs_of_frame(
    path: Path,
    form: str,
    frame: pd.DataFrame,
    columns: Columns,
    *,
    written: Mapping[str, pd.Series] | None = None,
    notes: tuple[str, ...] = (),
) -> list[Run]:
    """Runs of a table.

    Args:
        path: Of the log.
        form: Its format in words.
        frame: Rows in the order in which they were written, index 0, 1, ...
        columns: What the user said of them.
        written: Column -> whether a cell was written, bool; left out: where it is not missing. A written cell that is no number
            counts as not finite.
        notes: What a reader of the log must know already.

    Returns:
        Runs in the order of their first rows. Rows that say their split, or their head, are series of their own, ``split/head/column``.

    Raises:
        LogError: If there is no number in it, or it lacks a column that was named.
    """
    frame = frame.set_axis(_distinct([str(name) for name in frame.columns]), axis=1)
    names = list(frame.columns)
    if len(names) > MOST_COLUMNS:
        raise LogError(
            f"{said(path.name)} has {len(names):,} columns; tables of up to {MOST_COLUMNS:,} are read."
        )
    missing = sorted(columns.named() - set(names))
    if missing:
        raise LogError(
            f"{said(path.name)} has no column '{said(missing[0])}'; it has {listed(names) or 'no columns'}."
        )
    said_of_it = list(notes)
    named_run = columns.run is not None
    columns = _with_runs(frame, columns, said_of_it)
    taken = {columns.step, columns.epoch, columns.run}
    measured = [
        n
        for n in names
        if n not in taken and known_column(n) is None and not n.startswith(_UNNAMED)
    ]
    layout = _layout(frame, columns, measured, said_of_it)
    order = np.arange(len(frame))
    titles, uniques = (
        pd.factorize(frame[columns.run].astype(str)) if columns.run else (0 * order, pd.Index([""]))
    )
    if len(uniques) > _MOST_RUNS:
        raise LogError(
            f"{said(path.name)}: column '{said(str(columns.run))}' has {len(uniques):,} values, too many to tell runs apart."
        )
    places = Places.of(frame, columns)
    steps, epochs = _common_epochs(path, places, titles, said_of_it)
    tables: dict[str, dict[str, Series]] = {}
    used = np.zeros(len(frame), bool)
    for name in layout.values:
        cells = _cells(path, frame, name, written, said_of_it)
        if cells is None:
            continue
        rows, value = cells
        used[rows] = True
        codes, groups = layout.groups_of(name)
        for code, own in _by_code(rows, titles * len(groups) + codes):
            title, group = divmod(code, len(groups))
            series = Series(steps[own], epochs[own], value[own], order[own]).counted()
            table = tables.setdefault(str(uniques[title]), {})
            called = groups[group] if layout.long else "/".join(filter(None, (groups[group], name)))
            table[_other(called, table)] = series
    if not tables:
        raise LogError(_without_numbers(path, frame, measured))
    said_of_it += places.odd(path, used)
    first_seen = {str(title): at for at, title in enumerate(uniques)}
    told = columns.run is not None and not named_run
    runs = [
        Run(title or path.stem, form, (path,), tables[title], tuple(said_of_it))
        for title in sorted(tables, key=first_seen.__getitem__)
    ]
    check_points(path.name, runs)
    # TensorBoard's tables call the run of a split 'run/train'.
    return join_splits(runs, path.stem) if told and len(runs) > 1 else runs


def _common_epochs(
    path: Path, places: Places, titles: np.ndarray, notes: list[str]
) -> tuple[IntArray, FloatArray]:
    """Steps and epochs of the rows, where the steps of some runs are epochs in some rows."""
    steps, epochs = places.step.copy(), places.epoch.copy()
    if not ((steps >= 0) & np.isnan(epochs)).any():
        return steps, epochs
    number = 0
    for _, own in _by_code(np.arange(len(titles)), titles):
        found = with_epochs(steps[own], epochs[own])
        steps[own], epochs[own] = found.step, found.epoch
        number += found.rows
    if number:
        notes.append(
            f"{counted(number, 'row')} of {said(path.name)} whose step is the number of the epoch before: counted as that epoch."
        )
    return steps, epochs


def _without_numbers(path: Path, frame: pd.DataFrame, measured: list[str]) -> str:
    """Why a table has no series: which of its cells are texts."""
    names = list(frame.columns)
    text = f"{said(path.name)} holds no numbers"
    clocks = [n for n in names if n not in measured and np.isfinite(numbers(frame[n])).any()]
    if clocks:
        text += f" beside {listed(clocks, 3)}"
    for name in measured:
        cells = texts(frame[name])
        digits = (
            [cell for cell in cells if any(map(str.isdigit, cell))] if cells is not None else []
        )
        if digits:
            return (
                f"{text}: cells such as '{said(digits[0], 30)}' in '{said(name, 40)}' are texts; write plain numbers, such as 0.85. It has "
                f"{listed(names)}."
            )
    return f"{text}; it has {listed(names) or 'no columns'}."


class _Layout:
    """Which columns hold the values, and what their rows are about.

    Args:
        frame: The table.
        values: Columns with values.
        split: Column with the split of each row.
        name: Column with the name of what each row is about.
        long: Whether that is the name of what was measured, so that the column of the values adds nothing.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        values: list[str],
        split: str | None,
        name: str | None,
        long: bool,
    ) -> None:
        self.values, self.long = values, long
        self._all = group_names(frame, [part for part in (split, name) if part is not None])
        # A column that names a split itself needs no other.
        own = not long and split is not None and any(splits_in(value) for value in values)
        self._named = group_names(frame, [name] if name is not None else []) if own else self._all

    def groups_of(self, column: str) -> tuple[np.ndarray, list[str]]:
        """What each row of a column is about: codes and their names."""
        return self._named if splits_in(column) and not self.long else self._all


def _layout(
    frame: pd.DataFrame, columns: Columns, measured: list[str], notes: list[str]
) -> _Layout:
    free = [n for n in measured if n not in columns.named()]
    label = columns.name or next(
        (n for n in _NAMES if n in free and texts(frame[n]) is not None), None
    )
    value = columns.value or next((n for n in _VALUES if n in free), None)
    if label is None and value is not None:
        label = _names_of_losses(frame, [n for n in free if n != value], notes)
    held = columns.value or (value if label else None)
    if label is not None and held is not None:
        if columns.split is None and "split" in free:
            split: str | None = "split"
        else:
            split = with_split(
                frame, columns, [n for n in free if n not in (label, held)], notes
            ).split
        return _Layout(frame, [held], split, label, True)
    columns = with_heads(frame, with_split(frame, columns, free, notes), free, notes)
    values = [held] if held else [n for n in measured if n not in columns.named()]
    return _Layout(frame, values, columns.split, columns.name, False)


def _names_of_losses(frame: pd.DataFrame, free: Sequence[str], notes: list[str]) -> str | None:
    """The column that names what each row measures, beside one of values: the one with most names of losses in it."""
    found = {name: values for name in free if (values := texts(frame[name])) is not None}
    losses = {
        name: sum(read_name(value) is not None for value in values)
        for name, values in found.items()
        if 0 < len(values) <= MOST_COLUMNS
    }
    best = max(losses, key=losses.__getitem__, default=None)
    if best is None:
        return None
    shown = ", ".join(map(str, found[best][:4]))
    if losses[best]:
        notes.append(
            f"Column '{said(best)}' was taken for names ({said(shown)}): series are called after it."
        )
        return best
    others = [name for name in losses if not any(map(splits_in, found[name]))]
    if others:
        notes.append(
            f"If '{said(others[0], 40)}' names what each row measures, say so: --columns name={said(others[0], 40)}."
        )
    return None


def _cells(
    path: Path,
    frame: pd.DataFrame,
    name: str,
    written: Mapping[str, pd.Series] | None,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows in which a column has a value, and the values of all rows; ``None`` where it is no series."""
    value = numbers(frame[name])
    there = (
        written[name].to_numpy(bool)
        if written is not None and name in written
        else frame[name].notna().to_numpy()
    )
    words = there & np.isnan(value) & ~_says_not_a_number(frame[name], there)
    # A column of texts is no series; one that has a number, or says that it has none, is.
    series = bool((there & ~words).any())
    if words.any() and (series or read_name(name) is not None):
        number = int(words.sum())
        are = "is no number" if number == 1 else "are no numbers"
        notes.append(
            f"{counted(number, 'cell')} of '{said(name)}' in {said(path.name)} {are}: left out."
        )
    return (np.flatnonzero(there & ~words), value) if series else None


def _other(name: str, taken: Mapping[str, Series]) -> str:
    number, found = 0, name
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found


def _says_not_a_number(cells: pd.Series, there: np.ndarray) -> np.ndarray:
    """Cells that write NaN, or were written as one."""
    if pd.api.types.is_numeric_dtype(cells):
        return np.full(len(cells), not pd.api.types.is_bool_dtype(cells))
    found = np.zeros(len(cells), bool)
    places = np.flatnonzero(there)
    written = cells.iloc[places]
    words = written.astype(str).str.strip().str.lower()
    found[places] = written.isna() | words.isin(("nan", "-nan", "+nan", "none", "null", "na", ""))
    return found


def _by_code(rows: np.ndarray, codes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of each code, in their order; in one sort, because there may be many of both."""
    place = np.argsort(codes[rows], kind="stable")
    ordered = codes[rows][place]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        yield int(ordered[start]), rows[place[start:end]]


def _with_runs(frame: pd.DataFrame, columns: Columns, notes: list[str]) -> Columns:
    """The columns, with the one that tells runs apart where its name says so."""
    if columns.run is not None:
        return columns
    lower = {str(n).strip().lower(): n for n in frame.columns}
    for name in _RUNS:
        column = lower.get(name)
        if column is None or column in columns.named():
            continue
        if frame[column].isna().any() or not 1 < _different(frame[column]) <= _MOST_RUNS:
            continue
        found = texts(frame[column])
        if found is not None and all(split_of(value.strip()) for value in found):
            continue  # 'train' and 'val' are parts of one run
        notes.append(f"Column '{said(column)}' was taken for what tells runs apart.")
        return columns.model_copy(update={"run": column})
    return columns


def _different(cells: pd.Series) -> int:
    """Number of different values; 0 where cells are lists or the like."""
    try:
        return int(cells.nunique())
    except TypeError:
        return 0


def _distinct(names: list[str]) -> list[str]:
    """Names, with a number behind those that came before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        found.append(name if seen[name] == 0 else f"{name}.{seen[name]}")
    return found
