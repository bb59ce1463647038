"""Whether a model is as often right as it says: calibration and selective risk with every coalition of modalities.

The expected calibration error (ECE) is the sum over bins of confidence of ``|share of samples * (confidence - accuracy)|``. Taken
from a sample it is too large, because noise adds to absolute values and never takes away: with 200 samples a perfectly
calibrated model has .05 to .09. Two corrected numbers stand at both sides of the truth. One subtracts from each bin what noise
would add if the gap were the one that was found; it is too large near 0. The other is what one half of the samples says about the
size of a gap whose sign the other half tells (in the limit of all splits, which has a closed form); it is 0 on average at 0
and too small where a gap is about as large as its noise. The estimate is their mean, off by at most a quarter of a
bin's standard error in either direction; the interval reaches from below the second to above the first, so that it covers also
where the bins hold too little to tell.

Half-widths come from Wilson's interval of the errors and Student's t of the confidences, put together with their covariance (Zou
& Donner 2008): errors are rare, and an interval from the standard error alone covers 53 to 90 % with few of them. Simulated
coverage of the population's value (2,000 data sets each; 200, 1,000 and 5,000 samples, 30 and 100 groups; accuracy .7, .9 and
.98; over- and under-confident):

- overconfidence: 93 to 97 %, also with 50 samples;
- ECE: 94 to 98 % where the model is off by .7 logits or more, 99 % with 200 samples; at most 99.7 % where it is off by
  so little that 200 samples cannot tell it from 0, which is then covered; 0 itself in 95 to 98 %;
- selective risk: 93 to 98 %; risk at 80 %: 94 to 97 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import EvidenceMeasure, coalition_name
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import (
    Intervals,
    mean_intervals,
    proportion_intervals,
    ratio_spread,
)
from mmaudit.measures.resampling import class_coalitions
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.measures.selective_risk import (
    COVERAGE,
    answers,
    area_under_risk,
    rank_errors,
    risk_at,
    risk_intervals,
)
from mmaudit.report.schema import LabelledEstimate, MeasureResult
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "BINS",
    "Calibration",
    "Debiased",
    "calibration_intervals",
    "confidence_bins",
    "debiased_gaps",
    "overconfidence_intervals",
]

BINS = 15
"""Bins of equal width over [0, 1], as in Guo et al. 2017: they are the same for all coalitions, models and samples."""

_SPLIT = 0.7
"""Noise of the half that tells the sign against that of all samples: between a sharp sign and a noisy size."""
_ROUNDING = 1e-12


class Debiased(NamedTuple):
    """Absolute values of noisy numbers, corrected for what the noise adds."""

    value: FloatArray
    """The estimate."""
    least: FloatArray
    """On average at most the true absolute value."""
    most: FloatArray
    """On average at least the true absolute value, or below it by less than 3 % of the standard error."""


def confidence_bins(confidence: FloatArray) -> IntArray:
    """Bin of each confidence: ``(b / 15, (b + 1) / 15]``, and 0 in the first.

    Example:
        >>> confidence_bins(np.array([0.0, 0.05, 1 / 3, 0.99, 1.0])).tolist()
        [0, 0, 4, 14, 14]
    """
    inner = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    return np.asarray(np.searchsorted(inner, confidence, side="left"))


def debiased_gaps(gaps: FloatArray, errors: FloatArray) -> Debiased:
    """Absolute values of normally distributed estimates.

    Args:
        gaps: Estimates, any shape.
        errors: Their standard errors, the same shape; 0 leaves the absolute value as it is.

    Returns:
        A :class:`Debiased`, entries of the same shape; single ones may be negative.

    Example:
        >>> [round(float(part), 3) for part in debiased_gaps(np.array(0.0), np.array(0.01))]
        [-0.01, -0.011, -0.004]
        >>> [round(float(part), 3) for part in debiased_gaps(np.array(-0.05), np.array(0.01))]
        [0.05, 0.05, 0.05]
    """
    size = np.abs(gaps)
    noisy = errors > _ROUNDING
    scale = np.where(noisy, errors, 1.0)
    ratio = np.where(noisy, size / scale, np.inf)
    added = np.where(noisy, 2 * (scale * _density(ratio) - size * ndtr(-ratio)), 0.0)
    sharp = ratio / _SPLIT
    halved = size * (2 * ndtr(sharp) - 1) - 2 * scale / _SPLIT * _density(sharp)
    least = np.where(noisy, halved, size)
    return Debiased((size - added + least) / 2, least, size - added / 2)


def overconfidence_intervals(
    wrong: FloatArray, short: FloatArray, counts: FloatArray, *, grouped: bool
) -> Intervals:
    """Mean confidence less accuracy.

    Args:
        wrong: Errors of each unit, shape ``(U, c)``.
        short: Summed confidence less 1 of each unit, shape ``(U, c)``.
        counts: Samples of each unit, shape ``(U, 1)``.
        grouped: Whether the samples of a unit belong together.

    Returns:
        c intervals in [-1, 1]; positive: the model is surer than it is right.
    """
    below, above = _half_widths(short, wrong, np.zeros_like(wrong), counts, grouped=grouped)
    value = (short + wrong).sum(axis=0) / counts.sum()
    value = np.where(np.abs(value) < _ROUNDING, 0.0, value)
    return _intervals(value, value - below, value + above, wrong, counts, grouped=grouped)


def calibration_intervals(
    wrong: FloatArray, short: FloatArray, counts: FloatArray, *, grouped: bool
) -> Intervals:
    """Expected calibration error, corrected for the noise in the bins.

        ECE = sum over bins of  | E[ (confidence - correct) 1(confidence in bin) ] |

    Args:
        wrong: Errors in each bin of each unit, shape ``(U, c, bins)``.
        short: Summed confidence less 1, likewise.
        counts: Samples of each unit, shape ``(U, 1)``.
        grouped: Whether the samples of a unit belong together.

    Returns:
        c intervals in [0, 1], for the ECE with the same bins in the population.
    """
    total = counts.sum()
    gaps = (wrong + short).sum(axis=0) / total
    residuals = wrong + short - gaps * counts[:, :, None]
    error, _, _ = ratio_spread(residuals, total, counts[:, :, None])
    found = debiased_gaps(gaps, np.nan_to_num(error))
    sign = np.where(gaps < 0, -1.0, 1.0)
    below, above = _half_widths(
        (short * sign).sum(axis=2),
        (wrong * (sign > 0)).sum(axis=2),
        (wrong * (sign < 0)).sum(axis=2),
        counts,
        grouped=grouped,
        under=(short * (sign < 0)).sum(axis=(0, 2)) < 0,
    )
    value, least, most = (np.maximum(part.sum(axis=-1), 0.0) for part in found)
    low = np.maximum(least - below, 0.0)
    return _intervals(
        value,
        np.where(low < _ROUNDING, 0.0, low),
        np.minimum(most + above, 1.0),
        wrong.sum(axis=2),
        counts,
        grouped=grouped,
    )


class Calibration(EvidenceMeasure):
    """Calibration and selective risk with every coalition.

    Beyond five modalities for the empty and the grand coalition, single modalities and all but one.
    """

    key = "calibration"
    title = "Calibration and selective risk"
    unit = "fraction of samples"
    bounds = (-1.0, 1.0)
    direction = "lower"
    reference = (
        "Guo et al. 2017, arXiv:1706.04599 (ECE); Geifman & El-Yaniv 2017, arXiv:1705.08500 "
        "(selective risk); Zou & Donner 2008 (intervals)"
    )

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``coalition``, ``quantity`` (``ece``, ``overconfidence``, ``selective risk`` or ``risk at 80 %``)."""
        if evidence.task == "regression":
            raise UndefinedMeasureError("a regression predicts numbers and has no confidence")
        coalitions = class_coalitions(len(evidence.modalities))
        found, n, groups = _evaluate(evidence, coalitions)
        for place, coalition in enumerate(coalitions):
            for quantity, intervals in found.items():
                yield LabelledEstimate(
                    labels={
                        "coalition": coalition_name(int(coalition), evidence.modalities),
                        "quantity": quantity,
                    },
                    estimate=intervals.estimate(place, n=n, groups=groups),
                )

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure on an audit's tables."""
        result = super().of(evidence)
        return result.model_copy(
            update={"settings": {**result.settings, "bins": BINS, "bin_width": "equal"}}
        )


