"""The per-sample coalition table: its columns, and how to read it without torch.

One row is one sample; columns over coalitions are fixed-size lists of length ``2**M`` in bit order (``mmaudit.typing``),
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

__all__ = [
    "LEAST_LOGLIK",
    "NOTHING",
    "SCALAR_COLUMNS",
    "TIE",
    "coalition_schema",
    "read_chunks",
    "shard_paths",
]

LEAST_LOGLIK = -18.420681
"""Log-likelihoods of responses are clamped at log(1e-8), as in AGM's released code (Li et al. 2023)."""

TIE = 1e-6
"""Classes of a response tie within this share of the sample's largest absolute class score; above float32 rounding."""

NOTHING = 1e-5
"""A response is none where no entry, less its class mean, exceeds this share of the sample's largest absolute score."""

SCALAR_COLUMNS = ("sample_id", "position", "target", "group", "present")


def coalition_schema(modalities: int, classes: int, *, logits: bool = False) -> pa.Schema:
    """Columns of the coalition table.

    Args:
        modalities: M.
        classes: K, used where logits are stored.
        logits: Whether the class scores of every coalition are stored too.

    Returns:
        ``sample_id`` (string), ``position`` (int64, place in the data), ``target`` (int32), ``group`` (string or null),
        ``present`` (int32, bit m set where the sample has modality m); per coalition ``prediction`` (int32), ``correct``
        (uint8), ``loglik`` (float32, nats, log-likelihood of the target), ``confidence`` (float32, probability of the
        predicted class), ``entropy`` (float32, nats); per modality, for ``exact`` and ``zero``: ``response_prediction_*``
        (int32), ``response_score_*`` (float32 in [0, 1], 1/c where c classes tie), ``response_loglik_*`` (float32, nats,
        at least -18.42), and ``response_size`` (float32, largest absolute entry of the exact response less its class mean).
    """
    S, M = 2**modalities, modalities
    columns: list[tuple[str, Any]] = [
        ("sample_id", pa.string()),
        ("position", pa.int64()),
        ("target", pa.int32()),
        ("group", pa.string()),
        ("present", pa.int32()),
        ("prediction", pa.list_(pa.int32(), S)),
        ("correct", pa.list_(pa.uint8(), S)),
        ("loglik", pa.list_(pa.float32(), S)),
        ("confidence", pa.list_(pa.float32(), S)),
        ("entropy", pa.list_(pa.float32(), S)),
    ]
    for empty in ("exact", "zero"):
        columns += [
            (f"response_prediction_{empty}", pa.list_(pa.int32(), M)),
            (f"response_score_{empty}", pa.list_(pa.float32(), M)),
            (f"response_loglik_{empty}", pa.list_(pa.float32(), M)),
        ]
    columns.append(("response_size", pa.list_(pa.float32(), M)))
    if logits:
        columns.append(("logits", pa.list_(pa.float32(), S * classes)))
    return pa.schema(columns)


def shard_paths(folder: Path) -> list[Path]:
    """Shards of a table in a fixed order; empty where there is none."""
    return sorted(folder.glob("part-*.parquet"))


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
