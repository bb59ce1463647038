"""What is left of the score when modalities go missing in use: expected and worst score against the share that is missing.

The protocol is that of the literature on missing modalities: a share eta of all (sample, modality) cells is missing, and every
sample keeps at least one modality. First each sample draws one that it keeps, then as many other cells are kept as the
rate asks for, drawn from all that are left. For many samples that keeps each of the other cells with one probability

    q = ((1 - eta) M - 1) / (M - 1),     P(S) = |S| / M  q^(|S| - 1)  (1 - q)^(M - |S|)

so that the expected score is a weighted mean over the coalition table and needs no draw at all. The model sees missing modalities
as the audit's mask makes them: it says what the model does without them, not what one trained for it would do.

In data where samples lack modalities already, the cells that they lack count as missing, and the draw is among those that
they have: q is then ``((1 - eta) cells - samples) / (cells there - samples)``, with M replaced by the number of modalities of the
sample, and rates below what is missing already have no value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import EvidenceMeasure
from mmaudit.measures.bounded import wilson_at_spread
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import (
    Intervals,
    mean_intervals,
    proportion_intervals,
    ratio_spread,
)
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from mmaudit.typing import FloatArray, IntArray

__all__ = ["MissingModality", "keep_probability", "missing_rates", "pattern_weights", "worst_end"]

_TOLERANCE = 1e-9
_NEAR = 2.0
"""Patterns within so many standard errors of the worst one may be the worst in truth."""
_UPPER_MISSES = 0.035
"""How often the upper end of the worst score may be too low. The lower end is too high in .025 where one pattern is far
worse than the others, and hardly ever where many are as bad; so the interval covers 94 to 96.5 % in both."""
_NORMAL = 1.959964


def missing_rates(M: int) -> FloatArray:
    """Rates from 0 to (M - 1) / M in steps of 1 / (2 M), shape ``(2 M - 1,)``.

    Example:
        >>> missing_rates(2).tolist()
        [0.0, 0.25, 0.5]
    """
    return np.arange(2 * M - 1) / (2 * M)


def keep_probability(rates: FloatArray, M: int, have: IntArray) -> FloatArray:
    """Probability q with which a cell is kept that need not be.

    Args:
        rates: Shares of missing cells, shape ``(R,)``, at most (M - 1) / M.
        M: Number of modalities.
        have: Number of samples that have 0, 1, ..., M modalities, shape ``(M + 1,)``.

    Returns:
        Shape ``(R,)``, in [0, 1]; NaN at rates below what is missing in the data.

    Example:
        >>> keep_probability(np.array([0.0, 0.25, 0.5]), 2, np.array([0, 0, 10])).tolist()
        [1.0, 0.5, 0.0]
    """
    cells, there, kept = M * have.sum(), have @ np.arange(M + 1), have[1:].sum()
    free = there - kept
    q = ((1 - rates) * cells - kept) / max(free, 1)
    q = np.where(free > 0, q, np.where(q > _TOLERANCE, np.inf, 0.0))
    return np.where(q <= 1 + _TOLERANCE, np.clip(q, 0.0, 1.0), np.nan)


def pattern_weights(q: FloatArray, M: int) -> FloatArray:
    """Probability of one set of kept modalities, by the size of the set.

        P = s / p  q^(s - 1)  (1 - q)^(p - s)

    Args:
        q: Probabilities, shape ``(R,)``.
        M: Number of modalities.

    Returns:
        For a sample that has p modalities and a set of s of them: ``[r, p, s]``, shape ``(R, M + 1, M + 1)``; 0 where s > p. A
        sample without any keeps nothing.
    """
    p, s = np.meshgrid(np.arange(M + 1), np.arange(M + 1), indexing="ij")
    q = np.asarray(q, np.float64)[:, None, None]
    inside = (s >= 1) & (s <= p)
    weights = s / np.maximum(p, 1) * q ** np.maximum(s - 1, 0) * (1 - q) ** np.maximum(p - s, 0)
    weights = np.where(inside, weights, 0.0)
    weights[:, 0, 0] = 1.0
    return weights


def worst_end(
    numerators: FloatArray, weight: FloatArray, counts: FloatArray, high: FloatArray, sums: UnitSums
) -> tuple[int, float]:
    """The worst of several scores, and an upper end for the worst in truth.

    Several patterns may be about as bad. The smallest of several estimates is too small on average, so the distance
    to the upper end is stretched to what the smallest of those that are not clearly better needs (by bootstrap).

    Args:
        numerators: Unit sums of the scores, shape ``(U, c)``.
        weight: What they are divided by, shape ``(U, 1)``.
        counts: Samples of each unit, shape ``(U, 1)``.
        high: Upper ends of the single scores, shape ``(c,)``.
        sums: For the resampling.

    Returns:
        Place of the worst, and the upper end.
    """
    total = weight.sum()
    values = numerators.sum(axis=0) / total
    worst = int(values.argmin())
    apart = numerators - numerators[:, [worst]] - (values - values[worst]) * weight
    error, _, _ = ratio_spread(apart, total, counts)
    near = (values - values[worst] <= _NEAR * np.nan_to_num(error)) | (values == values[worst])
    if near.sum() == 1 or len(counts) < 2:
        return worst, float(high[worst])
    drawn = sums.bootstrap(np.hstack([numerators[:, near], weight]))
    off = drawn[:, :-1] / drawn[:, -1:] - values[near]
    spread = off.std(axis=0)
    off = off / np.where(spread > 0, spread, 1.0)
    stretch = max(1.0, -float(np.quantile(off.min(axis=1), _UPPER_MISSES)) / _NORMAL)
    ends = values[near] + stretch * (high[near] - values[near])
    return worst, float(ends.min())


class MissingModality(EvidenceMeasure):
    """Expected and worst score at each share of missing modalities, and the mean over all shares.

    The score is the accuracy, of a regression R2. ``expected``: with the protocol above. ``worst``: all samples
    miss the same modalities, those whose absence costs most, at rates at which that is a whole number of them (what samples lack
    already is missing as well). ``area``: mean of ``expected`` over the rates, at the rate ``all``.
    """

    key = "missing_modality"
    title = "Scores with missing modalities"
    unit = "fraction of samples (accuracy)"
    regression_unit = "1 (R2)"
    bounds = (0.0, 1.0)
    regression_bounds = (None, 1.0)
    direction = "higher"
    reference = "Zhang et al. 2019 (CPM-Nets, the protocol); Ma et al. 2022"

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``rate`` (``0.00``, ..., or ``all``), ``quantity`` (``expected``, ``worst`` or ``area``)."""
        if len(evidence.modalities) == 1:
            raise UndefinedMeasureError("with one modality none can be missing: a sample keeps one")
        curve = _curve(evidence)
        worst = dict(_worst(evidence.sums, curve))
        for place, rate in enumerate(curve.rates):
            yield _row(f"{rate:.2f}", "expected", curve.estimate(place))
            if place in worst:
                yield _row(f"{rate:.2f}", "worst", worst[place])
        yield _row("all", "area", curve.estimate(len(curve.rates)))

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure on an audit's tables."""
        result = super().of(evidence)
        return result.model_copy(
            update={"settings": {**result.settings, "score": evidence.sums.scores[0]}}
        )


