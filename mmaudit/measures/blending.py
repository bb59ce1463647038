"""Weights that Gradient-Blend would give to the heads' losses, offline and for each super-epoch, as estimates over runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.loss_bootstrap import can_be_resampled, interval_of, resampled
from mmaudit.measures.ogr import BlendPolicy, super_epoch_weights
from mmaudit.measures.run_set import ONE_RUN, RunSet, mean_estimate, place_name
from mmaudit.report.loss_record import ALL_RUNS, WHOLE
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.typing import FloatArray

__all__ = ["blend_rows", "super_epoch_length"]

_LEVEL = 0.975
_SUPER_EPOCHS = 5
_MOST_RUNS = 100


def super_epoch_length(checkpoints: int) -> int:
    """Checkpoints of a super-epoch where none is given: a fifth of the training.

    Example:
        >>> super_epoch_length(51), super_epoch_length(3)
        (10, 1)
    """
    return max(1, round((checkpoints - 1) / _SUPER_EPOCHS))


def blend_rows(
    runs: RunSet,
    doubts: dict[str, str],
    *,
    policy: BlendPolicy,
    length: int | None = None,
    shared: bool = False,
) -> Iterator[LabelledEstimate]:
    """Rows of the measure ``blend_weights``: weight, G and O of each head and window.

    Args:
        runs: Their losses.
        doubts: Heads that cannot be blended, with the reason.
        policy: What a head counts whose validation loss rose.
        length: Checkpoints of a super-epoch; left out: a fifth of the training.
        shared: Whether the heads are sets of data rather than heads.

    Raises:
        UndefinedMeasureError: If there are no two heads that can be blended, or no two checkpoints that all runs have.
    """
    if shared:
        raise UndefinedMeasureError(
            "all heads share one train loss: there is nothing to blend between sets of data"
        )
    usable = [h for h, head in enumerate(runs.heads) if head not in doubts]
    if len(usable) < 2:
        raise UndefinedMeasureError(
            f"a blend needs two heads with comparable losses, found {len(usable)}"
        )
    common = runs.common(usable)
    if len(common) < 2:
        raise UndefinedMeasureError(
            "heads and runs have fewer than two checkpoints in common: there is no window to estimate over"
        )
    train, validation = (x[:, usable][:, :, common] for x in (runs.train, runs.validation))
    names = [runs.heads[h] for h in usable]
    places = runs.at[common]
    left_out = [head for head in runs.heads if head in doubts]
    notes = [f"without {', '.join(map(repr, left_out))}: not comparable"[:200]] if left_out else []
    longest = max(int(runs.lengths(h).max()) for h in usable)
    if len(common) < 0.8 * longest:
        notes.append(
            f"over the {len(common):,} checkpoints that all heads and runs have, of up to {longest:,}"
        )
    note = "; ".join(notes) or None
    windows: list[int | None] = [None]
    step = length or super_epoch_length(len(common))
    if step < len(common) - 1:
        windows.append(step)
    for window in windows:
        yield from _of_windows(names, places, train, validation, window, policy, note)
    if 1 < len(runs.titles) <= _MOST_RUNS:
        for r, title in enumerate(runs.titles):
            ((_, _, found),) = super_epoch_weights(train[r], validation[r], policy=policy)
            for name, weight in zip(names, found.weights.tolist(), strict=True):
                estimate = Estimate(value=weight, n=1, method=ONE_RUN, warning=found.reason)
                yield _row(name, title, WHOLE, "weight", estimate)


def _of_windows(
    names: list[str],
    places: FloatArray,
    train: FloatArray,
    validation: FloatArray,
    length: int | None,
    policy: BlendPolicy,
    note: str | None,
) -> Iterator[LabelledEstimate]:
    """Rows of one length of windows, from losses of shape ``(R, H, T)``."""
    together = super_epoch_weights(
        train.mean(axis=0), validation.mean(axis=0), length=length, policy=policy
    )
    single = np.array(
        [
            [
                weights.weights
                for _, _, weights in super_epoch_weights(t, v, length=length, policy=policy)
            ]
            for t, v in zip(train, validation, strict=True)
        ]
    )
    drawn = None
    if len(train) == 1 and len(together) <= _MOST_RUNS and can_be_resampled(validation[0]):
        drawn = np.array(
            [
                [w.weights for _, _, w in super_epoch_weights(t, v, length=length, policy=policy)]
                for t, v in resampled(train[0], validation[0])
            ]
        )
    for at, (first, last, found) in enumerate(together):
        window = WHOLE
        if length is not None:
            window = f"{place_name(places[first])} to {place_name(places[last])}"
        G = validation[..., first] - validation[..., last]
        O = (validation - train)[..., last] - (validation - train)[..., first]  # noqa: E741
        warning = "; ".join(text for text in (found.reason, note) if text) or None
        for h, name in enumerate(names):
            weight = _weight(
                float(found.weights[h]),
                single[:, at, h],
                None if drawn is None else drawn[:, at, h],
                warning,
                positive=policy != "signed",
            )
            yield _row(name, ALL_RUNS, window, "weight", weight)
            yield _row(name, ALL_RUNS, window, "G", mean_estimate(G[:, h], len(G), "no run has it"))
            yield _row(name, ALL_RUNS, window, "O", mean_estimate(O[:, h], len(O), "no run has it"))


def _weight(
    value: float,
    runs: FloatArray,
    drawn: FloatArray | None,
    warning: str | None,
    *,
    positive: bool,
) -> Estimate:
    """A weight from the mean losses, with the spread of the weights of single runs, or of replicates of one."""
    n = len(runs)
    if drawn is not None:
        low, high = interval_of(drawn)
        return Estimate(
            value=value,
            low=min(low, value),
            high=max(high, value),
            n=1,
            method="block bootstrap over the checkpoints of one run",
            warning=warning,
        )
    if n == 1:
        return Estimate(value=value, n=1, method=ONE_RUN, warning=warning)
    half = float(stats.t.ppf(_LEVEL, n - 1) * runs.std(ddof=1) / np.sqrt(n))
    low, high = value - half, value + half
    if positive:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=n,
        method=f"of the mean losses; Student t over {n} runs",
        warning=warning,
    )


def _row(head: str, run: str, window: str, quantity: str, estimate: Estimate) -> LabelledEstimate:
    return LabelledEstimate(
        labels={"head": head, "run": run, "window": window, "quantity": quantity},
        estimate=estimate,
    )
