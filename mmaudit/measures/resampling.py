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
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.measures.shapley import interaction_matrix, shapley_matrix
from mmaudit.measures.table_rows import (
    LEAST_BLOCKS,
    MOST_UNITS,
    check_chunk,
    class_coalitions,
    class_columns,
    finite_rows,
    limits,
    overall_columns,
    response_columns,
    value_columns,
)
from mmaudit.measures.target_spread import (
    Spreads,
    apart_from_mean,
    squared_columns,
    target_spreads,
)
from mmaudit.measures.units import distinct_keys, place_units, unit_keys
from mmaudit.report.labels import scores_of
from mmaudit.report.tables import NOTHING, read_chunks
from mmaudit.typing import FloatArray, IntArray, TaskName

__all__ = [
    "LEAST_BLOCKS",
    "MOST_UNITS",
    "Score",
    "UnitSums",
    "bootstrap_weights",
    "check_chunk",
    "class_coalitions",
    "collect_sums",
    "finite_rows",
    "limits",
]

Score: TypeAlias = Literal["accuracy", "log-likelihood", "R2", "negative squared error"]
"""The worth of a coalition: the share of correct rows, or the mean log-likelihood of the target (nats); of a regression R2, or
the mean negative squared error (squared unit of the target)."""

_WEIGHT_BYTES = 24 * 2**20
_REPLICATES_AT_ONCE = 250
_MOST_NAMED = 20


