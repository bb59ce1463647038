"""How much of the accuracy (of R2) hangs on one modality, given others: conditional utilization rates by masking."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import NOT_HERE, Measure, coalition_name
from mmaudit.measures.intervals import Intervals, difference_intervals, loss_intervals
from mmaudit.measures.quotients import quotient_intervals
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.shapley import game_size
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.typing import FloatArray, GameValues, IntArray

__all__ = [
    "ConditionalUtilizationRate",
    "spread_pair",
    "utilization_rates",
    "utilization_spread",
]

_STABLE = 0.95


def utilization_rates(accuracies: GameValues) -> FloatArray:
    """Share of accuracy that is lost when one modality is masked, given the others that are present.

        u(m | S) = (A(S + m) - A(S)) / A(S + m)        (after Wu et al. 2022, by masking)

    Wu et al. cut the cross-modal path between two branches; masking works for any fusion and any M,
    and its rates are not comparable in size with theirs.

    Args:
        accuracies: Accuracy of every coalition, shape ``(2**M,)``, in [0, 1], in bit order.

    Returns:
        Rates, shape ``(M, 2**M)``: row m, column S; unitless, at most 1, negative where masking
        helps, never clipped. NaN where m is in S, and where ``A(S + m)`` is 0.

    Raises:
        UndefinedMeasureError: If the last axis is no power of two of at least 2.

    Example:
        >>> utilization_rates(np.array([0.1, 0.8, 0.2, 0.8]))[0].round(3).tolist()
        [0.875, nan, 0.75, nan]
    """
    accuracies = np.asarray(accuracies, dtype=np.float64)
    M = game_size(accuracies)
    rates = np.full((M, 2**M), np.nan)
    for m in range(M):
        given = _without(m, M)
        more, less = accuracies[given | 1 << m], accuracies[given]
        np.divide(more - less, more, out=more, where=(defined := more > 0))
        rates[m, given] = np.where(defined, more, np.nan)
    return rates


def utilization_spread(rates: FloatArray) -> float:
    """How unequally modalities are used: d_util of the rates u(m | rest).

        d_util = u(m1 | m0) - u(m0 | m1) for two modalities; max - min beyond

    Args:
        rates: u(m | rest), shape ``(M,)``.

    Returns:
        The difference. For two modalities it is signed: positive means reliance on the second.

    Raises:
        UndefinedMeasureError: If there are fewer than two modalities or a rate is undefined.

    Example:
        >>> utilization_spread(np.array([0.10, 0.25]))
        0.15
    """
    if len(rates) < 2 or not np.isfinite(rates).all():
        raise UndefinedMeasureError(
            f"d_util compares the defined rates of at least two modalities, got {rates.tolist()}"
        )
    if len(rates) == 2:
        return float(rates[1] - rates[0])
    return float(rates.max() - rates.min())


class ConditionalUtilizationRate(Measure):
    """u(m|S) for every modality m and every coalition S without it, and d_util.

    Of a regression the share of R2 that is lost; above 1 where R2(S) is below 0, and undefined where R2(S + m) is not above 0
    for certain. For each class u(m|rest) alone. With more than two modalities d_util is the difference between
    the largest and the smallest rate; which two these are is found in the same data, so where
    resampling changes them the estimate warns. A modality that no sample (of the class) has is undefined and not compared;
    a rate given it equals the rate without it.
    """

    key = "utilization"
    title = "Conditional utilization rates"
    unit = "fraction of accuracy"
    regression_unit = "fraction of R2"
    bounds = (None, 1.0)
    direction = "balanced"
    reference = "Wu et al. 2022, arXiv:2202.05306 (by masking)"

    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Labels: ``quantity`` (``u`` or ``d_util``), ``modality``, ``given``, ``class``.

        ``modality`` of d_util names the two it compares, larger minus smaller (for two modalities:
        second minus first).
        """
        M = len(sums.modalities)
        silent = sums.silent(None)
        for name, index in sums.cells():
            counts, worths = sums.counts(index), sums.worths(sums.scores[0], index)
            n, groups = int(counts.sum()), sums.group_count(index, counts)
            nothing = sums.nothing(sums.scores[0], index)
            absent = sums.absent(index)
            place = {int(c): at for at, c in enumerate(sums.coalitions(index))}
            for m, modality in enumerate(sums.modalities):
                rest = 2**M - 1 - (1 << m)
                given = _without(m, M) if index is None else np.array([rest])
                more = worths[:, [place[int(S) | 1 << m] for S in given]]
                less = worths[:, [place[int(S)] for S in given]]
                reach = 0.0 if silent[m] else 1.0
                found = _lost(sums, less, more, counts, reach) if nothing is None else None
                for at, S in enumerate(given):
                    if found is None:
                        estimate = Estimate(undefined=nothing, n=n)
                    elif absent[m]:
                        estimate = Estimate(undefined=NOT_HERE)
                    elif not np.isfinite(found.value[at]):
                        whole = coalition_name(int(S) | 1 << m, sums.modalities)
                        reason = _not_above_0(sums, index, more[:, at], f"of {whole}")
                        estimate = Estimate(undefined=reason, n=n)
                    else:
                        estimate = found.estimate(at, n=n, groups=groups)
                    labels = {
                        "quantity": "u",
                        "modality": modality,
                        "given": coalition_name(int(S), sums.modalities),
                        "class": name,
                    }
                    yield LabelledEstimate(labels=labels, estimate=estimate)
            if M > 1:
                rests = [place[2**M - 1 - (1 << m)] for m in range(M)]
                yield _spread_row(
                    sums, name, index, worths[:, rests], worths[:, [place[2**M - 1]]], nothing
                )


