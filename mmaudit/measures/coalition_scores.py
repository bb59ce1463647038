"""How good the model is with every coalition of modalities: what all other measures are made of."""

from __future__ import annotations

from collections.abc import Iterator

from mmaudit.measures.base import Measure, coalition_name
from mmaudit.measures.intervals import Intervals, mean_intervals, proportion_intervals
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.target_spread import rescaled
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.typing import FloatArray

__all__ = ["CoalitionScores"]


class CoalitionScores(Measure):
    """Accuracy and mean log-likelihood of every coalition; of a regression R2 and the mean negative squared error.

    For each class (label, predicted number) the first alone, and beyond five modalities only that of the empty and the
    grand coalition, of single modalities and of all but one.
    """

    key = "coalitions"
    title = "Scores of all coalitions"
    unit = "fraction of samples (accuracy), nats (log-likelihood)"
    regression_unit = "1 (R2), squared unit of the target (negative squared error)"
    bounds = regression_bounds = (None, 1.0)
    direction = "higher"
    reference = "Shapley 1953 (the game); Wilson 1927 (intervals)"

    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Labels: ``coalition``, ``score``, ``class``."""
        primary, second = sums.scores
        for name, index in sums.cells():
            counts = sums.counts(index)
            n, groups = int(counts.sum()), sums.group_count(index, counts)
            kinds = {primary: _primary(sums, index, counts)}
            if index is None:
                scale = sums.scale(second, index)
                found = mean_intervals(sums.loglik() / scale, counts, weights=sums.weights)
                kinds[second] = rescaled(found, scale)
            for score, intervals in kinds.items():
                nothing = sums.nothing(score, index)
                for place, coalition in enumerate(sums.coalitions(index)):
                    if nothing is None:
                        estimate = intervals.estimate(place, n=n, groups=groups)
                    else:
                        estimate = Estimate(undefined=nothing, n=n)
                    yield LabelledEstimate(
                        labels={
                            "coalition": coalition_name(int(coalition), sums.modalities),
                            "score": score,
                            "class": name,
                        },
                        estimate=estimate,
                    )


def _primary(sums: UnitSums, index: int | None, counts: FloatArray) -> Intervals:
    score = sums.scores[0]
    worths = sums.worths(score, index)
    if score == "accuracy":
        return proportion_intervals(worths, counts, grouped=sums.grouped)
    # Errors have long tails, as log-likelihoods do.
    return mean_intervals(worths, sums.weight(score, index), weights=sums.weights, units=counts)
