"""What the numbers of a log say against comparing its train with its validation losses.

A comparison is wrong, not only rough, where one loss is a sum (of several losses, or over batches) and the other a mean. An average
over an epoch is none: it lies between the losses at the two ends of the epoch, however fast they fall.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import nnls

from mmaudit.evidence.loss_file import NONFINITE
from mmaudit.evidence.loss_map import LossMap
from mmaudit.evidence.loss_names import of_test_set, read_name
from mmaudit.evidence.readers.base import RECORDED, Run, Series, counted, said
from mmaudit.typing import FloatArray, IntArray

__all__ = ["FEWEST_CHECKPOINTS", "Flag", "few_checkpoints", "find_doubts", "is_average"]

FEWEST_CHECKPOINTS = 5
"""Fewer are no trajectory."""

_OFF_SCALE = 1.8
_APART_FROM_OTHERS = 1.5
_ABOVE = 1.3
_BEGINS_ABOVE = 1.25
_SUM_OVER_BATCHES = 10.0
_EXACTLY = 5e-4
_SAME_SUM = 0.05
_MOSTLY = 0.8
_NOISE = 0.02
_MUCH_OF_IT = 0.4
_FROM_THE_FIRST = 3.0
_STEADY = 1.5
_TINY = 1e-12
_LARGEST = 1e50
_MOST_PARTS = 12
_TOLD_APART = 1e4
_AVERAGED = {"epoch", "avg", "average", "averaged", "running", "smoothed", "smooth", "ema"}
_POINTS = 5000


class Flag(NamedTuple):
    """Why a comparison is doubtful."""

    kind: Literal[
        "sum",
        "scale",
        "window",
        "training mode",
        "not finite",
        "diverged",
        "few checkpoints",
        "gap",
        "restart",
        "order",
        "shifted",
        "negative",
        "test set",
        "evaluation sets",
    ]
    head: str | None
    text: str
    """One sentence with its numbers."""
    unusable: bool = False
    """OGR of this head would be wrong, rather than rough."""


def few_checkpoints(heads: Sequence[str], numbers: IntArray) -> list[Flag]:
    """Flags where there are too few to speak of a trajectory: of all heads together, or of each that has few.

    Args:
        heads: Their names.
        numbers: Checkpoints of each, shape ``(H,)``.
    """
    few = [(h, int(n)) for h, n in zip(heads, numbers, strict=True) if n < FEWEST_CHECKPOINTS]
    end = f"with both losses, fewer than {FEWEST_CHECKPOINTS}: too few to speak of a trajectory."
    if few and len(few) == len(heads):
        return [
            Flag("few checkpoints", None, f"{counted(max(n for _, n in few), 'checkpoint')} {end}")
        ]
    return [
        Flag("few checkpoints", h, f"'{said(h, 40)}' has {counted(n, 'checkpoint')} {end}")
        for h, n in few
    ]


def find_doubts(
    run: Run, heads: LossMap, train: FloatArray, validation: FloatArray, *, averaged: bool
) -> list[Flag]:
    """Flags that follow from the losses themselves.

    Args:
        run: As it was read; its other train losses are looked at too.
        heads: Which series are whose.
        train: Shape ``(H, T)``; NaN where a head has no checkpoint, each has one.
        validation: The same shape, NaN at the same places.
        averaged: Whether train losses are means of values since the checkpoint before.
    """
    flags: list[Flag] = []
    names = list(heads.heads)
    if heads.evaluation_sets:
        text = "all heads share one train loss: they are taken for sets of data, not for heads of a model, and no blend of them is defined."
        flags.append(Flag("evaluation sets", None, text))
    own = [np.isfinite(row) for row in train]
    positive = np.array(
        [(np.minimum(t, v)[o] >= 0).all() for t, v, o in zip(train, validation, own, strict=True)]
    )
    ratios = np.array(
        [_early_ratio(t[o], v[o]) for t, v, o in zip(train, validation, own, strict=True)]
    )
    both = np.all(own, axis=0)
    clean = run.format == RECORDED
    # Lightning's log() in a training step gives the mean over the epoch's batches.
    trainer = run.format == "Lightning CSV" or (
        run.format == "TensorBoard" and "epoch" in run.series
    )
    if clean:
        flags += _left_out(run)
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
        mine = train[h][own[h]], validation[h][own[h]]
        found = (
            _sum(run, heads, h, train[:, both], validation[:, both], ratios, positive)
            if both.any()
            else []
        )
        found = found or _off_scale(
            name, *mine, float(ratios[h]), own_data=not heads.evaluation_sets
        )
        flags += found
        if not clean and not any(flag.unusable for flag in found):
            flags += _training_mode(name, *mine, float(ratios[h]))
    lagging = [
        name
        for name, fair in zip(names, positive, strict=True)
        if fair
        and not clean
        and (
            averaged
            or is_average(heads.heads[name].train)
            or _by_trainer(heads.heads[name].train, trainer)
        )
    ]
    certain = averaged or all(is_average(heads.heads[n].train, certain=True) for n in lagging)
    return flags + _window(names, lagging, certain=certain)


def _by_trainer(series: str, trainer: bool) -> bool:
    words = set(re.findall(r"[a-z]+", series.lower()))
    return trainer and not words & {"clean", "eval"}


def _left_out(run: Run) -> list[Flag]:
    """Samples that a recorder left out, because a head was not finite on them."""
    flags = []
    for name, series in run.series.items():
        split, _, rest = name.rpartition("/")
        most = float(np.nanmax(series.value, initial=0.0))
        if rest == NONFINITE and most > 0:
            text = f"up to {most:,.0f} samples of '{said(split)}' are left out of all losses: a head is not finite on them."
            flags.append(Flag("not finite", None, text))
    return flags


def _window(names: list[str], lagging: list[str], *, certain: bool) -> list[Flag]:
    """That train losses are averages; said once of all heads, where it is so of all."""
    together = 1 < len(names) == len(lagging)
    is_one = "an average" if certain else "probably an average"
    about: list[tuple[str | None, str]] = [
        (name, f"the train loss of '{said(name, 40)}' is {is_one}") for name in lagging
    ]
    if together:
        about = [(None, f"the train loss of each head is {is_one}")]
    return [
        Flag(
            "window",
            head,
            f"{text} over steps between checkpoints, while the weights change: it lags behind, and overfitting looks smaller early on.",
        )
        for head, text in about
    ]


def _early_ratio(train: FloatArray, validation: FloatArray) -> float:
    """How far the train loss is above the validation losses at both ends of its window, at the beginning; median."""
    if len(train) < 3:
        return float(np.median(train / np.maximum(validation, _TINY)))
    ends = np.maximum(validation[:-1], validation[1:])
    return float(np.median((train[1:] / np.maximum(ends, _TINY))[:6]))


def _off_scale(
    name: str, train: FloatArray, validation: FloatArray, above: float, *, own_data: bool
) -> list[Flag]:
    shown = said(name, 40)
    early = validation[:3] / np.maximum(train[:3], _TINY)
    under = float(np.min(early))
    # Losses that part by memorising part more with every checkpoint; a sum is off by the same factor from the first one on.
    steady = under > _FROM_THE_FIRST and len(early) > 2 and float(np.max(early)) < _STEADY * under
    steady = steady and own_data
    if above > _OFF_SCALE:
        text = (
            f"the train loss of '{shown}' is {_times(above)} its validation loss over the first checkpoints: this looks like a sum (of several"
            " losses, or over batches) beside a mean, or like another task (mixed or smoothed labels)."
        )
        return [Flag("sum", name, text, unusable=True)]
    if under > _SUM_OVER_BATCHES or steady:
        text = (
            f"the validation loss of '{shown}' is {_times(under)} its train loss at the beginning: this looks like a sum over batches"
            " beside a mean, or like other data."
        )
        return [Flag("sum", name, text, unusable=True)]
    if under > _OFF_SCALE:
        text = f"the validation loss of '{shown}' is {_times(under)} its train loss from the beginning: other data, or another scale."
        return [Flag("scale", name, text)]
    return []


def _training_mode(
    name: str, train: FloatArray, validation: FloatArray, above: float
) -> list[Flag]:
    below = float((validation < train).mean())
    if len(train) < FEWEST_CHECKPOINTS:
        return []
    if below > _MOSTLY:
        text = (
            f"the train loss of '{said(name, 40)}' is above its validation loss at {below:.0%} of the checkpoints: it was probably"
            " measured in training mode (augmentation, dropout, label smoothing), or is an average over steps before the checkpoint (of an"
            " epoch, or a running one), so that overfitting is understated."
        )
        return [Flag("training mode", name, text)]
    if above > _ABOVE:
        text = (
            f"the train loss of '{said(name, 40)}' is {_times(above)} its validation loss over the first checkpoints: it was measured in"
            " training mode (augmentation, dropout, label smoothing), is an average over steps before the checkpoint (of an epoch, or a"
            " running one), or has other losses in it."
        )
        return [Flag("training mode", name, text)]
    return []


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
        if exact.certain:
            text = " + ".join(
                f"{'' if abs(w - 1) < 0.01 else f'{w:.2g} x '}'{said(name, 40)}'"
                for name, w in exact.weights.items()
            )
        else:
            parts = " and ".join(f"'{said(name, 40)}'" for name in exact.weights)
            text = f"of {parts}, which are too alike to tell their shares"
        return [_sum_flag(names, heads, h, validation, exact.weights, f"the sum {text}")]
    rest = [i for i in range(len(names)) if i != h and positive[i]]
    if not rest or len(rest) < len(names) - 1:
        return []
    all_train, all_held = train[rest].sum(axis=0), validation[rest].sum(axis=0)
    apart = float(ratios[h] / max(float(np.median(ratios[rest])), _TINY))
    others = " and ".join(f"'{said(names[i], 40)}'" for i in rest)
    shown = said(names[h], 40)
    if (
        len(rest) > 1
        and train.shape[1] > 2
        and _have_the_others(train[h], validation[h], all_train, all_held)
    ):
        text = (
            f"both losses of '{shown}' are as large as those of {others} together: they look like sums, whose OGR is not that of the"
            f" prediction of '{shown}'."
        )
        return [Flag("sum", names[h], text)]
    if apart > _APART_FROM_OTHERS and ratios[h] > _ABOVE:
        text = (
            f"the train loss of '{shown}' is {_times(float(ratios[h]))} its validation loss over the first checkpoints, where those of"
            f" {others} are {_times(float(np.median(ratios[rest])))}: it looks like a sum of their losses and its own, beside its own."
        )
        return [Flag("sum", names[h], text, unusable=True)]
    # Before anything is learnt no head's loss is far above the others', unless it has theirs in it.
    begins = float(train[h, 0] / max(float(train[rest, 0].max()), _TINY))
    ends = float(validation[h, 0] / max(float(validation[rest, 0].max()), _TINY))
    if ends < _BEGINS_ABOVE < begins and begins > _ABOVE * ends:
        text = (
            f"the train loss of '{shown}' begins at {train[h, 0]:.3g}, above those of {others} (at most {train[rest, 0].max():.3g}), its"
            f" validation loss at {validation[h, 0]:.3g} not as far (at most {validation[rest, 0].max():.3g}): it looks like a weighted sum"
            " with their losses in it, or like another task in training."
        )
        return [Flag("sum", names[h], text, unusable=True)]
    return []


def _have_the_others(
    train: FloatArray, validation: FloatArray, train_others: FloatArray, held_others: FloatArray
) -> bool:
    """Whether both losses of a head, each of shape ``(T,)``, can be the sums of all others' and of one of its own.

    A sum has the others in it at every checkpoint, much of its fall is theirs, and what they leave of a train loss falls as a train
    loss does. A head that only learns more slowly has more left over later on; one that is far above the others, which began well
    trained, would hardly differ from a sum.
    """
    for mine, others in ((train, train_others), (validation, held_others)):
        if (mine > (1 - _NOISE) * others).mean() <= _MOSTLY:
            return False
    quarter = max(1, len(train) // 4)
    begin, end, theirs_begin, theirs_end = (
        float(part.mean())
        for loss in (train, train_others)
        for part in (loss[:quarter], loss[-quarter:])
    )
    much = theirs_begin - theirs_end >= _MUCH_OF_IT * (begin - end)
    left = np.median(train - train_others)
    return much and bool(left < begin - theirs_begin + _NOISE * np.median(train))


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


class _Sum(NamedTuple):
    """Losses that add up to another."""

    weights: dict[str, float]
    certain: bool
    """Whether the weights are the only ones that fit."""


def _exact_sum(run: Run, heads: LossMap, name: str) -> _Sum | None:
    """Train losses of the run that add up to that of a head at every point; ``None`` where they do not."""
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
        return None
    columns = np.array([run.series[n].value for n in others]).T
    whole = (np.abs(columns) <= _LARGEST).all(axis=1) & (np.abs(target.value) <= _LARGEST)
    columns, wanted = columns[whole][:_POINTS], target.value[whole][:_POINTS]
    scale = float(np.abs(wanted).max(initial=0.0))
    if scale < 1 / _LARGEST:
        return None
    # What is nothing beside the loss is no part of it, and a loss that was logged twice is no sum; both would upset the fit.
    same = [_is_multiple(column, wanted) for column in columns.T]
    counts = np.flatnonzero((np.abs(columns).max(axis=0) > _EXACTLY * scale) & ~np.array(same))
    others, columns = [others[i] for i in counts], columns[:, counts]
    if len(others) < 2 or len(wanted) < 3 * len(others) + 5:
        return None
    if np.abs(columns.sum(axis=1) - wanted).max() <= _EXACTLY * scale:
        return _Sum(dict.fromkeys(others, 1.0), True)
    try:
        weights, _ = nnls(columns, wanted)
    except RuntimeError:  # it did not converge: nothing adds up
        return None
    off = np.abs(columns @ weights - wanted).max()
    shares = weights * columns.mean(axis=0) / scale
    used = [i for i, share in enumerate(shares) if share > 0.02]
    if off > _EXACTLY * scale or len(used) < 2:
        return None
    sizes = np.maximum(np.abs(columns[:, used]).max(axis=0), _TINY)
    certain = bool(np.linalg.cond(columns[:, used] / sizes) < _TOLD_APART)
    return _Sum({others[i]: float(weights[i]) for i in used}, certain)


def _is_multiple(column: FloatArray, wanted: FloatArray) -> bool:
    """Whether a loss is another one, up to a factor."""
    square = float(column @ column)
    if square < _TINY:
        return False
    off = np.abs(column * float(column @ wanted) / square - wanted).max()
    return bool(off <= _EXACTLY * np.abs(wanted).max())


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


def is_average(series: str, *, certain: bool = False) -> bool:
    """Whether a train loss is an average over steps by its name; trainers log one where they call it just 'loss'.

    Args:
        series: Its name.
        certain: Only where the name says so.

    Example:
        >>> is_average("train_loss_epoch"), is_average("audio_loss"), is_average("audio_loss", certain=True)
        (True, True, False)
    """
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", series).lower()))
    if "clean" in words or "eval" in words:
        return False
    read = read_name(series)
    return bool(words & _AVERAGED) or (not certain and read is not None and read.split is None)
