"""Where each head is at its best, where it begins to overfit, and what it gained meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmaudit.measures.loss_bootstrap import (
    can_be_resampled,
    flat_valley,
    interval_of,
    resampled,
)
from mmaudit.measures.ogr import NO_CHANGE, best_checkpoints, first_overfitting
from mmaudit.measures.run_set import ONE_RUN, RunSet, mean_estimate, ratio_estimate
from mmaudit.report.loss_record import ALL_RUNS
from mmaudit.report.schema import Estimate, LabelledEstimate
from mmaudit.typing import FloatArray, IntArray

__all__ = ["turning_rows"]

_MOST_RUNS = 100
_NEVER = "no overfitting was found: no lasting rise of the validation loss beyond the noise while the train loss falls"
_NEGATIVE = "the loss is not above 0 throughout: shares of it mean nothing"
_NO_CHANGE = f"the validation loss changed by less than {NO_CHANGE:g} of itself"
_ONE_CHECKPOINT = "one checkpoint is no trajectory"
_SHARES = ("improvement", "rise after best")
_SINGLE = "no other head can be compared"


def turning_rows(
    runs: RunSet, doubts: dict[str, str], apart: dict[str, str], *, compare: bool = True
) -> Iterator[LabelledEstimate]:
    """Rows of the measure ``overfitting``: for all runs together, and for each where there are several.

    Args:
        runs: Their losses.
        doubts: Head -> why its comparison is wrong.
        apart: Head -> why it cannot be compared with other heads; those of ``doubts`` too.
        compare: Whether the heads are heads of one model, so that the joint one can be compared with the others.
    """
    every = [_quantities(runs, r) for r in range(len(runs.titles))]
    onsets = _onsets(runs)
    for h, head in enumerate(runs.heads):
        doubt = doubts.get(head)
        shorter = _of_unlike_lengths(runs, h)
        for name in every[0]:
            values = np.array([found[name][h] for found in every])
            warning = "; ".join(text for text in (doubt, shorter) if text) or None
            yield _row(head, ALL_RUNS, name, _estimate(name, values, every, h, warning))
        yield _row(head, ALL_RUNS, "first overfitting", _first(runs, onsets, h, doubt))
        if compare and head == runs.joint:
            against = _against_best_single(runs, every, apart, h)
            yield _row(head, ALL_RUNS, "OGR less that of the best other head", against)
    if 1 < len(runs.titles) <= _MOST_RUNS:
        for r, title in enumerate(runs.titles):
            for h, head in enumerate(runs.heads):
                for name, found in every[r].items():
                    one = np.array([found[h]])
                    yield _row(
                        head, title, name, _estimate(name, one, [every[r]], h, doubts.get(head))
                    )
                onset = mean_estimate(onsets[r : r + 1, h], 1, _NEVER, doubts.get(head))
                yield _row(head, title, "first overfitting", onset)


def _of_unlike_lengths(runs: RunSet, h: int) -> str | None:
    """That runs ended at different times, where it matters."""
    lengths = runs.lengths(h)
    fewest, most = int(lengths.min()), int(lengths.max())
    if fewest >= 0.8 * most:
        return None
    return f"each run over its own {fewest:,} to {most:,} checkpoints"


def _quantities(runs: RunSet, r: int) -> dict[str, FloatArray]:
    """Quantity -> a value for each head of one run, NaN where there is none."""
    found = [_of_curve(runs.at, *runs.of_head(r, h)) for h in range(len(runs.heads))]
    return {name: np.array([of_head[name] for of_head in found]) for name in found[0]}


def _of_curve(
    at: FloatArray, own: IntArray, train: FloatArray, validation: FloatArray
) -> dict[str, float]:
    best = int(best_checkpoints(validation)[0])
    lowest, first, last = float(validation[best]), float(validation[0]), float(validation[-1])
    positive = bool((validation > 0).all())
    dG = first - last if len(own) > 1 else np.nan
    gain = float(train[0] - train[-1]) if len(own) > 1 else np.nan
    return {
        "best checkpoint": float(at[own[best]]),
        "validation at best": lowest,
        "improvement": (first - lowest) / first if positive else np.nan,
        "rise after best": (last - lowest) / lowest if positive else np.nan,
        "train gain after best": float(train[best] - train[-1]),
        "train gain": gain,
        "dG": dG,
        "dO": gain - dG,
        "OGR": _ratio(gain - dG, dG, first),
    }


def _ratio(dO: float, dG: float, before: float) -> float:
    """|dO / dG|, NaN where the validation loss did not change."""
    if not abs(dG) > NO_CHANGE * abs(before):
        return float("nan")
    return abs(dO / dG)


def _estimate(
    name: str,
    values: FloatArray,
    every: list[dict[str, FloatArray]],
    h: int,
    doubt: str | None,
) -> Estimate:
    if name == "OGR":
        above, below = (np.array([found[n][h] for found in every]) for n in ("dO", "dG"))
        first = np.array([found["validation at best"][h] for found in every])
        if not np.isfinite(below).any():
            return Estimate(undefined=_ONE_CHECKPOINT)
        if abs(np.nanmean(below)) < NO_CHANGE * abs(np.nanmean(first)):
            return Estimate(undefined=_NO_CHANGE)
        return ratio_estimate(above, below, _NO_CHANGE, doubt)
    undefined = _NEGATIVE if name in _SHARES else _ONE_CHECKPOINT
    return mean_estimate(values, len(values), undefined, doubt)


def _onsets(runs: RunSet) -> FloatArray:
    """Place of the first overfitting, shape ``(R, H)``; NaN where there is none."""
    found = np.full((len(runs.titles), len(runs.heads)), np.nan)
    for r in range(len(runs.titles)):
        for h in range(len(runs.heads)):
            own, train, validation = runs.of_head(r, h)
            onset = first_overfitting(train, validation)[0]
            if onset is not None:
                found[r, h] = runs.at[own[onset]]
    return found


def _first(runs: RunSet, onsets: FloatArray, h: int, doubt: str | None) -> Estimate:
    """Where a head begins to overfit: of one run with a block bootstrap, of several where their mean does."""
    if len(runs.titles) == 1:
        return _first_of_one(runs, float(onsets[0, h]), h, doubt)
    number, n = len(runs.titles), int(np.isfinite(onsets[:, h]).sum())
    mean = runs.mean_curve(h)
    if mean is None:
        return _with_share(mean_estimate(onsets[:, h], number, _NEVER, doubt), n, number)
    common, train, validation = mean
    onset = first_overfitting(train, validation)[0]
    if onset is None:
        if n == 0:
            return Estimate(undefined=_NEVER)
        return Estimate(undefined=f"{_NEVER} in the mean of the runs, though in {n} of {number}")
    value = float(runs.at[common[onset]])
    if n < 2:
        return _with_share(
            Estimate(value=value, n=n, method="of the mean over the runs", warning=doubt), n, number
        )
    own = onsets[np.isfinite(onsets[:, h]), h]
    if n == number and not own.min() <= value <= own.max():
        # Where all runs turn, their mean turns among them; one that does not has lost the rise in a flat valley.
        return mean_estimate(onsets[:, h], number, _NEVER, doubt)
    # Single runs turn less sharply than their mean: their spread makes the interval rather too wide.
    around = mean_estimate(onsets[:, h], number, _NEVER)
    assert around.low is not None and around.high is not None
    half = (around.high - around.low) / 2
    estimate = Estimate(
        value=value,
        low=value - half,
        high=value + half,
        n=n,
        method=f"of the mean over the runs; Student t over {n} runs",
        warning=doubt,
    )
    return _with_share(estimate, n, number)


def _with_share(estimate: Estimate, n: int, number: int) -> Estimate:
    if estimate.value is None or n == number:
        return estimate
    text = f"{n} of {number} runs overfit by themselves"
    warning = "; ".join(part for part in (estimate.warning, text) if part)
    return estimate.model_copy(update={"warning": warning})


def _first_of_one(runs: RunSet, onset: float, h: int, doubt: str | None) -> Estimate:
    if not np.isfinite(onset):
        return Estimate(undefined=_NEVER)
    own, train, validation = runs.of_head(0, h)
    if not can_be_resampled(validation[None]):
        return Estimate(value=onset, n=1, method=ONE_RUN, warning=doubt)
    drawn = [first_overfitting(t, v)[0] for t, v in resampled(train[None], validation[None])]
    places = np.array([runs.at[own[place]] for place in drawn if place is not None])
    if len(places) < 0.5 * len(drawn):
        text = "no interval: most replicates of the block bootstrap do not overfit"
        warning = "; ".join(part for part in (doubt, text) if part)
        return Estimate(value=onset, n=1, method=ONE_RUN, warning=warning)
    low, high = interval_of(places)
    if flat_valley(validation):
        text = "the validation loss is flat around its lowest: the interval is rather too narrow"
        doubt = "; ".join(part for part in (doubt, text) if part)
    return Estimate(
        value=onset,
        low=min(low, onset),
        high=max(high, onset),
        n=1,
        method=f"block bootstrap over {len(own)} checkpoints of one run",
        warning=doubt,
    )


def _against_best_single(
    runs: RunSet, every: list[dict[str, FloatArray]], apart: dict[str, str], joint: int
) -> Estimate:
    """OGR of the joint head over the whole training, less that of the other head with the lowest validation loss."""
    others = [i for i, head in enumerate(runs.heads) if i != joint and head not in apart]
    if runs.heads[joint] in apart:
        return Estimate(undefined=apart[runs.heads[joint]])
    if not others:
        return Estimate(undefined=_SINGLE)
    lowest = [float(np.mean([f["validation at best"][i] for f in every])) for i in others]
    best = others[int(np.argmin(lowest))]
    differences = np.array([_apart_in(runs, r, joint, best) for r in range(len(every))])
    estimate = mean_estimate(differences, len(every), _NO_CHANGE)
    if estimate.value is None:
        return estimate
    return estimate.model_copy(
        update={"method": f"{estimate.method}; the best other head is {runs.heads[best]!r:.60}"}
    )


def _apart_in(runs: RunSet, r: int, joint: int, best: int) -> float:
    """Difference of two heads' OGR in one run, over the checkpoints that both have."""
    train, validation = runs.train[r, [joint, best]], runs.validation[r, [joint, best]]
    both = np.flatnonzero(np.isfinite(train).all(axis=0))
    if len(both) < 2:
        return float("nan")
    gain = train[:, both[0]] - train[:, both[-1]]
    dG = validation[:, both[0]] - validation[:, both[-1]]
    first, second = (
        _ratio(float(gain[i] - dG[i]), float(dG[i]), float(validation[i, both[0]])) for i in (0, 1)
    )
    return first - second


def _row(head: str, run: str, quantity: str, estimate: Estimate) -> LabelledEstimate:
    return LabelledEstimate(
        labels={"head": head, "run": run, "quantity": quantity}, estimate=estimate
    )
