"""Tables beside the coalition table: small evidence that one process writes in one go, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmaudit.report.tables import shard_paths

__all__ = ["is_written", "write_table"]


def is_written(folder: Path) -> bool:
    """Whether the table is there already, from before an interruption."""
    return bool(shard_paths(folder))


def write_table(folder: Path, columns: Mapping[str, np.ndarray | Sequence[Any]]) -> None:
    """Write a table that ``report.tables.read_chunks`` reads.

    Args:
        folder: Of the table; made if it is not there.
        columns: Name -> one value for each row: strings, numbers or booleans ``(n,)``, or numbers ``(n, length)``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: _column(values) for name, values in columns.items()})
    temporary = folder / ".part-000-000000.tmp"
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / "part-000-000000.parquet")
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _column(values: np.ndarray | Sequence[Any]) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.array(values)
