"""Files of one name below a folder, each read once while it stays the same: the index behind the lists. Imports no Dash."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic_core import from_json

__all__ = ["Found", "Shelf", "scan", "signature"]

_DEPTH = 8
_MOST_FOLDERS = 50_000
_LARGEST_FILE = 64_000_000
_TABLE = "coalitions"

_Row = TypeVar("_Row")


class Found(NamedTuple, Generic[_Row]):
    """What a look at the folder has found."""

    rows: dict[Path, _Row]
    """File -> what it says."""
    unreadable: tuple[str, ...]
    """Folders, relative, whose file says nothing that can be read."""
    cut: bool
    """There are more folders than are looked through."""


class Shelf(Generic[_Row]):
    """Small rows from files that are large, replaced whole and never changed in place. Safe to be used from several threads.

    Args:
        folder: Where to look.
        name: Of the files.
        read: Makes a row of a file's JSON and its folder, relative; any of the usual errors means that it cannot be read.
    """

    def __init__(
        self, folder: Path, name: str, read: Callable[[Mapping[str, Any], str], _Row]
    ) -> None:
        self.folder, self.name = folder, name
        self._read = read
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, int, int], _Row | None]] = {}

    def look(self) -> Found[_Row]:
        """Find the files; only those that are new or changed since the last time are read."""
        folders, cut = scan(self.folder, self.name)
        with self._lock:
            now: dict[Path, tuple[tuple[int, int, int], _Row | None]] = {}
            for folder in folders:
                path = folder / self.name
                stamp = signature(path)
                if stamp is None:
                    continue
                known = self._known.get(path)
                if known is None or known[0] != stamp:
                    known = (stamp, self._row(path, stamp))
                now[path] = known
            self._known = now
        return Found(
            {path: row for path, (_, row) in now.items() if row is not None},
            tuple(sorted(self.place(path) for path, (_, row) in now.items() if row is None)),
            cut,
        )

    def row(self, path: Path) -> _Row | None:
        """The row of a file that the last look has found and that is still the same."""
        with self._lock:
            known = self._known.get(path)
        return known[1] if known is not None and known[0] == signature(path) else None

    def place(self, path: Path) -> str:
        """Folder of a file, relative."""
        return path.parent.relative_to(self.folder).as_posix()

    def _row(self, path: Path, stamp: tuple[int, int, int]) -> _Row | None:
        try:
            if stamp[1] > _LARGEST_FILE:
                return None
            return self._read(from_json(path.read_bytes()), self.place(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def scan(folder: Path, name: str) -> tuple[list[Path], bool]:
    """Find the folders that hold a file of a name.

    Args:
        folder: Where to begin. Hidden folders, links and the folders of per-sample tables are left out.
        name: Of the file.

    Returns:
        The folders, and whether the search was cut: it goes 8 folders deep and through at most 50,000.
    """
    found: list[Path] = []
    waiting = [(folder, 0)]
    looked = 0
    while waiting:
        here, depth = waiting.pop()
        looked += 1
        if looked > _MOST_FOLDERS:
            return found, True
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name == name:
                        if entry.is_file(follow_symlinks=False):
                            found.append(here)
                    elif (
                        depth < _DEPTH
                        and not entry.name.startswith(".")
                        and entry.name != _TABLE
                        and entry.is_dir(follow_symlinks=False)
                    ):
                        waiting.append((Path(entry.path), depth + 1))
        except OSError:
            continue
    return found, False


def signature(path: Path) -> tuple[int, int, int] | None:
    """Changes when a file is replaced; ``None`` where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
