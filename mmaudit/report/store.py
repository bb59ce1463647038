"""Files that are either whole or not there.

Everything is written beside its target under a temporary name, flushed to the disk and renamed; then the folder is flushed
too. Whoever reads sees the old file or the new one, after a crash or on a full disk as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from mmaudit.exceptions import RecordError

__all__ = [
    "copy_folder_atomic",
    "sweep_leftovers",
    "sync_folder",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]

_SUFFIX = ".partial"


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a file in one step: afterwards it is there whole, or as it was before.

    Args:
        path: Where to; missing folders are made, an existing file is replaced.
        data: Its content.

    Raises:
        RecordError: If the file cannot be written (full disk, no permission); nothing is left behind.
    """
    partial = _partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # os.open and not tempfile: the file gets the permissions that the user's umask says.
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text as :func:`write_bytes_atomic` does; what is no Unicode text becomes a question mark."""
    write_bytes_atomic(path, text.encode("utf-8", errors="replace"))


def write_json_atomic(path: Path, value: Any) -> None:
    """Write a JSON file as :func:`write_bytes_atomic` does, one key a line, ASCII, a newline at the end.

    Raises:
        RecordError: If the value is no JSON, NaN and infinity included, or cannot be written.
    """
    try:
        text = json.dumps(value, allow_nan=False, indent=1)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(
            f"cannot write {path}: the content is no JSON ({error}); use strings, finite numbers, lists and mappings"
        ) from error
    write_bytes_atomic(path, text.encode("ascii") + b"\n")


def copy_folder_atomic(source: Path, target: Path) -> None:
    """Copy a folder of plain files so that the target appears whole or not at all.

    Args:
        source: Folder with files (no links, no folders inside).
        target: Must not exist.

    Raises:
        RecordError: If the target exists, or reading or writing fails; nothing is left behind.
    """
    partial, renamed = _partial_name(target), False
    try:
        partial.mkdir(parents=True)
        for path in sorted(source.iterdir()):
            with path.open("rb") as reading, (partial / path.name).open("xb") as writing:
                shutil.copyfileobj(reading, writing, 1 << 20)
                writing.flush()
                os.fsync(writing.fileno())
        sync_folder(partial)
        if target.exists():
            raise FileExistsError(0, "it exists already")
        partial.rename(target)
        renamed = True
        sync_folder(target.parent)
    except OSError as error:
        if renamed:
            shutil.rmtree(target, ignore_errors=True)
        raise RecordError(f"cannot copy {source} to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk; does nothing where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_leftovers(folder: Path, *, older_than: float = 3600.0) -> list[Path]:
    """Remove what killed writers left behind in a folder.

    Args:
        folder: Where to look, not below it.
        older_than: Seconds since the last change; younger ones may belong to a writer that is at work.

    Returns:
        What was removed.
    """
    removed = []
    for path in folder.glob(f".*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < older_than:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(path)
    return removed


def _partial_name(path: Path) -> Path:
    return path.parent / f".{path.name[:100]}.{secrets.token_hex(6)}{_SUFFIX}"
