"""JSON documents with the history of a training: lists for each series, or rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_CELLS,
    MOST_COLUMNS,
    Columns,
    Run,
    check_points,
    flat_items,
    said,
)
from mmaudit.evidence.readers.json_index import rows_by_index
from mmaudit.evidence.readers.json_lists import is_series, lists_run
from mmaudit.evidence.readers.jsonl import valid_names
from mmaudit.evidence.readers.names import names_a_run, splits_in
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.evidence.readers.text_file import in_utf8, read_document
from mmaudit.exceptions import LogError

__all__ = ["JSONReader", "runs_of_rows"]


class JSONReader:
    """One JSON document: a mapping of lists (a series each), a list of such mappings (a run each), or a list of rows."""

    key = "json"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it begins as a document."""
        return in_utf8(head).lstrip().startswith((b"{", b"["))

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If it is no JSON, or holds no series.
        """
        notes: list[str] = []
        found = read_document(path, notes)
        if isinstance(found, dict):
            found = _rows(found)
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise LogError(
                f"{said(path.name)}: expected a mapping of lists, a list of such mappings, or a list of rows."
            )
        flat = [valid_names(dict(flat_items(row))) for row in found]
        if any(is_series(value) for row in flat for value in row.values()):
            runs = [lists_run(path, row, columns, at) for at, row in enumerate(flat)]
            runs = [replace(run, notes=(*notes, *run.notes)) for run in runs if run.series]
            if not runs:
                raise LogError(f"{said(path.name)} holds no lists of numbers.")
            check_points(path.name, runs)
            alone = len(flat) == 1 and runs[0].title == f"{path.stem} 0"
            return [replace(runs[0], title=path.stem)] if alone else runs
        return runs_of_rows(path, "JSON", flat, columns, tuple(notes))


def runs_of_rows(
    path: Path,
    form: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Columns,
    notes: tuple[str, ...] = (),
) -> list[Run]:
    """Runs of flat rows, each with the names that were logged at one time.

    Args:
        path: Of the log.
        form: Its format in words.
        rows: In the order in which they were written; ``None`` stands for what was not.
        columns: What the user said of them.
        notes: What a reader of the log must know already.

    Raises:
        LogError: If there are too many names or cells, or no numbers.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > MOST_COLUMNS:
        raise LogError(
            f"{said(path.name)} has {len(names):,} different names; up to {MOST_COLUMNS:,} are read."
        )
    if len(names) * len(rows) > MOST_CELLS:
        raise LogError(
            f"{said(path.name)} has {len(rows):,} rows with {len(names):,} different names, too many to read; give a part of it."
        )
    frame = pd.DataFrame.from_records(list(rows), columns=names)
    marks = {name: pd.Series([row.get(name) is not None for row in rows]) for name in names}
    return runs_of_frame(path, form, frame, columns, written=marks, notes=notes)


def _rows(document: dict[str, Any]) -> list[Any]:
    """The rows of a mapping, or itself as one: lists of rows for each split or run are one list, with what each is of beside it."""
    lists = {
        name: value
        for name, value in document.items()
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
    }
    if len(lists) == 1:
        return next(iter(lists.values()))
    if lists:
        kind = "split" if all(splits_in(name) for name in lists) else "run"
        return [{kind: name, **row} for name, rows in lists.items() for row in rows]
    inner = {name: value for name, value in document.items() if isinstance(value, dict) and value}
    several = len(inner) > 1 and all(names_a_run(name) for name in inner)
    of_runs = {name: rows_by_index(value) for name, value in inner.items()} if several else {}
    if of_runs and all(of_runs.values()):
        return [{"run": name, **row} for name, rows in of_runs.items() for row in rows]
    rows = rows_by_index(document)
    if not rows and several:
        return [{"run": name, **value} for name, value in inner.items()]
    return rows or [document]
