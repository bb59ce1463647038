"""What a probe is asked, for each kind of target: how targets become numbers to learn, and how answers are judged.

A probe's answers are calibrated before they are judged: ``log p = log prior + sum_j a_j (f_j - prior)`` with one weight ``a_j`` of at
least 0 for each learner (and each label or number), chosen on answers to samples that the learner was not fitted on. Where that gains less than its own standard
error, all weights are 0 and the probe says what the frequencies say: it must be able to find nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize, nnls
from scipy.special import log_softmax

from mmaudit.typing import FloatArray, IntArray, TaskName

__all__ = ["Decisions", "Judged", "Numbers", "Question", "ask", "missed"]

Judged = dict[str, FloatArray]
"""Of each part of each sample ``(n, parts)``, NaN where the truth is unknown: ``score`` of the answer, ``constant`` (that of the best
constant answer), ``luck`` (by how much that is too high on average), ``gain`` over what frequencies say, ``missed`` (gain that could be there where none was found), and ``entropy``, the loss of what
frequencies say."""

_STEEPEST = 100.0
_NORMAL = 1.959964
_FLAT = 1e-12
_DRAWS = 1000
_PROPER = 1e-3
"""Weight of the squared weights in the calibration: enough to end where answers are perfect."""


class Question(ABC):
    """Targets of n samples.

    Attributes:
        known: Whether a part of a sample has a target, bool ``(n, parts)``.
    """

    known: np.ndarray

    @abstractmethod
    def numbers(self) -> FloatArray:
        """What learners are fitted to, float64 ``(n, q)``."""

    @abstractmethod
    def prior(self, rows: np.ndarray) -> FloatArray:
        """What is said without any answer, learnt from some samples (bool ``(n,)``)."""

    @abstractmethod
    def weights(self, answers: Sequence[FloatArray], prior: FloatArray) -> FloatArray:
        """Weights of the learners, ``(learners, parts)``.

        Args:
            answers: Of each learner, ``(n, q)``, about the samples of this question.
            prior: From other samples or these.
        """

    @abstractmethod
    def judge(
        self, answers: Sequence[FloatArray], weights: FloatArray, prior: FloatArray, seen: int
    ) -> Judged:
        """Judge weighed answers: ``score``, ``gain`` and ``entropy``.

        Args:
            answers: Of each learner, ``(n, q)``.
            weights: Of the learners.
            prior: What is said without them.
            seen: Samples that the probe learnt from.
        """

    @abstractmethod
    def slopes(
        self, answers: Sequence[FloatArray], prior: FloatArray, units: IntArray
    ) -> FloatArray:
        """How much answers would gain if they were given the least weight.

        Args:
            answers: Of each learner, ``(n, q)``; they count alike.
            prior: What is said without them.
            units: What each sample belongs to, ``(n,)``.

        Returns:
            Slope of the gain at weight 0, its variance over units, and the curvature, ``(3, parts)``; of samples with other
            priors they may be added.
        """

    @abstractmethod
    def constant(self) -> FloatArray:
        """Score of the best constant answer to each part of each sample, ``(n, parts)``; it is found in the same samples."""

    @abstractmethod
    def luck(self) -> FloatArray:
        """By how much that is too high on average, since it was found where it is judged, ``(parts,)``."""

    @abstractmethod
    def of(self, rows: np.ndarray) -> Question:
        """The same about some of the samples."""


def ask(
    task: TaskName, truth: np.ndarray, classes: int, *, like: Question | None = None
) -> Question:
    """The question that a task asks.

    Args:
        task: What is predicted.
        truth: Classes ``(n,)``; for multi-label 0, 1 or -1 ``(n, L)``; for regression numbers or NaN ``(n, D)``.
        classes: Number K of classes.
        like: A question about other samples whose scale is to be used (regression).
    """
    if task == "regression":
        return Numbers(truth, like.scale if isinstance(like, Numbers) else None)
    if task == "multilabel":
        return Decisions(truth, 2)
    return Decisions(truth[:, None], classes)


class Decisions(Question):
    """One of K classes for each sample, or yes or no for each of several labels.

    Args:
        truth: Classes in ``[0, K)``, -1 where unknown, ``(n, parts)``.
        classes: K; 2 for labels.
    """

    def __init__(self, truth: IntArray, classes: int) -> None:
        self.truth, self.classes = np.asarray(truth, dtype=np.int64), classes
        self.known = self.truth >= 0

    def of(self, rows: np.ndarray) -> Decisions:
        """See :meth:`Question.of`."""
        return Decisions(self.truth[rows], self.classes)

    def numbers(self) -> FloatArray:
        """Indicators of the classes, or of yes; the mean where unknown."""
        n, parts = self.truth.shape
        if parts == 1 and self.classes > 2:
            return np.eye(self.classes)[self.truth[:, 0]]
        yes = self.prior(np.ones(n, dtype=bool))[:, 1]
        return np.where(self.known, self.truth, yes).astype(np.float64)

    def prior(self, rows: np.ndarray) -> FloatArray:
        """Frequencies of the classes, half a sample more of each, ``(parts, K)``."""
        counts = np.stack(
            [np.bincount(part[part >= 0], minlength=self.classes) for part in self.truth[rows].T]
        )
        return np.asarray((counts + 0.5) / (counts + 0.5).sum(1, keepdims=True))

    def weights(self, answers: Sequence[FloatArray], prior: FloatArray) -> FloatArray:
        """By maximum likelihood, part by part."""
        moves = [self._moves(answer, prior) for answer in answers]
        parts = range(self.truth.shape[1])
        return np.stack([self._weights([m[:, p] for m in moves], prior[p], p) for p in parts], 1)

    def _weights(self, moves: list[FloatArray], prior: FloatArray, part: int) -> FloatArray:
        known = self.known[:, part]
        truth, rows = self.truth[known, part], np.arange(known.sum())
        moves = [move[known] for move in moves]
        if not len(rows):
            return np.zeros(len(moves))

        def loss(weights: FloatArray) -> tuple[float, FloatArray]:
            moved = np.log(prior) + sum(a * m for a, m in zip(weights, moves, strict=True))
            logp = log_softmax(moved, 1)
            p = np.exp(logp)
            slope = [(p * m).sum(1).mean() - m[rows, truth].mean() for m in moves]
            proper = _PROPER * (np.asarray(weights) / 10) ** 2
            value = -logp[rows, truth].mean() + proper.sum()
            return float(value), np.asarray(slope) + _PROPER * np.asarray(weights) / 50

        found = minimize(
            loss,
            np.full(len(moves), 0.5),
            jac=True,
            bounds=[(0.0, _STEEPEST)] * len(moves),
            method="L-BFGS-B",
        )
        return np.asarray(found.x)

    def judge(
        self, answers: Sequence[FloatArray], weights: FloatArray, prior: FloatArray, seen: int
    ) -> Judged:
        """``score`` is 1 where right, ``gain`` and ``entropy`` are nats."""
        moved = np.broadcast_to(np.log(prior), (*self.truth.shape, self.classes))
        entropy = -self._of_truth(moved)
        for answer, a in zip(answers, weights, strict=True):
            moved = moved + a[:, None] * self._moves(answer, prior)
        # What was never wrong in the samples seen may still be, about once in as many.
        p = np.exp(log_softmax(moved, -1))
        logp = np.log((p * seen + prior) / (seen + 1))
        right = np.where(self.known, moved.argmax(-1) == self.truth, np.nan)
        return {"score": right, "gain": self._of_truth(logp) + entropy, "entropy": entropy}

    def slopes(
        self, answers: Sequence[FloatArray], prior: FloatArray, units: IntArray
    ) -> FloatArray:
        """Of the log-likelihood."""
        moves = _centred(np.sum([self._moves(answer, prior) for answer in answers], axis=0))
        mean = (prior * moves).sum(-1)
        rise = np.where(self.known, self._of_truth(moves) - mean, 0.0)
        bend = np.where(self.known, (prior * (moves - mean[..., None]) ** 2).sum(-1), 0.0)
        return np.stack([rise.sum(0), _variance(rise, units), bend.sum(0)])

    def constant(self) -> FloatArray:
        """1 where the most frequent class of these samples is the truth; the same for all where classes were balanced on purpose."""
        scores = np.full(self.truth.shape, np.nan)
        for part, (column, counts) in enumerate(zip(self.truth.T, self._counts(), strict=True)):
            score = column == counts.argmax() if _uneven(counts) else 1 / self.classes
            scores[:, part] = np.where(column >= 0, score, np.nan)
        return scores

    def luck(self) -> FloatArray:
        """How far the frequency of the most frequent class is above its expectation, by the bootstrap."""
        return np.array([_luck(counts) if _uneven(counts) else 0.0 for counts in self._counts()])

    def _counts(self) -> list[IntArray]:
        return [np.bincount(c[c >= 0], minlength=self.classes) for c in self.truth.T]

    def _moves(self, answer: FloatArray, prior: FloatArray) -> FloatArray:
        """How far answers are from the prior, ``(n, parts, K)``."""
        if answer.shape[1] != self.truth.shape[1]:
            return np.asarray(answer[:, None] - prior)
        return np.stack([1 - answer, answer], -1) - prior

    def _of_truth(self, values: FloatArray) -> FloatArray:
        """Entries of the true classes, ``(n, parts)``."""
        index = np.where(self.known, self.truth, 0)[..., None]
        return np.where(self.known, np.take_along_axis(values, index, -1)[..., 0], np.nan)


class Numbers(Question):
    """D numbers for each sample, each measured by its own spread.

    Args:
        truth: NaN where unknown, ``(n, D)``.
        scale: Mean and standard deviation of each number, ``(2, D)``; left out, those of the truth.
    """

    def __init__(self, truth: FloatArray, scale: FloatArray | None = None) -> None:
        self._raw = np.asarray(truth, dtype=np.float64)
        self.known = np.isfinite(self._raw)
        if scale is None:
            count = np.maximum(self.known.sum(0), 1)
            mean = np.where(self.known, self._raw, 0.0).sum(0) / count
            spread = np.sqrt((np.where(self.known, self._raw - mean, 0.0) ** 2).sum(0) / count)
            scale = np.stack([mean, np.where(spread > 1e-9 * np.abs(mean), spread, 1.0)])
        self.scale = scale
        self.truth = (self._raw - scale[0]) / scale[1]

    def of(self, rows: np.ndarray) -> Numbers:
        """See :meth:`Question.of`."""
        return Numbers(self._raw[rows], self.scale)

    def numbers(self) -> FloatArray:
        """The numbers in units of their spread, the mean where unknown."""
        return np.where(self.known, self.truth, 0.0)

    def prior(self, rows: np.ndarray) -> FloatArray:
        """Means, ``(D,)``."""
        known = self.known[rows]
        total = np.where(known, self.truth[rows], 0.0).sum(0)
        return np.asarray(total / np.maximum(known.sum(0), 1))

    def weights(self, answers: Sequence[FloatArray], prior: FloatArray) -> FloatArray:
        """By least squares, part by part."""
        found = np.zeros((len(answers), self.truth.shape[1]))
        for part, known in enumerate(self.known.T):
            moves = np.stack([(answer - prior)[known, part] for answer in answers], 1)
            if known.any():
                found[:, part] = nnls(moves, (self.truth - prior)[known, part])[0]
        return found

    def judge(
        self, answers: Sequence[FloatArray], weights: FloatArray, prior: FloatArray, seen: int
    ) -> Judged:
        """``score`` is the negative squared error, ``gain`` what it is less than that of the mean, ``entropy`` the latter."""
        moved = np.broadcast_to(prior, self.truth.shape)
        for answer, a in zip(answers, weights, strict=True):
            moved = moved + a * (answer - prior)
        error, entropy = (self.truth - moved) ** 2, (self.truth - prior) ** 2
        return {"score": -error, "gain": entropy - error, "entropy": entropy}

    def slopes(
        self, answers: Sequence[FloatArray], prior: FloatArray, units: IntArray
    ) -> FloatArray:
        """Of half the squared error."""
        moves = np.where(self.known, _centred(np.sum(answers, axis=0)), 0.0)
        rise = moves * np.where(self.known, self.truth - prior, 0.0)
        return np.stack([rise.sum(0), _variance(rise, units), (moves**2).sum(0)])

    def constant(self) -> FloatArray:
        """Negative squared error of the mean of these samples, which is what R2 compares with."""
        everyone = np.ones(len(self.truth), dtype=bool)
        return np.asarray(-((self.truth - self.prior(everyone)) ** 2))

    def luck(self) -> FloatArray:
        """None to speak of: a mean is one degree of freedom."""
        return np.zeros(self.truth.shape[1])


def missed(slopes: FloatArray, *, squared: bool) -> FloatArray:
    """The gain that could be there although none was found: the most that weights inside their 95 % interval promise.

    To second order a weight a gains ``slope a - curvature a^2 / 2``; the true weight is at most (slope + 1.96 standard errors of it)
    / curvature. With n independent samples and a slope of 0 that is 1.92 / n nats a sample.

    Args:
        slopes: From :meth:`Question.slopes`.
        squared: Whether the gain is a squared error, not half of it.

    Returns:
        Summed over samples, ``(parts,)``, at least 0.
    """
    slope, variance, curvature = slopes
    most = np.maximum(0.0, slope + _NORMAL * np.sqrt(variance)) ** 2
    halves = 1.0 if squared else 0.5
    return np.where(curvature > _FLAT, halves * most / np.maximum(curvature, _FLAT), 0.0)


def _centred(moves: FloatArray) -> FloatArray:
    """Less the mean over samples: what is said alike of all of them is said of none."""
    return np.asarray(moves - moves.mean(0))


def _variance(rise: FloatArray, units: IntArray) -> FloatArray:
    """Sum of the squares of the sums over units, ``(parts,)``."""
    number = np.unique(units, return_inverse=True)[1]
    return np.stack([(np.bincount(number, part) ** 2).sum() for part in rise.T])


def _uneven(counts: IntArray) -> bool:
    """Whether a class is more than one sample ahead of another; else they were balanced on purpose."""
    return bool(counts.max() - counts.min() > 1)


def _luck(counts: IntArray) -> float:
    n = counts.sum()
    drawn = np.random.default_rng(0).multinomial(n, counts / n, _DRAWS)
    return float(drawn.max(1).mean() - counts.max()) / float(n)
