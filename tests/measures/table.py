"""Writes small coalition tables from arrays; the torch evidence that fills real ones is tested elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import log_softmax

from mmaudit.measures.mono_modal_response import (
    logit_scale,
    mono_modal_responses,
    response_logliks,
    response_scores,
    response_sizes,
)
from mmaudit.report.tables import coalition_schema
from mmaudit.typing import TaskName


def columns_from_logits(logits, targets, *, present=None, groups=None, ids=None):
    """Columns of the table for logits (2**M, n, K); where a modality is absent, S and S + m agree already."""
    M = len(logits).bit_length() - 1
    n = logits.shape[1]
    bits = np.full(n, 2**M - 1) if present is None else np.asarray(present)
    loglik = log_softmax(logits, axis=2)
    best = logits.argmax(axis=2)
    columns = {
        "sample_id": [str(i) for i in range(n)] if ids is None else list(ids),
        "position": np.arange(n),
        "target": np.asarray(targets, np.int32),
        "group": [None] * n if groups is None else [str(g) for g in groups],
        "present": bits.astype(np.int32),
        "prediction": best.T,
        "correct": (best == targets).T,
        "loglik": np.take_along_axis(loglik, targets[None, :, None], axis=2)[..., 0].T,
        "confidence": np.exp(loglik).max(axis=2).T,
        "entropy": -(np.exp(loglik) * loglik).sum(axis=2).T,
        "response_size": response_sizes(logits).T,
    }
    for empty in ("exact", "zero"):
        responses = mono_modal_responses(logits, empty)
        columns[f"response_prediction_{empty}"] = responses.argmax(axis=2).T
        columns[f"response_score_{empty}"] = response_scores(
            responses, targets, logit_scale(logits)
        ).T
        columns[f"response_loglik_{empty}"] = response_logliks(responses, targets).T
    return columns


def columns_from_games(correct, loglik=None, *, targets=None, **others):
    """Columns for given correct (n, 2**M), with responses that say nothing in particular."""
    correct = np.asarray(correct)
    n, S = correct.shape
    targets = np.zeros(n, np.int64) if targets is None else np.asarray(targets)
    logits = np.zeros((S, n, max(2, int(targets.max(initial=0)) + 1)))
    columns = columns_from_logits(logits, targets, **others)
    columns["correct"] = correct
    if loglik is not None:
        columns["loglik"] = loglik
    M = S.bit_length() - 1
    columns["response_size"] = np.ones((n, M))
    return columns


def columns_from_numbers(predictions, truth, *, cells=None, present=None, groups=None, ids=None):
    """Columns of the table of a regression, for predictions (2**M, n) of numbers (n,)."""
    predictions, truth = np.asarray(predictions, float), np.asarray(truth, float)
    S, n = predictions.shape
    M = S.bit_length() - 1
    responses = mono_modal_responses(predictions[..., None], "exact")[..., 0]
    alone = {"exact": predictions[0] + responses, "zero": responses + predictions[0] / M}
    columns = {
        "sample_id": [str(i) for i in range(n)] if ids is None else list(ids),
        "position": np.arange(n),
        "target": np.zeros(n, np.int32) if cells is None else np.asarray(cells, np.int32),
        "truth": truth,
        "group": [None] * n if groups is None else [str(g) for g in groups],
        "present": np.full(n, S - 1) if present is None else np.asarray(present),
        "prediction": predictions.T,
        "loglik": -((predictions - truth) ** 2).T,
        "response_size": np.abs(responses).T,
    }
    for empty, prediction in alone.items():
        columns[f"response_prediction_{empty}"] = prediction.T
        columns[f"response_loglik_{empty}"] = -((prediction - truth) ** 2).T
    return columns


def write_table(folder: Path, columns, *, shards: int = 1, task: TaskName = "multiclass") -> Path:
    """Write columns as ``part-*.parquet`` with page checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    M = np.asarray(columns["response_size"]).shape[1]
    schema = coalition_schema(M, 0, task=task)
    n = len(columns["sample_id"])
    for shard, rows in enumerate(np.array_split(np.arange(n), shards)):
        arrays = []
        for field in schema:
            values = columns[field.name]
            if pa.types.is_fixed_size_list(field.type):
                flat = np.asarray(values)[rows].ravel()
                flat = pa.array(flat.astype(field.type.value_type.to_pandas_dtype()))
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
            elif isinstance(values, list):
                arrays.append(pa.array([values[r] for r in rows], type=field.type))
            else:
                arrays.append(pa.array(np.asarray(values)[rows], type=field.type))
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema),
            folder / f"part-{shard:05d}.parquet",
            write_page_checksum=True,
            row_group_size=4096,
        )
    return folder