def _evaluate(
    evidence: Evidence, coalitions: IntArray
) -> tuple[dict[str, Intervals], int, int | None]:
    """Intervals by quantity, samples and groups."""
    ranked = rank_errors(evidence, coalitions)
    risks = [*map(area_under_risk, ranked), *map(risk_at, ranked)]
    C = len(coalitions)

    def values(chunk: Chunk) -> FloatArray:
        confidence, wrong = answers(chunk, coalitions)
        binned = np.zeros((2, len(wrong), C, BINS))
        at = (np.arange(len(wrong))[:, None], np.arange(C), confidence_bins(confidence))
        binned[0][at], binned[1][at] = wrong, confidence - 1.0
        influence = np.empty((len(wrong), 2 * C))
        for place in range(C):
            block = ranked[place].block(confidence[:, place])
            for column in (place, C + place):
                risk = risks[column]
                influence[:, column] = risk.of_error[block] * wrong[:, place]
                influence[:, column] += risk.of_sample[block]
        return np.hstack([*binned.reshape(2, len(wrong), -1), influence])

    sums, counts = row_sums(evidence, ["confidence", "correct"], values)
    wrong, short = (part.reshape(-1, C, BINS) for part in np.split(sums[:, : 2 * C * BINS], 2, 1))
    area, cut = np.split(sums[:, 2 * C * BINS :], 2, axis=1)
    value = np.array([risk.value for risk in risks])
    n, grouped = int(counts.sum()), evidence.grouped
    found = {
        "ece": calibration_intervals(wrong, short, counts, grouped=grouped),
        "overconfidence": overconfidence_intervals(
            wrong.sum(axis=2), short.sum(axis=2), counts, grouped=grouped
        ),
        "selective risk": risk_intervals(
            value[:C],
            area,
            counts,
            errors=wrong.sum(axis=(0, 2)),
            grouped=grouped,
            area=True,
        ),
        f"risk at {COVERAGE * 100:.0f} %": risk_intervals(
            value[C:],
            cut,
            counts,
            errors=value[C:] * COVERAGE * n,
            grouped=grouped,
            area=False,
        ),
    }
    return found, n, evidence.sums.group_count(None, counts)


