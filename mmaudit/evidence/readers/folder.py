"""Folders of logs with any names: a file for each run, for each split or for each panel, among configurations and pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mmaudit.evidence.readers.base import (
    MOST_FILES,
    Columns,
    Reader,
    Run,
    check_points,
    counted,
    listed,
    said,
)
from mmaudit.evidence.readers.joining import join_files, join_panels
from mmaudit.evidence.readers.names import read_name
from mmaudit.evidence.readers.several import read_each, with_notes
from mmaudit.exceptions import LogError

__all__ = ["log_files", "read_folder"]

_LOGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_PERHAPS = (".txt", ".log", ".dat", ".db", ".sqlite", ".sqlite3")
"""Endings of files that are read where what they hold is known, and passed over where it is not."""

_MOST_ENTRIES = 200_000
_NUMBER = re.compile(r"(\d+)")


def read_folder(path: Path, columns: Columns, known: Callable[[Path], Reader]) -> list[Run]:
    """The runs of all logs in and below a folder, whatever the files are called.

    Files that cannot be read, and those that hold no losses where others do (configurations, predictions, results), are left out and
    named in a note.

    Args:
        path: The folder; links to folders and what is hidden are not looked into.
        columns: Which column of a table is what.
        known: Finds the reader of a file by what it holds, or raises.

    Raises:
        LogError: If there is none, or too many.
    """
    files: dict[Path, Reader | None] = {}
    for file in log_files(path):
        try:
            files[file] = known(file)
        except (LogError, OSError):
            if file.suffix.lower() in _LOGS:
                files[file] = None
    if not files:
        raise LogError(
            f"{said(path.name or str(path))}: this folder holds no log that is known by its name or by what it holds; name the files in it."
        )

    points = 0

    def read(file: Path) -> list[Run]:
        nonlocal points
        reader = files[file] or known(file)
        runs = reader.read(file, columns)
        points += sum(run.points for run in runs)
        check_points(path.name, points)
        return runs

    runs = join_panels(join_files(read_each(files, read, path)))
    worth = [_worth(run) for run in runs]
    kept = [run for run, own in zip(runs, worth, strict=True) if own == max(worth)]
    if not max(worth):
        raise LogError(
            f"{said(path.name or str(path))}: {counted(len(files), 'file')} in this folder can be read, but none holds losses along a training "
            f"({listed([f.relative_to(path).as_posix() for f in files], 5)}); name the files that do."
        )
    used = {file for run in kept for file in run.files}
    others = [
        file.relative_to(path).as_posix() for run in runs for file in run.files if file not in used
    ]
    if not others:
        return kept
    return with_notes(
        kept,
        f"{counted(len(set(others)), 'file')} without losses along a training left out: {listed(list(dict.fromkeys(others)))}.",
    )


def log_files(folder: Path) -> list[Path]:
    """Files that may be logs, each once, in the order in which people number them: ``seed2`` before ``seed10``.

    Raises:
        LogError: If there are more than ``MOST_FILES``, or too many to look at.
    """
    found: dict[str, Path] = {}
    for file in _walk(folder):
        if file.suffix.lower() in (*_LOGS, *_PERHAPS) and file.is_file():
            found.setdefault(os.path.realpath(file), file)
        if len(found) > MOST_FILES:
            raise LogError(
                f"{said(str(folder))} has more than {MOST_FILES:,} logs; give a part of it."
            )
    return sorted(found.values(), key=lambda file: _natural(file.relative_to(folder).as_posix()))


def _walk(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(files) + len(folders)
        if seen > _MOST_ENTRIES:
            raise LogError(
                f"{said(str(folder))} has more than {_MOST_ENTRIES:,} files; give the part of it with the logs."
            )
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _natural(name: str) -> tuple[Sequence[int | str], ...]:
    parts = _NUMBER.split(name)
    return tuple((int(part[:18]), part) if i % 2 else (part,) for i, part in enumerate(parts))


def _worth(run: Run) -> int:
    """How surely a run of a file with any name is of a training: 3 with losses, 2 with steps or epochs, 1 with one loss each, 0."""
    losses = [series for name, series in run.series.items() if read_name(name) is not None]
    if any(len(series.value) > 1 for series in losses):
        return 3
    placed = [
        series
        for series in run.series.values()
        if (series.step >= 0).any()
        or (np.isfinite(series.epoch).any() and not _only_counted(run, series.epoch))
    ]
    if any(len(series.value) > 1 for series in placed):
        return 2
    return int(bool(losses))


def _only_counted(run: Run, epoch: np.ndarray) -> bool:
    """Whether epochs may be nothing but the places in a list of a JSON document, such as the sizes of layers."""
    return run.format == "JSON" and bool((epoch == np.arange(len(epoch))).all())
