"""CSV and TSV logs of any layout."""

from __future__ import annotations

import csv
import io
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import (
    MOST_CELLS,
    MOST_COLUMNS,
    Columns,
    Run,
    counted,
    known_column,
    said,
)
from mmaudit.evidence.readers.table import runs_of_frame
from mmaudit.evidence.readers.text_file import in_utf8, text_bytes
from mmaudit.exceptions import LogError, first_line

__all__ = ["CSVReader", "TextTable", "first_names", "is_number", "read_table"]

_LONGEST_HEADER = 2**20
_LONGEST_LINE = 2**24
_NOT_FINITE = re.compile(
    rb"(?i)(?:^|[,;\s])[\"']?[-+]?(?:nan|inf|infinity)[\"']?\s*(?:[,;\s]|$)", re.ASCII
)
_COMMENTS = re.compile(rb"(?m)^[ \t]*#[^\n]*\n?")
_DECIMAL_COMMA = re.compile(rb"(?:^|;)\s*-?\d+,\d+\s*(?:;|$)", re.MULTILINE)
_COMMA_NUMBER = r"[-+]?\d+(?:,\d+)?(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)"
_THOUSANDS = r"[-+]?[1-9]\d{0,2},\d{3}"
_OF_TENSORBOARD = {"Wall time", "Step", "Value"}
_EXPORTED = re.compile(r"(?:run-(?P<run>.+?)-)?tag-(?P<tag>.+)$")


class TextTable(NamedTuple):
    """A table of text."""

    frame: pd.DataFrame
    """Rows in the order in which they were written."""
    written: dict[str, pd.Series] | None
    """Column -> whether a cell was written, where that is not the cells with a number."""
    notes: tuple[str, ...]
    """What was left out."""


class CSVReader:
    """Tables of text with a header: a row for each time something was logged."""

    key = "csv"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Text whose first line has at least two columns, one of which is known; or one that is called a table."""
        names = first_names(head)
        if not names or names[0].lstrip().startswith(("{", "[")):
            return False
        if any(is_number(name.strip(" :;%[]()")) for name in names):
            return path.suffix.lower() in (".csv", ".tsv")  # else a line that was printed
        return path.suffix.lower() in (".csv", ".tsv") or (
            len(names) > 1 and any(known_column(name) is not None for name in names)
        )

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If it is no table, or holds no numbers.
        """
        table = read_table(path)
        runs = runs_of_frame(
            path, "CSV", table.frame, columns, written=table.written, notes=table.notes
        )
        if set(map(str, table.frame.columns)) == _OF_TENSORBOARD and len(runs) == 1:
            return [_exported(runs[0], path)]
        return runs


def first_names(head: bytes) -> list[str]:
    """The cells of the header, given the beginning of a file; none where it is no text."""
    text = _without_comments(in_utf8(head)).lstrip(b"\r\n")
    return _cells(re.split(rb"[\r\n]", text, maxsplit=1)[0])


def _cells(line: bytes) -> list[str]:
    first = line[:_LONGEST_HEADER].decode("utf-8", "ignore")
    if "\0" in first or not first:
        return []
    separator = _separator(first)
    try:
        return next(csv.reader([first], delimiter=separator)) if separator else first.split()
    except csv.Error:
        return []


def read_table(path: Path) -> TextTable:
    """Read a table of text: comma, semicolon, tab, bar or blank between the cells, comments behind '#'.

    A row that a killed run left half written must not make the whole table unreadable, nor count as far as it goes: its last
    number may lack digits. It is left out, as are rows with too many cells and headers that a restarted run wrote again.

    Raises:
        LogError: If it is no table.
    """
    name = said(path.name)
    notes: list[str] = []
    data = text_bytes(path, notes)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = _without_comments(data).lstrip(b"\n")
    header, _, body = data.partition(b"\n")
    if len(header) > _LONGEST_HEADER:
        raise LogError(f"the first line of {name} is longer than 1 MB; expected a header.")
    separator = _separator(header.decode("utf-8", "replace"))
    names = _cells(header)
    if not names:
        raise LogError(f"{name} has no header; expected a line with the names of the columns.")
    if len(names) > MOST_COLUMNS:
        raise LogError(
            f"{name} has {len(names):,} columns; tables of up to {MOST_COLUMNS:,} are read."
        )
    if len(names) * body.count(b"\n") > MOST_CELLS:
        raise LogError(
            f"{name} has more than {MOST_CELLS:,} cells, too many to read; give a part of it."
        )
    if all(is_number(cell) for cell in names):
        raise LogError(
            f"{name} has no header: its first line is all numbers; write the names of the columns above it."
        )
    if len(data) > _LONGEST_LINE and max(map(len, body.split(b"\n"))) > _LONGEST_LINE:
        raise LogError(f"{name} has a line longer than 16 MB; expected a table.")
    data = _without_torn_row(data, separator, len(names), notes, name)
    frame, more = _parsed(data, separator, name)
    notes += more
    if separator != ";":
        frame = _with_decimal_points(frame)
    written = None
    if _NOT_FINITE.search(data):
        cells, _ = _parsed(data, separator, name, dtype=str, keep_default_na=False)
        written = {str(n): cells[n].str.strip().ne("") & cells[n].notna() for n in cells.columns}
    again = _repeated_headers(frame, names)
    if again.any():
        notes.append(f"{counted(int(again.sum()), 'repeated header')} in {name} left out.")
        frame = frame[~again].reset_index(drop=True)
        if written is not None:
            written = {n: w[~again].reset_index(drop=True) for n, w in written.items()}
    twice = sorted({n for n in names if n and names.count(n) > 1})
    notes += [
        f"{name} has several columns '{said(n)}': the later ones are called '{said(n)}.1' and so on."
        for n in twice
    ]
    return TextTable(frame, written, tuple(notes))


