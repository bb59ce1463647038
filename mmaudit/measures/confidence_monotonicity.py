"""How often a model is surer of itself with less to go by: confidence that rises when modalities are taken away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import EvidenceMeasure, coalition_name
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import proportion_intervals
from mmaudit.measures.resampling import class_coalitions
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.report.schema import LabelledEstimate, MeasureResult
from mmaudit.typing import FloatArray, IntArray

__all__ = ["MARGIN", "ConfidenceMonotonicity", "confidence_violations"]

MARGIN = 1e-6
"""Confidences that differ by no more are equal; above float32 rounding."""

_ANY = "any"


def confidence_violations(confidence: FloatArray, kept: IntArray) -> FloatArray:
    """Whether the confidence with some modalities masked exceeds that with all of them.

        violation(S) = 1[ conf(x_S) > conf(x) + 1e-6 ]        (Ma et al. 2023)

    Args:
        confidence: Probability of the predicted class for every coalition, shape ``(n, 2**M)``, in bit order.
        kept: Coalitions to look at, shape ``(c,)``.

    Returns:
        Shape ``(n, c + 1)``, 0 or 1: for each of ``kept``, then for any of all coalitions.

    Example:
        >>> confidence_violations(np.array([[0.5, 0.9, 0.6, 0.7]]), np.array([0, 1, 2])).tolist()
        [[0.0, 1.0, 0.0, 1.0]]
    """
    above = np.asarray(confidence, np.float64) > confidence[:, -1:].astype(np.float64) + MARGIN
    return np.hstack([above[:, kept], above.any(axis=1, keepdims=True)]).astype(np.float64)


class ConfidenceMonotonicity(EvidenceMeasure):
    """Share of samples whose confidence rises when modalities are masked.

    For each coalition, and for ``any``: at least one of all coalitions, the empty one included, is more confident than the
    model with everything. Beyond five modalities single rows are given for the empty coalition, single modalities and all but
    one; ``any`` still looks at all of them. A modality that a sample lacks changes nothing, so it is no violation there.
    """

    key = "confidence_monotonicity"
    title = "Confidence-monotonicity violations"
    unit = "fraction of samples"
    bounds = (0.0, 1.0)
    direction = "lower"
    reference = "Ma et al. 2023, Calibrating Multimodal Learning, arXiv:2306.01265"

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``coalition`` (``any``, or the modalities that are left)."""
        if evidence.task == "regression":
            raise UndefinedMeasureError("a regression predicts numbers and has no confidence")
        kept = class_coalitions(len(evidence.modalities))[:-1]

        def violations(chunk: Chunk) -> FloatArray:
            return confidence_violations(chunk["confidence"], kept)

        sums, counts = row_sums(evidence, ["confidence"], violations)
        found = proportion_intervals(sums, counts, grouped=evidence.grouped)
        n, groups = int(counts.sum()), evidence.sums.group_count(None, counts)
        names = [coalition_name(int(c), evidence.modalities) for c in kept]
        order = [(_ANY, len(kept)), *((name, place) for place, name in enumerate(names))]
        for name, place in order:
            yield LabelledEstimate(
                labels={"coalition": name}, estimate=found.estimate(place, n=n, groups=groups)
            )

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure on an audit's tables."""
        result = super().of(evidence)
        return result.model_copy(update={"settings": {**result.settings, "margin": MARGIN}})
