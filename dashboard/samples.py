"""The samples of one audit, a page at a time, straight from its Parquet table. Imports no Dash."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Not used here, but pyarrow would import it later, in one thread, while plotly in another takes the half of it that is there.
import pandas as pd  # noqa: F401
import pyarrow as pa
import pyarrow.parquet as pq

from mmaudit.exceptions import RecordError
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number
from mmaudit.report.tables import read_chunks, shard_paths

__all__ = ["SamplePage", "column_names", "read_samples"]

_COLUMNS = ["sample_id", "target", "prediction", "confidence"]
_TABLE = "coalitions"
_MOST = 1000


class SamplePage(NamedTuple):
    """Some samples, and how many there are."""

    rows: tuple[dict[str, Any], ...]
    total: int


class _Group(NamedTuple):
    """A row group of a shard, and the numbers of its rows."""

    path: Path
    number: int
    first: int
    rows: int


def column_names(report: AuditReport) -> dict[str, str]:
    """Field of a row -> what it is, in the order of the columns. Fields are ours: names of modalities may hold anything."""
    fields = {"sample": "Sample", "target": "Class"}
    if len(report.modalities) > 1:
        fields["together"] = "Model says"
    else:
        fields["together"] = f"Model says from {shorten(report.modalities[0])}"
    fields["confidence"] = "Confidence"
    fields["correct"] = "Right"
    if len(report.modalities) > 1:
        for m, name in enumerate(report.modalities):
            fields[f"alone{m}"] = f"From {shorten(name)} alone"
    return fields


def read_samples(
    report: AuditReport, start: int, stop: int, *, only_wrong: bool = False
) -> SamplePage:
    """Read samples in the order of the table.

    Args:
        report: Loaded from the folder of its tables.
        start: First row, from 0.
        stop: Row behind the last; at most 1,000 are read.
        only_wrong: Count and give only those that the whole model gets wrong.

    Returns:
        One mapping per sample with the fields of :func:`column_names` and ``right``.

    Raises:
        RecordError: If the audit kept no table, or it is damaged.
    """
    folder = report.table(_TABLE)
    stamp = tuple((path.name, path.stat().st_mtime_ns) for path in shard_paths(folder))
    groups = _groups(folder, stamp)
    total = sum(group.rows for group in groups)
    start = max(0, start)
    stop = min(stop, start + _MOST)
    if only_wrong:
        numbers = _wrong(folder, stamp)
        total = len(numbers)
        numbers = numbers[start:stop]
    else:
        numbers = np.arange(start, max(start, min(stop, total)))
    rows: list[dict[str, Any]] = []
    for group in groups:
        first, last = np.searchsorted(numbers, [group.first, group.first + group.rows])
        if first < last:
            rows += _read(report, group, numbers[first:last] - group.first)
    return SamplePage(tuple(rows), total)


@functools.lru_cache(maxsize=16)
def _groups(folder: Path, stamp: tuple[Any, ...]) -> tuple[_Group, ...]:
    if not stamp:
        raise RecordError("the table of samples is empty; run the audit again")
    groups, first = [], 0
    for path in shard_paths(folder):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError) as error:
            raise RecordError(f"{path} is damaged: {error}") from error
        for index in range(metadata.num_row_groups):
            rows = metadata.row_group(index).num_rows
            groups.append(_Group(path, index, first, rows))
            first += rows
    return tuple(groups)


@functools.lru_cache(maxsize=4)
def _wrong(folder: Path, stamp: tuple[Any, ...]) -> np.ndarray:
    """Numbers of the rows that the whole model gets wrong, in order."""
    del stamp  # only tells one state of the folder from the next
    parts = [chunk["correct"][:, -1] == 0 for chunk in read_chunks(folder, ["correct"])]
    return np.flatnonzero(np.concatenate(parts)) if parts else np.arange(0)


def _read(report: AuditReport, group: _Group, rows: np.ndarray) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(group.path, page_checksum_verification=True) as file:
            table = file.read_row_group(group.number, columns=_COLUMNS).take(pa.array(rows))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RecordError(f"{group.path} is damaged: {error}") from error
    M = len(report.modalities)
    classes = report.classes
    found = []
    for sample in table.to_pylist():
        said, sure = sample["prediction"], sample["confidence"]
        row: dict[str, Any] = {
            "sample": shorten(str(sample["sample_id"]), 80),
            "target": _class(classes, sample["target"]),
            "together": _class(classes, said[-1]),
            "confidence": number(float(sure[-1]), 3),
            "right": said[-1] == sample["target"],
            "correct": "yes" if said[-1] == sample["target"] else "no",
        }
        if M > 1:
            row |= {f"alone{m}": _class(classes, said[1 << m]) for m in range(M)}
        found.append(row)
    return found


def _class(classes: Sequence[str], index: int) -> str:
    return shorten(classes[index], 60) if 0 <= index < len(classes) else str(index)