def _parsed(
    data: bytes, separator: str | None, name: str, **options: Any
) -> tuple[pd.DataFrame, list[str]]:
    layout: dict[str, Any] = {"sep": separator or r"\s+"}
    if separator == ";" and _DECIMAL_COMMA.search(data[: 2**16]):
        layout["decimal"] = ","
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            frame = pd.read_csv(
                io.BytesIO(data),
                encoding="utf-8",
                encoding_errors="replace",
                on_bad_lines="warn",
                index_col=False,
                low_memory=False,
                **layout,
                **options,
            )
    except (ValueError, pd.errors.ParserError, OverflowError) as error:
        raise LogError(
            f"{name} is no table of comma or tab separated values: {said(first_line(error, 120), 120)}"
        ) from None
    told = [str(w.message) for w in caught if issubclass(w.category, pd.errors.ParserWarning)]
    skipped = sum(text.count("Skipping line") for text in told)
    notes = (
        [f"{counted(skipped, 'row')} of {name} with too many cells left out."] if skipped else []
    )
    if any("Length of header" in text for text in told):
        notes.append(f"rows of {name} are longer than its header: cells beyond it left out.")
    return frame, notes


def _with_decimal_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with numbers where its columns hold ``0,85``: in tables whose cells are not told apart by commas, or are quoted.

    ``2,900`` may be the number 2900: a table all of whose commas stand so, or that has decimal points too, stays as it was written.
    """
    found: dict[str, pd.Series] = {}
    sure = False
    for name in frame.columns:
        cells = frame[name]
        if pd.api.types.is_numeric_dtype(cells):
            values = cells.to_numpy(float)
            if (np.isfinite(values) & (values != np.round(values))).any():
                return frame
            continue
        if pd.api.types.infer_dtype(cells, skipna=True) != "string":
            continue
        words = cells.str.strip()
        there = words.notna()
        if words[there].str.fullmatch(_COMMA_NUMBER).all() and words[there].str.contains(",").any():
            found[name] = pd.to_numeric(words.str.replace(",", "."), errors="coerce")
            commas = words[there & words.str.contains(",", na=False)]
            sure |= bool((~commas.str.fullmatch(_THOUSANDS)).any())
    return frame.assign(**found) if sure else frame


def _without_comments(data: bytes) -> bytes:
    """The table without lines that begin with '#'; where only such a line can be the header, it is."""
    if b"#" not in data:
        return data
    last = b""
    rest = data
    while rest.lstrip(b" \t\n").startswith(b"#"):
        line, _, rest = rest.lstrip(b" \t\n").partition(b"\n")
        last = line.lstrip(b"# \t")
    first = _cells(rest.lstrip(b"\r\n").partition(b"\n")[0])
    rest = _COMMENTS.sub(b"", rest)
    if last and first and all(is_number(cell) for cell in first):
        return last + b"\n" + rest
    return rest


def _without_torn_row(
    data: bytes, separator: str | None, width: int, notes: list[str], name: str
) -> bytes:
    if data.endswith(b"\n"):
        return data
    before, line_end, last = data.rpartition(b"\n")
    text = last.decode("utf-8", "replace")
    try:
        cells = next(csv.reader([text], delimiter=separator)) if separator else text.split()
    except (csv.Error, StopIteration):
        cells = []
    if line_end and len(cells) < width:
        notes.append(f"the last row of {name} is torn: left out.")
        return before + b"\n"
    return data + b"\n"


def _repeated_headers(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """Rows that are the header again, which makes every column one of texts."""
    again = pd.Series(len(frame.columns) > 0, index=frame.index)
    for column, name in zip(frame.columns, names, strict=False):
        if pd.api.types.is_numeric_dtype(frame[column]):
            return pd.Series(False, index=frame.index)
        again &= frame[column].astype(str).str.strip() == name.strip()
    return again


def _exported(run: Run, path: Path) -> Run:
    """TensorBoard's download of one tag: the name of the file has that of the run and of the tag."""
    found = _EXPORTED.search(path.stem)
    tag = found["tag"] if found else path.stem
    title = (found["run"] if found else None) or path.parent.name or path.stem
    return replace(
        run, title=title, format="TensorBoard CSV", series={tag: next(iter(run.series.values()))}
    )


def is_number(cell: str) -> bool:
    """Whether a cell is a number.

    Example:
        >>> is_number("1e-3"), is_number("loss")
        (True, False)
    """
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _separator(header: str) -> str | None:
    """What stands between the cells; ``None`` for blanks."""
    found = max(",\t;", key=header.count)
    if header.count(found):
        return found
    if "|" in header.strip().strip("|") and not header.lstrip().startswith("|"):
        return "|"
    return None if len(header.split()) > 1 else ","
