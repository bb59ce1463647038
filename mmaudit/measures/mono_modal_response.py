"""What one modality alone says in the model's own terms: its Shapley share of the class scores.

The functions on logits define the responses and are the oracle of their torch counterpart, which writes them into the
coalition table; :class:`MonoModalResponse` summarises that table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import NOT_HERE, Measure
from mmaudit.measures.intervals import Intervals, mean_intervals, proportion_intervals
from mmaudit.measures.resampling import UnitSums
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.measures.target_spread import rescaled
from mmaudit.report.labels import response_score
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.report.tables import LEAST_LOGLIK, NOTHING, TIE
from mmaudit.typing import EmptyRule, FloatArray, IntArray

__all__ = [
    "MonoModalResponse",
    "ResponseSummary",
    "logit_scale",
    "mono_modal_responses",
    "response_logliks",
    "response_scores",
    "response_sizes",
    "summarise_responses",
]


_EMPTY_RULES: tuple[EmptyRule, ...] = ("exact", "zero")
_SAME = "R2 divides by the spread of the target, and the target is the same in all samples here"


class ResponseSummary(NamedTuple):
    """Responses of a data set, one entry for each modality."""

    loss: FloatArray
    """s^m, shape ``(M,)``, nats, in [0, 18.42]; NaN where no sample has the modality or it says nothing."""
    accuracy: FloatArray
    """Acc^m, shape ``(M,)``, in [0, 1]; NaN as above."""
    n: IntArray
    """Samples that have the modality, shape ``(M,)``."""
    nothing: np.ndarray
    """Whether the response is numerically nothing in every sample, shape ``(M,)``, bool."""


def mono_modal_responses(logits: FloatArray, empty: EmptyRule) -> FloatArray:
    """Shapley share of each modality in the class scores.

        phi^m(x) = sum over S without m of  |S|! (M-|S|-1)! / M!  [phi(S + m) - phi(S)]     (AGM, eq. 1)

    Args:
        logits: Class scores of every coalition, shape ``(2**M, n, K)``, coalitions in bit order.
        empty: ``exact`` takes phi(empty) as it is, so that the responses sum to phi(grand) -
            phi(empty); ``zero`` takes it as 0, as AGM's released code does, which adds phi(empty)/M
            to every response.

    Returns:
        Shape ``(M, n, K)``, float64, in logits.

    Raises:
        UndefinedMeasureError: If the shape or the rule is another.

    Example:
        >>> logits = np.array([[[0.2, -0.2]], [[2, 0]], [[0.5, 0.5]], [[3, 1]]])
        >>> mono_modal_responses(logits, "exact").round(6).tolist()
        [[[2.15, 0.35]], [[0.65, 0.85]]]
    """
    logits = np.asarray(logits, dtype=np.float64)
    M = len(logits).bit_length() - 1 if logits.ndim == 3 else 0
    if M < 1 or len(logits) != 2**M:
        raise UndefinedMeasureError(
            f"expected logits of shape (2**M, samples, classes) with M >= 1, got {logits.shape}"
        )
    if empty not in ("exact", "zero"):
        raise UndefinedMeasureError(f"empty is 'exact' or 'zero', got {empty!r}")
    matrix = shapley_matrix(M)
    if empty == "zero":
        matrix[:, 0] = 0.0
    return np.asarray(np.einsum("ms,snk->mnk", matrix, logits))


def logit_scale(logits: FloatArray) -> FloatArray:
    """Largest absolute logit of each sample over coalitions and classes, shape ``(n,)``."""
    return np.asarray(np.abs(np.asarray(logits, dtype=np.float64)).max(axis=(0, 2)))


def response_sizes(logits: FloatArray) -> FloatArray:
    """Largest absolute entry of the exact response less its class mean, 0 where it is numerically nothing.

    Args:
        logits: Class scores of every coalition, shape ``(2**M, n, K)``.

    Returns:
        Shape ``(M, n)``, in logits; entries of at most ``NOTHING`` times the sample's
        largest absolute logit are 0.
    """
    responses = mono_modal_responses(logits, "exact")
    size = np.abs(responses - responses.mean(axis=2, keepdims=True)).max(axis=2)
    return np.where(size <= NOTHING * logit_scale(logits), 0.0, size)


def response_scores(responses: FloatArray, targets: IntArray, scale: FloatArray) -> FloatArray:
    """Whether the largest class of a response is the target; a tie of c classes counts 1/c.

    Args:
        responses: Shape ``(M, n, K)``.
        targets: Class of each sample, shape ``(n,)``, in ``[0, K)``.
        scale: Largest absolute logit of each sample (:func:`logit_scale`), shape ``(n,)``; classes
            within ``TIE`` of it tie.

    Returns:
        Shape ``(M, n)``, in [0, 1]. Their mean is Acc^m (AGM, eq. 5, which leaves ties open).
    """
    top = responses >= responses.max(axis=2, keepdims=True) - TIE * scale[:, None]
    hit = np.take_along_axis(top, targets[None, :, None].astype(np.int64), axis=2)[..., 0]
    return np.where(hit, 1.0 / top.sum(axis=2), 0.0)


def response_logliks(responses: FloatArray, targets: IntArray) -> FloatArray:
    """Log-likelihood of the target under the softmax of a response, at least ``LEAST_LOGLIK``.

    Args:
        responses: Shape ``(M, n, K)``.
        targets: Class of each sample, shape ``(n,)``.

    Returns:
        Shape ``(M, n)``, nats. Minus their mean is s^m (AGM, eq. 4).
    """
    picked = np.take_along_axis(
        log_softmax(responses, axis=2), targets[None, :, None].astype(np.int64), axis=2
    )
    return np.asarray(np.maximum(picked[..., 0], LEAST_LOGLIK))


def summarise_responses(
    logits: FloatArray, targets: IntArray, empty: EmptyRule, *, present: np.ndarray | None = None
) -> ResponseSummary:
    """s^m and Acc^m of a data set in memory.

    Args:
        logits: Class scores of every coalition, shape ``(2**M, n, K)``.
        targets: Class of each sample, shape ``(n,)``.
        empty: See :func:`mono_modal_responses`.
        present: Whether a sample has a modality, shape ``(M, n)``, bool; left out: all have all.
            Samples without m are left out of m: their response is 0 by construction.

    Returns:
        A :class:`ResponseSummary`.
    """
    responses = mono_modal_responses(logits, empty)
    has = np.ones(responses.shape[:2], bool) if present is None else np.asarray(present, bool)
    scores = response_scores(responses, targets, logit_scale(logits))
    logliks = response_logliks(responses, targets)
    nothing = np.all((response_sizes(logits) == 0.0) | ~has, axis=1)
    n = has.sum(axis=1)
    with np.errstate(invalid="ignore"):
        loss = np.where(has, -logliks, 0.0).sum(axis=1) / n
        accuracy = np.where(has, scores, 0.0).sum(axis=1) / n
    return ResponseSummary(
        np.where(nothing, np.nan, loss), np.where(nothing, np.nan, accuracy), n, nothing
    )


class MonoModalResponse(Measure):
    """s^m and Acc^m of each modality, with both rules for the empty coalition.

    Of a regression s^m is the mean squared error, and R2 in place of Acc^m is that, of what the modality alone predicts: the
    prediction with everything masked plus its response (``exact``), or its response alone (``zero``). R2 is taken over the rows that
    have the modality; it falls below 0 where that is worse than their mean.
    """

    key = "responses"
    title = "Mono-modal Shapley responses"
    unit = "nats (s), fraction of samples (Acc)"
    regression_unit = "squared unit of the target (s), 1 (R2)"
    bounds = (0.0, None)
    direction = "balanced"
    reference = "Li et al. 2023 (AGM), equations 1-5"

    def rows(self, sums: UnitSums) -> Iterator[LabelledEstimate]:
        """Labels: ``quantity`` (``s`` or ``Acc``, of a regression ``R2``), ``modality``, ``empty``, ``class``."""
        primary = response_score(sums.task)
        changed = "predictions" if sums.task == "regression" else "class scores"
        for name, index in sums.cells():
            present = sums.present(index)
            size, silent = sums.response_size(index), sums.silent(index)
            scale = sums.scale(sums.scores[1], index)
            for empty in _EMPTY_RULES:
                score = _score_intervals(sums, empty, index)
                loss = rescaled(
                    mean_intervals(
                        -sums.responses("loglik", empty, index) / scale,
                        present,
                        weights=sums.weights,
                    ),
                    scale,
                )
                for quantity, intervals in (("s", loss), (primary, score)):
                    for m, modality in enumerate(sums.modalities):
                        n = int(present[:, m].sum())
                        if n == 0:
                            estimate = Estimate(undefined=NOT_HERE)
                        elif silent[m]:
                            reason = (
                                f"no response: masking {modality} changes the {changed} by "
                                f"{size[m]:.2g} at most, numerically nothing"
                            )
                            estimate = Estimate(undefined=reason, n=n)
                        elif not np.isfinite(intervals.value[m]):
                            estimate = Estimate(undefined=sums.nothing("R2", index) or _SAME, n=n)
                        else:
                            groups = sums.group_count(index, present[:, m])
                            estimate = intervals.estimate(m, n=n, groups=groups)
                        yield LabelledEstimate(
                            labels={
                                "quantity": quantity,
                                "modality": modality,
                                "empty": empty,
                                "class": name,
                            },
                            estimate=estimate,
                        )


def _score_intervals(sums: UnitSums, empty: EmptyRule, index: int | None) -> Intervals:
    present, values = sums.present(index), sums.responses("score", empty, index)
    if sums.task != "regression":
        return proportion_intervals(values, present, grouped=sums.grouped)
    weight = sums.response_weight(index)
    return mean_intervals(values, weight, weights=sums.weights, units=present)
