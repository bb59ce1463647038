"""The things that are resampled: ids of samples or groups become 64-bit keys, and keys become rows of sums.

A key is a hash of seed and id, so that rows are in an order that depends on these alone, whatever the order of the table.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmaudit.exceptions import RecordError
from mmaudit.report.tables import read_chunks
from mmaudit.typing import IntArray

__all__ = ["distinct_keys", "place_units", "unit_keys"]

_ROWS = 8_192


def distinct_keys(folder: Path, column: str, seed: int, *, stop_at: int | None = None) -> IntArray:
    """Sorted distinct keys of a column; no more are read once there are more than ``stop_at``.

    Raises:
        RecordError: If a sample has no value there.
    """
    known = np.empty(0, np.uint64)
    for chunk in read_chunks(folder, [column, "sample_id"], rows=_ROWS):
        lacking = pd.isna(chunk[column])
        if lacking.any():
            raise RecordError(
                f"sample {chunk['sample_id'][lacking][0]} has no {column}; to resample by {column} "
                f"every sample needs one: fill the column, or leave it out of the spec"
            )
        known = np.union1d(known, unit_keys(chunk[column], seed))
        if stop_at is not None and len(known) > stop_at:
            break
    return known


def unit_keys(ids: np.ndarray, seed: int) -> IntArray:
    """64-bit hashes of ids (samples or groups), uint64; which blocks they fall into depends on the seed."""
    key = f"{seed % 2**64:016x}"
    hashed = pd.util.hash_array(ids.astype(object), hash_key=key, categorize=False)
    return np.asarray(hashed, dtype=np.uint64)


def place_units(keys: IntArray, known: IntArray, most: int) -> IntArray:
    """Row of the sums for each key: its place among the known ones, or its block where they are more than ``most``."""
    if len(known) <= most:
        return np.searchsorted(known, keys)
    return (keys % np.uint64(most)).astype(np.int64)