@dataclass
class UnitSums:
    """Sums over resampling units, overall and for each class.

    Methods take ``index``: a class (a label, a predicted number), or ``None`` for all rows. They return arrays whose first axis
    runs over the units that hold at least one such row, in an order that depends on seed and ids
    but not on the order of the table.

    Every estimate is a ratio of two sums over units. Those of accuracy and log-likelihood divide by :meth:`counts`; R2 divides by
    the spread of the target: what numerators have to be divided by says :meth:`weight`.

    Args:
        modalities: Their names, M of them.
        classes: Names of the K classes.
        grouped: Whether units are groups.
        seed: Of the blocks and of the bootstrap.
        replicates: Bootstrap replicates.
        units: Rows of the overall sums.
        class_units: Rows of the sums of one class.
        task: What the model predicts.
        spreads: Of a regression.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    grouped: bool
    seed: int
    replicates: int
    units: int
    class_units: int
    task: TaskName = "multiclass"
    spreads: Spreads | None = None
    groups: int | None = None
    """Distinct groups in the table; ``None`` where samples are not grouped."""
    samples: int = 0
    """Rows that went into the sums."""
    left_out: int = 0
    """Rows left out because a value was not finite."""
    left_out_ids: tuple[str, ...] = ()
    """Ids of the first of them."""
    _weights: dict[int, IntArray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        M, K = len(self.modalities), len(self.classes)
        self._overall_columns = overall_columns(M, K, self.task)
        self._class_columns = class_columns(M, self.task)
        self._overall = np.zeros((self.units, self._overall_columns.length))
        self._by_class = np.zeros((self.class_units, K, self._class_columns.length))
        self._totals = np.zeros((K if self.task == "regression" and K > 1 else 0, 2**M))
        self._size = np.zeros((K, M))
        self._shapley = shapley_matrix(M)
        self._interactions = interaction_matrix(M)

    # what measures read ---------------------------------------------------------------------------

    @property
    def scores(self) -> tuple[Score, Score]:
        """The two games, the primary one first: accuracy and log-likelihood, or R2 and negative squared error."""
        return cast("tuple[Score, Score]", scores_of(self.task))

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

    def weight(self, score: Score, index: int | None) -> FloatArray:
        """What sums of a score are divided by, shape ``(U, 1)``: counts, or for R2 the units' shares of the target's spread."""
        return self._sums("square" if score == "R2" else "count", index)

    def scale(self, score: Score, index: int | None) -> float:
        """Of what order the values of a score are: 1, of squared errors the variance of the target."""
        if score != "negative squared error" or self.spreads is None:
            return 1.0
        numbers, own = self.spreads.numbers, slice(None) if index is None else index
        variance = float(numbers.squares[own].sum() / max(numbers.count[own].sum(), 1))
        return variance if variance > 0 else 1.0

    def worths(self, score: Score, index: int | None) -> FloatArray:
        """What the units bring to the worth of each of :meth:`coalitions`, to be divided by :meth:`weight`.

        R2 of several numbers together is the mean of their R2 (numbers that do not vary are left out of it).

        Args:
            score: One of :attr:`scores`; the second of them only for all rows together.
            index: A class, or ``None``.

        Returns:
            Shape ``(U, C)``.

        Raises:
            ValueError: If the task has no such score.
        """
        if score not in self.scores:
            raise ValueError(f"task '{self.task}' has the scores {self.scores}, not '{score}'")
        if score != self.scores[0]:
            return self._sums("loglik", index)
        return self._judged("score", index)

    def nothing(self, score: Score, index: int | None) -> str | None:
        """Why a score has no value."""
        if not self.counts(index).sum():
            return "no sample of this class"
        if score == "R2" and self.weight(score, index).sum() == 0:
            return (
                "R2 divides by the spread of the target, and the target is the same in all samples"
            )
        return None

    def correct(self, index: int | None) -> FloatArray:
        """Correct rows for each of :meth:`coalitions`, shape ``(U, C)``; of a regression see :meth:`worths`."""
        return self.worths("accuracy", index)

    def loglik(self) -> FloatArray:
        """Summed log-likelihood of the target (negative squared error) for every coalition, shape ``(U, 2**M)``."""
        return self._sums("loglik", None)

    def contributions(self, score: Score, index: int | None) -> FloatArray:
        """Summed Shapley values of the per-row game, shape ``(U, M)``, to be divided by :meth:`weight`."""
        if index is None:
            return self.worths(score, None) @ self._shapley.T
        return self._sums(f"contribution {score}", index)

    def interactions(self, score: Score, index: int | None) -> FloatArray:
        """Summed pairwise interactions, shape ``(U, M (M-1) / 2)``, pairs as in ``modality_pairs``."""
        if index is None:
            return self.worths(score, None) @ self._interactions.T
        return self._sums(f"interaction {score}", index)

    def responses(self, quantity: str, empty: str, index: int | None) -> FloatArray:
        """Summed response ``score`` or ``loglik`` over rows that have the modality, shape ``(U, M)``.

        ``loglik`` is to be divided by :meth:`present`, ``score`` by :meth:`response_weight`.
        """
        name = f"response_{quantity}_{empty}"
        return self._judged(name, index) if quantity == "score" else self._sums(name, index)

    def response_weight(self, index: int | None) -> FloatArray:
        """What sums of response scores are divided by, shape ``(U, M)``: rows that have the modality, for R2 their spread."""
        return self._sums("response_square" if self.task == "regression" else "present", index)

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

        Nothing: at most ``NOTHING`` of the largest response of any modality in the table; of a regression of the largest to the
        same number, since another may be in another unit.
        """
        if self.task == "regression":
            nothing = self._size <= NOTHING * self._size.max(axis=1, keepdims=True)
            return np.asarray(nothing.all(axis=0) if index is None else nothing[index])
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
        """Point values, float64: the scores (the second overall only) and the responses."""
        count, present = self.counts(index).sum(), self.present(index).sum(axis=0)
        first, second = self.scores
        with np.errstate(invalid="ignore"):
            values: dict[str, FloatArray] = {
                first: self.worths(first, index).sum(axis=0) / self.weight(first, index).sum()
            }
            if index is None:
                values[second] = self.loglik().sum(axis=0) / count
            for empty in ("exact", "zero"):
                for quantity, by in (
                    ("score", self.response_weight(index).sum(axis=0)),
                    ("loglik", present),
                ):
                    name = f"response_{quantity}_{empty}"
                    values[name] = self.responses(quantity, empty, index).sum(axis=0) / by
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

    def _judged(self, name: str, index: int | None) -> FloatArray:
        """Sums of a primary score; of R2 what is left of the target's spread, number by number."""
        found = self._sums(name, index)
        if self.task != "regression":
            return found
        heard = name != "score"
        left = self._sums("response_square" if heard else "square", index) + found
        if index is not None or len(self.classes) == 1:
            return left
        if heard:
            K, M = len(self.classes), len(self.modalities)
            totals = self._by_class[:, :, self._class_columns.slices[name]].sum(axis=0)
            share = self._sums("response_squares", None).reshape(-1, K, M)
            return left - apart_from_mean(share, totals)
        share = self._sums("squares", None)
        return left - apart_from_mean(share, self._totals)

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
        if not finite.all():
            self.left_out += int((~finite).sum())
            room = _MOST_NAMED - len(self.left_out_ids)
            self.left_out_ids += tuple(str(i) for i in chunk["sample_id"][~finite][:room])
        target = chunk["target"].astype(np.int64)
        loglik = chunk["loglik"].astype(np.float64)
        loglik[~finite] = 0.0
        columns = {"count": np.ones((len(has), 1)), "loglik": loglik, "present": has}
        columns |= self._scored(chunk, loglik, has, target)
        score = columns["score"]
        overall = [columns[name] for name in self._overall_columns.slices]
        _scatter(self._overall, np.hstack(overall)[finite], unit[finite])
        columns["score"] = score[:, class_coalitions(M)]
        for name, game in zip(self.scores, (score, loglik), strict=True):
            columns[f"contribution {name}"] = game @ self._shapley.T
            columns[f"interaction {name}"] = game @ self._interactions.T
        of_class = [columns[name] for name in self._class_columns.slices]
        flat = self._by_class.reshape(-1, self._class_columns.length)
        _scatter(flat, np.hstack(of_class)[finite], (class_unit * K + target)[finite])
        if len(self._totals):
            _scatter(self._totals, score[finite], target[finite])
        size = np.where(has, chunk["response_size"], 0.0)
        np.maximum.at(self._size, target[finite], size[finite])
        self.samples += int(finite.sum())

    def _scored(
        self, chunk: dict[str, np.ndarray], loglik: FloatArray, has: np.ndarray, target: IntArray
    ) -> dict[str, FloatArray]:
        """Primary scores of rows, and their responses."""
        if self.task != "regression":
            found = {name: np.where(has, chunk[name], 0.0) for name in response_columns()}
            return {"score": chunk["correct"].astype(np.float64), **found}
        assert self.spreads is not None
        return squared_columns(chunk, loglik, has, self.spreads, len(self.classes))


