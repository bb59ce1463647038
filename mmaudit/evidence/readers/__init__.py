"""Readers of logs that trainings have already written, one file for each format behind one interface."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmaudit.evidence.readers.base import Columns, Reader, Run
from mmaudit.evidence.readers.csv_file import CSVReader
from mmaudit.evidence.readers.huggingface import HuggingFaceReader
from mmaudit.evidence.readers.jsonl import JSONLinesReader, JSONReader
from mmaudit.evidence.readers.lightning import LightningReader
from mmaudit.evidence.readers.mlflow import MLflowReader
from mmaudit.evidence.readers.tensorboard import TensorBoardReader
from mmaudit.evidence.readers.wandb import WandbReader
from mmaudit.exceptions import LogError

__all__ = ["READERS", "Columns", "Reader", "Run", "read_runs"]

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
        All runs, in the order of the paths.

    Raises:
        LogError: If a log is not there, of no known format, damaged, or without numbers.
    """
    if form is not None and form not in READERS:
        raise LogError(f"'{form}' is no format of logs; there are {', '.join(READERS)}.")
    runs: list[Run] = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        if not path.exists():
            raise LogError(f"{path}: no such file or folder.")
        reader = READERS[form] if form is not None else _known(path)
        try:
            runs += reader.read(path, columns or Columns())
        except OSError as error:
            raise LogError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not runs:
        raise LogError("there is no log to read; give at least one file or folder.")
    return runs


def _known(path: Path) -> Reader:
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if not head:
            raise LogError(f"{path.name} is empty.")
    for reader in READERS.values():
        if reader.recognises(path, head):
            return reader
    what = "folder holds no log" if path.is_dir() else "file is no log"
    raise LogError(
        f"{path.name}: this {what} that is known ({', '.join(READERS)}); name its format with --format."
    )
