"""What a reader of logs gives: runs with named series of points, whatever tool wrote them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from mmaudit.exceptions import LogError
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "LARGEST_FILE",
    "MOST_POINTS",
    "Columns",
    "Reader",
    "Run",
    "Series",
    "check_size",
    "flat_items",
    "known_column",
    "runs_of_frame",
]

MOST_POINTS = 20_000_000
"""Points that are read at most (about 1 GB): a log beyond it is refused, not truncated."""

LARGEST_FILE = 2**31
"""Bytes of a text log that are read at most."""

Kind: TypeAlias = Literal["step", "epoch", "time"]

_KNOWN: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "step", "steps", "_step", "global_step", "globalstep", "trainer/global_step", "train/global_step",
            "iteration", "iterations", "iter", "it", "batch",
        ),
        "step",
    ),
    **dict.fromkeys(("epoch", "epochs", "_epoch", "ep", "train/epoch"), "epoch"),
    **dict.fromkeys(
        ("time", "wall_time", "walltime", "wall time", "timestamp", "_timestamp", "_runtime", "relative time"),
        "time",
    ),
}  # fmt: skip
_NAMES = ("name", "metric", "tag", "key")


class Columns(BaseModel):
    """Which column of a table of any layout is what; what is left out is found by its name.

    Args:
        step: Column with the number of optimiser steps.
        epoch: Column with the epoch.
        run: Column that tells runs apart.
        name: In a long table: column with the name of what was measured.
        value: In a long table: column with the number.
        split: In a long table: column with the split; the series is then called ``split/name``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str | None = None
    epoch: str | None = None
    run: str | None = None
    name: str | None = None
    value: str | None = None
    split: str | None = None


class Series(NamedTuple):
    """Values of one name in the order in which they were written; arrays of one length n."""

    step: IntArray
    """Optimiser steps, int64; -1 where none was written."""
    epoch: FloatArray
    """Epochs, possibly fractions; NaN where none was written."""
    value: FloatArray
    """As written: NaN and infinities are kept."""
    order: IntArray
    """Place in the log, int64: tells what was written before what."""

    def where(self, keep: np.ndarray) -> Series:
        """The points of a mask, bool ``(n,)``."""
        return Series(self.step[keep], self.epoch[keep], self.value[keep], self.order[keep])


@dataclass(frozen=True)
class Run:
    """One run of a training, as its log tells it.

    Attributes:
        title: What tells it from the other runs.
        format: Of the log, in words.
        files: Where it was read from.
        series: Name -> points.
        notes: What a reader must know: what was left out, and why.
    """

    title: str
    format: str
    files: tuple[Path, ...]
    series: dict[str, Series]
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """Number of all points."""
        return sum(len(series.value) for series in self.series.values())


class Reader(Protocol):
    """One format of logs."""

    key: str
    """Its name, as ``--format`` takes it."""

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a file or folder is of this format, by its content.

        Args:
            path: File or folder.
            head: First bytes of a file; empty for a folder.
        """

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """All runs in it.

        Raises:
            LogError: If it is damaged, or holds no numbers.
        """


def known_column(name: str) -> Kind | None:
    """What a column is by its name: a step, an epoch, a time; ``None`` for a measured series.

    Example:
        >>> known_column("Step"), known_column("trainer/global_step"), known_column("train_loss")
        ('step', 'step', None)
    """
    return _KNOWN.get(name.strip().lower())


def flat_items(
    value: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Items of nested mappings under names with slashes; lists are left as they are.

    Example:
        >>> dict(flat_items({"epoch": 1, "train": {"loss": 0.5}}))
        {'epoch': 1, 'train/loss': 0.5}
    """
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and depth < 8:
            yield from flat_items(item, f"{name}/", depth + 1)
        else:
            yield name, item


