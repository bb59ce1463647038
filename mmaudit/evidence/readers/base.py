"""What a reader of logs gives: runs with named series of points, whatever tool wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict

from mmaudit.exceptions import LogError
from mmaudit.report.labels import shorten
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "LARGEST_FILE",
    "MOST_CELLS",
    "MOST_COLUMNS",
    "MOST_FILES",
    "MOST_POINTS",
    "RECORDED",
    "Columns",
    "Kind",
    "Reader",
    "Run",
    "Series",
    "check_points",
    "check_size",
    "counted",
    "files_below",
    "flat_items",
    "known_column",
    "listed",
    "said",
    "valid_text",
]

RECORDED = "clean losses of mmaudit"
"""Format of a log that was recorded here: in evaluation mode, train and validation at the same weights."""

MOST_POINTS = 20_000_000
"""Points that are read at most (about 1 GB): a log beyond it is refused, not truncated."""

MOST_CELLS = 10 * MOST_POINTS
"""Cells of a table, empty ones too, that are read at most."""

LARGEST_FILE = 2**30
"""Bytes of a text log that are read at most."""

MOST_COLUMNS = 5_000
"""Series of a table that are read at most."""

MOST_FILES = 10_000
"""Logs that are read below a folder at most."""

Kind: TypeAlias = Literal["step", "epoch", "time"]

_KNOWN: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "step", "steps", "_step", "global_step", "globalstep", "trainer/global_step", "train/global_step",
            "iteration", "iterations", "iter", "it", "batch", "num_steps", "trainer/step",
        ),
        "step",
    ),
    **dict.fromkeys(("epoch", "epochs", "_epoch", "ep", "train/epoch", "trainer/epoch"), "epoch"),
    **dict.fromkeys(
        ("time", "wall_time", "walltime", "wall time", "timestamp", "_timestamp", "_runtime", "relative time",
         "relative time (wall)", "relative time (process)", "date", "datetime"),
        "time",
    ),
}  # fmt: skip


class Columns(BaseModel):
    """Which column of a table of any layout is what; what is left out is found by its name, and by what it holds.

    Args:
        step: Column with the number of optimiser steps.
        epoch: Column with the epoch.
        run: Column that tells runs apart.
        name: Column with the name of what a row is about: of what was measured where the table is long (``name``, ``value``), of the
            head where each row is of one head.
        value: Column with the number, in a long table.
        split: Column with the split of each row.

    With a split and a name, series are called after them: ``split/name`` in a long table, else ``split/name/column``; a column that
    names a split itself, as ``val_loss`` does, is called after the name alone.

    Example:
        >>> Columns(epoch="ep", split="phase").named() == {"ep", "phase"}  # rows (ep, phase, loss): train/loss, val/loss
        True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str | None = None
    epoch: str | None = None
    run: str | None = None
    name: str | None = None
    value: str | None = None
    split: str | None = None

    def named(self) -> set[str]:
        """All columns that were named."""
        return {name for name in self.model_dump().values() if name is not None}


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

    def counted(self) -> Series:
        """Without its steps, where they count nothing: all points of a tool that was told none have the same."""
        if len(self.step) > 1 and (self.step == self.step[0]).all():
            return self._replace(step=np.full(len(self.step), -1, np.int64))
        return self


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
        if not isinstance(item, Mapping):
            yield name, item
        elif depth < 8:
            yield from flat_items(item, f"{name}/", depth + 1)


def check_size(path: Path) -> None:
    """Refuse a text log that would not fit into memory.

    Raises:
        LogError: If it is larger than ``LARGEST_FILE``, or no file.
    """
    if not path.is_file():
        raise LogError(f"{said(path.name)} is no file; this format is read from a file.")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise LogError(
            f"{said(path.name)} has {size / 2**30:.1f} GB; logs of up to {LARGEST_FILE / 2**30:.0f} GB are read."
        )


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Regular files below a folder, sorted; links to folders are not followed.

    Raises:
        LogError: If there are more than ``MOST_FILES``.
    """
    found = []
    for path in folder.rglob(pattern):
        if path.is_file():
            found.append(path)
        if len(found) > MOST_FILES:
            raise LogError(
                f"{said(str(folder))} has more than {MOST_FILES:,} logs; give a part of it."
            )
    return sorted(found)


def said(name: str, width: int = 80) -> str:
    """A name from outside, on one line and bounded, for a sentence."""
    return shorten(name, width)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some names in quotes, for a sentence.

    Example:
        >>> listed(["a", "b", "c"], 2)
        "'a', 'b' and 1 more"
    """
    shown = ", ".join(f"'{said(name, 60)}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def valid_text(text: str) -> str:
    """A text that can be written: half of a surrogate pair, as JSON and names of files may have it, becomes '?'."""
    return text.encode("utf-8", "replace").decode("utf-8")


def counted(number: int, what: str, many: str | None = None) -> str:
    """A number of things.

    Example:
        >>> counted(1, "line"), counted(2, "line"), counted(2, "epoch", "epochs")
        ('1 line', '2 lines', '2 epochs')
    """
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def check_points(name: str, runs: Iterable[Run] | int) -> None:
    """Refuse more points than are read.

    Args:
        name: Of the log.
        runs: Its runs, or the number of their points.

    Raises:
        LogError: If there are more than ``MOST_POINTS``.
    """
    points = runs if isinstance(runs, int) else sum(run.points for run in runs)
    if points > MOST_POINTS:
        raise LogError(f"{said(name)} has more than {MOST_POINTS:,} points; give a part of it.")
