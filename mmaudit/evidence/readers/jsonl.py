"""JSON logs: a line for each time something was logged, or one document with lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_COLUMNS,
    MOST_POINTS,
    Columns,
    Run,
    Series,
    check_points,
    check_size,
    files_below,
    flat_items,
    known_column,
    said,
    valid_text,
)
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.exceptions import LogError

__all__ = ["JSONLinesReader", "JSONReader", "lists_run", "valid_names"]

_OURS = ("history.jsonl", "losses.jsonl")
_LINES_AT_ONCE = 20_000
_BYTES_AT_ONCE = 2**24
_LONGEST_LINE = 2**20


class JSONLinesReader:
    """One JSON object a line, flat or nested; a torn last line is left out. Or the folder of a training recorded here."""

    key = "jsonl"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the first line is an object by itself."""
        if path.is_dir():
            return bool(_recorded(path))
        line = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
        if not line.startswith(b"{"):
            return False
        try:
            return isinstance(json.loads(line), dict) and (
                path.suffix.lower() in (".jsonl", ".ndjson") or b"\n" in head.strip()
            )
        except (ValueError, RecursionError):
            return path.suffix.lower() in (".jsonl", ".ndjson")

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If a line before the last is no JSON object.
        """
        if not path.is_dir():
            return self._read_file(path, columns)
        runs = []
        for file in _recorded(path):
            title = said(file.parent.resolve().name or file.stem, 200)
            found = self._read_file(file, columns)
            runs += [replace(run, title=title) for run in found] if len(found) == 1 else found
        return runs

    def _read_file(self, path: Path, columns: Columns) -> list[Run]:
        check_size(path)
        frames: list[pd.DataFrame] = []
        written: list[pd.DataFrame] = []
        notes: list[str] = []
        cells = 0
        for rows, not_a_number in _parts(path, notes):
            frame = pd.DataFrame.from_records(rows)
            # What was written as NaN is a number that is not finite; what is missing was not written.
            there = frame.notna()
            if not_a_number:
                names = list(frame.columns)
                there = pd.DataFrame(
                    [[row.get(name) is not None for name in names] for row in rows], columns=names
                )
            cells += frame.size
            if cells > 10 * MOST_POINTS:
                raise LogError(
                    f"{said(path.name)} has more than {MOST_POINTS:,} points; give a part of it."
                )
            frames.append(frame)
            written.append(there)
        if not frames:
            raise LogError(f"{said(path.name)} holds no JSON object.")
        whole = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        marks = pd.concat(written, ignore_index=True) if len(written) > 1 else written[0]
        marks = marks.fillna(False).astype(bool)
        return runs_of_frame(
            path,
            "JSON lines",
            whole,
            columns,
            written={str(n): marks[n] for n in marks.columns},
            notes=tuple(notes),
        )


class JSONReader:
    """One JSON document: a mapping of lists (a series each), a list of such mappings (a run each), or a list of rows."""

    key = "json"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether it begins as a document."""
        return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If it is no JSON, or holds no series.
        """
        check_size(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise LogError(
                f"{said(path.name)} is no JSON document ({type(error).__name__}); is it cut off, or one object a line?"
            ) from None
        if isinstance(found, dict):
            rows = [
                value
                for value in found.values()
                if isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
            ]
            found = rows[0] if len(rows) == 1 else [found]
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise LogError(
                f"{said(path.name)}: expected a mapping of lists, a list of such mappings, or a list of rows."
            )
        flat = [valid_names(dict(flat_items(row))) for row in found]
        if any(_is_series(value) for row in flat for value in row.values()):
            runs = [lists_run(path, row, columns, at) for at, row in enumerate(flat)]
            runs = [run for run in runs if run.series]
            if not runs:
                raise LogError(f"{said(path.name)} holds no lists of numbers.")
            check_points(path.name, runs)
            return runs
        frame = pd.DataFrame.from_records(flat)
        marks = {
            name: pd.Series([row.get(name) is not None for row in flat])
            for name in map(str, frame.columns)
        }
        return runs_of_frame(path, "JSON", frame, columns, written=marks)


def lists_run(path: Path, row: Mapping[str, Any], columns: Columns, at: int) -> Run:
    """The run that a mapping of lists describes; where no list of epochs or steps is beside them, points count as epochs."""
    try:
        lists = {
            name: np.array([np.nan if v is None else v for v in value], np.float64)
            for name, value in row.items()
            if _is_series(value)
        }
    except OverflowError:
        raise LogError(f"{said(path.name)} holds a number that is too large.") from None
    missing = sorted({c for c in (columns.step, columns.epoch) if c is not None} - set(lists))
    if missing:
        raise LogError(f"{said(path.name)} has no list '{said(missing[0])}'.")
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
        step = np.full(len(value), -1, np.int64)
        if "step" in beside:
            given = beside["step"]
            good = np.isfinite(given) & (np.abs(given) < 2**53)
            step = np.where(good, given, -1).astype(np.int64)
        epoch = beside.get(
            "epoch",
            count.astype(np.float64) if "step" not in beside else np.full(len(value), np.nan),
        )
        series[name] = Series(step, epoch, value, count).counted()
    title = row.get(columns.run or "run", row.get("name", row.get("seed", at)))
    whose = said(str(title), 100) if isinstance(title, (str, int, float)) else str(at)
    return Run(f"{path.stem} {whose}", "JSON", (path,), series)


def valid_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose names and texts can be written."""
    return {
        valid_text(name): valid_text(value) if isinstance(value, str) else value
        for name, value in row.items()
    }


