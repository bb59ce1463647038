"""CSV and TSV logs of any layout."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd

from mmaudit.evidence.readers.base import Columns, Run, check_size, known_column, runs_of_frame
from mmaudit.exceptions import LogError

__all__ = ["CSVReader", "read_table"]

_LONGEST_HEADER = 2**20
_NOT_FINITE = re.compile(rb"(?i)(?:^|[,;\t\r\n])\s*[-+]?(?:nan|inf|infinity)\s*(?:[,;\t\r\n]|$)")


class CSVReader:
    """Tables of text with a header: a row for each time something was logged."""

    key = "csv"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Text whose first line has at least two columns, or one that is known."""
        try:
            first = head.decode("utf-8-sig").splitlines()[0]
        except (UnicodeDecodeError, IndexError):
            return False
        if first.lstrip().startswith(("{", "[")):
            return False
        names = next(csv.reader([first], delimiter=_delimiter(first)))
        return path.suffix.lower() in (".csv", ".tsv") or (
            len(names) > 1 and any(known_column(name) is not None for name in names)
        )

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it; a last line that is torn counts as far as it goes.

        Raises:
            LogError: If it is no table, or holds no numbers.
        """
        frame, written = read_table(path)
        return runs_of_frame(path, "CSV", frame, columns, written=written)


def read_table(path: Path) -> tuple[pd.DataFrame, dict[str, pd.Series] | None]:
    """A table of text, and which cells were written, where that is not the cells with a number.

    Raises:
        LogError: If it is no table.
    """
    check_size(path)
    data = path.read_bytes()
    if b"\0" in data[:_LONGEST_HEADER]:
        raise LogError(f"{path.name} is no text; expected a CSV or TSV table.")
    header, _, _ = data.partition(b"\n")
    if len(header) > _LONGEST_HEADER:
        raise LogError(f"the first line of {path.name} is longer than 1 MB; expected a header.")
    # A row that a killed run left half written must not make the whole table unreadable.
    whole = data if data.endswith((b"\n", b"\r")) else data + b"\n"
    text: dict[str, Any] = {
        "sep": _delimiter(header.decode("utf-8", "replace")),
        "encoding": "utf-8-sig",
        "encoding_errors": "replace",
        "on_bad_lines": "skip",
    }
    try:
        frame = pd.read_csv(io.BytesIO(whole), low_memory=False, **text)
        written = None
        if _NOT_FINITE.search(data):
            cells = pd.read_csv(
                io.BytesIO(whole),
                dtype=str,
                keep_default_na=False,
                **text,
            )
            written = {str(name): cells[name].str.strip().ne("") for name in cells.columns}
    except (ValueError, pd.errors.ParserError, OverflowError) as error:
        first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise LogError(
            f"{path.name} is no table of comma or tab separated values: {first}"
        ) from None
    return frame, written


def _delimiter(header: str) -> str:
    return max(",\t;", key=header.count)
