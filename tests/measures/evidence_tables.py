"""Evidence for measures that read a coalition table, from arrays of answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmaudit.measures.evidence import Evidence
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.report.tables import coalition_schema
from tests.measures.table import columns_from_games, write_table

NAMES = tuple("abcdefghijkl")


def evidence_of(
    folder: Path,
    correct,
    *,
    confidence=None,
    loglik=None,
    present=None,
    groups=None,
    ids=None,
    seed=0,
    shards=1,
    response_size=None,
) -> Evidence:
    """Of a classification with two classes; ``correct`` and the others have shape (n, 2**M)."""
    correct = np.asarray(correct)
    M = correct.shape[1].bit_length() - 1
    loglik = np.log(np.where(correct, 0.8, 0.2)) if loglik is None else loglik
    columns = columns_from_games(correct, loglik, present=present, groups=groups, ids=ids)
    if confidence is not None:
        columns["confidence"] = np.asarray(confidence, np.float32)
    if response_size is not None:
        columns["response_size"] = response_size
    folder = write_table(folder / "coalitions", columns, shards=shards)
    return Evidence(folder, NAMES[:M], ("no", "yes"), groups is not None, seed, 500)


def regression_of(folder: Path, truth, predictions, *, present=None, targets=None) -> Evidence:
    """Of a regression: true numbers (n,) and predictions (n, 2**M) of one number, or of that in ``targets``."""
    n, S = predictions.shape
    M = S.bit_length() - 1
    targets = np.zeros(n, np.int32) if targets is None else np.asarray(targets, np.int32)
    share = predictions @ shapley_matrix(M).T
    columns = {
        "sample_id": [str(i) for i in range(n)],
        "position": np.arange(n),
        "target": targets,
        "truth": np.asarray(truth, np.float64),
        "group": [None] * n,
        "present": np.full(n, S - 1, np.int32)
        if present is None
        else np.asarray(present, np.int32),
        "prediction": predictions,
        "loglik": -((predictions - truth[:, None]) ** 2),
        "response_size": np.abs(share),
    }
    for empty, offset in (("exact", predictions[:, :1]), ("zero", 0.0)):
        columns[f"response_prediction_{empty}"] = share + offset
        columns[f"response_loglik_{empty}"] = -((share + offset - truth[:, None]) ** 2)
    D = int(targets.max()) + 1
    arrays = []
    schema = coalition_schema(M, D, task="regression")
    for field in schema:
        values = columns[field.name]
        if pa.types.is_fixed_size_list(field.type):
            flat = pa.array(np.ascontiguousarray(values).ravel()).cast(field.type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        else:
            arrays.append(pa.array(values, type=field.type))
    folder = folder / "coalitions"
    folder.mkdir(parents=True)
    table = pa.Table.from_arrays(arrays, schema=schema)
    pq.write_table(table, folder / "part-00000.parquet", write_page_checksum=True)
    names = tuple(str(d) for d in range(D))
    return Evidence(folder, NAMES[:M], names, False, 0, 500, "regression")


def find(result, **labels):
    rows = [row.estimate for row in result.rows if labels.items() <= row.labels.items()]
    assert len(rows) == 1, (labels, len(rows))
    return rows[0]


def wrong_and_right(rng, n, M, strength=0.35, classes=2):
    """A model of which each modality knows each sample or not: correct and confidence, (n, 2**M) each."""
    knows = rng.random((n, M)) < strength
    present = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(bool)
    known = (knows[:, None, :] & present).any(axis=2)
    correct = known | (rng.random((n, 1)) < 1 / classes)
    confidence = np.clip(0.5 + 0.45 * known - 0.1 * rng.random((n, 2**M)), 0.0, 1.0)
    return correct, confidence.astype(np.float32)
