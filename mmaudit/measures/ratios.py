"""Every estimate of the measures as a ratio of two sums over units, which is what two records are compared by.

The measures themselves say how a value is estimated from one table. To compare two tables, the sums behind the value are
needed unit by unit; here they stand in one form for all measures, under the labels of the measures' rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from mmaudit.measures.base import coalition_name
from mmaudit.measures.resampling import UnitSums, class_coalitions
from mmaudit.measures.shapley import modality_pairs
from mmaudit.measures.utilization import spread_pair
from mmaudit.report.labels import response_score
from mmaudit.typing import FloatArray, IntArray

__all__ = ["RATIOS", "SPREAD", "Ratios"]

SPREAD = "max - min"
"""Modality label of d_util beyond two modalities: which two it compares may differ between records."""


class Ratios(NamedTuple):
    """Some estimates of one measure: ``sum(numerators) / sum(denominators)``, column by column."""

    labels: tuple[dict[str, str], ...]
    """Of each of the c columns, as in the measure's rows, without ``class``."""
    numerators: FloatArray
    """Shape ``(U, c)``."""
    denominators: FloatArray
    """Shape ``(U, 1)`` or ``(U, c)``."""
    counts: FloatArray
    """Samples behind each, shape ``(U, 1)`` or ``(U, c)``."""
    reach: FloatArray
    """Largest value of a single sample, shape ``(c,)``; 0 where none can be named or nothing can vary."""
    scale: float = 1.0
    """Of what order the values are."""
    tally: IntArray | None = None
    """Columns of ``PairedSums.discordant``, shape ``(c,)``: the values are shares of correct samples."""


def _coalitions(sums: UnitSums, index: int | None) -> Iterator[Ratios]:
    kept = class_coalitions(len(sums.modalities))
    primary, second = sums.scores
    worths = sums.worths(primary, index)
    columns = {primary: worths[:, kept] if index is None else worths}
    if index is None:
        columns[second] = sums.loglik()[:, kept]
    for score, values in columns.items():
        labels = tuple(
            {"coalition": coalition_name(int(c), sums.modalities), "score": score} for c in kept
        )
        exact = score == "accuracy"
        yield Ratios(
            labels=labels,
            numerators=values,
            denominators=sums.weight(score, index),
            counts=sums.counts(index),
            scale=sums.scale(score, index),
            reach=np.full(len(kept), 1.0 if exact else 0.0),
            tally=np.arange(len(kept)) if exact else None,
        )


def _responses(sums: UnitSums, index: int | None) -> Iterator[Ratios]:
    M, present = len(sums.modalities), sums.present(index)
    start = len(class_coalitions(M))
    for place, empty in enumerate(("exact", "zero")):
        for quantity, column in (("s", "loglik"), (response_score(sums.task), "score")):
            exact = quantity == "Acc"
            values = sums.responses(column, empty, index)
            yield Ratios(
                labels=tuple(
                    {"quantity": quantity, "modality": name, "empty": empty}
                    for name in sums.modalities
                ),
                numerators=-values if quantity == "s" else values,
                denominators=present if quantity == "s" else sums.response_weight(index),
                counts=present,
                scale=sums.scale(sums.scores[1], index) if quantity == "s" else 1.0,
                reach=np.full(M, 1.0 if exact else 0.0),
                tally=start + place * M + np.arange(M) if exact else None,
            )


def _contributions(sums: UnitSums, index: int | None) -> Iterator[Ratios]:
    counts = sums.counts(index)
    for score in sums.scores:
        values = sums.contributions(score, index)
        for quantity in ("value", "share"):
            bounded = quantity == "value" and score == "accuracy"
            weight = sums.weight(score, index)
            yield Ratios(
                labels=tuple(
                    {"modality": name, "score": score, "quantity": quantity}
                    for name in sums.modalities
                ),
                numerators=values,
                denominators=weight if quantity == "value" else values.sum(axis=1, keepdims=True),
                counts=counts,
                scale=sums.scale(score, index) if quantity == "value" else 1.0,
                reach=np.where(sums.silent(None), 0.0, 2.0 if bounded else 0.0),
            )


def _interactions(sums: UnitSums, index: int | None) -> Iterator[Ratios]:
    pairs, silent = modality_pairs(len(sums.modalities)), sums.silent(None)
    for score in sums.scores if pairs else ():
        bound = 4.0 if score == "accuracy" else 0.0
        yield Ratios(
            labels=tuple(
                {"first": sums.modalities[i], "second": sums.modalities[j], "score": score}
                for i, j in pairs
            ),
            numerators=sums.interactions(score, index),
            denominators=sums.weight(score, index),
            counts=sums.counts(index),
            scale=sums.scale(score, index),
            reach=np.array([0.0 if silent[i] or silent[j] else bound for i, j in pairs]),
        )


def _utilization(sums: UnitSums, index: int | None) -> Iterator[Ratios]:
    """u(m|S) for all S of up to five modalities, beyond that given none and given all others; d_util."""
    M, counts, worths = len(sums.modalities), sums.counts(index), sums.worths(sums.scores[0], index)
    place = {int(c): at for at, c in enumerate(sums.coalitions(index))}
    kept = {int(c) for c in class_coalitions(M)} if index is None else set()
    labels, more, less, reach = [], [], [], []
    for m, name in enumerate(sums.modalities):
        rest = 2**M - 1 - (1 << m)
        for S in sorted(kept | {rest}):
            if S >> m & 1 or (rest != S and S | 1 << m not in kept):
                continue
            labels.append(
                {"quantity": "u", "modality": name, "given": coalition_name(S, sums.modalities)}
            )
            more.append(worths[:, place[S | 1 << m]])
            less.append(worths[:, place[S]])
            reach.append(_reach(sums) * (not sums.silent(None)[m]))
    with_, without = np.stack(more, axis=1), np.stack(less, axis=1)
    total = np.maximum(with_.sum(axis=0), 1.0)
    yield Ratios(
        labels=tuple(labels),
        numerators=with_ - without,
        denominators=with_,
        counts=counts,
        reach=np.array(reach) * counts.sum() / total,
    )
    if M > 1:
        yield _spread(sums, index)


def _spread(sums: UnitSums, index: int | None) -> Ratios:
    M, counts, worths = len(sums.modalities), sums.counts(index), sums.worths(sums.scores[0], index)
    place = {int(c): at for at, c in enumerate(sums.coalitions(index))}
    without = worths[:, [place[2**M - 1 - (1 << m)] for m in range(M)]]
    grand = worths[:, [place[2**M - 1]]]
    (high, low), _ = spread_pair(sums, without, ~sums.absent(index))
    name = SPREAD if M > 2 else f"{sums.modalities[1]} - {sums.modalities[0]}"
    return Ratios(
        labels=({"quantity": "d_util", "modality": name, "given": "rest"},),
        numerators=without[:, [low]] - without[:, [high]],
        denominators=grand,
        counts=counts,
        reach=np.array([_reach(sums) * counts.sum() / max(grand.sum(), 1.0)]),
    )


def _reach(sums: UnitSums) -> float:
    """Largest change of a rate by one sample, in samples; 0 for R2, where none can be named."""
    return 2.0 if sums.scores[0] == "accuracy" else 0.0


RATIOS: dict[str, Callable[[UnitSums, int | None], Iterator[Ratios]]] = {
    "coalitions": _coalitions,
    "responses": _responses,
    "contributions": _contributions,
    "interactions": _interactions,
    "utilization": _utilization,
}
"""Measure -> its estimates, overall (``None``) or for a class. The keys are those of ``MEASURES``."""