def _lost(
    sums: UnitSums, less: FloatArray, more: FloatArray, counts: FloatArray, reach: float
) -> Intervals:
    """Intervals of the rates; the value is not finite where there is none."""
    if sums.scores[0] == "accuracy":
        return loss_intervals(less, more, counts, reach=reach)
    return quotient_intervals(more - less, more, counts)


def _not_above_0(sums: UnitSums, index: int | None, worths: FloatArray, what: str) -> str:
    """Why there is no share of a score that is lost."""
    score = sums.scores[0]
    if score == "accuracy":
        return f"the accuracy {what} is 0"
    value = worths.sum() / sums.weight(score, index).sum()
    why = "is" if value <= 0 else "is not above 0 for certain, it is"
    return f"the {score} {what} {why} {value:.3g}, and a share is taken of it"


def _spread_row(
    sums: UnitSums,
    name: str,
    index: int | None,
    without: FloatArray,
    grand: FloatArray,
    nothing: str | None,
) -> LabelledEstimate:
    counts, here = sums.counts(index), ~sums.absent(index)
    n, groups = int(counts.sum()), sums.group_count(index, counts)
    two = len(sums.modalities) == 2
    pair = " - ".join(sums.modalities[::-1]) if two else "max - min"
    reason = nothing
    if reason is None and here.sum() < 2:
        lacking = " or ".join(np.array(sums.modalities)[~here])
        reason = f"d_util compares at least two modalities, and no sample here has {lacking}"
    if reason is None:
        (high, low), warning = spread_pair(sums, without, here)
        if sums.scores[0] == "accuracy":
            with_ = np.repeat(grand, len(sums.modalities), axis=1)
            defined = grand.sum() > 0
            found = difference_intervals(without, with_, counts, (high, low)) if defined else None
        else:
            found = quotient_intervals(without[:, [low]] - without[:, [high]], grand, counts)
            defined = bool(np.isfinite(found.value[0]))
        if not defined or found is None:
            reason = _not_above_0(sums, index, grand[:, 0], "of all modalities together")
    if reason is None and found is not None:
        pair = f"{sums.modalities[high]} - {sums.modalities[low]}"
        estimate = found.estimate(0, n=n, groups=groups, warning=warning)
    else:
        estimate = Estimate(undefined=reason, n=n)
    labels = {"quantity": "d_util", "modality": pair, "given": "rest", "class": name}
    return LabelledEstimate(labels=labels, estimate=estimate)


def spread_pair(
    sums: UnitSums, without: FloatArray, here: np.ndarray
) -> tuple[tuple[int, int], str | None]:
    """The two modalities that d_util compares.

    Args:
        sums: For the resampling.
        without: Correct samples without each modality, shape ``(U, M)``.
        here: Whether any sample has the modality, shape ``(M,)``, bool.

    Returns:
        The more and the less used one (for two modalities: second and first), and a warning where resampling changes them.
    """
    compared = np.flatnonzero(here)
    if len(here) == 2 or len(compared) < 2:
        return (1, 0), None
    kept = without[:, compared].sum(axis=0)
    most, least = int(kept.argmin()), int(kept.argmax())
    if most == least:
        most, least = 0, 1
    drawn = sums.bootstrap(without[:, compared])
    same = (drawn.argmin(axis=1) == most) & (drawn.argmax(axis=1) == least)
    warning = None
    if same.mean() < _STABLE:
        warning = (
            f"the most and the least used modality are the same in only "
            f"{100 * same.mean():.0f} % of the resamples, so the spread is overstated"
        )
    return (int(compared[most]), int(compared[least])), warning


def _without(m: int, M: int) -> IntArray:
    """Coalitions that lack modality m."""
    index = np.arange(2**M)
    return np.asarray(index[(index >> m & 1) == 0])
