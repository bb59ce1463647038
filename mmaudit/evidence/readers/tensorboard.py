"""TensorBoard event files: every scalar of every file, also of live runs with a torn tail.

Events are decoded, and their checksums computed, by TensorBoard. The records around them (a length, the events, two checksums)
are split here: TensorBoard's own reader asks for as much memory as a damaged length claims, and is slower.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaudit.evidence.readers.base import (
    MOST_POINTS,
    Columns,
    Run,
    Series,
    files_below,
    said,
)
from mmaudit.evidence.readers.joining import join_splits
from mmaudit.evidence.readers.lightning import without_later_rows
from mmaudit.evidence.readers.several import with_notes
from mmaudit.exceptions import LogError

__all__ = ["TensorBoardReader"]

_MARK = "tfevents"
_NO_LOGS = (".profile-empty", ".v2.profile-empty")
_SEVERAL = 8
_Points = tuple["array[int]", "array[float]", "array[int]"]


class _Library(NamedTuple):
    """What is taken from TensorBoard."""

    event: Any
    checksum: Callable[[bytes], int]
    numbers_of: Callable[[Any], Any]


class TensorBoardReader:
    """One event file, or a folder: each folder below it that has event files is a run, of however many files."""

    key = "tensorboard"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether there are event files: by their names in a folder, by the first record of a file."""
        if path.is_dir():
            return bool(_files(path))
        if len(head) < 12:
            return False
        (length,) = struct.unpack("<Q", head[:8])
        return 0 < length < 2**20 and (b"brain.Event" in head[:128] or _MARK in path.name)

    def read(self, path: Path, columns: Columns) -> list[Run]:
        """The runs below a folder, or that of a file.

        Raises:
            LogError: If TensorBoard is not installed, or there is no scalar.
        """
        folders: dict[Path, list[Path]] = {}
        for file in _files(path) if path.is_dir() else [path]:
            folders.setdefault(file.parent, []).append(file)
        library = _library()
        runs: list[Run] = []
        left = MOST_POINTS
        damages: list[str] = []
        for folder, parts in folders.items():
            place = folder.relative_to(path).as_posix() if path.is_dir() else ""
            run = _of_folder("" if place == "." else place, parts, library, left)
            left -= run.points
            if run.series:
                runs.append(run)
            else:
                damages += [f"{note} It has no scalars before." for note in run.notes]
        if not runs:
            why = damages[0] if damages else "its event files are empty or hold other things."
            raise LogError(f"{said(path.name)} has no scalars: {why}")
        runs = with_notes(runs, *_bounded(damages))
        root = path.resolve().name if path.is_dir() else path.resolve().parent.name
        return join_splits(runs, root or path.stem)


def _files(folder: Path) -> list[Path]:
    return [p for p in files_below(folder, f"*{_MARK}*") if not p.name.endswith(_NO_LOGS)]


def _of_folder(title: str, files: list[Path], library: _Library, most: int) -> Run:
    points: dict[str, _Points] = {}
    notes: list[str] = []
    for file in sorted(files, key=lambda part: (_opened_at(part), part.name)):
        try:
            _collect(file, points, library, notes, most)
        except OSError as error:
            notes.append(f"{said(file.name)} cannot be read: {error.strerror or error}.")
    series = {
        tag: Series(
            np.frombuffer(steps, np.int64),
            np.full(len(steps), np.nan),
            np.frombuffer(values, np.float64),
            np.frombuffer(order, np.int64),
        ).counted()
        for tag, (steps, values, order) in points.items()
    }
    run = Run(title, "TensorBoard", tuple(files), _with_epochs(series), _bounded(notes))
    return without_later_rows(run) if "epoch" in series else run


def _opened_at(file: Path) -> int:
    """Files of one run begin with the second in which they were opened."""
    parts = file.name.split(".")
    at = parts.index(_MARK) + 1 if _MARK in parts else len(parts)
    return int(parts[at]) if at < len(parts) and parts[at].isdecimal() else 0


def _collect(
    file: Path, points: dict[str, _Points], library: _Library, notes: list[str], most: int
) -> None:
    """Add tag, step and value of every scalar of a file, in the order in which they were written."""
    event = library.event()
    parse = event.ParseFromString
    order = sum(len(row[0]) for row in points.values())
    for record in _records(file, library.checksum, notes):
        try:
            parse(record)
        except Exception:  # the library's own kinds of errors, of two implementations
            notes.append(
                f"{said(file.name)} is damaged: what follows after the damage was not read."
            )
            return
        step = event.step
        for value in event.summary.value:
            if value.HasField("simple_value"):
                number = value.simple_value
            elif value.HasField("tensor"):
                found = _of_tensor(value, library)
                if found is None:
                    continue
                number = found
            else:
                continue
            row = points.get(value.tag)
            if row is None:
                row = points[value.tag] = (array("q"), array("d"), array("q"))
            row[0].append(step)
            row[1].append(number)
            row[2].append(order)
            order += 1
        if order > most:
            raise LogError(
                f"{said(file.name)}: more than {MOST_POINTS:,} points; give a part of the logs."
            )


def _records(file: Path, checksum: Callable[[bytes], int], notes: list[str]) -> Iterator[bytes]:
    """The records of a file up to its end, to a torn one (a live run, or one that was killed), or to the first damage."""
    header, footer = struct.Struct("<QI"), struct.Struct("<I")
    damaged = f"{said(file.name)} is damaged: what follows after the damage was not read."
    left = file.stat().st_size
    with file.open("rb") as stream:
        while True:
            head = stream.read(12)
            if len(head) < 12:
                return
            left -= 12
            length, of_length = header.unpack(head)
            if checksum(head[:8]) != of_length:
                notes.append(damaged)
                return
            if length + 4 > left:
                # The file may have grown meanwhile: what is there now decides.
                left = file.stat().st_size - stream.tell()
                if length + 4 > left:
                    return
            record = stream.read(length + 4)
            if len(record) < length + 4:
                return
            left -= length + 4
            data = record[:length]
            if checksum(data) != footer.unpack(record[length:])[0]:
                notes.append(damaged)
                return
            yield data


def _of_tensor(value: Any, library: _Library) -> float | None:
    """The number in a tensor of shape () that is no text."""
    tensor = value.tensor
    if value.metadata.plugin_data.plugin_name not in ("", "scalars"):
        return None
    if len(tensor.tensor_shape.dim) > 0 or tensor.string_val:
        return None
    if tensor.dtype == 1:  # float32, as nearly all are
        if tensor.float_val:
            return float(tensor.float_val[0])
        if len(tensor.tensor_content) == 4:
            return float(struct.unpack("<f", tensor.tensor_content)[0])
    try:
        return float(library.numbers_of(tensor))
    except (TypeError, ValueError, OverflowError):
        return None


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
        epoch = np.where((steps[at] == points.step) & np.isfinite(epochs[at]), epochs[at], np.nan)
        found[tag] = points._replace(epoch=epoch)
    return found


def _bounded(notes: list[str]) -> tuple[str, ...]:
    more = len(notes) - _SEVERAL
    return tuple(notes[:_SEVERAL]) + (
        (f"{more} more event files are damaged.",) if more > 0 else ()
    )


def _library() -> _Library:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise LogError(
            "event files need TensorBoard's reader: pip install 'mmaudit[tensorboard]' (or tensorboard)."
        ) from None
    return _Library(Event, masked_crc32c, make_ndarray)
