"""A comparison as a tidy DataFrame; apart from its schema because pandas takes time to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mmaudit.report.labels import LABELS

if TYPE_CHECKING:
    from mmaudit.report.comparison import Comparison

__all__ = ["comparison_frame"]


def comparison_frame(comparison: Comparison, measure: str | None = None) -> pd.DataFrame:
    """Lay differences out as a table.

    Args:
        comparison: All of them.
        measure: Of this measure alone.

    Returns:
        See :meth:`mmaudit.report.comparison.Comparison.to_frame`.
    """
    keys = list(comparison.measures) if measure is None else [measure]
    rows = [
        (found.key, found.unit, row)
        for key in keys
        for found in (comparison.measures[key],)
        for row in found.rows
    ]
    names = dict.fromkeys(name for key in keys for name in LABELS.get(key, ()))
    names |= dict.fromkeys(name for _, _, row in rows for name in row.labels)
    columns: dict[str, pd.Series] = {"measure": pd.Series([key for key, _, _ in rows], dtype="str")}
    for name in names:
        columns[name] = pd.Series([row.labels.get(name) for _, _, row in rows], dtype="str")
    for side in ("before", "after"):
        for end, column in (("value", side), ("low", f"{side}_low"), ("high", f"{side}_high")):
            values = [getattr(getattr(row, side), end) for _, _, row in rows]
            columns[column] = pd.Series(values, dtype="float64")
    for end, column in (("value", "difference"), ("low", "low"), ("high", "high")):
        values = [getattr(row.difference, end) for _, _, row in rows]
        columns[column] = pd.Series(values, dtype="float64")
    for name in ("p", "p_holm"):
        columns[name] = pd.Series([getattr(row, name) for _, _, row in rows], dtype="float64")
    columns["family"] = pd.Series([row.family for _, _, row in rows], dtype="int64")
    columns["test"] = pd.Series([row.test for _, _, row in rows], dtype="str")
    columns["smallest_p"] = pd.Series([row.smallest_p for _, _, row in rows], dtype="float64")
    for name in ("gained", "lost"):
        columns[name] = pd.Series([getattr(row, name) for _, _, row in rows], dtype="Int64")
    columns["n"] = pd.Series([row.difference.n for _, _, row in rows], dtype="int64")
    columns["groups"] = pd.Series([row.difference.groups for _, _, row in rows], dtype="Int64")
    for name in ("method", "undefined", "warning"):
        values = [getattr(row.difference, name) for _, _, row in rows]
        columns[name] = pd.Series(values, dtype="str")
    columns["unit"] = pd.Series([unit for _, unit, _ in rows], dtype="str")
    return pd.DataFrame(columns)
