"""Which modality decides single samples: shares of samples in which one carries the answer, alone, or works against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mmaudit.measures.base import NOT_HERE, EvidenceMeasure
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import Intervals, proportion_intervals
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from mmaudit.typing import FloatArray

__all__ = ["ALONE", "Dominance", "SampleDominance", "sample_dominance"]

ALONE = 0.75
"""A modality carries a sample alone where it has more than this share of all that speaks for the truth."""

_TIE = 1e-6
"""Values tie, and are nothing, within this share of the sample's largest score in absolute value; above float32 rounding."""

_QUANTITIES = ("share", "alone", "against")


class SampleDominance(NamedTuple):
    """What is counted of each sample and modality, each of shape ``(n, M)``; 0 where the sample lacks the modality."""

    share: FloatArray
    """1 where the modality's value is the largest, 1/c where c modalities tie for it."""
    alone: FloatArray
    """1 where its value is more than three quarters of the sum of the positive values."""
    against: FloatArray
    """1 where its value is below 0: the modality pulls away from the truth."""


def sample_dominance(scores: FloatArray, present: np.ndarray) -> SampleDominance:
    """Compare the Shapley values of modalities within each sample.

    Args:
        scores: Score of each sample with every coalition, shape ``(n, 2**M)``, in bit order: the log-likelihood of the
            target, or the negative squared error.
        present: Whether the sample has the modality, shape ``(n, M)``, bool.

    Returns:
        A :class:`SampleDominance`.

    Example:
        >>> both = np.array([[True, True]])
        >>> found = sample_dominance(np.array([[-3.0, -1.0, -4.0, -1.5]]), both)
        >>> found.share.tolist(), found.alone.tolist(), found.against.tolist()
        ([[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]])
    """
    scores = np.asarray(scores, dtype=np.float64)
    values = scores @ shapley_matrix(present.shape[1]).T
    nothing = _TIE * np.abs(scores).max(axis=1, keepdims=True)
    values = np.where(np.abs(values) <= nothing, 0.0, values)
    ranked = np.where(present, values, -np.inf)
    best = (ranked >= ranked.max(axis=1, keepdims=True, initial=-np.inf) - nothing) & present
    positive = np.where(present, np.maximum(values, 0.0), 0.0)
    total = positive.sum(axis=1, keepdims=True)
    return SampleDominance(
        share=best / np.maximum(best.sum(axis=1, keepdims=True), 1),
        alone=((positive > ALONE * total) & (total > 0)).astype(np.float64),
        against=((values < 0) & present).astype(np.float64),
    )


class Dominance(EvidenceMeasure):
    """Shares of samples in which a modality has the largest value, carries the sample alone, or works against it.

    The value of a modality in a sample is its Shapley value of the log-likelihood of the target, in a regression of the
    negative squared error. A modality is compared within the samples that have it, with the others that they have. Dominance
    of a modality in most samples is no fault by itself: it may be the only one that knows anything.
    """

    key = "dominance"
    title = "Dominance of single samples"
    unit = "fraction of the samples that have the modality"
    bounds = (0.0, 1.0)
    direction = "balanced"
    reference = "Shapley 1953, for each sample"

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``modality``, ``quantity`` (``share``, ``alone`` or ``against``)."""
        M = len(evidence.modalities)

        def counted(chunk: Chunk) -> FloatArray:
            present = (chunk["present"][:, None] >> np.arange(M) & 1).astype(bool)
            return np.hstack([*sample_dominance(chunk["loglik"], present), present])

        sums, _ = row_sums(evidence, ["loglik", "present"], counted)
        *columns, have = np.split(sums, 4, axis=1)
        silent = evidence.sums.silent(None)
        found = {
            quantity: proportion_intervals(column, have, grouped=evidence.grouped)
            for quantity, column in zip(_QUANTITIES, columns, strict=True)
        }
        for quantity in ("alone", "against"):
            found[quantity] = _certain(found[quantity], silent)
        for m, modality in enumerate(evidence.modalities):
            n = int(have[:, m].sum())
            groups = evidence.sums.group_count(None, have[:, m])
            for quantity in _QUANTITIES:
                if n == 0:
                    estimate = Estimate(undefined=NOT_HERE)
                elif M == 1 and quantity != "against":
                    estimate = Estimate(undefined="there is no other modality", n=n)
                else:
                    estimate = found[quantity].estimate(m, n=n, groups=groups)
                yield LabelledEstimate(
                    labels={"modality": modality, "quantity": quantity}, estimate=estimate
                )

    def of(self, evidence: Evidence) -> MeasureResult:
        """Evaluate the measure on an audit's tables."""
        result = super().of(evidence)
        return result.model_copy(update={"settings": {**result.settings, "alone_above": ALONE}})


def _certain(found: Intervals, silent: np.ndarray) -> Intervals:
    """Masking a silent modality changes no sample, so that its zero is not a matter of sampling."""
    assert found.successes is not None
    return replace(
        found,
        low=np.where(silent, found.value, found.low),
        high=np.where(silent, found.value, found.high),
        successes=np.where(silent, np.inf, found.successes),
    )
