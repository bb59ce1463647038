"""The coalition table: its columns, and how to read it without torch.

One row is one sample, or one segment, label or predicted number of it; columns over coalitions are fixed-size lists of length ``2**M`` in bit order (``mmaudit.typing``),
columns over modalities have length M. The shards carry page checksums, which are verified when read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmaudit.exceptions import RecordError
from mmaudit.typing import TaskName

__all__ = [
    "LEAST_LOGLIK",
    "NOTHING",
    "SCALAR_COLUMNS",
    "TIE",
    "coalition_schema",
    "count_rows",
    "read_chunks",
    "shard_paths",
    "table_columns",
]

LEAST_LOGLIK = -18.420681
"""Log-likelihoods of responses are clamped at log(1e-8), as in AGM's released code (Li et al. 2023)."""

TIE = 1e-6
"""Classes of a response tie within this share of the sample's largest absolute class score; above float32 rounding."""

NOTHING = 1e-5
"""A response is none where no entry, less its class mean, exceeds this share of the sample's largest absolute score."""

SCALAR_COLUMNS = ("sample_id", "position", "target", "group", "present")


def coalition_schema(
    modalities: int, classes: int, *, logits: bool = False, task: TaskName = "multiclass"
) -> pa.Schema:
    """Columns of the coalition table.

    Args:
        modalities: M.
        classes: Scores of a row, used where logits are stored: K classes, or 1 for a label or a number.
        logits: Whether the scores of every coalition are stored too.
        task: What the model predicts.

    Returns:
        ``sample_id`` (string; ``<sample>#<part>`` where a sample has several rows), ``position`` (int64, place of the sample in
        the data), ``target`` (int32, the class; of a label or a predicted number its place, so that class cells are labels or
        numbers), ``group`` (string or null; the sample where a sample has several rows), ``present`` (int32, bit m set where the
        sample has modality m).

        With classes, per coalition ``prediction`` (int32; of a label 0 or 1), ``correct`` (uint8), ``loglik`` (float32, nats,
        log-likelihood of the target), ``confidence`` (float32, probability of the predicted class), ``entropy`` (float32, nats);
        per modality, for ``exact`` and ``zero``: ``response_prediction_*`` (int32), ``response_score_*`` (float32 in [0, 1], 1/c
        where c classes tie), ``response_loglik_*`` (float32, nats, at least -18.42), and ``response_size`` (float32, largest
        absolute entry of the exact response less its class mean). ``multilabel`` has a further column ``truth`` (int32, 0 or 1).

        For ``regression`` (float64, in the unit of the target or its square) ``truth``, per coalition ``prediction`` and
        ``loglik``, which is the negative squared error; per modality ``response_prediction_*`` (what it alone predicts: with
        ``exact``, the empty coalition's prediction plus its response), ``response_loglik_*`` (negative squared error of that),
        ``response_size`` (absolute exact response).
    """
    S, M = 2**modalities, modalities
    numbers = task == "regression"
    wide = pa.float64() if numbers else pa.float32()
    said = pa.float64() if numbers else pa.int32()
    columns: list[tuple[str, Any]] = [
        ("sample_id", pa.string()),
        ("position", pa.int64()),
        ("target", pa.int32()),
        ("group", pa.string()),
        ("present", pa.int32()),
    ]
    if numbers or task == "multilabel":
        columns.append(("truth", said))
    columns.append(("prediction", pa.list_(said, S)))
    if not numbers:
        columns.append(("correct", pa.list_(pa.uint8(), S)))
    columns.append(("loglik", pa.list_(wide, S)))
    if not numbers:
        columns += [(name, pa.list_(wide, S)) for name in ("confidence", "entropy")]
    for empty in ("exact", "zero"):
        columns.append((f"response_prediction_{empty}", pa.list_(said, M)))
        if not numbers:
            columns.append((f"response_score_{empty}", pa.list_(wide, M)))
        columns.append((f"response_loglik_{empty}", pa.list_(wide, M)))
    columns.append(("response_size", pa.list_(wide, M)))
    if logits:
        columns.append(("logits", pa.list_(pa.float32(), S * classes)))
    return pa.schema(columns)


def shard_paths(folder: Path) -> list[Path]:
    """Shards of a table in a fixed order; empty where there is none."""
    return sorted(folder.glob("part-*.parquet"))


def table_columns(folder: Path) -> list[str]:
    """Names of a table's columns.

    Raises:
        RecordError: If there is no table, or its first shard is damaged.
    """
    shards = shard_paths(folder)
    if not shards:
        raise RecordError(f"no table in {folder}: expected files part-*.parquet")
    try:
        return list(pq.read_schema(shards[0]).names)
    except (pa.ArrowException, OSError) as error:
        raise RecordError(f"{shards[0]} is damaged or no coalition table: {error}") from error


def count_rows(folder: Path) -> int:
    """Rows of a table, without reading them.

    Raises:
        RecordError: If a shard is damaged.
    """
    total = 0
    for path in shard_paths(folder):
        try:
            total += pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError) as error:
            raise RecordError(f"{path} is damaged or no coalition table: {error}") from error
    return total


def read_chunks(
    folder: Path, columns: Sequence[str] | None = None, *, rows: int = 16_384
) -> Iterator[dict[str, np.ndarray]]:
    """Stream a coalition table in bounded memory.

    Args:
        folder: Where the shards lie.
        columns: Column names; all where ``None``.
        rows: At most so many rows at a time.

    Yields:
        Column -> array; scalar columns ``(n,)``, list columns ``(n, length)``. Strings come as object arrays.

    Raises:
        RecordError: If a shard is missing, damaged or lacks a column.
    """
    shards = shard_paths(folder)
    if not shards:
        raise RecordError(f"no table in {folder}: expected files part-*.parquet")
    for path in shards:
        try:
            with pq.ParquetFile(
                path, page_checksum_verification=True, pre_buffer=False, buffer_size=2**20
            ) as file:
                for batch in file.iter_batches(
                    batch_size=rows, columns=list(columns) if columns else None
                ):
                    yield {name: _to_numpy(batch.column(name)) for name in batch.schema.names}
        except (pa.ArrowException, OSError, KeyError) as error:
            raise RecordError(f"{path} is damaged or no coalition table: {error}") from error


def _to_numpy(column: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False))
        return flat.reshape(len(column), column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False))
