"""What a modality could say alone against what the joint model takes from it, and what it takes to do without it.

A modality that adds little may have little to say, or a joint model that never learnt to listen: only a model that saw nothing
else tells them apart. All differences are paired: both scores are those of the same samples, which have the modality.

Scores are ratios of sums over rows. Accuracy divides correct rows by rows, R2 what is explained by the spread of the target; of
several predicted numbers R2 is the mean, which is linear in each of them to first order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from mmaudit.measures.base import NOT_HERE, EvidenceMeasure
from mmaudit.measures.chance import BestConstant, above_chance
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import Intervals, mean_intervals, proportion_intervals
from mmaudit.measures.joining import JoinedTable
from mmaudit.measures.paired import paired_differences
from mmaudit.measures.row_sums import Chunk, read_rows, row_sums
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.report.spread import Spread
from mmaudit.report.tables import read_chunks, shard_paths
from mmaudit.typing import FloatArray, IntArray

__all__ = ["CapacityGap"]

REFERENCES, SECOND = "references", "second"

NO_REFERENCE = "no model of this modality alone was named (mmaudit unimodal trains one)"
NO_WITHOUT = "no model without this modality was named (mmaudit unimodal --without trains one)"
ONLY_ONE = "there is no other modality"

_FIRST = ("alone", "inside", "joint")
"""Scores of the samples that the model of a modality alone was asked about: its own, and the joint model's given the modality
alone and given everything."""
_REST = ("without", "joint")
"""Scores of the samples that the model without a modality was asked about: its own, and the joint model's."""


class CapacityGap(EvidenceMeasure):
    """Scores of models of one modality beside those of the joint model; accuracy, or R2 where numbers are predicted.

    ``alone``: of the model that saw the modality alone. ``above chance``: that less the score of the best constant prediction.
    ``gap``: that less the score of the joint model given the modality alone, under either mask; above 0, the joint model reads
    less out of the modality than there is. ``joint advantage``: the joint model less the model of the modality alone; below 0,
    fusion does harm. ``drop without``: the joint model less a model trained without the modality (of two modalities, the model
    of the other one alone where no other is named).
    """

    key = "capacity_gap"
    title = "Modalities alone and inside the joint model"
    unit = "fraction of samples"
    regression_unit = "1 (R2)"
    bounds = (None, 1.0)
    direction = "balanced"
    reference = "after Du et al. 2023 (ICML), on modalities that joint training learns less well"
    tables = (REFERENCES,)
    reads = (SECOND,)

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``modality``, ``quantity``, ``mask`` (``first`` or ``second`` of ``gap``, else ``none``)."""
        first = _Comparison.of(evidence, None)
        second = _Comparison.of(evidence, SECOND) if evidence.table(SECOND) else None
        for m, modality in enumerate(evidence.modalities):
            found = {
                ("alone", "none"): first.score(m),
                ("above chance", "none"): first.above_chance(m),
                ("gap", "first"): first.difference(m, _FIRST, "inside", "alone"),
                ("joint advantage", "none"): first.difference(m, _FIRST, "alone", "joint"),
                ("drop without", "none"): first.difference(m, _REST, "without", "joint"),
            }
            if second is not None:
                found["gap", "second"] = second.difference(m, _FIRST, "inside", "alone")
            for (quantity, mask), estimate in found.items():
                labels = {"modality": modality, "quantity": quantity, "mask": mask}
                yield LabelledEstimate(labels=labels, estimate=estimate)


class _Key(NamedTuple):
    """Scores of some samples by one model."""

    m: int
    side: tuple[str, ...]
    """``_FIRST`` or ``_REST``."""
    which: str


@dataclass
class _R2:
    """R2 of one modality's samples: the mean over predicted numbers that vary."""

    spread: Spread
    errors: dict[_Key, FloatArray] = field(default_factory=dict)
    """Summed squared errors of each predicted number."""

    @property
    def numbers(self) -> int:
        return int(self.spread.varies.sum())

    def score(self, key: _Key) -> float:
        varies = self.spread.varies
        each = 1 - self.errors[key][varies] / self.spread.squares[varies]
        return float(each.sum() / max(self.numbers, 1))

    def squares(self, truth: FloatArray, cell: IntArray) -> FloatArray:
        """Each row's share of the spread of the target; they sum to 1."""
        away = (truth - self.spread.mean[cell]) ** 2
        return np.asarray(away * self._inverse()[cell])

    def explained(
        self, key: _Key, off: FloatArray, truth: FloatArray, cell: IntArray
    ) -> FloatArray:
        """What each row brings to R2; divided by :meth:`squares`, sums of it are R2.

        Of one predicted number this is its share of the spread less that of the squared error. Of several, the R2 of each stands
        in for the mean of all, so that the rows of a number with a small R2 do not count as unusual.
        """
        inverse = self._inverse()
        lost = self.errors[key] * inverse * max(self.numbers, 1)
        share = self.squares(truth, cell)
        return np.asarray((self.score(key) + lost[cell]) * share - off * inverse[cell])

    def _inverse(self) -> FloatArray:
        """What a squared distance is multiplied with to be a share of the spread, for each predicted number."""
        varies = self.spread.varies
        whole = np.where(varies, self.spread.squares, 1.0) * max(self.numbers, 1)
        return np.where(varies, 1 / whole, 0.0)