def _row(rate: str, quantity: str, estimate: Estimate) -> LabelledEstimate:
    return LabelledEstimate(labels={"rate": rate, "quantity": quantity}, estimate=estimate)


@dataclass(frozen=True)
class _Curve:
    """Expected scores at all rates, and their mean."""

    rates: FloatArray
    found: Intervals | None
    """One entry for each rate, then the mean over those that have a value; ``None`` where ``nothing`` has."""
    missing: float
    """Share of cells that are missing in the data."""
    n: int
    groups: int | None
    nothing: str | None
    """Why there is no score at all."""

    def estimate(self, place: int) -> Estimate:
        if self.found is None:
            return Estimate(undefined=self.nothing, n=self.n)
        if np.isnan(self.found.value[place]):
            reason = f"{100 * self.missing:.3g} % of the cells are missing in the data already"
            return Estimate(undefined=reason, n=self.n)
        return self.found.estimate(place, n=self.n, groups=self.groups)


def _curve(evidence: Evidence) -> _Curve:
    sums, M = evidence.sums, len(evidence.modalities)
    counts, score = sums.counts(None), sums.scores[0]
    n, rates = int(counts.sum()), missing_rates(M)
    have = np.zeros(M + 1, np.int64)
    if sums.present(None).sum() == n * M:
        have[M] = n
    else:
        have[:] = _numbers_present(evidence, M)
    q = keep_probability(rates, M, have)
    nothing = sums.nothing(score, None)
    return _Curve(
        rates=rates,
        found=_expected(evidence, q, whole=have[M] == n) if nothing is None else None,
        missing=1 - float(have @ np.arange(M + 1)) / (M * n),
        n=n,
        groups=sums.group_count(None, counts),
        nothing=nothing,
    )