def _recorded(folder: Path) -> list[Path]:
    """Loss records of trainings in and below a folder."""
    return [file for name in _OURS for file in files_below(folder, name)]


def _parts(path: Path, notes: list[str]) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """Objects of the file, flat, many lines at a time; and whether a number among them may be written as NaN.

    Raises:
        LogError: If a line before the last is no JSON object, or is longer than 1 MB.
    """
    with path.open("rb") as file:
        number, first = 0, True
        columns: set[str] = set()
        while True:
            lines: list[bytes] = []
            size = 0
            while len(lines) < _LINES_AT_ONCE and size < _BYTES_AT_ONCE:
                line = file.readline(_LONGEST_LINE + 2)
                if not line:
                    break
                if len(line) > _LONGEST_LINE + 1:
                    raise LogError(
                        f"{said(path.name)}: line {number + len(lines) + 1} is longer than 1 MB; expected one object a line."
                    )
                lines.append(line)
                size += len(line)
            if not lines:
                return
            if first:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
                first = False
            kept = [line for line in lines if line.strip()]
            text = b"[" + b",".join(kept) + b"]"
            try:
                rows = json.loads(text)
                if len(rows) != len(kept):
                    raise ValueError
            except (ValueError, RecursionError):
                last = not file.peek(1)
                rows = list(_one_by_one(path, lines, number, notes, last=last))
            if not all(isinstance(row, dict) for row in rows):
                raise LogError(f"{said(path.name)}: expected one JSON object a line.")
            if any(isinstance(value, dict) for row in rows for value in row.values()):
                rows = [dict(flat_items(row)) for row in rows]
            if b"\\ud" in text.lower():
                rows = [valid_names(row) for row in rows]
            number += len(lines)
            columns.update(name for row in rows for name in row)
            if len(columns) > MOST_COLUMNS:
                raise LogError(
                    f"{said(path.name)} has more than {MOST_COLUMNS:,} different names; up to so many are read."
                )
            if rows:
                yield rows, b"NaN" in text or b"nan" in text


def _one_by_one(
    path: Path, lines: list[bytes], number: int, notes: list[str], *, last: bool
) -> Iterator[Any]:
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            if not (last and at == len(lines) - 1):
                raise LogError(
                    f"{said(path.name)}: line {number + at + 1} is no JSON object."
                ) from None
            notes.append(f"the last line of {said(path.name)} is torn: left out.")


def _is_series(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in value
        )
    )
