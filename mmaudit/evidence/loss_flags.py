"""What the numbers of a log say against comparing its train with its validation losses.

A comparison is wrong, not only rough, where one loss is a sum (of several losses, or over batches) and the other a mean. An average
over an epoch is none: it lies between the losses at the two ends of the epoch, however fast they fall.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import nnls

from mmaudit.evidence.loss_map import LossMap
from mmaudit.evidence.loss_names import of_test_set, read_name
from mmaudit.evidence.readers.base import Run, Series, counted, said
from mmaudit.typing import FloatArray

__all__ = ["FEWEST_CHECKPOINTS", "Flag", "few_checkpoints", "find_doubts"]

FEWEST_CHECKPOINTS = 5
"""Fewer are no trajectory."""

_OFF_SCALE = 1.8
_APART_FROM_OTHERS = 1.5
_ABOVE = 1.3
_SUM_OVER_BATCHES = 10.0
_EXACTLY = 5e-4
_SAME_SUM = 0.05
_MOSTLY = 0.8
_TINY = 1e-12
_LARGEST = 1e50
_MOST_PARTS = 12
_POINTS = 5000


class Flag(NamedTuple):
    """Why a comparison is doubtful."""

    kind: Literal[
        "sum",
        "scale",
        "window",
        "training mode",
        "not finite",
        "few checkpoints",
        "gap",
        "restart",
        "order",
        "negative",
        "test set",
        "evaluation sets",
    ]
    head: str | None
    text: str
    """One sentence with its numbers."""
    unusable: bool = False
    """OGR of this head would be wrong, rather than rough."""


def few_checkpoints(number: int) -> list[Flag]:
    """A flag where there are too few to speak of a trajectory."""
    if number >= FEWEST_CHECKPOINTS:
        return []
    text = f"{counted(number, 'checkpoint')} with both losses, fewer than {FEWEST_CHECKPOINTS}: too few to speak of a trajectory."
    return [Flag("few checkpoints", None, text)]


def find_doubts(
    run: Run, heads: LossMap, train: FloatArray, validation: FloatArray, *, averaged: bool
) -> list[Flag]:
    """Flags that follow from the losses themselves.

    Args:
        run: As it was read; its other train losses are looked at too.
        heads: Which series are whose.
        train: Shape ``(H, T)``, finite.
        validation: Shape ``(H, T)``, finite.
        averaged: Whether train losses are means of values since the checkpoint before.
    """
    flags: list[Flag] = []
    names = list(heads.heads)
    if heads.evaluation_sets:
        text = "all heads share one train loss: they are sets of data, not heads of a model, and no blend of them is defined."
        flags.append(Flag("evaluation sets", None, text))
    positive: np.ndarray = np.all(np.minimum(train, validation) >= 0, axis=1)
    ratios = np.array([_early_ratio(t, v) for t, v in zip(train, validation, strict=True)])
    for h, name in enumerate(names):
        head = heads.heads[name]
        shown = said(name, 40)
        if of_test_set(head.validation):
            text = f"the validation loss of '{shown}' was measured on the test set: what is chosen by it looks better than it is."
            flags.append(Flag("test set", name, text))
        if not positive[h]:
            text = f"'{shown}' has losses below 0: shares of the loss mean nothing there."
            flags.append(Flag("negative", name, text))
            continue
        found = _sum(run, heads, h, train, validation, ratios, positive)
        found = found or _off_scale(name, train[h], validation[h], float(ratios[h]))
        flags += found
        if not any(flag.unusable for flag in found):
            flags += _training_mode(name, train[h], validation[h])
        if averaged or _is_average(head.train):
            text = (
                f"the train loss of '{shown}' is an average over steps between checkpoints, while the weights change: it lags"
                " behind, and overfitting looks smaller early on."
            )
            flags.append(Flag("window", name, text))
    return flags


def _early_ratio(train: FloatArray, validation: FloatArray) -> float:
    """How far the train loss is above the validation losses at both ends of its window, at the beginning; median."""
    if len(train) < 3:
        return float(np.median(train / np.maximum(validation, _TINY)))
    ends = np.maximum(validation[:-1], validation[1:])
    return float(np.median((train[1:] / np.maximum(ends, _TINY))[:6]))


def _off_scale(name: str, train: FloatArray, validation: FloatArray, above: float) -> list[Flag]:
    shown = said(name, 40)
    under = float(np.min(validation[:3] / np.maximum(train[:3], _TINY)))
    if above > _OFF_SCALE:
        text = (
            f"the train loss of '{shown}' is {_times(above)} its validation loss at the beginning: this looks like a sum (of several"
            " losses, or over batches) beside a mean, or like another task (mixed or smoothed labels)."
        )
        return [Flag("sum", name, text, unusable=True)]
    if under > _SUM_OVER_BATCHES:
        text = (
            f"the validation loss of '{shown}' is {_times(under)} its train loss at the beginning: this looks like a sum over batches"
            " beside a mean."
        )
        return [Flag("sum", name, text, unusable=True)]
    if under > _OFF_SCALE:
        text = f"the validation loss of '{shown}' is {_times(under)} its train loss from the beginning: other data, or another scale."
        return [Flag("scale", name, text)]
    return []


def _training_mode(name: str, train: FloatArray, validation: FloatArray) -> list[Flag]:
    below = float((validation < train).mean())
    if len(train) < FEWEST_CHECKPOINTS or below <= _MOSTLY:
        return []
    text = (
        f"the train loss of '{said(name, 40)}' is above its validation loss at {below:.0%} of the checkpoints: it was probably"
        " measured in training mode (augmentation, dropout, label smoothing), so that overfitting is understated."
    )
    return [Flag("training mode", name, text)]


def _sum(
    run: Run,
    heads: LossMap,
    h: int,
    train: FloatArray,
    validation: FloatArray,
    ratios: FloatArray,
    positive: np.ndarray,
) -> list[Flag]:
    """A train loss that other train losses add up to, wholly or but for a loss of its own that was not logged."""
    names = list(heads.heads)
    if heads.evaluation_sets or (heads.joint_head is not None and names[h] != heads.joint_head):
        return []
    exact = _exact_sum(run, heads, names[h])
    if exact:
        text = " + ".join(
            f"{'' if abs(w - 1) < 0.01 else f'{w:.2g} x '}'{said(name, 40)}'"
            for name, w in exact.items()
        )
        return [_sum_flag(names, heads, h, validation, exact, f"the sum {text}")]
    rest = [i for i in range(len(names)) if i != h and positive[i]]
    if not rest or len(rest) < len(names) - 1:
        return []
    all_train, all_held = train[rest].sum(axis=0), validation[rest].sum(axis=0)
    apart = float(ratios[h] / max(float(np.median(ratios[rest])), _TINY))
    early = slice(0, max(3, train.shape[1] // 2))
    covers = bool((train[h, early] > 0.98 * all_train[early]).mean() > _MOSTLY)
    both = bool((validation[h, early] > 0.98 * all_held[early]).mean() > _MOSTLY)
    others = " and ".join(f"'{said(names[i], 40)}'" for i in rest)
    shown = said(names[h], 40)
    if len(rest) > 1 and covers and both:
        text = (
            f"both losses of '{shown}' are as large as those of {others} together: they look like sums, whose OGR is not that of the"
            f" prediction of '{shown}'."
        )
        return [Flag("sum", names[h], text)]
    if apart > _APART_FROM_OTHERS and ratios[h] > _ABOVE:
        text = (
            f"the train loss of '{shown}' is {_times(float(ratios[h]))} its validation loss at the beginning, where those of {others} are"
            f" {_times(float(np.median(ratios[rest])))}: it looks like a sum of their losses and its own, beside its own."
        )
        return [Flag("sum", names[h], text, unusable=True)]
    return []


def _sum_flag(
    names: list[str],
    heads: LossMap,
    h: int,
    validation: FloatArray,
    weights: dict[str, float],
    what: str,
) -> Flag:
    """Whether the validation loss is the same sum, as far as it can be told."""
    shown = said(names[h], 40)
    of = {head.train: i for i, head in enumerate(heads.heads.values())}
    if all(name in of for name in weights):
        total = sum(w * validation[of[name]] for name, w in weights.items())
        off = np.median(np.abs(validation[h] - total) / np.maximum(np.abs(total), _TINY))
        if off < _SAME_SUM:
            text = (
                f"the train loss of '{shown}' is {what}, and so is its validation loss: its OGR is that of the sum, not of the"
                f" prediction of '{shown}'."
            )
            return Flag("sum", names[h], text)
    text = f"the train loss of '{shown}' is {what}; its validation loss is not."
    return Flag("sum", names[h], text, unusable=True)


def _exact_sum(run: Run, heads: LossMap, name: str) -> dict[str, float]:
    """Train losses of the run that add up to that of a head at every point, with their weights; none where they do not."""
    own = heads.heads[name].train
    others = [
        n
        for n in run.series
        if n != own and (read := read_name(n)) is not None and read.split in ("train", None)
    ]
    others = list(
        dict.fromkeys([*(m.train for m in heads.heads.values() if m.train != own), *others])
    )
    target = run.series[own]
    others = [n for n in others if _same_places(target, run.series[n])][:_MOST_PARTS]
    if len(others) < 2:
        return {}
    columns = np.array([run.series[n].value for n in others]).T
    whole = (np.abs(columns) <= _LARGEST).all(axis=1) & (np.abs(target.value) <= _LARGEST)
    columns, wanted = columns[whole][:_POINTS], target.value[whole][:_POINTS]
    if len(wanted) < 3 * len(others) + 5:
        return {}
    scale = float(np.abs(wanted).max())
    if scale < 1 / _LARGEST:
        return {}
    # What is nothing beside the loss is no part of it, and would only upset the fit.
    counts = np.flatnonzero(np.abs(columns).max(axis=0) > _EXACTLY * scale)
    others, columns = [others[i] for i in counts], columns[:, counts]
    if len(others) < 2:
        return {}
    try:
        weights, _ = nnls(columns, wanted)
    except RuntimeError:  # it did not converge: nothing adds up
        return {}
    off = np.abs(columns @ weights - wanted).max()
    shares = weights * columns.mean(axis=0) / scale
    used = [i for i, share in enumerate(shares) if share > 0.02]
    if off > _EXACTLY * scale or len(used) < 2:
        return {}
    return {others[i]: float(weights[i]) for i in used}


def _times(ratio: float) -> str:
    """How many times, without digits that mean nothing.

    Example:
        >>> _times(2.345), _times(150.0), _times(1e12)
        ('2.3 times', '150 times', 'more than 10,000 times')
    """
    if ratio > 10_000:
        return "more than 10,000 times"
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:,.0f} times"


def _same_places(first: Series, second: Series) -> bool:
    return bool(
        np.array_equal(first.step, second.step)
        and np.array_equal(first.epoch, second.epoch, equal_nan=True)
    )


def _is_average(series: str) -> bool:
    name = series.lower()
    return "epoch" in name or "avg" in name
