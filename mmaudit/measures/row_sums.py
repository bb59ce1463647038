"""Sums over resampling units of whatever a measure computes from the rows of a table.

``UnitSums`` keeps what most measures share. A measure that needs another number of each row gives a function here; its values
are summed over the same units (samples, groups or blocks of them) in the same order, so that both kinds of sums can be used
together. The table is streamed: memory is the sums, 8 bytes for each unit and number, and one chunk of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from mmaudit.exceptions import RecordError
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.table_rows import Limits, finite_rows, limits, value_columns
from mmaudit.measures.units import distinct_keys, place_units, unit_keys
from mmaudit.report.tables import read_chunks, shard_paths
from mmaudit.typing import FloatArray, IntArray

__all__ = ["Chunk", "read_rows", "row_sums"]

Chunk: TypeAlias = dict[str, np.ndarray]
"""Column -> rows, scalar columns ``(n,)`` and list columns ``(n, length)``."""

_MOST_ROWS = 2048
"""A chunk of the widest sums that measures ask for (some 600 numbers a row) then takes 10 MB."""


def row_sums(
    evidence: Evidence,
    columns: Sequence[str],
    function: Callable[[Chunk], FloatArray],
    *,
    table: str | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Sum a function of rows over the units that are resampled.

    A row is left out where the function gives a number that is not finite, and, in a table with the columns of the coalition
    table, where :class:`~mmaudit.measures.resampling.UnitSums` leaves it out. Both make no difference between columns: a row counts
    for all of them or for none.

    Args:
        evidence: Tables of the audit.
        columns: Columns that the function reads.
        function: Chunk of n rows -> ``(n, w)``, with the same w for every chunk; a row's numbers must not depend on the other rows.
        table: Name of the table; ``None`` for the coalition table. It needs ``sample_id``, and ``group`` where samples are grouped.

    Returns:
        Sums ``(U, w)`` and numbers of rows ``(U, 1)``, float64, of the units that hold a row that was not left out. Of the
        coalition table these are the units of ``evidence.sums``, in its order.

    Raises:
        RecordError: If the table is missing, damaged, lacks a column or a group, has no rows, or all are left out.

    Example:
        >>> row_sums(evidence, ["entropy"], lambda chunk: chunk["entropy"])        # doctest: +SKIP
    """
    folder = _folder(evidence, table)
    most = _limits(evidence).units
    unit = _unit_column(evidence)
    # The blocks of UnitSums: their number is that of its overall sums, and ids are hashed with the same seed.
    known = distinct_keys(folder, unit, evidence.seed, stop_at=None if evidence.grouped else most)
    sums: FloatArray | None = None
    counts = np.zeros((min(most, len(known)), 1))
    for chunk in read_rows(evidence, [*columns, unit], table=table):
        values = np.asarray(function(chunk), dtype=np.float64)
        where = place_units(unit_keys(chunk[unit], evidence.seed), known, most)
        finite = np.isfinite(values).all(axis=1)
        if sums is None:
            sums = np.zeros((len(counts), values.shape[1]))
        _add(sums, counts, values[finite], where[finite])
    used = counts[:, 0] > 0
    if sums is None or not used.any():
        raise RecordError(f"no row of the table in {folder} has only finite values")
    return sums[used], counts[used]


def read_rows(
    evidence: Evidence, columns: Sequence[str], *, table: str | None = None
) -> Iterator[Chunk]:
    """Stream a table, without the rows that ``UnitSums`` leaves out.

    Args:
        evidence: Tables of the audit.
        columns: Columns that are needed; more may come.
        table: Name of the table; ``None`` for the coalition table. Only of tables with its columns are rows left out.

    Yields:
        Chunks of at least one row, at most 2,048.

    Raises:
        RecordError: If the table is missing, damaged or lacks a column.
    """
    folder, M = _folder(evidence, table), len(evidence.modalities)
    needed = value_columns(evidence.task)
    checked = set(needed) <= _columns(folder)
    wanted = dict.fromkeys([*columns, *needed] if checked else columns)
    for chunk in read_chunks(folder, list(wanted), rows=min(_MOST_ROWS, _limits(evidence).rows)):
        if checked:
            finite = finite_rows(chunk, M)
            if not finite.all():
                chunk = {name: values[finite] for name, values in chunk.items()}
        if len(next(iter(chunk.values()))):
            yield chunk


def _folder(evidence: Evidence, table: str | None) -> Path:
    if table is None:
        return evidence.coalitions
    folder = evidence.table(table)
    if folder is None:
        raise RecordError(
            f"this audit has no table '{table}': expected shards in {evidence.coalitions.parent / table}"
        )
    return folder


def _limits(evidence: Evidence) -> Limits:
    return limits(len(evidence.modalities), len(evidence.classes), task=evidence.task)


def _unit_column(evidence: Evidence) -> str:
    return "group" if evidence.grouped else "sample_id"


def _columns(folder: Path) -> set[str]:
    paths = shard_paths(folder)
    if not paths:
        raise RecordError(f"no table in {folder}: expected files part-*.parquet")
    try:
        return set(pq.read_schema(paths[0]).names)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{paths[0]} is damaged or no table: {error}") from error


def _add(sums: FloatArray, counts: FloatArray, values: FloatArray, where: IntArray) -> None:
    """Add rows to the rows of the sums that they belong to."""
    places, which, sizes = np.unique(where, return_inverse=True, return_counts=True)
    rows = np.arange(len(where))
    # A product with zeros and ones: five times faster than reduceat where rows are wide.
    which_row = sparse.csr_array((np.ones(len(where)), (which, rows)), (len(places), len(where)))
    sums[places] += which_row @ values
    counts[places, 0] += sizes