def check_size(path: Path) -> None:
    """Refuse a text log that would not fit into memory.

    Raises:
        LogError: If it is larger than ``LARGEST_FILE``.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise LogError(f"{path.name} has {size / 2**30:.1f} GB; logs of up to 2 GB are read.")


def runs_of_frame(
    path: Path,
    form: str,
    frame: pd.DataFrame,
    columns: Columns,
    *,
    written: Mapping[str, pd.Series] | None = None,
) -> list[Run]:
    """Runs of a table, wide (a column for each series) or long (a name and a value in each row).

    Args:
        path: Of the log.
        form: Its format in words.
        frame: Rows in the order in which they were written.
        columns: What the user said of them.
        written: Column -> whether a cell was written, bool; left out: where it is not missing. A written cell that is no number
            counts as not finite.

    Raises:
        LogError: If there is no number in it, or it lacks a column that was named.
    """
    names = [str(name) for name in frame.columns]
    frame = frame.set_axis(names, axis=1)
    missing = [c for c in columns.model_dump().values() if c is not None and c not in names]
    if missing:
        raise LogError(f"{path.name} has no column '{missing[0]}'; it has {_some(names)}.")
    step = _position(frame, columns.step, "step", columns)
    epoch = _position(frame, columns.epoch, "epoch", columns)
    taken = {columns.step, columns.epoch, columns.run}
    measured = [n for n in names if n not in taken and known_column(n) is None]
    titles = frame[columns.run].astype(str) if columns.run else pd.Series("", index=frame.index)
    label = columns.name or next(
        (n for n in _NAMES if n in measured and not pd.api.types.is_numeric_dtype(frame[n])), None
    )
    held = columns.value or ("value" if label is not None and "value" in names else None)
    tables: dict[Hashable, dict[str, Series]] = {}
    order = pd.Series(np.arange(len(frame)), index=frame.index)
    for title, rows in frame.groupby(titles, sort=False).groups.items():
        part = frame.loc[rows]
        at, when, place = step.loc[rows], epoch.loc[rows], order.loc[rows]
        if label is not None and held is not None:
            split = columns.split or ("split" if "split" in measured else None)
            called = part[label].astype(str)
            if split is not None:
                called = part[split].astype(str) + "/" + called
            groups = part.groupby(called, sort=False).groups.items()
            cells = {
                str(name): (
                    pd.to_numeric(part.loc[r, held], errors="coerce"),
                    part.loc[r, held].notna(),
                    r,
                )
                for name, r in groups
            }
        else:
            cells = {}
            for name in measured:
                value = pd.to_numeric(part[name], errors="coerce")
                there = (
                    value.notna()
                    if written is None or name not in written
                    else written[name].loc[rows]
                )
                cells[name] = (value, there, rows)
        found = {}
        for name, (value, there, r) in cells.items():
            keep = there.to_numpy(bool)
            numbers = value.to_numpy(np.float64)
            if keep.any() and not np.isnan(numbers[keep]).all():
                found[name] = Series(
                    at.loc[r].to_numpy(np.int64)[keep],
                    when.loc[r].to_numpy(np.float64)[keep],
                    numbers[keep],
                    place.loc[r].to_numpy(np.int64)[keep],
                )
        if found:
            tables[title] = found
    if not tables:
        raise LogError(f"{path.name} holds no numbers; it has {_some(names) or 'no columns'}.")
    runs = [Run(str(title) or path.stem, form, (path,), series) for title, series in tables.items()]
    if sum(run.points for run in runs) > MOST_POINTS:
        raise LogError(f"{path.name} has more than {MOST_POINTS:,} points; give a part of it.")
    return runs


def _position(frame: pd.DataFrame, named: str | None, kind: Kind, columns: Columns) -> pd.Series:
    """Steps or epochs of all rows: of the named column, else of the columns that are known to hold them."""
    others = {c for c in columns.model_dump().values() if c is not None and c != named}
    known = (
        [named]
        if named
        else [n for n in frame.columns if known_column(n) == kind and n not in others]
    )
    found = pd.Series(np.nan, index=frame.index)
    for name in known:
        found = found.fillna(pd.to_numeric(frame[name], errors="coerce"))
    if kind == "epoch":
        return found
    return found.where(np.isfinite(found) & (found.abs() < 2**62), -1).fillna(-1).astype(np.int64)


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:40]}'" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
