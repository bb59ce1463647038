"""From a table to runs: wide, with a column for each series, or long, with a name and a value in each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_COLUMNS,
    Columns,
    Kind,
    Run,
    Series,
    check_points,
    counted,
    known_column,
    listed,
    said,
)
from mmaudit.exceptions import LogError

__all__ = ["numbers", "runs_of_frame"]

_NAMES = ("name", "metric", "tag", "key")
_RUNS = ("run", "run_id", "run_name", "run_uuid", "fold", "seed", "trial", "repeat", "cv_fold")
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
    columns = _with_runs(frame, columns, said_of_it)
    step, epoch = (_position(frame, kind, columns) for kind in ("step", "epoch"))
    taken = {columns.step, columns.epoch, columns.run}
    measured = [
        n
        for n in names
        if n not in taken and known_column(n) is None and not n.startswith(_UNNAMED)
    ]
    label = columns.name or next(
        (n for n in _NAMES if n in measured and not pd.api.types.is_numeric_dtype(frame[n])), None
    )
    held = columns.value or ("value" if label is not None and "value" in names else None)
    order = np.arange(len(frame))
    if label is not None and held is not None:
        cells = _long(frame, columns, label, held, measured)
    else:
        cells = {}
        for name in measured:
            value = numbers(frame[name])
            there = (
                written[name].to_numpy(bool)
                if written is not None and name in written
                else frame[name].notna().to_numpy()
            )
            words = there & np.isnan(value) & ~_says_not_a_number(frame[name], there)
            # A column of texts is no series; one that has a number, or says that it has none, is.
            if not (there & ~words).any():
                continue
            if words.any():
                said_of_it.append(
                    f"{counted(int(words.sum()), 'cell')} of '{said(name)}' in {said(path.name)} are no numbers: left out."
                )
            cells[name] = (np.flatnonzero(there & ~words), value)
    tables: dict[str, dict[str, Series]] = {}
    titles = frame[columns.run].astype(str) if columns.run else None
    codes, uniques = (
        pd.factorize(titles) if titles is not None else (np.zeros(len(frame), int), pd.Index([""]))
    )
    if len(uniques) > _MOST_RUNS:
        raise LogError(
            f"{said(path.name)}: column '{said(str(columns.run))}' has {len(uniques):,} values, too many to tell runs apart."
        )
    for name, (rows, value) in cells.items():
        for code, own in _by_code(rows, codes):
            series = Series(step[own], epoch[own], value[own], order[own])
            tables.setdefault(str(uniques[code]), {})[name] = series.counted()
    if not tables:
        raise LogError(
            f"{said(path.name)} holds no numbers; it has {listed(names) or 'no columns'}."
        )
    first_seen = {str(title): at for at, title in enumerate(uniques)}
    runs = [
        Run(title or path.stem, form, (path,), tables[title], tuple(said_of_it))
        for title in sorted(tables, key=first_seen.__getitem__)
    ]
    check_points(path.name, runs)
    return runs


def numbers(cells: pd.Series) -> np.ndarray:
    """Cells as float64; NaN where one is no number, also where it is a list or too large."""
    if pd.api.types.is_numeric_dtype(cells):
        return cells.to_numpy(np.float64)
    try:
        return pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([_number(cell) for cell in cells], np.float64)


def _number(cell: object) -> float:
    try:
        return float(cell) if isinstance(cell, (int, float, str)) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")


def _says_not_a_number(cells: pd.Series, there: np.ndarray) -> np.ndarray:
    """Cells that write NaN, or were written as one."""
    if pd.api.types.is_numeric_dtype(cells):
        return np.ones(len(cells), bool)
    found = np.zeros(len(cells), bool)
    places = np.flatnonzero(there)
    texts = cells.iloc[places]
    words = texts.astype(str).str.strip().str.lower()
    found[places] = texts.isna() | words.isin(("nan", "-nan", "+nan", "none", "null", "na", ""))
    return found


def _long(
    frame: pd.DataFrame, columns: Columns, label: str, held: str, measured: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Series of a long table: name -> rows, and the values of all rows."""
    split = columns.split or ("split" if "split" in measured else None)
    called = frame[label].astype(str)
    if split is not None:
        called = frame[split].astype(str) + "/" + called
    value = numbers(frame[held])
    there = frame[held].notna().to_numpy()
    codes, uniques = pd.factorize(called)
    if len(uniques) > MOST_COLUMNS:
        raise LogError(
            f"column '{said(label)}' has {len(uniques):,} different names; up to {MOST_COLUMNS:,} series are read."
        )
    return {
        str(uniques[code]): (rows, value) for code, rows in _by_code(np.flatnonzero(there), codes)
    }


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
        if frame[column].isna().any() or not 1 < frame[column].nunique() <= _MOST_RUNS:
            continue
        notes.append(f"Column '{said(column)}' was taken for what tells runs apart.")
        return columns.model_copy(update={"run": column})
    return columns


def _position(frame: pd.DataFrame, kind: Kind, columns: Columns) -> np.ndarray:
    """Steps (int64) or epochs of all rows: of the named column, else of the columns that are known to hold them."""
    named = columns.step if kind == "step" else columns.epoch
    others = columns.named() - {named}
    known = (
        [named]
        if named
        else [n for n in frame.columns if known_column(n) == kind and n not in others]
    )
    found = np.full(len(frame), np.nan)
    for name in known:
        found = np.where(np.isnan(found), numbers(frame[name]), found)
    if kind == "epoch":
        return np.where(np.isfinite(found), found, np.nan)
    good = np.isfinite(found) & (np.abs(found) < 2**53)
    return np.where(good, found, -1).astype(np.int64)


def _distinct(names: list[str]) -> list[str]:
    """Names, with a number behind those that came before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        found.append(name if seen[name] == 0 else f"{name}.{seen[name]}")
    return found
