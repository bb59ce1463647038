"""One streaming pass over the coalition table that keeps everything the measures and their intervals need.

The table may hold a million samples and a sample thousands of coalition columns. What is kept are sums over *units*, the
things that are resampled: groups where samples were grouped, else samples. Where there are more units than memory is
granted for, a hash of seed and id puts each into one of a fixed number of blocks, and the blocks are resampled. Blocks
differ in size, so every statistic is a ratio of two sums, numerator and count. A systematic assignment (every
4,096th sample) would carry the order of the data into the intervals; a hash does not.

Memory: about 64 MB of sums whatever the number of samples (more only where the number of classes forces it, see
``LEAST_BLOCKS``), and 8 bytes for each distinct group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.measures.shapley import interaction_matrix, modality_pairs, shapley_matrix
from mmaudit.measures.units import distinct_keys, place_units, unit_keys
from mmaudit.report.tables import NOTHING, read_chunks
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "LEAST_BLOCKS",
    "MOST_UNITS",
    "VALUE_COLUMNS",
    "Limits",
    "Score",
    "UnitSums",
    "bootstrap_weights",
    "check_chunk",
    "class_coalitions",
    "collect_sums",
    "finite_rows",
    "limits",
]

Score: TypeAlias = Literal["accuracy", "log-likelihood"]
"""The worth of a coalition: the share of correct samples, or the mean log-likelihood of the target (nats)."""

MOST_UNITS = 4096
LEAST_BLOCKS = 128
"""Never fewer blocks than this: with 128 the end of an interval varies by about 6 % of its half-width."""

_OVERALL_BYTES = 48 * 2**20
_CLASS_BYTES = 16 * 2**20
_CHUNK_BYTES = 8 * 2**20
_WEIGHT_BYTES = 24 * 2**20
_REPLICATES_AT_ONCE = 250
_MOST_ROWS = 8_192
_MOST_NAMED = 20
_PLAIN_CLASS_COALITIONS = 5


class _Columns:
    """Where each statistic lies in a vector of sums."""

    def __init__(self, widths: dict[str, int]) -> None:
        self.slices: dict[str, slice] = {}
        start = 0
        for name, width in widths.items():
            self.slices[name] = slice(start, start + width)
            start += width
        self.length = start


@dataclass
class UnitSums:
    """Sums over resampling units, overall and for each class.

    Methods take ``index``: a class, or ``None`` for all samples. They return arrays whose first axis
    runs over the units that hold at least one such sample, in an order that depends on seed and ids
    but not on the order of the table.

    Args:
        modalities: Their names, M of them.
        classes: Names of the K classes.
        grouped: Whether units are groups.
        seed: Of the blocks and of the bootstrap.
        replicates: Bootstrap replicates.
        units: Rows of the overall sums.
        class_units: Rows of the sums of one class.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    grouped: bool
    seed: int
    replicates: int
    units: int
    class_units: int
    groups: int | None = None
    """Distinct groups in the table; ``None`` where samples are not grouped."""
    samples: int = 0
    """Samples that went into the sums."""
    left_out: int = 0
    """Samples left out because a value was not finite."""
    left_out_ids: tuple[str, ...] = ()
    """Ids of the first of them."""
    _weights: dict[int, IntArray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        M, K = len(self.modalities), len(self.classes)
        self._overall_columns = _overall_columns(M)
        self._class_columns = _class_columns(M)
        self._overall = np.zeros((self.units, self._overall_columns.length))
        self._by_class = np.zeros((self.class_units, K, self._class_columns.length))
        self._size = np.zeros((K, M))
        self._shapley = shapley_matrix(M)
        self._interactions = interaction_matrix(M)

    # what measures read ---------------------------------------------------------------------------

    def cells(self) -> Iterator[tuple[str, int | None]]:
        """Label and index of all samples together, then of each class."""
        yield "all", None
        for index, name in enumerate(self.classes):
            yield name, index

    def coalitions(self, index: int | None) -> IntArray:
        """Coalitions whose accuracy is kept, in the order of :meth:`correct`.

        Overall all; for a class, where M > 5, the empty and the grand one, single modalities and all
        but one.
        """
        M = len(self.modalities)
        return np.arange(2**M) if index is None else class_coalitions(M)

    def counts(self, index: int | None) -> FloatArray:
        """Samples in each unit, shape ``(U, 1)``."""
        return self._sums("count", index)

    def correct(self, index: int | None) -> FloatArray:
        """Correct samples for each of :meth:`coalitions`, shape ``(U, C)``."""
        return self._sums("correct", index)

    def loglik(self) -> FloatArray:
        """Summed log-likelihood of the target for every coalition, nats, shape ``(U, 2**M)``."""
        return self._sums("loglik", None)

    def contributions(self, score: Score, index: int | None) -> FloatArray:
        """Summed Shapley values of the per-sample game, shape ``(U, M)``."""
        if index is None:
            return self._game(score) @ self._shapley.T
        return self._sums(f"contribution {score}", index)

    def interactions(self, score: Score, index: int | None) -> FloatArray:
        """Summed pairwise interactions, shape ``(U, M (M-1) / 2)``, pairs as in ``modality_pairs``."""
        if index is None:
            return self._game(score) @ self._interactions.T
        return self._sums(f"interaction {score}", index)

    def responses(self, quantity: str, empty: str, index: int | None) -> FloatArray:
        """Summed response ``score`` or ``loglik`` over samples that have the modality, shape ``(U, M)``."""
        return self._sums(f"response_{quantity}_{empty}", index)

    def present(self, index: int | None) -> FloatArray:
        """Samples that have each modality, shape ``(U, M)``."""
        return self._sums("present", index)

    def absent(self, index: int | None) -> np.ndarray:
        """Modalities that no sample has, shape ``(M,)``, bool."""
        return np.asarray(self.present(index).sum(axis=0) == 0)

    def response_size(self, index: int | None) -> FloatArray:
        """Largest absolute entry of any exact response, logits, shape ``(M,)``."""
        size = self._size[[index]] if index is not None else self._size
        return np.asarray(size.max(axis=0))

    def silent(self, index: int | None) -> np.ndarray:
        """Modalities whose response is numerically nothing in every sample, shape ``(M,)``, bool.

        Nothing: at most ``NOTHING`` of the largest response of any modality in the table.
        """
        largest = self.response_size(None).max()
        return np.asarray(self.response_size(index) <= NOTHING * largest)

    def group_count(self, index: int | None, counts: FloatArray) -> int | None:
        """Independent groups among units with a positive count; ``None`` where samples are not grouped.

        Exact overall; for a class whose groups share blocks, the number of blocks, which is at most
        the number of groups.
        """
        if self.groups is None:
            return None
        used = int((counts > 0).sum())
        whole = index is None and used == int((self.counts(None) > 0).sum())
        return self.groups if whole else used

    def means(self, index: int | None = None) -> dict[str, FloatArray]:
        """Point values, float64: ``accuracy``, ``log-likelihood`` (overall only) and the responses."""
        count, present = self.counts(index).sum(), self.present(index).sum(axis=0)
        with np.errstate(invalid="ignore"):
            values = {"accuracy": self.correct(index).sum(axis=0) / count}
            if index is None:
                values["log-likelihood"] = self.loglik().sum(axis=0) / count
            for empty in ("exact", "zero"):
                for quantity in ("score", "loglik"):
                    name = f"response_{quantity}_{empty}"
                    values[name] = self._sums(name, index).sum(axis=0) / present
        return values

    def weights(self, units: int) -> IntArray:
        """Bootstrap weights for so many units, shape ``(replicates, units)``; recent ones are kept."""
        if units not in self._weights:
            while sum(kept.nbytes for kept in self._weights.values()) > _WEIGHT_BYTES:
                del self._weights[next(iter(self._weights))]
            self._weights[units] = bootstrap_weights(units, self.replicates, self.seed)
        return self._weights[units]

    def bootstrap(self, columns: FloatArray) -> FloatArray:
        """Sums of columns in every bootstrap replicate.

        Args:
            columns: Unit sums as any method returns them, shape ``(U, c)``.

        Returns:
            Shape ``(replicates, c)``; a statistic's replicates are ratios of two such sums.
        """
        weights = self.weights(len(columns))
        drawn = np.empty((len(weights), columns.shape[1]))
        for first in range(0, len(weights), _REPLICATES_AT_ONCE):
            rows = slice(first, first + _REPLICATES_AT_ONCE)
            drawn[rows] = weights[rows].astype(np.float64) @ columns
        return drawn

    def settings(self) -> dict[str, Any]:
        """What a reader needs to repeat the intervals, and the samples that are not in them."""
        found: dict[str, Any] = {
            "seed": self.seed,
            "replicates": self.replicates,
            "resampled": "groups" if self.grouped else "samples",
            "units": int((self.counts(None) > 0).sum()),
        }
        if self.left_out:
            found["left_out_not_finite"] = self.left_out
            found["left_out_ids"] = list(self.left_out_ids)
        return found

    def _game(self, score: Score) -> FloatArray:
        return self._sums("correct" if score == "accuracy" else "loglik", None)

    def _sums(self, name: str, index: int | None) -> FloatArray:
        if index is None:
            table, where = self._overall, self._overall_columns.slices
        else:
            table, where = self._by_class[:, index], self._class_columns.slices
        return table[table[:, 0] > 0, where[name]]

    # what the pass adds ---------------------------------------------------------------------------

    def add(self, chunk: dict[str, np.ndarray], unit: IntArray, class_unit: IntArray) -> None:
        """Add rows of the coalition table.

        Args:
            chunk: Column -> rows, as ``read_chunks`` yields them.
            unit: Row of the overall sums for each sample, shape ``(n,)``.
            class_unit: Row of the sums of a class for each sample, shape ``(n,)``.

        Raises:
            RecordError: If columns have another number of coalitions, modalities or classes.
        """
        M, K = len(self.modalities), len(self.classes)
        check_chunk(chunk, M, K)
        has = (chunk["present"][:, None] >> np.arange(M) & 1).astype(bool)
        finite = finite_rows(chunk, M)
        responses = {name: np.where(has, chunk[name], 0.0) for name in _RESPONSES}
        if not finite.all():
            self.left_out += int((~finite).sum())
            room = _MOST_NAMED - len(self.left_out_ids)
            self.left_out_ids += tuple(str(i) for i in chunk["sample_id"][~finite][:room])
        count = np.ones((len(has), 1))
        correct = chunk["correct"].astype(np.float64)
        loglik = chunk["loglik"].astype(np.float64)
        target = chunk["target"].astype(np.int64)
        shared = [has, *(responses[name] for name in _RESPONSES[:-1])]
        overall = np.hstack([count, correct, loglik, *shared])[finite]
        _scatter(self._overall, overall, unit[finite])
        loglik[~finite] = 0.0
        of_class = [count, correct[:, class_coalitions(M)]]
        for game in (correct, loglik):
            of_class += [game @ self._shapley.T, game @ self._interactions.T]
        rows = np.hstack([*of_class, *shared])[finite]
        flat = self._by_class.reshape(-1, self._class_columns.length)
        _scatter(flat, rows, (class_unit * K + target)[finite])
        np.maximum.at(self._size, target[finite], responses["response_size"][finite])
        self.samples += int(finite.sum())


_RESPONSES = (
    "response_score_exact",
    "response_loglik_exact",
    "response_score_zero",
    "response_loglik_zero",
    "response_size",
)

VALUE_COLUMNS = ("sample_id", "target", "present", "correct", "loglik", *_RESPONSES)
"""Columns of the coalition table that :meth:`UnitSums.add` reads."""


class Limits(NamedTuple):
    """How much of a table is kept at a time."""

    units: int
    """Units of the overall sums, at most."""
    class_units: int
    """Units of the sums of one class, at most."""
    rows: int
    """Rows of a chunk."""


def limits(M: int, K: int, most_units: int = MOST_UNITS) -> Limits:
    """What fits into the memory that is granted, for M modalities and K classes."""
    row = 8 * _overall_columns(M).length
    class_row = 8 * _class_columns(M).length * K
    return Limits(
        min(most_units, max(LEAST_BLOCKS, _OVERALL_BYTES // row)),
        min(most_units, max(LEAST_BLOCKS, _CLASS_BYTES // class_row)),
        max(64, min(_MOST_ROWS, _CHUNK_BYTES // row)),
    )


def collect_sums(
    folder: Path,
    *,
    modalities: Sequence[str],
    classes: Sequence[str],
    grouped: bool,
    seed: int,
    replicates: int = 2000,
    most_units: int = MOST_UNITS,
) -> UnitSums:
    """Read a coalition table once for its units and once for its values.

    Args:
        folder: Where the shards lie.
        modalities: Names in the order of the table's bits.
        classes: Names of all classes.
        grouped: Whether to resample the ``group`` column instead of samples.
        seed: Of the blocks and of the bootstrap.
        replicates: Bootstrap replicates, at least 100.
        most_units: Beyond so many samples or groups, blocks are resampled.

    Returns:
        The sums. Ids are taken to be unique: samples with equal ids count as one unit.

    Raises:
        RecordError: If the table is missing, damaged, empty, has no group for a sample, or does not
            fit the modalities and classes.
    """
    if replicates < 100:
        raise RecordError(f"expected at least 100 bootstrap replicates, got {replicates}")
    most, most_of_class, rows = limits(len(modalities), len(classes), most_units)
    column = "group" if grouped else "sample_id"
    stop_at = None if grouped else max(most, most_of_class)
    known = distinct_keys(folder, column, seed, stop_at=stop_at)
    if not len(known):
        raise RecordError(f"the table in {folder} has no rows; there is nothing to measure")
    sums = UnitSums(
        modalities=tuple(modalities),
        classes=tuple(classes),
        grouped=grouped,
        seed=seed,
        replicates=replicates,
        units=min(most, len(known)),
        class_units=min(most_of_class, len(known)),
        groups=len(known) if grouped else None,
    )
    columns = [*VALUE_COLUMNS, "group"] if grouped else VALUE_COLUMNS
    for chunk in read_chunks(folder, columns, rows=rows):
        keys = unit_keys(chunk[column], seed)
        sums.add(chunk, place_units(keys, known, most), place_units(keys, known, most_of_class))
    if not sums.samples:
        raise RecordError(f"no sample of the table in {folder} has only finite values")
    return sums


def bootstrap_weights(units: int, replicates: int, seed: int) -> IntArray:
    """How often each unit is drawn in each bootstrap replicate.

    Args:
        units: Units to draw from, and draws for each replicate.
        replicates: Replicates R.
        seed: Equal seeds give equal draws.

    Returns:
        Shape ``(R, units)``, uint8 (a count is about Poisson with mean 1, never near 255); rows sum to
        ``units``.
    """
    generator = np.random.default_rng(seed)
    weights = np.empty((replicates, units), np.uint8)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, units, units, dtype=np.uint32), minlength=units)
    return weights


def _scatter(table: FloatArray, rows: FloatArray, where: IntArray) -> None:
    """Add each row to the row of the table that it belongs to."""
    if not len(where):
        return
    order = np.argsort(where, kind="stable")
    places, starts = np.unique(where[order], return_index=True)
    table[places] += np.add.reduceat(rows[order], starts, axis=0)


def finite_rows(chunk: dict[str, np.ndarray], M: int) -> np.ndarray:
    """Which rows have only finite values, shape ``(n,)``, bool; of a modality that a sample lacks, none is asked for."""
    lacks = (chunk["present"][:, None] >> np.arange(M) & 1) == 0
    finite = np.isfinite(chunk["loglik"]).all(axis=1)
    for name in _RESPONSES:
        finite &= (np.isfinite(chunk[name]) | lacks).all(axis=1)
    return np.asarray(finite)


def check_chunk(chunk: dict[str, np.ndarray], M: int, K: int) -> None:
    """Refuse rows of another number of modalities or classes.

    Raises:
        RecordError: With what came and what was expected.
    """
    width = chunk["correct"].shape[1]
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


def _overall_columns(M: int) -> _Columns:
    return _Columns({"count": 1, "correct": 2**M, "loglik": 2**M, **_shared_widths(M)})


def _class_columns(M: int) -> _Columns:
    pairs = len(modality_pairs(M))
    return _Columns(
        {
            "count": 1,
            "correct": len(class_coalitions(M)),
            "contribution accuracy": M,
            "interaction accuracy": pairs,
            "contribution log-likelihood": M,
            "interaction log-likelihood": pairs,
            **_shared_widths(M),
        }
    )


def _shared_widths(M: int) -> dict[str, int]:
    return {"present": M, **dict.fromkeys(_RESPONSES[:-1], M)}
