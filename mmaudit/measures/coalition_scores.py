"""How good the model is with every coalition of modalities: what all other measures are made of."""

from __future__ import annotations

from collections.abc import Iterator

from mmaudit.measures.base import Measure, coalition_name
from mmaudit.measures.intervals import mean_intervals, proportion_intervals
from mmaudit.measures.resampling import UnitSums
from mmaudit.report.schema import Estimate, LabelledEstimate

__all__ = ["CoalitionScores"]


class CoalitionScores(Measure):
    """Accuracy and mean log-likelihood of every coalition.

    For each class the accuracy alone, and beyond five modalities only that of the empty and the
    grand coalition, of single modalities and of all but one.
    """

    key = "coalitions"
    title = "Scores of all coalitions"
    unit = "fraction of samples (accuracy), nats (log-likelihood)"
    bounds = (None, 1.0)
    direction = "higher"
    reference = "Shapley 1953 (the game); Wilson 1927 (intervals)"

    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Labels: ``coalition``, ``score`` (``accuracy`` or ``log-likelihood``), ``class``."""
        for name, index in sums.cells():
            counts = sums.counts(index)
            n, groups = int(counts.sum()), sums.group_count(index, counts)
            kinds = {
                "accuracy": proportion_intervals(sums.correct(index), counts, grouped=sums.grouped)
            }
            if index is None:
                kinds["log-likelihood"] = mean_intervals(
                    sums.loglik(), counts, weights=sums.weights
                )
            for score, intervals in kinds.items():
                for place, coalition in enumerate(sums.coalitions(index)):
                    if n:
                        estimate = intervals.estimate(place, n=n, groups=groups)
                    else:
                        estimate = Estimate(undefined="no sample of this class")
                    yield LabelledEstimate(
                        labels={
                            "coalition": coalition_name(int(coalition), sums.modalities),
                            "score": score,
                            "class": name,
                        },
                        estimate=estimate,
                    )
