"""MLflow stores, as folders (``mlruns``) and as SQLite files.

They are read directly, and only read: a metric is a line of text or a row of a table. The library would migrate the database
it opens, and its newer versions refuse folders.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_FILES,
    MOST_POINTS,
    Columns,
    Run,
    Series,
    check_points,
    check_size,
    counted,
    said,
    valid_text,
)
from mmaudit.evidence.readers.cells import numbers
from mmaudit.evidence.readers.several import with_notes
from mmaudit.exceptions import LogError

__all__ = ["MLflowReader"]

_SQLITE = b"SQLite format 3\0"
_LONGEST_QUERY = 120.0
_STEPS_AT_ONCE = 100_000
_SEVERAL = 4
_NAME_TAG = "mlflow.runName"


class MLflowReader:
    """All runs of a store, of one experiment or of one run's folder."""

    key = "mlflow"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it is a database with MLflow's tables, or a folder with runs that have metrics."""
        if path.is_dir():
            return bool(_run_folders(path))
        if not head.startswith(_SQLITE):
            return False
        try:
            with closing(_opened(path)) as database:
                return _has(database, "metrics") and _has(database, "runs")
        except sqlite3.Error:
            return False

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """Every run that has metrics.

        Raises:
            LogError: If the store is damaged or holds no metrics.
        """
        runs = _of_folders(path) if path.is_dir() else _of_database(path)
        if not runs:
            raise LogError(f"{said(path.name)} is an MLflow store without metrics.")
        check_points(path.name, runs)
        return runs


