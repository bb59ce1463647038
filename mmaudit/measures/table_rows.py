"""What is read of the coalition table for measures, how its rows are checked, and how the sums of them are laid out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.measures.shapley import modality_pairs
from mmaudit.report.labels import scores_of
from mmaudit.typing import IntArray, TaskName

__all__ = [
    "LEAST_BLOCKS",
    "MOST_UNITS",
    "VALUE_COLUMNS",
    "Limits",
    "Slices",
    "check_chunk",
    "class_coalitions",
    "class_columns",
    "finite_rows",
    "limits",
    "overall_columns",
    "response_columns",
    "value_columns",
]

MOST_UNITS = 4096
LEAST_BLOCKS = 128
"""Never fewer blocks than this: with 128 the end of an interval varies by about 6 % of its half-width."""

_OVERALL_BYTES = 48 * 2**20
_CLASS_BYTES = 16 * 2**20
_CHUNK_BYTES = 8 * 2**20
_MOST_ROWS = 8_192
_PLAIN_CLASS_COALITIONS = 5

_LOGLIKS = ("response_loglik_exact", "response_loglik_zero")
_RESPONSES = (
    "response_score_exact",
    "response_loglik_exact",
    "response_score_zero",
    "response_loglik_zero",
)

VALUE_COLUMNS = (
    "sample_id",
    "target",
    "present",
    "correct",
    "loglik",
    *_RESPONSES,
    "response_size",
)
"""Columns that the sums of a classification are made of."""


def value_columns(task: TaskName) -> tuple[str, ...]:
    """Columns of the coalition table that its sums are made of."""
    if task == "regression":
        return ("sample_id", "target", "truth", "present", "loglik", *_LOGLIKS, "response_size")
    return VALUE_COLUMNS


def response_columns() -> tuple[str, ...]:
    """Names of the sums over responses, M columns each; of a regression the score is that of squared errors."""
    return _RESPONSES


def finite_rows(chunk: dict[str, np.ndarray], M: int) -> np.ndarray:
    """Which rows have only finite values, shape ``(n,)``, bool; of a modality that a sample lacks, none is asked for."""
    lacks = (chunk["present"][:, None] >> np.arange(M) & 1) == 0
    finite = np.isfinite(chunk["loglik"]).all(axis=1)
    for name in (*_RESPONSES, "response_size"):
        if name in chunk:
            finite &= (np.isfinite(chunk[name]) | lacks).all(axis=1)
    if "truth" in chunk:
        finite &= np.isfinite(chunk["truth"])
    return np.asarray(finite)


def check_chunk(chunk: dict[str, np.ndarray], M: int, K: int) -> None:
    """Refuse rows of another number of modalities or classes.

    Raises:
        RecordError: With what came and what was expected.
    """
    width = chunk["loglik"].shape[1]
    if width != 2**M:
        raise RecordError(
            f"the table holds {width} coalitions, but {M} modalities have {2**M}; it belongs to "
            f"another spec"
        )
    target = chunk["target"]
    if len(target) and not 0 <= target.min() <= target.max() < K:
        wrong = target.min() if target.min() < 0 else target.max()
        raise RecordError(
            f"the table holds target {wrong}, but {K} classes are 0 to {K - 1}; list all classes"
        )


def class_coalitions(M: int) -> IntArray:
    """Coalitions kept for a class: all up to five modalities, then the empty and the grand one, singles and all but one."""
    if M <= _PLAIN_CLASS_COALITIONS:
        return np.arange(2**M)
    single = 1 << np.arange(M)
    return np.unique(np.concatenate([[0, 2**M - 1], single, 2**M - 1 - single]))


class Slices:
    """Where each statistic lies in a vector of sums."""

    def __init__(self, widths: dict[str, int]) -> None:
        self.slices: dict[str, slice] = {}
        start = 0
        for name, width in widths.items():
            self.slices[name] = slice(start, start + width)
            start += width
        self.length = start


def overall_columns(M: int, K: int, task: TaskName) -> Slices:
    """Sums over all rows of a unit: count, the two games, responses; of a regression also the spread of the target."""
    widths = {"count": 1, "score": 2**M, "loglik": 2**M, **_shared(M, task)}
    if task == "regression" and K > 1:
        # R2 of several numbers is the mean of their R2, which hangs on the spread of each of them.
        widths |= {"squares": K, "response_squares": K * M}
    return Slices(widths)


def class_columns(M: int, task: TaskName) -> Slices:
    """Sums over the rows of a unit that count for one class, label or number."""
    pairs = len(modality_pairs(M))
    widths = {"count": 1, "score": len(class_coalitions(M))}
    for score in scores_of(task):
        widths |= {f"contribution {score}": M, f"interaction {score}": pairs}
    return Slices({**widths, **_shared(M, task)})


def _shared(M: int, task: TaskName) -> dict[str, int]:
    widths = {"present": M, **dict.fromkeys(_RESPONSES, M)}
    return {**widths, "square": 1, "response_square": M} if task == "regression" else widths


class Limits(NamedTuple):
    """How much of a table is kept at a time."""

    units: int
    """Units of the overall sums, at most."""
    class_units: int
    """Units of the sums of one class, at most."""
    rows: int
    """Rows of a chunk."""


def limits(M: int, K: int, most_units: int = MOST_UNITS, task: TaskName = "multiclass") -> Limits:
    """What fits into the memory that is granted, for M modalities and K classes."""
    row = 8 * overall_columns(M, K, task).length
    class_row = 8 * class_columns(M, task).length * K
    return Limits(
        min(most_units, max(LEAST_BLOCKS, _OVERALL_BYTES // row)),
        min(most_units, max(LEAST_BLOCKS, _CLASS_BYTES // class_row)),
        max(64, min(_MOST_ROWS, _CHUNK_BYTES // row)),
    )