@dataclass
class _Comparison:
    """Sums over units of everything that is compared on one table of coalitions."""

    evidence: Evidence
    kinds: tuple[str, ...]
    """Of the models that there are: ``alone``, ``without``."""
    table: str | None
    places: dict[_Key, int] = field(default_factory=dict)
    counted: dict[tuple[int, tuple[str, ...]], int] = field(default_factory=dict)
    """Modality and side -> column with the numbers of rows; the next one is what scores are divided by."""
    constants: dict[int, tuple[BestConstant, slice]] = field(default_factory=dict)
    """Modality -> the best constant prediction, and the columns of its hits and its rivals."""
    r2: dict[tuple[int, tuple[str, ...]], _R2] = field(default_factory=dict)
    sums: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    present: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Rows that have each modality."""
    named: frozenset[int] = frozenset()
    """Modalities with a model that does without them."""

    @classmethod
    def of(cls, evidence: Evidence, table: str | None) -> _Comparison:
        """Read a table of coalitions beside that of the references."""
        folder = evidence.table(REFERENCES)
        assert folder is not None
        score = "loglik" if evidence.task == "regression" else "correct"
        there = set(pq.read_schema(shard_paths(folder)[0]).names)
        kinds = tuple(kind for kind in ("alone", "without") if f"{kind}_{score}" in there)
        found = cls(evidence, kinds, table)
        if "without" in kinds:
            known = np.zeros(len(evidence.modalities), bool)
            for chunk in read_chunks(folder, [f"without_{score}"]):
                known |= np.isfinite(chunk[f"without_{score}"]).any(axis=0)
            found.named = frozenset(np.flatnonzero(known).tolist())
        found._read(JoinedTable(folder, [f"{kind}_{score}" for kind in kinds]), score)
        return found

    # estimates ------------------------------------------------------------------------------------

    def score(self, m: int) -> Estimate:
        """Score of the model of a modality alone."""
        reason = self._undefined(m, _FIRST)
        if reason is not None:
            return Estimate(undefined=reason)
        values, by, counts = self._columns(m, _FIRST, "alone")
        if self.evidence.task == "regression":
            # Errors have long tails.
            weights = self.evidence.sums.weights
            found = mean_intervals(values, by, weights=weights, units=counts)
        else:
            found = proportion_intervals(values, counts, grouped=self.evidence.grouped)
        return self._estimate(found, counts)

    def above_chance(self, m: int) -> Estimate:
        """The same less the score of the best constant prediction; that of R2 is 0."""
        if self.evidence.task == "regression" or self._undefined(m, _FIRST) is not None:
            return self.score(m)
        values, _, counts = self._columns(m, _FIRST, "alone")
        best, where = self.constants[m]
        used = self._used(m, _FIRST)
        constant = self.sums[used, where]
        weights = self.evidence.sums.weights(len(counts))
        found = above_chance(values, constant[:, :1], counts, constant[:, 1:], best, weights)
        return self._estimate(found, counts)

    def difference(self, m: int, side: tuple[str, ...], before: str, after: str) -> Estimate:
        """Score of ``after`` less that of ``before``, on the same samples."""
        reason = self._undefined(m, side)
        if reason is not None:
            return Estimate(undefined=reason)
        one, by, counts = self._columns(m, side, before)
        other, _, _ = self._columns(m, side, after)
        if self.evidence.task == "regression":
            # As for all differences of R2, see mmaudit.measures.contribution.score_intervals.
            return self._estimate(mean_intervals(other - one, by, units=counts), counts)
        weights = self.evidence.sums.weights(len(counts))
        found = paired_differences(
            (one, by), (other, by), counts, weights, reach=np.ones(1), bound=1.0
        )
        return self._estimate(found.intervals, counts)

    def _estimate(self, found: Intervals, counts: FloatArray) -> Estimate:
        groups = None
        if self.evidence.grouped:
            whole = len(counts) == len(self.sums)
            groups = self.evidence.sums.groups if whole and self.table is None else len(counts)
        return found.estimate(0, n=int(counts.sum()), groups=groups)

    def _undefined(self, m: int, side: tuple[str, ...]) -> str | None:
        if self.present[m] == 0:
            return NOT_HERE
        if side == _REST and len(self.evidence.modalities) == 1:
            return ONLY_ONE
        if (m, side) not in self.counted or self.sums[:, self.counted[m, side]].sum() == 0:
            return NO_WITHOUT if side == _REST else NO_REFERENCE
        if self.evidence.task == "regression" and self.r2[m, side].numbers == 0:
            return "the target is the same in all samples"
        return None

    def _used(self, m: int, side: tuple[str, ...]) -> np.ndarray:
        return np.asarray(self.sums[:, self.counted[m, side]] > 0)

    def _columns(
        self, m: int, side: tuple[str, ...], which: str
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Numerators, denominators and numbers of rows of the units that have any, ``(U, 1)`` each."""
        used, count = self._used(m, side), self.counted[m, side]
        places = (self.places[_Key(m, side, which)], count + 1, count)
        numerators, denominators, counts = (self.sums[used, place][:, None] for place in places)
        return numerators, denominators, counts

    # reading --------------------------------------------------------------------------------------

    def _read(self, joined: JoinedTable, score: str) -> None:
        columns = ["sample_id", "target", "present", score]
        if self.evidence.task in ("multilabel", "regression"):
            columns.append("truth")
        frequent: dict[int, FloatArray] = {}
        M = len(self.evidence.modalities)
        self.present = np.zeros(M)
        for chunk in read_rows(self.evidence, columns, table=self.table):
            self.present += (chunk["present"][:, None] >> np.arange(M) & 1).sum(axis=0)
            for (m, side), (usable, scores) in self._scores(chunk, joined, score).items():
                truth, cell = self._truth(chunk)
                truth, cell = truth[usable], cell[usable]
                if self.evidence.task == "regression":
                    known = self.r2.setdefault((m, side), _R2(Spread(len(self.evidence.classes))))
                    known.spread.add(truth, cell)
                    for which, values in scores.items():
                        found = np.bincount(cell, -values, len(known.spread.count))
                        key = _Key(m, side, which)
                        known.errors[key] = known.errors.get(key, np.zeros(len(found))) + found
                elif side == _FIRST:
                    counts = frequent.setdefault(m, np.zeros(self._answers()))
                    np.add.at(counts, (cell, truth.astype(np.int64)), 1)
                self.counted.setdefault((m, side), 0)
        constants = {m: BestConstant(counts) for m, counts in frequent.items()}
        width = 0
        for m, side in self.counted:
            self.counted[m, side] = width
            self.places |= {_Key(m, side, w): width + 2 + i for i, w in enumerate(side)}
            width += 2 + len(side)
            if side == _FIRST and m in constants:
                more = 1 + len(constants[m].rivals)
                self.constants[m] = constants[m], slice(width, width + more)
                width += more
        if width:
            self.sums, _ = row_sums(
                self.evidence,
                columns,
                lambda chunk: self._values(chunk, joined, score, width),
                table=self.table,
            )

    def _values(self, chunk: Chunk, joined: JoinedTable, score: str, width: int) -> FloatArray:
        """All columns of some rows, 0 where a row is not asked about."""
        out = np.zeros((len(chunk["present"]), width))
        for (m, side), (usable, scores) in self._scores(chunk, joined, score).items():
            truth, cell = self._truth(chunk)
            truth, cell = truth[usable], cell[usable]
            count = self.counted[m, side]
            out[usable, count : count + 2] = 1
            if self.evidence.task == "regression":
                out[usable, count + 1] = self.r2[m, side].squares(truth, cell)
            for which, values in scores.items():
                key = _Key(m, side, which)
                if self.evidence.task == "regression":
                    values = self.r2[m, side].explained(key, -values, truth, cell)
                out[usable, self.places[key]] = values
            if side == _FIRST and m in self.constants:
                best, where = self.constants[m]
                out[usable, where.start] = best.right(cell, truth)
                out[usable, where.start + 1 : where.stop] = best.rows(cell, truth)
        return out

    def _scores(
        self, chunk: Chunk, joined: JoinedTable, score: str
    ) -> dict[tuple[int, tuple[str, ...]], tuple[np.ndarray, dict[str, FloatArray]]]:
        """Modality and side -> the rows that are asked about, and the scores of each model on them."""
        M, both = len(self.evidence.modalities), joined.rows(chunk["sample_id"])
        own = chunk[score].astype(np.float64)
        nothing = np.full((len(own), M), np.nan)
        alone, without = (both.get(f"{kind}_{score}", nothing) for kind in ("alone", "without"))
        found: dict[tuple[int, tuple[str, ...]], tuple[np.ndarray, dict[str, FloatArray]]] = {}
        for m in range(M):
            has = (chunk["present"] >> m & 1).astype(bool)
            rest = without[:, m]
            if M == 2 and m not in self.named:
                rest = alone[:, 1 - m]
            sides = ((_FIRST, alone[:, m]), (_REST, rest))
            for side, model in sides:
                usable = has & np.isfinite(model)
                scores = {side[0]: model[usable], "joint": own[usable, -1]}
                if side == _FIRST:
                    scores["inside"] = own[usable, 1 << m]
                if usable.any():
                    found[m, side] = usable, scores
        return found

    def _truth(self, chunk: Chunk) -> tuple[np.ndarray, IntArray]:
        """What is to be predicted in each row, and the cell that a constant prediction or a spread is of."""
        if self.evidence.task in ("multilabel", "regression"):
            return chunk["truth"], chunk["target"].astype(np.int64)
        return chunk["target"], np.zeros(len(chunk["target"]), np.int64)

    def _answers(self) -> tuple[int, int]:
        K = len(self.evidence.classes)
        return (K, 2) if self.evidence.task == "multilabel" else (1, K)
