"""A probe: whether features say anything about a target, by learners that see lines, curves, products and thresholds.

Two learners, because neither sees everything (4,000 samples; share of the target's entropy that is gained): ridge regression on the
features and on random Fourier features of them (Rahimi & Recht 2007) sees what is spread over many features (a shape in 28 x 28 noisy
pixels: .71, trees .34); extremely randomised trees (Geurts et al. 2006) see what is in few of them (a circle in 2 of 50: .86, ridge
0). Their answers are weighed together. Pure noise gains less than .002 with either. Both learn indicators, so that one fit
serves all classes.

A probe gives a lower bound: what it does not find may still be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.kernel_approximation import RBFSampler

from mmaudit.evidence.questions import Judged, Numbers, Question, missed
from mmaudit.evidence.ridge import StreamingRidge
from mmaudit.masking.base import stable_hash
from mmaudit.typing import FloatArray, IntArray

__all__ = ["FEWEST", "Split", "deal", "probe", "probe_elsewhere"]

FEWEST = 20
"""Samples that a probe needs at least."""

_FOLDS = 5
_GRID = tuple(10.0**power for power in range(-1, 5))
_BANDWIDTH = 0.25
_FOURIER = 384
_TREES, _FEWER_TREES = 64, 32
_LEAF = 3
_MANY = 1000
"""From so many samples on, the time that trees take is worth it."""
_MOST_OUTPUTS = 64
"""Trees keep a number for each output in every node; of more, ridge alone."""
_FARTHEST = 5.0
_CONSTANT = 1e-6


class Split(NamedTuple):
    """Samples to learn from."""

    features: FloatArray
    """Shape ``(n, p)``."""
    question: Question
    folds: IntArray
    """Fold of each sample, ``(n,)``; samples that belong together are in one."""
    units: IntArray
    """What each sample belongs to, ``(n,)``."""


def deal(units: Sequence[str], seed: int) -> tuple[IntArray, IntArray]:
    """Deal units into folds of about equal size, by hash.

    Args:
        units: What each sample belongs to: its group, or its id.
        seed: Of the audit.

    Returns:
        Fold of each sample in ``[0, 5)`` (fewer where there are fewer units), and a running number of its unit, each ``(n,)``.

    Example:
        >>> folds, numbers = deal(["a", "b", "a", "c"], 0)
        >>> folds[0] == folds[2], len(set(folds.tolist()))
        (np.True_, 3)
    """
    names, number = np.unique(np.asarray(units, dtype=object).astype(str), return_inverse=True)
    order = np.argsort([stable_hash(seed, "fold", name) for name in names.tolist()])
    fold = np.empty(len(names), dtype=np.int64)
    fold[order] = np.arange(len(names)) % _FOLDS
    return fold[number], number


def probe(split: Split, *, seed: int) -> Judged:
    """Ask about every sample a probe that was fitted without it (and without what belongs to it).

    Weights of the learners in a fold come from their answers in the others.

    Args:
        split: At least two folds.
        seed: Of what learners draw.
    """
    question, folds = split.question, split.folds
    answers = _cross_fitted(split, seed)
    found: Judged = {}
    constant = _constant(question)
    slopes = np.zeros((3, question.known.shape[1]))
    for fold in np.unique(folds):
        here = folds == fold
        judged = _judged(
            split,
            ~here,
            answers,
            question.of(here),
            [a[here] for a in answers],
            {name: values[here] for name, values in constant.items()},
        )
        for name, values in judged.items():
            found.setdefault(name, np.full(question.known.shape, np.nan))[here] = values
        own = [answer[here] for answer in answers]
        slopes += question.of(here).slopes(own, question.prior(~here), split.units[here])
    return _with_missed(found, question, slopes)


def probe_elsewhere(
    split: Split, features: FloatArray, question: Question, units: IntArray, *, seed: int
) -> Judged:
    """Fit a probe on some samples and ask it about others.

    Args:
        split: To learn from, at least two folds.
        features: Of the others, ``(n, p)``.
        question: About the others.
        units: What each of the others belongs to, ``(n,)``.
        seed: Of what learners draw.
    """
    inside = _cross_fitted(split, seed)
    everyone = np.ones(len(split.folds), dtype=bool)
    answers = _Learners(split, seed).about(features)
    judged = _judged(split, everyone, inside, question, answers, _constant(question))
    prior = split.question.prior(everyone)
    return _with_missed(judged, question, question.slopes(answers, prior, units))


def _with_missed(judged: Judged, question: Question, slopes: FloatArray) -> Judged:
    """Add what may have been missed to the rows where nothing was found."""
    nothing = (judged["score"] == judged["constant"]) & (judged["gain"] == 0)
    each = missed(slopes, squared=isinstance(question, Numbers)) / np.maximum(
        question.known.sum(0), 1
    )
    return {**judged, "missed": np.where(nothing, each, 0.0)}


def _constant(question: Question) -> Judged:
    """The best constant answer."""
    constant = question.constant()
    return {"constant": constant, "luck": np.broadcast_to(question.luck(), constant.shape)}


def _judged(
    split: Split,
    learnt_from: np.ndarray,
    inside: Sequence[FloatArray],
    question: Question,
    answers: Sequence[FloatArray],
    constant: Judged,
) -> Judged:
    """Weigh learners by their answers to some samples, and judge their answers to others.

    Where weighed answers do not gain more than their own standard error, nothing is answered but what the best constant answer says.
    """
    prior = split.question.prior(learnt_from)
    known = split.question.of(learnt_from)
    own = [answer[learnt_from] for answer in inside]
    seen = int(learnt_from.sum())
    weights = known.weights(own, prior)
    gain = np.nan_to_num(known.judge(own, weights, prior, seen)["gain"])
    units = np.unique(split.units[learnt_from], return_inverse=True)[1]
    by_unit = np.stack([np.bincount(units, part) for part in gain.T], 1)
    answered = by_unit.sum(0) > np.sqrt(len(by_unit)) * by_unit.std(0)
    answered &= weights.any(axis=0)  # sums of nothing may be anything in the last digit
    judged = question.judge(answers, weights * answered, prior, seen)
    return {
        "score": np.where(answered, judged["score"], constant["constant"]),
        "constant": constant["constant"],
        "luck": np.where(answered, constant["luck"], 0.0),
        "gain": np.where(answered, judged["gain"], 0.0 * judged["entropy"]),
        "entropy": judged["entropy"],
    }


def _cross_fitted(split: Split, seed: int) -> list[FloatArray]:
    """Answers of each learner to samples that it was not fitted on, ``(n, q)``."""
    learners = _Learners(split, seed)
    answers: list[FloatArray] = []
    for fold in np.unique(split.folds):
        here = split.folds == fold
        for place, found in enumerate(learners.about(split.features[here], without=int(fold))):
            if place == len(answers):
                answers.append(np.zeros((len(here), found.shape[1])))
            answers[place][here] = found
    return answers


class _Learners:
    """Both learners on the same samples, with or without one of the folds."""

    def __init__(self, split: Split, seed: int) -> None:
        self._folds, self._seed = split.folds, seed % 2**32
        self._numbers = split.question.numbers()
        features = split.features.astype(np.float64)
        self._mean, spread = features.mean(0), features.std(0)
        self._varies = spread > _CONSTANT * np.maximum(np.abs(self._mean), _CONSTANT)
        self._spread = spread[self._varies]
        self._values = self._scaled(split.features)
        width = max(1, self._values.shape[1])
        self._fourier = RBFSampler(
            gamma=_BANDWIDTH / width,
            n_components=int(np.clip(len(features) // 2, 16, _FOURIER)),
            random_state=self._seed,
        ).fit(np.zeros((1, width)))
        self._ridge = StreamingRidge(folds=_FOLDS)
        self._ridge.add(
            torch.from_numpy(self._mapped(self._values)),
            torch.from_numpy(self._numbers),
            split.folds,
        )

    def about(self, features: FloatArray, *, without: int | None = None) -> list[FloatArray]:
        """Answers ``(n, q)`` of learners that are fitted without a fold."""
        values = self._scaled(features)
        left_out = () if without is None else (without,)
        used = np.ones(len(self._folds), bool) if without is None else self._folds != without
        enough = len(np.unique(self._folds[used])) > 1
        fit = self._ridge.fit("cross-validated" if enough else 1.0, without=left_out, grid=_GRID)
        found = [fit.predict(torch.from_numpy(self._mapped(values))).numpy()]
        if self._numbers.shape[1] <= _MOST_OUTPUTS and self._values.shape[1]:
            numbers = self._numbers[used]
            trees = ExtraTreesRegressor(
                _TREES if len(self._folds) >= _MANY else _FEWER_TREES,
                min_samples_leaf=_LEAF,
                max_features="sqrt",
                random_state=self._seed,
            ).fit(self._values[used], numbers if numbers.shape[1] > 1 else numbers[:, 0])
            found.append(trees.predict(values).reshape(len(values), -1))
        return found

    def _scaled(self, features: FloatArray) -> FloatArray:
        """In standard deviations, at most five; features that do not vary are left out."""
        values = features[:, self._varies].astype(np.float64) - self._mean[self._varies]
        return np.asarray(np.clip(values / self._spread, -_FARTHEST, _FARTHEST))

    def _mapped(self, values: FloatArray) -> FloatArray:
        """The features, and Fourier features of about the same size together."""
        width = max(1, values.shape[1])
        whole = values if values.shape[1] else np.zeros((len(values), 1))
        return np.hstack([whole, self._fourier.transform(whole) * np.sqrt(width)])