def _opened(path: Path) -> sqlite3.Connection:
    """The database, for reading alone, and not for ever: what a table holds may be computed by what it was made with."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    until = time.monotonic() + _LONGEST_QUERY
    database.set_progress_handler(lambda: time.monotonic() > until, _STEPS_AT_ONCE)
    database.execute("pragma trusted_schema = off")
    database.text_factory = lambda text: text.decode("utf-8", "replace")
    return database


def _of_database(path: Path) -> list[Run]:
    try:
        with closing(_opened(path)) as database:
            if not (_has(database, "metrics") and _has(database, "runs")):
                raise LogError(f"{said(path.name)} has no tables of MLflow ('metrics' and 'runs').")
            count = database.execute("select count(*) from metrics").fetchone()[0]
            if count > MOST_POINTS:
                raise LogError(
                    f"{said(path.name)} has more than {MOST_POINTS:,} points; give one experiment's folder or store."
                )
            frame = pd.read_sql_query(
                "select run_uuid, key, step, value, is_nan from metrics order by run_uuid, key, timestamp, step",
                database,
            )
            titles = (
                dict(
                    database.execute(
                        "select run_uuid, value from tags where key = ?", (_NAME_TAG,)
                    ).fetchall()
                )
                if _has(database, "tags")
                else {}
            )
            deleted = [
                row[0]
                for row in database.execute(
                    "select run_uuid from runs where lifecycle_stage = 'deleted'"
                )
            ]
    except (sqlite3.Error, pd.errors.DatabaseError, OverflowError) as error:
        raise LogError(
            f"{said(path.name)} cannot be read as an MLflow database: {said(str(error).rsplit(chr(39) + ': ', 1)[-1], 120)}"
        ) from None
    frame["value"] = np.where(frame["is_nan"] == 0, numbers(frame["value"]), np.nan)
    for name in ("run_uuid", "key"):
        frame[name] = frame[name].map(lambda cell: valid_text(str(cell)))
    frame["order"] = np.arange(len(frame))
    frame = frame[~frame["run_uuid"].isin(deleted)]
    runs = []
    for run, rows in frame.groupby("run_uuid", sort=True):
        series = {str(key): _series(part) for key, part in rows.groupby("key", sort=True)}
        runs.append(Run(str(titles.get(run) or run), "MLflow", (path,), series))
    return runs


def _has(database: sqlite3.Connection, table: str) -> bool:
    """Whether there is an ordinary table: no view, nothing virtual, no columns that are computed."""
    found = database.execute(
        "select 1 from sqlite_master where type = 'table' and name = ? and sql not like 'create virtual%'",
        (table,),
    )
    if found.fetchone() is None:
        return False
    hidden = database.execute("select count(*) from pragma_table_xinfo(?) where hidden", (table,))
    return bool(hidden.fetchone()[0] == 0)


def _run_folders(path: Path) -> list[Path]:
    """Folders of runs below a store, an experiment or a run; two levels at most."""
    for pattern in ("metrics", "*/metrics", "*/*/metrics"):
        found = sorted(
            p.parent
            for p in path.glob(pattern)
            if p.is_dir()
            and (p.parent / "meta.yaml").is_file()
            # Deleted runs are kept in a hidden folder.
            and not any(part.startswith(".") for part in p.relative_to(path).parts)
        )
        if found:
            return found
    return []


def _of_folders(path: Path) -> list[Run]:
    runs: list[Run] = []
    unread: list[str] = []
    for folder in _run_folders(path):
        series: dict[str, Series] = {}
        files: list[Path] = []
        damages: list[str] = []
        for file in sorted(p for p in (folder / "metrics").rglob("*") if p.is_file()):
            if len(files) >= MOST_FILES:
                raise LogError(f"{said(path.name)} has more than {MOST_FILES:,} metrics in a run.")
            check_size(file)
            try:
                found = _of_lines(file, damages)
            except (LogError, OSError) as error:
                damages.append(f"{said(str(error), 160)} It is left out.")
            else:
                series[valid_text(file.relative_to(folder / "metrics").as_posix())] = found
            files.append(file)
        named = folder / "tags" / _NAME_TAG
        title = (
            named.read_text(encoding="utf-8", errors="replace").strip()[:200]
            if named.is_file() and named.stat().st_size < 10_000
            else folder.name
        )
        series = {name: points for name, points in series.items() if len(points.value)}
        if series:
            notes = damages[:_SEVERAL]
            if len(damages) > _SEVERAL:
                notes.append(f"{len(damages) - _SEVERAL} more metrics are damaged.")
            runs.append(Run(title or folder.name, "MLflow", tuple(files), series, tuple(notes)))
        elif damages:
            unread.append(f"run '{said(folder.name)}': {damages[0]}")
    if unread and not runs:
        raise LogError(unread[0])
    if unread:
        cannot = f"{counted(len(unread), 'run')} without a metric that can be read left out: {'; '.join(unread[:_SEVERAL])}"
        return with_notes(runs, cannot)
    return runs


def _of_lines(file: Path, notes: list[str]) -> Series:
    """Lines ``milliseconds value step``; the last without its end is torn, its number may lack digits."""
    times, values, steps = [], [], []
    text = file.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        text = text.rpartition("\n")[0]
        notes.append(f"the last line of metric {said(file.name)} is torn: left out.")
    for number, line in enumerate(text.split("\n")):
        parts = line.split()
        if not parts:
            continue
        try:
            when, value = float(parts[0]), float(parts[1])
            step = float(parts[2]) if len(parts) > 2 else 0.0
        except (ValueError, IndexError):
            raise LogError(
                f"metric {said(file.name)}: line {number + 1} is not 'time value step'."
            ) from None
        times.append(when)
        values.append(value)
        steps.append(step)
    frame = pd.DataFrame({"timestamp": times, "value": values, "step": steps})
    frame["order"] = np.arange(len(frame))
    return _series(frame)


def _series(frame: pd.DataFrame) -> Series:
    step = numbers(frame["step"])
    good = np.isfinite(step) & (np.abs(step) < 2**53)
    return Series(
        np.where(good, step, -1).astype(np.int64),
        np.full(len(frame), np.nan),
        frame["value"].to_numpy(np.float64),
        frame["order"].to_numpy(np.int64),
    ).counted()