def _half_widths(
    short: FloatArray,
    over: FloatArray,
    against: FloatArray,
    counts: FloatArray,
    *,
    grouped: bool,
    under: np.ndarray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Distances of both ends from ``mean(short) + mean(over) - mean(against)``, each of shape ``(c,)``.

    Args:
        short: Sums of each unit that vary like means, shape ``(U, c)``.
        over: Errors that raise the value, shape ``(U, c)``.
        against: Errors that lower it, shape ``(U, c)``.
        counts: Samples of each unit, shape ``(U, 1)``.
        grouped: Whether the samples of a unit belong together.
        under: Where there can be errors that lower it, shape ``(c,)``, bool; nowhere if left out.
    """
    here = np.zeros(short.shape[1], bool) if under is None else under
    mean = mean_intervals(short, counts)
    plus = proportion_intervals(over, counts, grouped=grouped)
    minus = proportion_intervals(against, counts, grouped=grouped)
    residuals = np.stack(
        [
            short - mean.value * counts,
            over - plus.value * counts,
            minus.value * counts - against,
        ]
    )
    size = np.sqrt((residuals**2).sum(axis=1))
    scaled = residuals / np.where(size > 0, size, 1.0)[:, None]
    correlation = np.einsum("iuc,juc->ijc", scaled, scaled)
    correlation[range(3), range(3)] = 1.0
    lower = np.stack(
        [mean.value - mean.low, plus.value - plus.low, np.where(here, minus.high - minus.value, 0)]
    )
    upper = np.stack(
        [mean.high - mean.value, plus.high - plus.value, np.where(here, minus.value - minus.low, 0)]
    )
    below, above = (
        np.sqrt(np.maximum(np.einsum("ijc,ic,jc->c", correlation, part, part), 0.0))
        for part in (lower, upper)
    )
    return below, above


def _intervals(
    value: FloatArray,
    low: FloatArray,
    high: FloatArray,
    wrong: FloatArray,
    counts: FloatArray,
    *,
    grouped: bool,
) -> Intervals:
    errors = wrong.sum(axis=0)
    kind = "Wilson and Student t, combined"
    return Intervals(
        value,
        low,
        high,
        np.full(value.shape, np.inf),
        np.minimum(errors, counts.sum() - errors),
        f"{kind}, cluster-adjusted," if grouped else kind,
    )


def _density(x: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))
