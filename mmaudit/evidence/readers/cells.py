"""Cells of tables as numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["numbers"]


def numbers(cells: pd.Series) -> np.ndarray:
    """Cells as float64; NaN where one is no number, also where it is a list, true or false, or too large."""
    if pd.api.types.is_bool_dtype(cells):
        return np.full(len(cells), np.nan)
    if pd.api.types.is_numeric_dtype(cells):
        return cells.to_numpy(np.float64)
    try:
        found = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.array([_number(cell) for cell in cells], np.float64)
    if cells.dtype == object:
        found = np.where([isinstance(cell, bool) for cell in cells], np.nan, found)
    return found


def _number(cell: object) -> float:
    if isinstance(cell, bool):
        return float("nan")
    try:
        return float(cell) if isinstance(cell, (int, float, str)) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")
