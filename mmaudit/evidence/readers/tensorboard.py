"""TensorBoard event files: every scalar of every file, also of live runs with a torn tail."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmaudit.evidence.readers.base import MOST_POINTS, Columns, Run, Series
from mmaudit.evidence.readers.lightning import without_later_rows
from mmaudit.exceptions import LogError

__all__ = ["TensorBoardReader"]

_MARK = "tfevents"
_MOST_FILES = 10_000


class TensorBoardReader:
    """One event file, or a folder: each folder below it that has event files is a run, of however many files."""

    key = "tensorboard"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether there are event files: by their names in a folder, by the first record of a file."""
        if path.is_dir():
            return next(_files(path), None) is not None
        if len(head) < 12:
            return _MARK in path.name and len(head) == 0
        (length,) = struct.unpack("<Q", head[:8])
        return 0 < length < 2**20 and (b"brain.Event" in head[:128] or _MARK in path.name)

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The runs below a folder, or that of a file.

        Raises:
            LogError: If TensorBoard is not installed, or there is no scalar.
        """
        files = sorted(_files(path)) if path.is_dir() else [path]
        if len(files) > _MOST_FILES:
            raise LogError(f"{path} has more than {_MOST_FILES:,} event files; give a part of it.")
        folders: dict[Path, list[Path]] = {}
        for file in files:
            folders.setdefault(file.parent, []).append(file)
        runs, total = [], 0
        for folder, parts in folders.items():
            points: dict[str, tuple[list[int], list[float], list[int]]] = {}
            order = 0
            notes: list[str] = []
            # Files of one run begin with the second in which they were opened.
            for file in sorted(parts, key=lambda part: (_opened_at(part), part.name)):
                for tag, step, value in _scalars(file, notes):
                    row = points.get(tag)
                    if row is None:
                        row = points[tag] = ([], [], [])
                    row[0].append(step)
                    row[1].append(value)
                    row[2].append(order)
                    order += 1
                    if total + order > MOST_POINTS:
                        raise LogError(
                            f"{path.name} has more than {MOST_POINTS:,} points; give a part of it."
                        )
            total += order
            if points:
                series = {tag: _series(*row) for tag, row in points.items()}
                title = (
                    folder.name
                    if folder == path or not path.is_dir()
                    else folder.relative_to(path).as_posix()
                )
                run = Run(title, "TensorBoard", tuple(parts), _with_epochs(series), tuple(notes))
                runs.append(without_later_rows(run) if "epoch" in series else run)
        if not runs:
            raise LogError(
                f"{path.name} has no scalars: its event files are empty or hold other things."
            )
        return runs


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob(f"*{_MARK}*") if path.is_file())


def _opened_at(file: Path) -> int:
    parts = file.name.split(".")
    at = parts.index(_MARK) + 1 if _MARK in parts else len(parts)
    return int(parts[at]) if at < len(parts) and parts[at].isdigit() else 0


def _scalars(file: Path, notes: list[str]) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar of a file, in the order in which they were written."""
    event_type, records, ended, broken = _library()
    reader = records(str(file))
    event = event_type()
    damaged = f"{file.name} is damaged: what follows after the damage was not read."
    while True:
        try:
            reader.GetNext()
        except ended:
            return
        except broken as error:
            # A live run, or one that was killed, has a last record that is not whole yet.
            if "truncated record" not in str(error):
                notes.append(damaged)
            return
        except (MemoryError, OverflowError):  # a record that claims to be larger than memory
            notes.append(damaged)
            return
        try:
            event.ParseFromString(reader.record())
        except Exception:  # the library's own kinds of errors, of two implementations
            notes.append(damaged)
            return
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == "simple_value":
                yield value.tag, event.step, value.simple_value
            elif kind == "tensor":
                number = _of_tensor(value)
                if number is not None:
                    yield value.tag, event.step, number


def _of_tensor(value: Any) -> float | None:
    """The number in a tensor of shape () that is no text."""
    plugin, tensor = value.metadata.plugin_data.plugin_name, value.tensor
    if plugin not in ("", "scalars") or len(tensor.tensor_shape.dim) > 0 or tensor.string_val:
        return None
    for field in ("float_val", "double_val", "int_val", "int64_val"):
        numbers = getattr(tensor, field)
        if numbers:
            return float(numbers[0])
    if len(tensor.tensor_content) in (4, 8):
        kind = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}.get(tensor.dtype)
        if kind is not None:
            return float(np.frombuffer(tensor.tensor_content, kind)[0])
    return None


def _series(steps: list[int], values: list[float], order: list[int]) -> Series:
    return Series(
        np.array(steps, np.int64),
        np.full(len(steps), np.nan),
        np.array(values),
        np.array(order, np.int64),
    )


def _with_epochs(series: dict[str, Series]) -> dict[str, Series]:
    """Epochs from the tag ``epoch`` that Lightning writes beside each point, where steps agree."""
    clock = series.get("epoch")
    if clock is None or len(series) == 1:
        return series
    steps, first = np.unique(clock.step[::-1], return_index=True)
    epochs = clock.value[::-1][first]
    found = {}
    for tag, points in series.items():
        if tag == "epoch":
            continue
        at = np.clip(np.searchsorted(steps, points.step), 0, len(steps) - 1)
        epoch = np.where(steps[at] == points.step, epochs[at], np.nan)
        found[tag] = points._replace(epoch=epoch)
    return found


def _library() -> tuple[Any, Any, type[Exception], type[Exception]]:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub import errors
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
    except ImportError:
        raise LogError(
            "event files need TensorBoard's reader: pip install 'mmaudit[tensorboard]' (or tensorboard)."
        ) from None
    return Event, PyRecordReader_New, errors.OutOfRangeError, errors.OpError
