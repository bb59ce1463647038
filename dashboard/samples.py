"""The samples of one audit, a page at a time, straight from its Parquet table. Imports no Dash.

A row is a sample, or a segment, label or predicted number of it, as the task has it.
"""

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
from mmaudit.report.spread import Spread
from mmaudit.report.tables import read_chunks, shard_paths

__all__ = ["SamplePage", "column_names", "read_samples"]

_COLUMNS = ["sample_id", "target", "prediction"]
_TABLE = "coalitions"
_MOST = 1000


_CELLS = {"multilabel": "Label", "regression": "Number"}
"""Task -> what the rows of a sample are, where these are not classes."""


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
    task = report.task
    fields = {"sample": "Sample", "target": _CELLS.get(task, "Class")}
    if task in _CELLS:
        fields["truth"] = "Truth"
    if len(report.modalities) > 1:
        fields["together"] = "Model says"
    else:
        fields["together"] = f"Model says from {shorten(report.modalities[0])}"
    if task == "regression":
        fields["off"] = "Off by"
    else:
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
        only_wrong: Count and give only those that the whole model gets wrong; of numbers, those that it is off by more than the
            standard deviation of the target.

    Returns:
        One mapping per row with the fields of :func:`column_names` and ``right``.

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
        far = report.task == "regression"
        numbers = _far(folder, stamp) if far else _wrong(folder, stamp)
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


@functools.lru_cache(maxsize=4)
def _far(folder: Path, stamp: tuple[Any, ...]) -> np.ndarray:
    """Numbers of the rows that the whole model is off by more than the target's standard deviation, in order."""
    del stamp
    wanted = ["target", "truth", "loglik"]
    chunks = [(c["target"], c["truth"], -c["loglik"][:, -1]) for c in read_chunks(folder, wanted)]
    if not chunks:
        return np.arange(0)
    target, truth, off = (np.concatenate(part) for part in zip(*chunks, strict=True))
    spread = Spread(int(target.max(initial=0)) + 1)
    spread.add(truth, target)
    variance = spread.squares / np.maximum(spread.count, 1)
    return np.flatnonzero(off > variance[target])


def _read(report: AuditReport, group: _Group, rows: np.ndarray) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(group.path, page_checksum_verification=True) as file:
            task = report.task
            more = ["truth"] if task in _CELLS else []
            more += [] if task == "regression" else ["confidence", "correct"]
            table = file.read_row_group(group.number, columns=[*_COLUMNS, *more])
            table = table.take(pa.array(rows))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RecordError(f"{group.path} is damaged: {error}") from error
    M = len(report.modalities)
    classes = report.classes
    found = []
    for sample in table.to_pylist():
        said = [_said(task, classes, value) for value in sample["prediction"]]
        row: dict[str, Any] = {
            "sample": shorten(str(sample["sample_id"]), 80),
            "target": _class(classes, sample["target"]),
            "together": said[-1],
        }
        if "truth" in sample:
            row["truth"] = _said(task, classes, sample["truth"])
        if task == "regression":
            row["off"] = f"{sample['prediction'][-1] - sample['truth']:+.4g}"
            row["right"] = True
        else:
            row["right"] = bool(sample["correct"][-1])
            row["correct"] = "yes" if row["right"] else "no"
            row["confidence"] = number(float(sample["confidence"][-1]), 3)
        if M > 1:
            row |= {f"alone{m}": said[1 << m] for m in range(M)}
        found.append(row)
    return found


def _said(task: str, classes: Sequence[str], value: float) -> str:
    if task == "regression":
        return f"{value:.5g}"
    if task == "multilabel":
        return "yes" if value else "no"
    return _class(classes, int(value))


def _class(classes: Sequence[str], index: int) -> str:
    return shorten(classes[index], 60) if 0 <= index < len(classes) else str(index)