def collect_sums(
    folder: Path,
    *,
    modalities: Sequence[str],
    classes: Sequence[str],
    grouped: bool,
    seed: int,
    replicates: int = 2000,
    most_units: int = MOST_UNITS,
    task: TaskName = "multiclass",
) -> UnitSums:
    """Read a coalition table once for its units and once for its values; of a regression, before that for its targets.

    Args:
        folder: Where the shards lie.
        modalities: Names in the order of the table's bits.
        classes: Names of all classes.
        grouped: Whether to resample the ``group`` column instead of samples.
        seed: Of the blocks and of the bootstrap.
        replicates: Bootstrap replicates, at least 100.
        most_units: Beyond so many samples or groups, blocks are resampled.
        task: What the model predicts.

    Returns:
        The sums. Ids are taken to be unique: samples with equal ids count as one unit.

    Raises:
        RecordError: If the table is missing, damaged, empty, has no group for a sample, or does not
            fit the modalities and classes.
    """
    if replicates < 100:
        raise RecordError(f"expected at least 100 bootstrap replicates, got {replicates}")
    most, most_of_class, rows = limits(len(modalities), len(classes), most_units, task)
    column = "group" if grouped else "sample_id"
    stop_at = None if grouped else max(most, most_of_class)
    known = distinct_keys(folder, column, seed, stop_at=stop_at)
    if not len(known):
        raise RecordError(f"the table in {folder} has no rows; there is nothing to measure")
    columns = [*value_columns(task), "group"] if grouped else list(value_columns(task))

    def passed(only_finite: bool) -> UnitSums:
        spreads = None
        if task == "regression":
            read = columns if only_finite else ["target", "truth", "present"]
            chunks = read_chunks(folder, read, rows=rows)
            spreads = target_spreads(chunks, len(modalities), len(classes), only_finite=only_finite)
        sums = UnitSums(
            modalities=tuple(modalities),
            classes=tuple(classes),
            grouped=grouped,
            seed=seed,
            replicates=replicates,
            units=min(most, len(known)),
            class_units=min(most_of_class, len(known)),
            task=task,
            spreads=spreads,
            groups=len(known) if grouped else None,
        )
        for chunk in read_chunks(folder, columns, rows=rows):
            keys = unit_keys(chunk[column], seed)
            sums.add(chunk, place_units(keys, known, most), place_units(keys, known, most_of_class))
        return sums

    sums = passed(False)
    if task == "regression" and sums.left_out:
        sums = passed(True)
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