def _expected(evidence: Evidence, q: FloatArray, *, whole: bool) -> Intervals:
    """Expected scores at all rates and their mean; NaN where q is."""
    sums, M = evidence.sums, len(evidence.modalities)
    counts, score, known = sums.counts(None), sums.scores[0], ~np.isnan(q)
    expected: FloatArray
    if whole:
        expected = sums.worths(score, None) @ pattern_weights(q, M)[:, M, _sizes(M)].T
    else:
        expected = _thinned(evidence, q[known])
    numerators = np.zeros((len(counts), len(q) + 1))
    numerators[:, :-1][:, known] = expected
    if known.any():
        numerators[:, -1] = expected.mean(axis=1)
    found = _score_intervals(sums, numerators, counts)
    if whole and score == "accuracy":
        # With nothing missing it is a plain proportion, the same as among the scores of all coalitions.
        plain = proportion_intervals(sums.correct(None)[:, [-1]], counts, grouped=sums.grouped)
        found.low[0], found.high[0] = plain.low[0], plain.high[0]
    found.value[:-1][~known] = np.nan
    if not known.any():
        found.value[-1] = np.nan
    return found


def _worst(sums: UnitSums, curve: _Curve) -> Iterator[tuple[int, Estimate]]:
    """Place of a rate, and the worst score there."""
    M, counts, score = len(sums.modalities), sums.counts(None), sums.scores[0]
    worths, weight = sums.worths(score, None), sums.weight(score, None)
    size = _sizes(M)
    for gone in range(M):
        place = 2 * gone
        if curve.found is None:
            yield place, curve.estimate(place)
            continue
        numerators = worths[:, size == M - gone]
        if score == "accuracy":
            found = proportion_intervals(numerators, counts, grouped=sums.grouped)
        else:
            found = _score_intervals(sums, numerators, counts)
        worst, high = worst_end(numerators, weight, counts, found.high, sums)
        found.high[worst] = high
        yield place, found.estimate(worst, n=curve.n, groups=curve.groups)


def _score_intervals(sums: UnitSums, numerators: FloatArray, counts: FloatArray) -> Intervals:
    """Intervals of scores that are means over coalitions."""
    score = sums.scores[0]
    weight = sums.weight(score, None)
    if score != "accuracy":
        # Errors have long tails, as log-likelihoods do.
        return mean_intervals(numerators, weight, weights=sums.weights, units=counts)
    n = float(counts.sum())
    value = numerators.sum(axis=0) / n
    error, events, used = ratio_spread(numerators - value * counts, counts.sum(axis=0), counts)
    low, high = wilson_at_spread(value, error, used, trials=used)
    method = "Wilson at the bootstrap variance"
    return Intervals(
        value,
        low,
        high,
        events if sums.grouped else np.full(value.shape, np.inf),
        np.minimum(value, 1 - value) * n,
        f"{method}, cluster-adjusted," if sums.grouped else method,
    )


def _sizes(M: int) -> IntArray:
    return np.array([c.bit_count() for c in range(2**M)])


def _numbers_present(evidence: Evidence, M: int) -> IntArray:
    """Number of samples that have 0, 1, ..., M modalities."""

    def numbers(chunk: Chunk) -> FloatArray:
        have = (chunk["present"][:, None] >> np.arange(M) & 1).sum(axis=1)
        return np.asarray(have[:, None] == np.arange(M + 1), dtype=np.float64)

    sums, _ = row_sums(evidence, ["present"], numbers)
    return np.asarray(sums.sum(axis=0).astype(np.int64))


def _thinned(evidence: Evidence, q: FloatArray) -> FloatArray:
    """Unit sums of expected scores where samples lack modalities, shape ``(U, R)``."""
    sums, M = evidence.sums, len(evidence.modalities)
    coalitions, size = np.arange(2**M), _sizes(M)
    weights = pattern_weights(q, M)
    regression = evidence.task == "regression"
    per = _per_spread(sums) if regression else np.ones(len(evidence.classes))

    def change(chunk: Chunk) -> FloatArray:
        game = chunk["loglik" if regression else "correct"].astype(np.float64)
        game *= per[chunk["target"].astype(np.int64)][:, None]
        expected = np.empty((len(game), len(q)))
        for pattern in np.unique(chunk["present"]):
            rows = chunk["present"] == pattern
            subsets = coalitions[(coalitions & ~int(pattern)) == 0]
            have = int(pattern).bit_count()
            expected[rows] = game[rows][:, subsets] @ weights[:, have, size[subsets]].T
        return np.asarray(expected - game[:, -1:])

    columns = ["present", "target", "loglik" if regression else "correct"]
    changes, _ = row_sums(evidence, columns, change)
    return np.asarray(sums.worths(sums.scores[0], None)[:, [-1]] + changes)


def _per_spread(sums: UnitSums) -> FloatArray:
    """One over the spread of each predicted number; 0 where it does not vary."""
    assert sums.spreads is not None
    spread = sums.spreads.numbers
    return np.asarray(np.where(spread.varies, 1 / np.where(spread.varies, spread.squares, 1.0), 0))
