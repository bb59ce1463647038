"""A record on the disk: read with one sentence for whatever is wrong, written so that no reader ever sees half of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from mmaudit.exceptions import RecordError
from mmaudit.report.json_file import read_model, save_model
from mmaudit.report.schema import SCHEMA_VERSION, Record
from mmaudit.report.store import copy_folder_atomic, sweep_leftovers

__all__ = ["RECORD_NAME", "is_binary", "read_record", "save_record", "whereabouts"]

RECORD_NAME = "report.json"
RUNNING = ".running"
"""Where an audit works, inside its folder, until its record is whole."""
RUNNING_STATE = f"{RUNNING}/audit-state.json"
"""What an interrupted audit was; while it is there, the audit can be resumed."""
_MOST = 4


def save_record(
    record: Record, tables: Mapping[str, Path], folder: Path, *, overwrite: bool = False
) -> Path:
    """Write a record into a folder, and copy its tables there where they lie elsewhere.

    The rename of ``report.json`` is the moment in which the audit changes: before it the old one is whole, after it the new
    one. Tables that the folder already has a name for are therefore copied under a new name.

    Args:
        record: What to write; its ``tables`` are replaced.
        tables: Table -> folder with its shards.
        folder: Where to; made if missing.
        overwrite: Replace the audit that is there.

    Returns:
        Path of the ``report.json``.

    Raises:
        RecordError: If an audit is there already, or writing fails.
    """
    path = folder / RECORD_NAME
    if path.exists() and not overwrite:
        raise RecordError(
            f"{path} exists already; choose another folder, or overwrite it (overwrite=True)"
        )
    sweep_leftovers(folder)
    before = _tables_of(path)
    places: dict[str, str] = {}
    copied: list[Path] = []
    try:
        for name, source in tables.items():
            if source.resolve().parent == folder.resolve():
                places[name] = source.name
                continue
            place = _free_name(folder, source.name, record.report_id)
            copied.append(place)
            copy_folder_atomic(source, place)
            places[name] = place.name
        save_model(path, record.model_copy(update={"tables": places}), what="record")
    except RecordError:
        # A record that is in place, though perhaps not yet flushed, keeps its tables.
        for place in copied:
            if place.name not in _tables_of(path):
                shutil.rmtree(place, ignore_errors=True)
        raise
    for old in before - set(places.values()):
        _remove_table(folder / old)
    return path


def read_record(file: Path) -> Record:
    """Read a ``report.json``.

    Raises:
        RecordError: If it cannot be read, is damaged or truncated, holds NaN or infinity, or has an unknown version.
    """
    return read_model(file, Record, what="report", version=SCHEMA_VERSION)


def whereabouts(folder: Path) -> str:
    """Where a record may be that is not in a folder: the end of a sentence; empty where nothing is known.

    Args:
        folder: Holds no record; need not exist.
    """
    if (folder / RUNNING_STATE).is_file():
        return "; the audit was interrupted: go on with it (--resume)"
    below = [
        path.parent
        for level in ("*", "*/*")
        for path in sorted(folder.glob(f"{level}/{RECORD_NAME}"))
    ]
    if not below:
        return ""
    more = f" and {len(below) - _MOST} more" if len(below) > _MOST else ""
    return f"; there is one in {', '.join(map(str, below[:_MOST]))}{more}"


def is_binary(file: Path) -> bool:
    """Whether a file looks like weights and the like: its name does not say JSON, and a zero byte is among the first 4096."""
    if file.suffix.lower() == ".json":
        return False
    try:
        with file.open("rb") as opened:
            return b"\0" in opened.read(4096)
    except OSError:
        return False


def _free_name(target: Path, name: str, report_id: str) -> Path:
    """A name for a table's folder that nobody has, so that the audit that is there stays whole until the end."""
    safe = "".join(letter for letter in report_id if letter.isalnum())[:12] or "new"
    tail, number = "", 1
    while (target / f"{name}{tail}").exists():
        tail = f"-{safe}" if number == 1 else f"-{safe}-{number}"
        number += 1
    return target / f"{name}{tail}"


def _tables_of(path: Path) -> set[str]:
    """Folders of the tables of the record that is there; none of a record that cannot be read."""
    if not path.exists():
        return set()
    try:
        tables = read_record(path).tables.values()
    except RecordError:
        return set()
    return {name for name in tables if Path(name).name == name and name not in ("", ".", "..")}


def _remove_table(folder: Path) -> None:
    """Remove shards and then their folder, if it is empty: a record may name any folder, and other files are not ours."""
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError):
        for shard in folder.glob("part-*.parquet"):
            shard.unlink()
        folder.rmdir()
