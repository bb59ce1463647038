"""Writing the coalition table: shards that are whole or not there at all.

A shard holds some batches of one process. It is written to a temporary name, synced and renamed, so that a killed audit leaves
complete shards only; what a shard covers stands in its own metadata, so that the next run knows where to go on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmaudit.evidence.cost import Cost
from mmaudit.exceptions import RecordError
from mmaudit.report.schema import Note
from mmaudit.report.tables import shard_paths

__all__ = ["ShardInfo", "TableWriter", "shard_infos"]

_SAMPLES = 4096
_BYTES = 64 * 2**20
"""Rows wait in memory until there are so many of them; with 4,096 coalitions that is fewer than a thousand."""
_TEXT_BYTES = 64
_SECONDS = 20.0
_KEY = b"mmaudit"


@dataclass
class ShardInfo:
    """What a shard covers."""

    rank: int
    first_batch: int
    next_batch: int
    """First batch after the shard; where this process goes on."""
    samples: int = 0
    """Samples seen, those left out included."""
    rows: int = 0
    """Rows in the shard: fewer than samples where some are left out, more where a sample has several."""
    unlabelled: int = 0
    """Samples without any label."""
    grouped: bool = False
    """Whether rows have a group."""
    nonfinite: int = 0
    nonfinite_samples: list[str] = field(default_factory=list)
    """Ids of the first samples whose outputs were not finite."""
    id_hash: int = 0
    """Sum of the hashes of all ids and targets: what the data's fingerprint is made of."""
    present: dict[str, int] = field(default_factory=dict)
    same: dict[str, list[int]] = field(default_factory=dict)
    """As :func:`~mmaudit.evidence.same_inputs.count_same` counts."""
    classes: int = 0
    """Number of class cells that the model gives: K classes, L labels or D numbers."""
    method: str = "full passes"
    reason: str | None = None
    """How coalitions were evaluated at the end of the shard, and why not packed."""
    cost: dict[str, Any] = field(default_factory=dict)
    """What was spent since the shard before, as ``Cost``."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """What this process found or did otherwise than asked, as ``Note``."""


class TableWriter:
    """Collects rows and writes shards.

    Args:
        folder: Of the table; made if it is not there. Leftovers of a killed run are removed.
        rank: Of this process.
        schema: From ``coalition_schema``.

    Attributes:
        next_batch: First batch that no shard covers yet.
    """

    def __init__(self, folder: Path, rank: int, schema: pa.Schema | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._rank, self.schema = folder, rank, schema
        for leftover in folder.glob(f".part-{rank:03d}-*"):
            leftover.unlink()
        self.finished = [info for info in shard_infos(folder) if info.rank == rank]
        self.next_batch = 0
        for info in self.finished:
            if info.first_batch != self.next_batch:
                raise RecordError(
                    f"{folder} lacks the shard with batch {self.next_batch} of process {rank}: start again with --overwrite."
                )
            self.next_batch = info.next_batch
        self._info = ShardInfo(rank, self.next_batch, self.next_batch)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._began = time.monotonic()

    @property
    def samples(self) -> int:
        """Samples that shards cover, and those that are waiting."""
        return sum(info.samples for info in self.finished) + self._info.samples

    def add(self, columns: dict[str, Any], info: ShardInfo) -> bool:
        """Add one batch: its columns, and what it covers.

        Returns:
            Whether it is time to :meth:`flush`.
        """
        if columns and len(columns["position"]):
            assert self.schema is not None
            narrow = {
                field.name: _narrowed(columns[field.name], field.type) for field in self.schema
            }
            self._rows.append(narrow)
            self._bytes += sum(
                getattr(values, "nbytes", _TEXT_BYTES * len(values)) for values in narrow.values()
            )
        mine = self._info
        mine.next_batch = info.next_batch
        mine.samples += info.samples
        mine.rows += info.rows
        mine.unlabelled += info.unlabelled
        mine.grouped |= info.grouped
        mine.nonfinite += info.nonfinite
        mine.classes = info.classes
        mine.nonfinite_samples = (mine.nonfinite_samples + info.nonfinite_samples)[:20]
        mine.id_hash = (mine.id_hash + info.id_hash) % 2**128
        for name, count in info.present.items():
            mine.present[name] = mine.present.get(name, 0) + count
        for pair, counts in info.same.items():
            before = mine.same.get(pair, [0, 0])
            mine.same[pair] = [a + b for a, b in zip(before, counts, strict=True)]
        full = mine.samples >= _SAMPLES or self._bytes >= _BYTES
        return full or time.monotonic() - self._began > _SECONDS

    def flush(
        self,
        *,
        cost: Cost,
        method: str,
        reason: str | None = None,
        notes: Iterable[Note] = (),
    ) -> None:
        """Write what is waiting as one shard, with how it came about."""
        if not self._info.samples:
            return
        cost.seconds = time.monotonic() - self._began
        self._info.cost = asdict(cost)
        self._info.method, self._info.reason = method, reason
        self._info.notes = [note.model_dump() for note in notes]
        assert self.schema is not None
        arrays = [
            _column([rows[field.name] for rows in self._rows], field.type) for field in self.schema
        ]
        described = self.schema.with_metadata({_KEY: json.dumps(asdict(self._info)).encode()})
        table = pa.Table.from_arrays(arrays, schema=described)
        name = f"part-{self._rank:03d}-{len(self.finished):06d}.parquet"
        temporary = self._folder / f".{name}.tmp"
        with temporary.open("wb") as file:
            # The rows of one group follow each other, so that a dictionary makes its column small and quick to read.
            pq.write_table(
                table, file, compression="zstd", write_page_checksum=True, use_dictionary=["group"]
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.finished.append(self._info)
        self._info = ShardInfo(self._rank, self._info.next_batch, self._info.next_batch)
        self._rows, self._bytes, self._began = [], 0, time.monotonic()


def shard_infos(folder: Path) -> list[ShardInfo]:
    """What the shards of a table cover.

    Raises:
        RecordError: If a shard is damaged.
    """
    infos = []
    for path in shard_paths(folder):
        try:
            metadata = pq.read_schema(path).metadata or {}
            infos.append(ShardInfo(**json.loads(metadata[_KEY])))
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise RecordError(
                f"{path} is damaged: {error}. Delete its folder and audit again."
            ) from error
    return infos


def _narrowed(values: Any, kind: pa.DataType) -> Any:
    """Values as the table keeps them, before they wait for their shard."""
    if pa.types.is_string(kind):
        return values
    plain = kind.value_type if pa.types.is_fixed_size_list(kind) else kind
    return np.asarray(values).astype(plain.to_pandas_dtype(), copy=False)


def _column(parts: list[Any], kind: pa.DataType) -> pa.Array:
    if not parts:
        return pa.array([], type=kind)
    if pa.types.is_fixed_size_list(kind):
        values = np.concatenate([np.asarray(part).reshape(len(part), -1) for part in parts])
        flat = pa.array(np.ascontiguousarray(values).reshape(-1)).cast(kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    if pa.types.is_string(kind):
        return pa.array([item for part in parts for item in part], type=kind)
    return pa.array(np.concatenate([np.asarray(part) for part in parts]), type=kind)
