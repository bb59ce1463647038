"""JSON logs: a line for each time something was logged, or one document with lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import (
    Columns,
    Run,
    Series,
    check_size,
    flat_items,
    known_column,
    runs_of_frame,
)
from mmaudit.exceptions import LogError

__all__ = ["JSONLinesReader", "JSONReader", "lists_run", "parsed_lines"]

_LINES_AT_ONCE = 20_000
_LONGEST_LINE = 2**20


class JSONLinesReader:
    """One JSON object a line, flat or nested; a torn last line is left out."""

    key = "jsonl"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the first line is an object by itself."""
        line = head.lstrip().split(b"\n", 1)[0]
        if not line.startswith(b"{"):
            return False
        try:
            return isinstance(json.loads(line), dict) and (
                path.suffix.lower() in (".jsonl", ".ndjson") or b"\n" in head.strip()
            )
        except (ValueError, RecursionError):
            return False

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If a line before the last is no JSON object.
        """
        check_size(path)
        rows = list(parsed_lines(path))
        if any(isinstance(value, dict) for row in rows[:1000] for value in row.values()):
            rows = [dict(flat_items(row)) for row in rows]
        frame = pd.DataFrame.from_records(rows)
        written = None
        if "NaN" in _sample(path) or "Infinity" in _sample(path):
            names = {name for row in rows for name in row}
            written = {
                name: pd.Series([row.get(name) is not None for row in rows]) for name in names
            }
        return runs_of_frame(path, "JSON lines", frame, columns, written=written)


class JSONReader:
    """One JSON document: a mapping of lists (a series each), a list of such mappings (a run each), or a list of rows."""

    key = "json"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it begins as a document."""
        return head.lstrip().startswith((b"{", b"["))

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If it is no JSON, or holds no series.
        """
        check_size(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, UnicodeDecodeError) as error:
            raise LogError(f"{path.name} is no JSON document ({type(error).__name__}).") from None
        if isinstance(found, dict):
            found = [found]
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise LogError(
                f"{path.name}: expected a mapping of lists, a list of such mappings, or a list of rows."
            )
        flat = [dict(flat_items(row)) for row in found]
        if any(_is_series(value) for row in flat for value in row.values()):
            runs = [lists_run(path, row, columns, at) for at, row in enumerate(flat)]
            runs = [run for run in runs if run.series]
            if not runs:
                raise LogError(f"{path.name} holds no lists of numbers.")
            return runs
        return runs_of_frame(path, "JSON", pd.DataFrame.from_records(flat), columns)


def lists_run(path: Path, row: Mapping[str, Any], columns: Columns, at: int) -> Run:
    """The run that a mapping of lists describes; where no list of epochs or steps is beside them, points count as epochs."""
    lists = {
        name: np.array([np.nan if v is None else v for v in value], np.float64)
        for name, value in row.items()
        if _is_series(value)
    }
    named = {columns.step: "step", columns.epoch: "epoch"}
    kinds = {name: named.get(name) or known_column(name) for name in lists}
    series = {}
    for name, value in lists.items():
        if kinds[name] is not None:
            continue
        beside = {
            kind: lists[other]
            for other, kind in kinds.items()
            if kind is not None and len(lists[other]) == len(value)
        }
        count = np.arange(len(value))
        step = (
            np.nan_to_num(beside["step"], nan=-1).astype(np.int64)
            if "step" in beside
            else np.full(len(value), -1)
        )
        epoch = beside.get(
            "epoch",
            count.astype(np.float64) if "step" not in beside else np.full(len(value), np.nan),
        )
        series[name] = Series(step, epoch, value, count)
    title = row.get(columns.run or "run", row.get("name", row.get("seed", at)))
    return Run(f"{path.stem} {title}", "JSON", (path,), series)


def parsed_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON lines file, many lines at a time.

    Raises:
        LogError: If a line before the last is no JSON object, or is longer than 1 MB.
    """
    with path.open("rb") as file:
        number = 0
        while True:
            lines = [line for _, line in zip(range(_LINES_AT_ONCE), file, strict=False)]
            if not lines:
                return
            if max(map(len, lines)) > _LONGEST_LINE:
                raise LogError(
                    f"{path.name} has a line longer than 1 MB; expected one object a line."
                )
            kept = [line for line in lines if line.strip()]
            try:
                rows = json.loads(b"[" + b",".join(kept) + b"]")
                if len(rows) != len(kept):
                    raise ValueError
            except (ValueError, RecursionError):
                rows = list(_one_by_one(path, lines, number, last=not file.peek(1)))
            if not all(isinstance(row, dict) for row in rows):
                raise LogError(f"{path.name}: expected one JSON object a line.")
            number += len(lines)
            yield from rows


def _one_by_one(path: Path, lines: list[bytes], number: int, *, last: bool) -> Iterator[Any]:
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            if not (last and at == len(lines) - 1):
                raise LogError(f"{path.name}: line {number + at + 1} is no JSON object.") from None


def _is_series(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in value
        )
    )


def _sample(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
