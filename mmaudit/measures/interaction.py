"""Which modalities need each other and which repeat each other: pairwise Shapley interactions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import NOT_HERE, Measure
from mmaudit.measures.contribution import rare_errors, score_intervals
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.shapley import modality_pairs
from mmaudit.report.schema import Estimate, LabelledEstimate

__all__ = ["Interaction"]


class Interaction(Measure):
    """Shapley interaction of each pair in the games "accuracy" and "mean log-likelihood" (of a regression R2 and squared errors).

    Positive: the two are worth more together than apart (synergy); negative: less (redundancy). Undefined, overall or for a
    class, for a pair with a modality that none of its samples has.
    """

    key = "interactions"
    title = "Pairwise Shapley interactions"
    unit = "fraction of samples (accuracy), nats (log-likelihood)"
    regression_unit = "1 (R2), squared unit of the target (negative squared error)"
    direction = "balanced"
    reference = "Grabisch & Roubens 1999"

    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Labels: ``first``, ``second``, ``score``, ``class``."""
        pairs = modality_pairs(len(sums.modalities))
        if not pairs:
            raise UndefinedMeasureError("an interaction needs at least two modalities, there is 1")
        silent = sums.silent(None)
        reach = np.array([0.0 if silent[i] or silent[j] else 2.0 for i, j in pairs])
        for name, index in sums.cells():
            counts = sums.counts(index)
            n, groups = int(counts.sum()), sums.group_count(index, counts)
            absent = sums.absent(index)
            for score in sums.scores:
                nothing, found = sums.nothing(score, index), None
                if nothing is None:
                    found = score_intervals(
                        score,
                        sums.interactions(score, index),
                        sums.weight(score, index),
                        sums.weights,
                        reach=reach,
                        units=counts,
                        scale=sums.scale(score, index),
                    )
                rare = rare_errors(sums, index, n) if score == "accuracy" and n else None
                for place, (i, j) in enumerate(pairs):
                    if found is None:
                        estimate = Estimate(undefined=nothing)
                    elif absent[i] or absent[j]:
                        estimate = Estimate(undefined=NOT_HERE)
                    else:
                        estimate = found.estimate(place, n=n, groups=groups, warning=rare)
                    yield LabelledEstimate(
                        labels={
                            "first": sums.modalities[i],
                            "second": sums.modalities[j],
                            "score": score,
                            "class": name,
                        },
                        estimate=estimate,
                    )
