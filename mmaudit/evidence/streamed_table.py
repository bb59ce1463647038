"""Tables beside the coalition table that grow with the data: written batch by batch, and there only once they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["StreamedTable", "written_table"]

_ROWS = 4096
_TEXTS = ("sample_id", "group")


class StreamedTable:
    """Takes batches of rows and writes them in row groups.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __call__(self, columns: Mapping[str, Any]) -> None:
        """Add rows.

        Args:
            columns: Name -> one value for each row: texts, numbers or ``None`` ``(n,)``, or numbers ``(n, length)``; the same names
                and types every time.
        """
        self._waiting.append(
            pa.table({name: _column(name, values) for name, values in columns.items()})
        )
        self._rows += len(self._waiting[-1])
        if self._rows >= _ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is waiting and end the file."""
        self._flush()
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._file is None:
            self._file = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", write_page_checksum=True
            )
        self._file.write_table(table)
        self._waiting, self._rows = [], 0


@contextmanager
def written_table(folder: Path) -> Iterator[StreamedTable]:
    """Write a table that ``report.tables.read_chunks`` reads, in memory that does not grow with it.

    Args:
        folder: Of the table. After an error it holds nothing, and is removed.

    Yields:
        What takes the rows; at least one batch of them has to come.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".part-000-000000.tmp"
    table = StreamedTable(temporary)
    try:
        yield table
        table.close()
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        folder.rmdir()
        raise
    temporary.rename(folder / "part-000-000000.parquet")
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _column(name: str, values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    # A batch without any group must not make a column of another type.
    return pa.array(values, type=pa.string() if name in _TEXTS else None)
