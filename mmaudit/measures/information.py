"""Whether each modality could say anything about the target: what probes of its inputs and of its encoders find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mmaudit.measures.evidence import Evidence
from mmaudit.measures.intervals import (
    FEWEST_SUCCESSES,
    Intervals,
    mean_intervals,
    proportion_intervals,
)
from mmaudit.measures.probe_measure import ProbeMeasure
from mmaudit.measures.row_sums import Chunk, row_sums
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.typing import FloatArray

__all__ = ["Information"]

_TABLE, _PROBES = "information", "information_probes"
_COLUMNS = ("score", "constant", "luck", "gain", "missed", "entropy")
_WIDTH = 1 + len(_COLUMNS)
_ENOUGH_SAMPLES = 100
_MORE = 1.5
"""As in ``mmaudit.measures.chance``: the bootstrap sees too little of how lucky the best constant answer was."""


class Information(ProbeMeasure):
    """What a probe of a modality alone knows of the target: its accuracy, how far that is above chance, and its gain.

    Above chance: accuracy less that of the best constant answer, on the same samples. Gain: log-likelihood gained over the class
    frequencies, as a share of the target's entropy; 1 where everything is known, negative where the probe is wrong and sure. For
    regression ``R2`` stands in place of the accuracy (its best constant answer is the mean), and gain is the share of the
    squared error that is saved. Intervals are about the probe as it was fitted; where it found nothing, they reach up to what samples so
    few may have hidden from it. A probe gives a lower bound of what a modality knows.
    """

    key = "information"
    title = "What each modality alone could say (probes)"
    unit = "fraction of samples (accuracy, above chance), fraction of entropy (gain)"
    bounds = (None, 1.0)
    direction = "balanced"
    reference = (
        "Alain & Bengio 2016, arXiv:1610.01644 (probes); Rahimi & Recht 2007; Geurts et al. 2006"
    )
    tables = (_TABLE, _PROBES)
    probes = _PROBES

    def rows_of(self, evidence: Evidence) -> Iterator[LabelledEstimate]:
        """Labels: ``modality``, ``quantity`` (``accuracy`` or ``R2``, ``above chance``, ``gain``), ``features``.

        ``features``: ``inputs``, ``encoder``, or ``best`` (the better of the two).
        """
        cells = [
            (row["modality"], row["features"], row["reason"]) for row in self.probes_of(evidence)
        ]
        asked = [(modality, kind) for modality, kind, reason in cells if reason is None]
        sums = _sums(evidence, asked) if asked else np.zeros((0, 0))
        for modality, kind, reason in cells:
            if reason is None:
                at = _WIDTH * asked.index((modality, kind))
                estimates = _estimates(evidence, sums[:, at : at + _WIDTH])
            else:
                names = (_first(evidence), "above chance", "gain")
                estimates = {name: Estimate(undefined=reason) for name in names}
            for quantity, estimate in estimates.items():
                labels = {"modality": modality, "quantity": quantity, "features": kind}
                yield LabelledEstimate(labels=labels, estimate=estimate)


def _first(evidence: Evidence) -> str:
    return "R2" if evidence.task == "regression" else "accuracy"


def _sums(evidence: Evidence, asked: list[tuple[str, str]]) -> FloatArray:
    """Number of rows and sums of the columns for each modality and kind, ``(U, 7 cells)``."""
    place = {cell: at for at, cell in enumerate(asked)}

    def spread(chunk: Chunk) -> FloatArray:
        rows = np.arange(len(chunk["score"]))
        cells = zip(chunk["modality"].tolist(), chunk["features"].tolist(), strict=True)
        at = _WIDTH * np.array([place[cell] for cell in cells])
        table = np.zeros((len(rows), _WIDTH * len(asked)))
        table[rows, at] = 1.0
        for offset, name in enumerate(_COLUMNS, start=1):
            table[rows, at + offset] = chunk[name]
        return table

    return row_sums(evidence, ["modality", "features", *_COLUMNS], spread, table=_TABLE)[0]


def _estimates(evidence: Evidence, sums: FloatArray) -> dict[str, Estimate]:
    sums = sums[sums[:, 0] > 0]
    counts, score, constant, luck, gain, missed, entropy = np.split(sums, _WIDTH, axis=1)
    n, groups = int(counts.sum()), len(sums) if evidence.grouped else None
    weights, lost = evidence.sums.weights, float(missed.sum())
    gained = mean_intervals(gain, entropy, weights=weights, units=counts)
    gained = _up_to(gained, lost / float(entropy.sum()))
    if evidence.task == "regression":
        share = mean_intervals(score - constant, -constant, weights=weights, units=counts)
        share = _up_to(share, lost / -float(constant.sum()))
        found: dict[str, tuple[Intervals, str | None]] = {
            "R2": (share, None),
            "above chance": (share, None),
            "gain": (gained, None),
        }
    else:
        rare = _rare(float(score.sum()), n)
        above = _above_chance(score - constant, counts, float(luck.sum()))
        found = {
            "accuracy": (proportion_intervals(score, counts, grouped=evidence.grouped), None),
            # Pinsker 1960: whoever gains so many nats is right at most so much more often.
            "above chance": (_up_to(above, float(np.sqrt(lost / (2 * n)))), rare),
            "gain": (gained, rare),
        }
    return {
        name: intervals.estimate(0, n=n, groups=groups, warning=warning)
        for name, (intervals, warning) in found.items()
    }


def _above_chance(difference: FloatArray, counts: FloatArray, luck: float) -> Intervals:
    """The difference on these samples; its interval is shifted by how lucky the constant answer was."""
    found, n = mean_intervals(difference, counts, reach=1.0), float(counts.sum())
    shift = luck / n
    low = np.minimum(found.low + shift, found.value)
    high = found.high + (_MORE if n >= _ENOUGH_SAMPLES else 1.0) * shift
    return replace(found, low=low, high=np.minimum(high, 1.0))


def _up_to(found: Intervals, more: float) -> Intervals:
    """An interval that reaches at least so much above its value: what a probe that found nothing may have missed."""
    if more <= 0:
        return found
    high = np.fmax(found.high, found.value + more)
    return replace(found, high=high, method=f"{found.method}, up to what may have been missed,")


def _rare(right: float, n: int) -> str | None:
    """Why the interval of a difference cannot be trusted in a small sample with hardly an error, or hardly a success."""
    if n >= _ENOUGH_SAMPLES or min(right, n - right) >= FEWEST_SUCCESSES:
        return None
    return f"fewer than {FEWEST_SUCCESSES} errors or {FEWEST_SUCCESSES} successes among {n} samples"
