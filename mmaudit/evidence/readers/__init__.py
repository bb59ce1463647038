"""Readers of logs that trainings have already written, one file for each format behind one interface."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mmaudit.evidence.readers.base import Columns, Reader, Run, Series, said
from mmaudit.evidence.readers.csv_file import CSVReader
from mmaudit.evidence.readers.huggingface import HuggingFaceReader
from mmaudit.evidence.readers.joining import join_panels, join_splits
from mmaudit.evidence.readers.jsonl import JSONLinesReader, JSONReader
from mmaudit.evidence.readers.lightning import LightningReader
from mmaudit.evidence.readers.mlflow import MLflowReader
from mmaudit.evidence.readers.tensorboard import TensorBoardReader
from mmaudit.evidence.readers.wandb import WandbReader
from mmaudit.exceptions import LogError

__all__ = ["READERS", "Columns", "Reader", "Run", "Series", "read_runs"]

READERS: dict[str, Reader] = {
    reader.key: reader
    for reader in (
        TensorBoardReader(),
        MLflowReader(),
        LightningReader(),
        HuggingFaceReader(),
        WandbReader(),
        JSONLinesReader(),
        JSONReader(),
        CSVReader(),
    )
}
"""Format -> reader, in the order in which they are asked whether they know a log."""

_HEAD = 65_536
_ONE_RUN_A_FILE = ("CSV", "JSON lines")


def read_runs(
    paths: Path | str | Iterable[Path | str],
    *,
    form: str | None = None,
    columns: Columns | None = None,
) -> list[Run]:
    """Read logs.

    Args:
        paths: Files and folders, each with one or more runs.
        form: A key of ``READERS``; left out, it is found by what a file holds.
        columns: Which column of a table is what.

    Returns:
        All runs, in the order of the paths, each with a title of its own.

    Raises:
        LogError: If a log is not there, of no known format, damaged, or without numbers.

    Example:
        >>> runs = read_runs(["lightning_logs", "other/metrics.csv"])            # doctest: +SKIP
        >>> runs[0].series["train_loss"].value                                   # doctest: +SKIP
    """
    if form is not None and form not in READERS:
        raise LogError(f"'{said(form)}' is no format of logs; there are {', '.join(READERS)}.")
    runs: list[Run] = []
    seen: set[str] = set()
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        real = os.path.realpath(path)
        if real in seen:  # as two runs it would be a repeat that agrees with itself
            raise LogError(f"{said(str(path), 200)} was given twice; give each log once.")
        seen.add(real)
        try:
            runs += _read(path, form, columns or Columns())
        except OSError as error:
            raise LogError(
                f"{said(str(path), 200)} cannot be read: {error.strerror or error}."
            ) from None
    if not runs:
        raise LogError("there is no log to read; give at least one file or folder.")
    return _with_titles(_joined(runs))


def _read(path: Path, form: str | None, columns: Columns) -> list[Run]:
    shown = said(str(path), 200)
    if not path.exists():
        raise LogError(f"{shown}: no such file or folder.")
    if not (path.is_file() or path.is_dir()):
        raise LogError(f"{shown} is neither a file nor a folder (a pipe or a device?).")
    known = [READERS[form]] if form is not None else _known(path)
    runs = known[0].read(path, columns)
    others = ", ".join(reader.key for reader in known[1:])
    if not others or not path.is_dir():
        return runs
    note = f"{said(path.name)} was read as {known[0].key}; it holds logs of other formats too ({others})."
    return [replace(runs[0], notes=(*runs[0].notes, note)), *runs[1:]]


def _known(path: Path) -> list[Reader]:
    """Readers that know a log, the one to take first."""
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if not head.strip():
            raise LogError(f"{said(path.name)} is empty.")
    found = []
    for reader in READERS.values():
        if reader.recognises(path, head):
            found.append(reader)
            if path.is_file():
                break
    if found:
        return found
    if path.is_dir():
        raise LogError(
            f"{said(path.name or str(path))}: this folder holds no log that is known by its name ({', '.join(READERS)}); name the files in it."
        )
    raise LogError(
        f"{said(path.name)}: this file is no log that is known ({', '.join(READERS)}); name its format with --format."
    )


def _joined(runs: list[Run]) -> list[Run]:
    runs = join_panels(runs)
    single = [r for r in runs if r.format in _ONE_RUN_A_FILE and r.title == r.files[0].stem]
    if len(single) < 2:
        return runs
    # Files that say 'train' and 'val' in their names and are told nothing else apart.
    folders: dict[Path, list[Run]] = {}
    for run in single:
        folders.setdefault(run.files[0].resolve().parent, []).append(run)
    joined = {
        id(part[0]): join_splits(part, folder.name or "run") for folder, part in folders.items()
    }
    inside = {id(run) for run in single}
    found: list[Run] = []
    for run in runs:
        found += joined.get(id(run), [] if id(run) in inside else [run])
    return found


def _with_titles(runs: list[Run]) -> list[Run]:
    """Runs whose titles differ: those that are called alike get their folder in front, else a number behind."""
    titles = [said(run.title, 200) for run in runs]
    times = Counter(titles)
    titles = [
        f"{said(run.files[0].resolve().parent.name, 100)}/{title}" if times[title] > 1 else title
        for run, title in zip(runs, titles, strict=True)
    ]
    seen: dict[str, int] = {}
    found = []
    for run, title in zip(runs, titles, strict=True):
        seen[title] = seen.get(title, 0) + 1
        own = title if seen[title] == 1 else f"{title} ({seen[title]})"
        found.append(replace(run, title=own))
    return found
