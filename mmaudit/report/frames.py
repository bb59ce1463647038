"""A report's tables as tidy DataFrames; apart from the report because pandas and pyarrow take time to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmaudit.exceptions import RecordError
from mmaudit.report.labels import LABELS, coalition_names
from mmaudit.report.schema import MeasureResult
from mmaudit.report.tables import SCALAR_COLUMNS, read_chunks, table_columns

__all__ = ["measure_frame", "samples_frame"]

_PER_COALITION = ("prediction", "correct", "loglik", "confidence", "entropy")
_PER_MODALITY = (
    "response_prediction_exact",
    "response_score_exact",
    "response_loglik_exact",
    "response_prediction_zero",
    "response_score_zero",
    "response_loglik_zero",
    "response_size",
)


def measure_frame(result: MeasureResult, limit: int | None = None) -> pd.DataFrame:
    """Lay a measure's rows out as a table.

    Args:
        result: The measure.
        limit: At most so many rows.

    Returns:
        One column per label, then ``value``, ``low``, ``high`` (float, missing where undefined), ``n`` (int), ``method``,
        ``undefined``, ``warning`` (text or missing) and ``unit``.
    """
    rows = result.rows if limit is None else result.rows[:limit]
    keys = tuple(rows[0].labels) if rows else LABELS.get(result.key, ())
    columns: dict[str, pd.Series] = {
        key: pd.Series([row.labels.get(key) for row in rows], dtype="str") for key in keys
    }
    estimates = [row.estimate for row in rows]
    for name in ("value", "low", "high"):
        columns[name] = pd.Series([getattr(e, name) for e in estimates], dtype="float64")
    columns["n"] = pd.Series([e.n for e in estimates], dtype="int64")
    columns["method"] = pd.Series([e.method for e in estimates], dtype="str")
    columns["undefined"] = pd.Series([e.undefined for e in estimates], dtype="str")
    columns["warning"] = pd.Series([e.warning for e in estimates], dtype="str")
    columns["unit"] = pd.Series([result.unit] * len(rows), dtype="str")
    return pd.DataFrame(columns)


def samples_frame(
    folder: Path, modalities: Sequence[str], limit: int | None = None
) -> pd.DataFrame:
    """Read the coalition table with a column per coalition and per modality.

    Args:
        folder: Where the shards lie.
        modalities: Names in the order of the spec.
        limit: At most so many rows, the first of the data.

    Returns:
        One row per sample (per segment, label or predicted number of it) in the order of the data, with the columns that the task
        has; stored scores are left out.

    Raises:
        RecordError: If the table is damaged or was made for other modalities.
    """
    if limit is not None and limit < 0:
        raise RecordError(f"expected a limit of at least 0 samples, found {limit}")
    names = coalition_names(modalities)
    chunks: list[pd.DataFrame] = []
    have = 0
    rows = 16_384 if limit is None else min(16_384, max(limit, 1))
    kept = set(table_columns(folder))
    over_coalitions, over_modalities, scalars = (
        [name for name in known if name in kept]
        for known in (_PER_COALITION, _PER_MODALITY, (*SCALAR_COLUMNS, "truth"))
    )
    for chunk in read_chunks(folder, [*scalars, *over_coalitions, *over_modalities], rows=rows):
        taken = (
            len(chunk["position"]) if limit is None else min(len(chunk["position"]), limit - have)
        )
        columns: dict[str, np.ndarray] = {
            name: chunk[name][:taken] for name in scalars if name != "present"
        }
        for m, modality in enumerate(modalities):
            columns[f"present[{modality}]"] = (chunk["present"][:taken] >> m & 1).astype(bool)
        for column in over_coalitions:
            _spread(columns, chunk[column][:taken], column, names)
        for column in over_modalities:
            _spread(columns, chunk[column][:taken], column, modalities)
        chunks.append(pd.DataFrame(columns))
        have += taken
        if limit is not None and have >= limit:
            break
    frame = pd.concat(chunks, ignore_index=True) if len(chunks) > 1 else chunks[0]
    return frame.sort_values("position", kind="stable", ignore_index=True)


def _spread(
    columns: dict[str, np.ndarray], values: np.ndarray, column: str, names: Sequence[str]
) -> None:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise RecordError(
            f"column '{column}' of the table has {values.shape[1:]} entries per sample, expected {len(names)}: "
            "the table belongs to another audit"
        )
    for index, name in enumerate(names):
        columns[f"{column}[{name}]"] = values[:, index]
