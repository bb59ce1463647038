"""Readers of logs that trainings have already written, one file for each format behind one interface."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mmaudit.evidence.readers.base import (
    Columns,
    Reader,
    Run,
    Series,
    check_points,
    counted,
    listed,
    said,
)
from mmaudit.evidence.readers.csv_file import CSVReader, first_names, is_number
from mmaudit.evidence.readers.folder import log_files, read_folder
from mmaudit.evidence.readers.heads import join_heads
from mmaudit.evidence.readers.huggingface import HuggingFaceReader
from mmaudit.evidence.readers.joining import join_files, join_panels
from mmaudit.evidence.readers.json_file import JSONReader
from mmaudit.evidence.readers.jsonl import JSONLinesReader
from mmaudit.evidence.readers.lightning import LightningReader
from mmaudit.evidence.readers.mlflow import MLflowReader
from mmaudit.evidence.readers.resuming import join_resumed
from mmaudit.evidence.readers.several import read_each, with_notes
from mmaudit.evidence.readers.tensorboard import TensorBoardReader
from mmaudit.evidence.readers.text_file import in_utf8, is_text, why_no_text
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
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_NAMES_OF_FORMATS = ("metrics.csv", "history.jsonl", "losses.jsonl")


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
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    seen: set[str] = set()
    for path in given:
        _check_there(path)
        real = os.path.realpath(path)
        if real in seen:  # as two runs it would be a repeat that agrees with itself
            raise LogError(f"{said(str(path), 200)} was given twice; give each log once.")
        seen.add(real)
    if not given:
        raise LogError("there is no log to read; give at least one file or folder.")
    taken: dict[str, set[Path]] = {}

    def read(path: Path) -> list[Run]:
        found = _read(path, form, columns or Columns())
        for run in found:
            for file in run.files:
                taken.setdefault(os.path.realpath(file), set()).add(path)
        return found

    runs = read_each(given, read)
    for file, places in taken.items():
        if len(places) > 1:
            raise LogError(
                f"{said(file, 200)} was given twice ({listed(sorted(map(str, places)))}); give each log once."
            )
    check_points("what was given", runs)
    runs = _with_titles(join_panels(join_files(runs)))
    return _with_titles(join_heads(join_resumed(runs)))


def _check_there(path: Path) -> None:
    shown = said(str(path), 200)
    try:
        there, known = path.exists(), path.is_file() or path.is_dir()
    except (OSError, ValueError) as error:  # a name too long, or with a zero in it
        raise LogError(f"{shown} cannot be read ({type(error).__name__}).") from None
    if not there:
        raise LogError(f"{shown}: no such file or folder.")
    if not known:
        raise LogError(f"{shown} is neither a file nor a folder (a pipe or a device?).")


def _read(path: Path, form: str | None, columns: Columns) -> list[Run]:
    if form is not None:
        reader = READERS[form]
        if path.is_dir() and not reader.recognises(path, b""):
            return read_folder(path, columns, lambda file: _known(file, [reader]))
        return reader.read(path, columns)
    if not path.is_dir():
        return _known(path).read(path, columns)
    known = [reader for reader in READERS.values() if reader.recognises(path, b"")]
    notes = []
    for at, reader in enumerate(known):
        try:
            runs = reader.read(path, columns)
        except LogError as error:
            if at == len(known) - 1 and not log_files(path):
                raise
            notes.append(f"{said(path.name)} could not be read as {reader.key}: {error}")
            continue
        others = ", ".join(reader.key for reader in known[at + 1 :])
        notes += _unread(path, reader.key, runs)
        if others:
            notes.append(
                f"{said(path.name)} was read as {reader.key}; it holds logs of other formats too ({others})."
            )
        return with_notes(runs, *notes)
    try:
        return with_notes(read_folder(path, columns, _known), *notes)
    except LogError as error:
        raise LogError(notes[0] if notes else str(error)) from None


def _unread(folder: Path, form: str, runs: list[Run]) -> list[str]:
    """That tables lie in a folder beside the logs that it was read for."""
    used = {os.path.realpath(file) for run in runs for file in run.files}
    try:
        tables = [f for f in log_files(folder) if f.suffix.lower() in _TABLES]
    except LogError:
        return []
    left = [
        file.relative_to(folder).as_posix()
        for file in tables
        if os.path.realpath(file) not in used and file.name not in _NAMES_OF_FORMATS
    ]
    if not left:
        return []
    return [
        f"{said(folder.name)} was read as {form}; {counted(len(left), 'table')} beside it not read: {listed(left, 4)}."
    ]


def _known(path: Path, readers: Iterable[Reader] = READERS.values()) -> Reader:
    """The reader that knows a file by what it holds."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.strip():
        raise LogError(f"{said(path.name)} is empty.")
    head = in_utf8(head)
    for reader in readers:
        if reader.recognises(path, head):
            return reader
    formats = ", ".join(READERS)
    if "tfevents" in path.name:
        raise LogError(f"{said(path.name)} is damaged: it does not begin as an event file does.")
    if not is_text(head):
        known = f"What is known: {formats}." if why_no_text("", head).endswith("UTF-8.") else ""
        raise LogError(f"{why_no_text(path.name, head)} {known}".rstrip())
    raise LogError(
        f"{said(path.name)}: this file is no log that is known ({formats}); {_advice(head)}"
    )


def _advice(head: bytes) -> str:
    """What to do with a text that is no log: a table is one if its second line has as many cells, all numbers."""
    lines = [line for line in head.splitlines() if line.strip()]
    names = first_names(lines[0])
    cells = first_names(lines[1]) if len(lines) > 1 else []
    if len(names) == len(cells) > 1 and all(map(is_number, cells)):
        return "if it is a table, name its format: --format csv."
    return (
        f"it begins with '{said(lines[0].decode('utf-8', 'replace'), 60)}'. What a training prints is not read: write its numbers as a table "
        "(epoch,train_loss,val_loss) or as one JSON object a line."
    )


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
