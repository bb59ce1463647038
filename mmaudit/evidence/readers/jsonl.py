"""JSON lines: an object for each time something was logged."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_CELLS,
    MOST_COLUMNS,
    MOST_POINTS,
    RECORDED,
    Columns,
    Run,
    check_size,
    counted,
    files_below,
    flat_items,
    listed,
    said,
    valid_text,
)
from mmaudit.evidence.readers.several import read_each
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.evidence.readers.text_file import in_utf8, parsed, text_bytes
from mmaudit.exceptions import LogError

__all__ = ["JSONLinesReader", "valid_names"]

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
        line = in_utf8(head).lstrip().split(b"\n", 1)[0]
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

        def read(file: Path) -> list[Run]:
            found = self._read_file(file, columns)
            title = said(file.parent.resolve().name or file.stem, 200)
            return [replace(found[0], title=title)] if len(found) == 1 else found

        files = _recorded(path)
        if not files:
            raise LogError(f"{said(path.name)} holds none of {listed(_OURS)}.")
        return read_each(files, read, path)

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
            if cells > MOST_CELLS:
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
        recorded = {"about", "heads"} <= set(whole.columns) and isinstance(whole["about"][0], str)
        return runs_of_frame(
            path,
            RECORDED if recorded else "JSON lines",
            whole,
            columns,
            written={str(n): marks[n] for n in marks.columns},
            notes=tuple(notes),
        )


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
    with _opened(path) as file:
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
                lines[0] = in_utf8(lines[0])
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


def _opened(path: Path) -> io.BufferedReader:
    """The lines of a file, in UTF-8 also where it is in UTF-16."""
    file = path.open("rb")
    start = file.peek(4)[:4]
    if in_utf8(start) in (start, start[3:]):
        return file
    with file:
        return io.BufferedReader(io.BytesIO(text_bytes(path)))


def _one_by_one(
    path: Path, lines: list[bytes], number: int, notes: list[str], *, last: bool
) -> Iterator[Any]:
    odd = 0
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        text = line.decode("utf-8", "replace")
        odd += text.count("\ufffd") - line.count("\ufffd".encode())
        try:
            yield parsed(text)
        except (ValueError, RecursionError):
            if not (last and at == len(lines) - 1):
                raise LogError(
                    f"{said(path.name)}: line {number + at + 1} is no JSON object."
                ) from None
            notes.append(f"the last line of {said(path.name)} is torn: left out.")
    if odd:
        notes.append(
            f"{said(path.name)} is not all in UTF-8: {counted(odd, 'byte')} read as '\ufffd'."
        )
