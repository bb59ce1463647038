"""How much is gained by leaving the least confident samples to somebody else: risk against coverage.

Samples are ranked by confidence; at coverage c the model answers the share c it is surest of, and the risk is the share of
errors among those. Samples of equal confidence are in random order. In the limit of many samples the area under the curve is
the mean of ``error * ln(1 / coverage at which the sample is first answered)``, so that both numbers are smooth functions of the
shares of samples and of errors at each confidence. Their variance comes from the derivatives (the infinitesimal jackknife),
summed over whatever is resampled.

Up to 16,384 samples every confidence is a rank of its own; of more, 2,048 blocks of about equal numbers are told apart. That
bounds the memory, and the area differs by less than 1/2,048.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmaudit.measures.bounded import wilson_at_spread
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import Intervals, ratio_spread
from mmaudit.measures.row_sums import Chunk, read_rows
from mmaudit.measures.units import unit_keys
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "COVERAGE",
    "RankedErrors",
    "Risk",
    "answers",
    "area_under_risk",
    "rank_errors",
    "risk_at",
    "risk_intervals",
]

COVERAGE = 0.8

_MOST_RANKS = 16_384
_BLOCKS = 2_048
_AROUND = 0.1
"""How far on both sides of a coverage samples say how often the model errs just there."""
_PSEUDO_VARIANCE = 0.4
"""Added to the variance of n times the area: errors among the surest samples are rare and weigh most, so that a few of them are
easily missed. About half the variance that one more error at a random place would add (E ln^2 c = 2)."""


class RankedErrors(NamedTuple):
    """Samples and errors at each confidence of one coalition, the surest first; B blocks."""

    least: FloatArray
    """Least confidence of each block, descending, shape ``(B,)``."""
    mass: FloatArray
    """Share of the samples, positive, shape ``(B,)``; sums to 1."""
    errors: FloatArray
    """Share of the samples that are errors of this block, shape ``(B,)``."""

    def block(self, confidence: FloatArray) -> IntArray:
        """Block of each confidence, shape as given."""
        return _block_of(self.least, confidence)


class Risk(NamedTuple):
    """A number made of ranked errors, with its derivatives."""

    value: float
    of_error: FloatArray
    """What one more error of a block adds to n times the value, shape ``(B,)``."""
    of_sample: FloatArray
    """What one more sample of a block adds, right or wrong, so that all samples add up to 0; shape ``(B,)``."""


def area_under_risk(ranked: RankedErrors) -> Risk:
    """Area under the risk-coverage curve.

        A = integral from 0 to 1 of  R(c) / c  dc,   R(c): share of samples that are errors among the surest c

    Args:
        ranked: Errors by confidence.

    Returns:
        The area in [0, 1]: the error rate if confidence says nothing, and less the better it ranks.

    Example:
        >>> sure_and_right = RankedErrors(np.array([0.9, 0.6]), np.array([0.5, 0.5]), np.array([0, 0.5]))
        >>> round(area_under_risk(sure_and_right).value, 6)
        0.153426
    """
    high = np.cumsum(ranked.mass)
    low = np.concatenate([[0.0], high[:-1]])
    log_high = np.log(high)
    log_low = np.log(low, where=low > 0, out=np.zeros_like(low))
    # Mean of -ln c over the coverages of a block; the integral is c - c ln c, and 0 at 0.
    weight = (high * (1 - log_high) - low * (1 - log_low)) / ranked.mass
    shift = np.where(low > 0, ranked.errors * (log_low - log_high) / ranked.mass, 0.0)
    stretch = ranked.errors * (-log_high - weight) / ranked.mass
    of_sample = np.concatenate([np.cumsum(shift[::-1])[::-1][1:], [0.0]]) + stretch
    value = float(ranked.errors @ weight)
    return Risk(value, weight, of_sample - value - ranked.mass @ of_sample)


def risk_at(ranked: RankedErrors, coverage: float = COVERAGE) -> Risk:
    """Share of errors among the surest samples.

    Args:
        ranked: Errors by confidence.
        coverage: Share of the samples that are answered, in (0, 1].

    Returns:
        The risk, in [0, 1].
    """
    high = np.cumsum(ranked.mass)
    answered = np.clip((coverage - (high - ranked.mass)) / ranked.mass, 0.0, 1.0)
    value = float(ranked.errors @ answered) / coverage
    ends = np.clip([coverage - _AROUND, coverage + _AROUND], 0.0, 1.0)
    errors = np.interp(
        ends, np.concatenate([[0.0], high]), np.concatenate([[0.0], np.cumsum(ranked.errors)])
    )
    there = (errors[1] - errors[0]) / (ends[1] - ends[0])
    of_sample = -there * answered / coverage
    return Risk(value, answered / coverage, of_sample - value - ranked.mass @ of_sample)


def risk_intervals(
    value: FloatArray,
    influence: FloatArray,
    counts: FloatArray,
    *,
    errors: FloatArray,
    grouped: bool,
    area: bool,
) -> Intervals:
    """Wilson's interval at the number of trials that has the variance of the estimate.

    Args:
        value: Risks, shape ``(c,)``.
        influence: Summed influence of the samples of each unit, shape ``(U, c)``.
        counts: Samples of each unit, shape ``(U, 1)``.
        errors: Errors that the risks are made of, shape ``(c,)``.
        grouped: Whether the samples of a unit belong together.
        area: Whether the risks are areas under the curve.

    Returns:
        c intervals in [0, 1].
    """
    n = counts.sum()
    error, _, used = ratio_spread(influence, n, counts)
    answered = 1.0 if area else COVERAGE
    # In groups errors come together; as if in pairs.
    together = np.minimum(n / used, 2.0) if grouped else 1.0
    low, high = wilson_at_spread(
        value,
        error,
        used,
        # Without any error: as many trials as answered units, half as many where an error could weigh more.
        trials=used * (0.5 if area else COVERAGE),
        pseudo_variance=_PSEUDO_VARIANCE * together / float(n) ** 2 if area else 0.0,
    )
    few = np.minimum(errors, answered * n - errors)
    kind = "Wilson at the jackknife variance"
    return Intervals(
        value,
        low,
        high,
        np.full(len(value), np.inf),
        few,
        f"{kind}, cluster-adjusted," if grouped else kind,
    )


def rank_errors(evidence: Evidence, coalitions: IntArray) -> list[RankedErrors]:
    """Rank the samples of a coalition table by confidence; two passes over the table.

    Args:
        evidence: Tables of the audit.
        coalitions: Which ones, shape ``(c,)``.

    Returns:
        One entry for each coalition.
    """
    least = _blocks(evidence, coalitions)
    samples = [np.zeros(len(edges)) for edges in least]
    errors = [np.zeros(len(edges)) for edges in least]
    for chunk in read_rows(evidence, ["confidence", "correct"]):
        confidence, wrong = answers(chunk, coalitions)
        for place, edges in enumerate(least):
            block = _block_of(edges, confidence[:, place])
            samples[place] += np.bincount(block, minlength=len(edges))
            errors[place] += np.bincount(block, wrong[:, place], minlength=len(edges))
    n = samples[0].sum()
    return [
        RankedErrors(edges, here / n, wrong / n)
        for edges, here, wrong in zip(least, samples, errors, strict=True)
    ]


def answers(chunk: Chunk, coalitions: IntArray) -> tuple[FloatArray, FloatArray]:
    """Confidence and errors of some coalitions, ``(n, c)`` each, float64."""
    confidence = chunk["confidence"][:, coalitions].astype(np.float64)
    return confidence, 1.0 - chunk["correct"][:, coalitions].astype(np.float64)


def _blocks(evidence: Evidence, coalitions: IntArray) -> list[FloatArray]:
    """Least confidence of each block, descending, for each coalition."""
    samples, kept = evidence.sums.samples, []
    whole = samples <= _MOST_RANKS
    below = np.uint64(0 if whole else int(2**64 * (_MOST_RANKS / samples)))
    for chunk in read_rows(evidence, ["sample_id", "confidence"]):
        # By hash, so that the same samples are drawn whatever their order in the table.
        drawn = whole | (unit_keys(chunk["sample_id"], evidence.seed) < below)
        kept.append(chunk["confidence"][drawn][:, coalitions])
    confidence = np.concatenate(kept).astype(np.float64)
    if not whole:
        # Values of the data, so that no block is empty.
        ranks = np.linspace(0.0, 1.0, _BLOCKS, endpoint=False)
        confidence = np.quantile(confidence, ranks, axis=0, method="lower")
    return [np.unique(column)[::-1] for column in confidence.T]


def _block_of(least: FloatArray, confidence: FloatArray) -> IntArray:
    """The first block that reaches down to a confidence; the last one takes all below it."""
    block = np.searchsorted(-least, -np.asarray(confidence, np.float64), side="left")
    return np.asarray(np.minimum(block, len(least) - 1))
