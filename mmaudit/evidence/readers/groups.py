"""Columns that say which of several things a row is about: the split, or the head, of tables with a row for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mmaudit.evidence.readers.base import MOST_COLUMNS, Columns, said, valid_text
from mmaudit.evidence.readers.names import split_of, splits_in
from mmaudit.exceptions import LogError

__all__ = ["group_names", "texts", "with_heads", "with_split"]

_SPLITS = (
    "split", "data_split", "dataset_split", "phase", "mode", "stage", "set", "subset", "partition", "part", "dataset", "data",
    "type", "kind", "loader", "event", "loop",
)  # fmt: skip
_HEADS = ("head", "modality", "branch", "stream", "output", "metric")
_MOST_SPLITS = 20
_MOST_HEADS = 100
_LONGEST_SPLIT = 40


def texts(cells: pd.Series) -> pd.Index | None:
    """The different texts of a column of texts, missing ones aside; ``None`` for any other column.

    Example:
        >>> texts(pd.Series(["train", None, "val"])), texts(pd.Series([1.0, 2.0]))
        (Index(['train', 'val'], dtype='str'), None)
    """
    if pd.api.types.is_numeric_dtype(cells):
        return None
    if pd.api.types.infer_dtype(cells, skipna=True) != "string":
        return None
    found = pd.Index(pd.unique(cells.dropna()))
    return found[found.str.strip() != ""]


def with_split(
    frame: pd.DataFrame, columns: Columns, measured: Sequence[str], notes: list[str]
) -> Columns:
    """The columns, with the one that names the split of each row where its values say so.

    A column whose name promises it (``split``, ``phase``, ``mode``, ...) is taken where all its values name a split, any other
    where they are nothing but the names of splits, the train split and another one among them.

    Args:
        frame: The table.
        columns: What is known of it.
        measured: Columns that may be it.
        notes: What was taken for what is added to it.
    """
    if columns.split is not None:
        return columns
    lower = {name.strip().lower(): name for name in reversed(measured)}
    known = [lower[name] for name in _SPLITS if name in lower]
    for name in [*known, *(n for n in measured if n not in known)]:
        if name in columns.named():
            continue
        values = texts(frame[name])
        if values is None or not 0 < len(values) <= _MOST_SPLITS:
            continue
        if values.str.len().max() > _LONGEST_SPLIT:
            continue
        exact = {split_of(value.strip()) for value in values}
        if (name in known and all(splits_in(value) for value in values)) or (
            None not in exact and "train" in exact and len(exact) > 1
        ):
            shown = ", ".join(sorted(map(str, values))[:4])
            notes.append(
                f"Column '{said(name)}' was taken for the split ({said(shown)}): series are called after it."
            )
            return columns.model_copy(update={"split": name})
    return columns


def with_heads(
    frame: pd.DataFrame, columns: Columns, measured: Sequence[str], notes: list[str]
) -> Columns:
    """The columns, with the one that names the head of each row (``head``, ``modality``, ...) where it has several."""
    if columns.name is not None:
        return columns
    lower = {name.strip().lower(): name for name in reversed(measured)}
    for name in (lower[n] for n in _HEADS if n in lower):
        values = texts(frame[name]) if name not in columns.named() else None
        if values is not None and 1 < len(values) <= _MOST_HEADS:
            shown = ", ".join(map(str, values[:4]))
            notes.append(
                f"Column '{said(name)}' was taken for names ({said(shown)}): series are called after it."
            )
            return columns.model_copy(update={"name": name})
    return columns


def group_names(frame: pd.DataFrame, parts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """What each row is about.

    Args:
        frame: The table, n rows.
        parts: Columns, the outer one first.

    Returns:
        Codes, int64 ``(n,)``, and the name of each code: the texts of the columns with slashes between, without those that are missing.

    Raises:
        LogError: If there are more than ``MOST_COLUMNS``.
    """
    codes, names = np.zeros(len(frame), np.int64), [""]
    for part in parts:
        own, labels = _codes(frame[part])
        both, codes = np.unique(codes * len(labels) + own, return_inverse=True)
        if len(both) > MOST_COLUMNS:
            raise LogError(
                f"column '{said(part)}' has {len(both):,} different names; up to {MOST_COLUMNS:,} series are read."
            )
        outer, inner = np.divmod(both, len(labels))
        names = [
            "/".join(filter(None, (names[o], labels[i])))
            for o, i in zip(outer.tolist(), inner.tolist(), strict=True)
        ]
    # Cells that differ in blanks alone have one name.
    different = list(dict.fromkeys(names))
    place = np.array([different.index(name) for name in names], np.int64)
    return place[codes], different


def _codes(cells: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Codes and their texts; the last is that of missing cells."""
    try:
        codes, found = pd.factorize(cells)
    except TypeError:  # lists and other cells of JSON
        codes, found = pd.factorize(cells.astype(str))
    labels = [valid_text(str(value)).strip() for value in found]
    return np.where(codes < 0, len(labels), codes).astype(np.int64), [*labels, ""]
