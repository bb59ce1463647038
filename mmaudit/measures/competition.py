"""What joint training cost each modality: how badly its mono-modal concept is predicted from the joint model's latent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mmaudit.evidence.strength import strength_terms
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import mean_intervals
from mmaudit.measures.probe_measure import ProbeMeasure
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.typing import FloatArray

__all__ = ["CompetitionStrength", "competition_strength"]

_TABLE, _PROBES = "competition", "competition_probes"
_COLUMNS = ("error", "scatter", "whitened", "weight", "bias")
_WIDTH = 1 + len(_COLUMNS)
_QUANTITIES = ("pooled", "whitened", "rank", "lambda", "latent width")


def competition_strength(
    concept: FloatArray, predicted: FloatArray, *, whitened: bool = False
) -> float:
    """Share of a mono-modal concept that a linear probe does not find in the joint model's latent.

        d_pooled   = sum_i ||Chat(x_i) - C(x_i)||^2 / sum_i ||C(x_i) - mean C||^2      (Li et al. 2023, eq 13)
        d_whitened = 1/q tr(E (n cov C)^+ E')                                         (their released code)

    Args:
        concept: C of n evaluated samples, shape ``(n, q)``.
        predicted: What the probe predicts for them, shape ``(n, q)``.
        whitened: The whitened form, in which every direction of the concept counts alike; predicting the mean then gives
            ``(n - 1) / n rank / q``, not 1.

    Returns:
        0 where the latent holds the concept, about 1 where no more than its mean; above 1 where the probe does worse than that
        on samples that it was not fitted on. Never clipped.

    Raises:
        UndefinedMeasureError: If the concept does not vary, or there are fewer than two samples.

    Example:
        >>> round(competition_strength(np.array([[0.0], [1], [1], [2]]), np.array([[0.1], [0.7], [1.3], [1.9]])), 9)
        0.1
    """
    terms = strength_terms(concept, predicted)
    if whitened:
        return float(terms.whitened.sum())
    return float(terms.error.sum() / terms.scatter.sum())


class CompetitionStrength(ProbeMeasure):
    """Competition strength d of every modality that has a concept, pooled and whitened.

    The probe is a ridge regression whose penalty is cross-validated where it is fitted; the penalty of the released code, 120, is
    beside it. d depends on the width of the latent: compare modalities and ways of training, not models of other widths.
    """

    key = "competition"
    title = "Competition strength"
    unit = "fraction of the concept's variance (rank, lambda, latent width: 1)"
    bounds = (0.0, None)
    direction = "lower"
    reference = "Li et al. 2023 (AGM), eq 11-13, arXiv:2308.07686"
    tables = (_TABLE, _PROBES)
    probes = _PROBES

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``modality``, ``quantity``, ``penalty`` (``cross-validated`` or a number).

        ``quantity``: ``pooled``, ``whitened``; ``rank`` of the concept's scatter, ``lambda`` and ``latent width`` without interval.
        """
        probes = list(self.probes_of(evidence))
        penalties = list(dict.fromkeys(probe["penalty"] for probe in probes))
        sums: FloatArray | None = None
        if any(probe["reason"] is None for probe in probes):
            sums = _sums(evidence, len(penalties))
        for probe in probes:
            m = evidence.modalities.index(probe["modality"])
            at = _WIDTH * (m * len(penalties) + penalties.index(probe["penalty"]))
            if probe["reason"] is not None:
                reason = Estimate(undefined=probe["reason"])
                estimates = dict.fromkeys(_QUANTITIES, reason)
            else:
                assert sums is not None
                estimates = _estimates(evidence, probe, sums[:, at : at + _WIDTH])
            for quantity, estimate in estimates.items():
                labels = {
                    "modality": probe["modality"],
                    "quantity": quantity,
                    "penalty": probe["penalty"],
                }
                yield LabelledEstimate(labels=labels, estimate=estimate)


def _sums(evidence: Evidence, penalties: int) -> FloatArray:
    """Rows, and sums of the four terms, for each modality and penalty, ``(U, 6 cells)``; 0 where a sample lacks the modality."""

    def beside(chunk: Chunk) -> FloatArray:
        error = chunk["error"]
        wide = {**chunk, "scatter": np.repeat(chunk["scatter"], penalties, axis=1)}
        columns = [np.isfinite(error), *(wide[name] for name in _COLUMNS)]
        table = np.stack([np.nan_to_num(column.astype(np.float64)) for column in columns], axis=2)
        return table.reshape(len(error), -1)

    return row_sums(evidence, _COLUMNS, beside, table=_TABLE)[0]


def _estimates(evidence: Evidence, probe: dict[str, Any], sums: FloatArray) -> dict[str, Estimate]:
    sums = sums[sums[:, 0] > 0]
    counts, error, scatter, whitened, weight, bias = np.split(sums, _WIDTH, axis=1)
    n, groups = int(counts.sum()), len(sums) if evidence.grouped else None
    found = {
        name: mean_intervals(top, bottom, weights=evidence.sums.weights, units=counts)
        for name, top, bottom in (("pooled", error, scatter), ("whitened", whitened, weight))
    }
    # The value stays as in the released code; the interval is about what it is expected to be in many samples.
    off = bias.sum()
    found["whitened"] = replace(
        found["whitened"],
        low=np.maximum(found["whitened"].low - off, 0.0),
        high=found["whitened"].high - off,
        method=f"{found['whitened'].method}, small-sample bias removed,",
    )
    plain = {"rank": probe["rank"], "lambda": probe["value"], "latent width": probe["width"]}
    return {
        **{name: ends.estimate(0, n=n, groups=groups) for name, ends in found.items()},
        **{name: Estimate(value=float(value), n=n) for name, value in plain.items()},
    }
