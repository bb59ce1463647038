"""From logged points to losses that can be compared: train and validation of every head at the same checkpoints.

A checkpoint is where a validation loss was measured. The train loss there is what was logged for it, or the mean of what was
logged since the checkpoint before; which of the two it is, and what makes the comparison doubtful, is said. Each head is brought to
its own checkpoints, so that one that was validated more rarely, or that turned NaN, takes nothing from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from mmaudit.evidence.loss_flags import Flag, few_checkpoints, find_doubts, is_average
from mmaudit.evidence.loss_map import HeadMap, LossMap
from mmaudit.evidence.readers import Run
from mmaudit.evidence.readers.base import Series, counted, listed, said
from mmaudit.evidence.shifted_epochs import shifted_epochs
from mmaudit.exceptions import LogError
from mmaudit.typing import FloatArray, IntArray

__all__ = ["MOST_CHECKPOINTS", "Axis", "Flag", "Losses", "align", "aligned_runs"]

Axis = Literal["epoch", "step", "point"]

MOST_CHECKPOINTS = 1000
"""Of more, neighbours are averaged: a validation loss for each step is no checkpoint for each step."""

_DISORDER = 0.05
_LARGEST = 1e50


@dataclass(frozen=True)
class Losses:
    """Losses of one run, comparable as far as the flags do not say otherwise.

    Attributes:
        run: Its title.
        heads: Their names, H of them.
        joint: The joint head, where there is one.
        axis: What checkpoints are counted in.
        at: Place of each checkpoint of any head on the axis, shape ``(T,)``, ascending.
        train: Shape ``(H, T)``; NaN where a head has no checkpoint.
        validation: The same shape, NaN at the same places.
        window: How the train loss was taken, in words.
        flags: What makes the comparison doubtful.
        files: Where it was read from.
        format: Of the log, in words.
        points: Number of logged points behind it.
        notes: What the reader left out.
        evaluation_sets: The heads are sets of data that share one train loss.
    """

    run: str
    heads: tuple[str, ...]
    joint: str | None
    axis: Axis
    at: FloatArray
    train: FloatArray
    validation: FloatArray
    window: str
    flags: tuple[Flag, ...] = ()
    files: tuple[str, ...] = ()
    format: str = ""
    points: int = 0
    notes: tuple[str, ...] = ()
    evaluation_sets: bool = False

    @property
    def unusable(self) -> frozenset[str]:
        """Heads whose OGR would be wrong."""
        return frozenset(
            flag.head for flag in self.flags if flag.unusable and flag.head is not None
        )

    @property
    def incomparable(self) -> dict[str, str]:
        """Head -> why its losses cannot be set against those of other heads, though its own OGR can be computed."""
        kinds = ("sum", "diverged")
        return {f.head: f.text for f in reversed(self.flags) if f.kind in kinds and f.head}


class _Points(NamedTuple):
    """Values of a series by their place on the axis, ascending; several may have one place."""

    at: FloatArray
    value: FloatArray


def aligned_runs(runs: Sequence[Run], heads: LossMap) -> list[Losses]:
    """Losses of several runs.

    Raises:
        LogError: If a run lacks a series, or has no checkpoint with both losses.
    """
    return [align(run, heads) for run in runs]


def align(run: Run, heads: LossMap) -> Losses:
    """Bring the losses of one run to common checkpoints.

    Args:
        run: As it was read.
        heads: Which series are whose.

    Raises:
        LogError: If a series is missing, or no checkpoint has both losses of every head.
    """
    for name, head in heads.heads.items():
        for split, series in (("train", head.train), ("validation", head.validation)):
            if series not in run.series:
                raise LogError(
                    f"run '{said(run.title)}' has no series '{said(series)}' (the {split} loss of '{said(name)}'); it has "
                    f"{listed(list(run.series), 10) or 'none'}."
                )
    flags: list[Flag] = []
    own = {s: h for h, m in reversed(heads.heads.items()) for s in (m.validation, m.train)}
    written = {series: _last_written(run, series, flags) for series in sorted(own)}
    _leave_out_checks(written, heads, flags)
    axis = _axis(
        [written[h.validation] for h in heads.heads.values()],
        [written[h.train] for h in heads.heads.values()],
    )
    if axis == "point":  # counted before any point is left out
        written = {n: s._replace(step=np.arange(len(s.value))) for n, s in written.items()}
    if axis == "epoch":
        epochs = {n: (written[h.train].epoch, written[h.validation].epoch) for n, h in heads.heads.items()}  # fmt: skip
        flags += shifted_epochs(epochs)
    taken = {
        series: _finite(points, series, own[series], axis, flags)
        for series, points in written.items()
    }
    empty = [series for series, points in taken.items() if len(points.value) == 0]
    if empty:
        raise LogError(
            f"run '{said(run.title)}': series '{said(empty[0])}' has no finite value (up to {_LARGEST:g}); give a map without its head."
        )
    held = {name: _at_places(_points(taken[h.validation], axis)) for name, h in heads.heads.items()}
    held = _put_side_by_side(held, axis, flags)
    at: FloatArray = np.unique(np.concatenate([points.at for points in held.values()]))
    train, validation = (np.full((len(held), len(at)), np.nan) for _ in range(2))
    most, leading = 1, 0
    for h, (name, points) in enumerate(held.items()):
        values, behind = _train(name, heads.heads[name], taken, points.at, axis, flags)
        most = max(most, behind)
        there = np.isfinite(values)
        place = np.searchsorted(at, points.at[there])
        train[h, place], validation[h, place] = values[there], points.value[there]
        leading = max(leading, int(np.argmax(there)) if there.any() else 0)
    if not np.isfinite(train).any(axis=1).all():
        has = np.isfinite(train).any(axis=1)
        lacking = [name for name, some in zip(held, has, strict=True) if not some]
        raise LogError(
            f"run '{said(run.title)}': no checkpoint of '{said(lacking[0])}' has a train and a validation loss; are they counted in the "
            f"same {axis}s?"
        )
    kept = np.isfinite(train).any(axis=0)
    at, train, validation = at[kept], train[:, kept], validation[:, kept]
    _say_own_checkpoints(list(held), np.isfinite(train), written, heads, axis, flags)
    notes = run.notes
    if leading:
        text = f"{counted(leading, 'validation')} before the first train loss left out: there is nothing to compare with."
        notes = (*notes, text)
    found = Losses(
        run.title, tuple(heads.heads), heads.joint_head, axis, at, train, validation, _window(run, heads, most), (),
        tuple(str(file) for file in run.files), run.format, run.points, notes, heads.evaluation_sets,
    )  # fmt: skip
    found = _pooled(found)
    flags += few_checkpoints(found.heads, np.isfinite(found.train).sum(axis=1))
    flags += find_doubts(run, heads, found.train, found.validation, averaged=most > 1)
    return replace(found, flags=tuple(dict.fromkeys(flags)))


def _window(run: Run, heads: LossMap, most: int) -> str:
    """How train losses were taken, in words."""
    if most > 1:
        return f"train loss: mean of the (about {most:,}) values logged since the checkpoint before"
    if any(is_average(head.train) for head in heads.heads.values()):
        return "train loss as logged at each checkpoint, an average over the steps before it"
    return "train loss as logged at each checkpoint"


def _last_written(run: Run, name: str, flags: list[Flag]) -> Series:
    """Points without those that a restarted training wrote again: of what was logged twice, the later counts.

    Several values at one step, one after the other, are no restart but a value for each batch, and stay.
    """
    series = run.series[name]
    clock: FloatArray
    if (series.step >= 0).all():
        clock = series.step.astype(np.float64)
    elif np.isfinite(series.epoch).all():
        clock = series.epoch
    else:
        return series
    back = np.flatnonzero(np.diff(clock) < 0) + 1
    if not len(back):
        return series
    back = back[_goes_on(clock, back)] if len(back) <= max(10, _DISORDER * len(clock)) else back[:0]
    if not len(back):
        text = f"'{said(name)}': points are not in order; they were sorted."
        flags.append(Flag("order", None, text))
        return series
    # What a restart writes again begins at the place to which it went back.
    restarts = np.full(len(clock), np.inf)
    restarts[back] = clock[back]
    later = np.append(np.minimum.accumulate(restarts[::-1])[::-1][1:], np.inf)
    keep = clock < later
    lost = int((~keep).sum())
    was, are = ("was", "is") if lost == 1 else ("were", "are")
    text = (
        f"'{said(name)}': the training went back {counted(len(back), 'time')}; {counted(lost, 'point')} that {was} written again"
        f" later {are} left out."
    )
    flags.append(Flag("restart", None, text))
    return series.where(keep)


def _goes_on(clock: FloatArray, back: IntArray) -> np.ndarray:
    """Which of the places where a log goes back begin a restart, bool: what follows goes over the same places, in order.

    One stray place, or rows in any order, are none.
    """
    ends = np.append(back[1:], len(clock))
    if len(back) > 2 and len(back) > len(clock) / 5:
        return np.zeros(len(back), bool)
    found = []
    for begin, end in zip(back.tolist(), ends.tolist(), strict=True):
        part, before = clock[begin:end], clock[:begin]
        again = int((part <= before.max()).sum())
        found.append(bool(np.isin(part[0], before)) or again > 1)
    return np.array(found)


def _leave_out_checks(written: dict[str, Series], heads: LossMap, flags: list[Flag]) -> None:
    """Leave out a validation that came before all training and counts as the epoch of a later one, as a check of the code does."""
    first = min(
        (int(s.order[0]) for h in heads.heads.values() if len((s := written[h.train]).order)),
        default=0,
    )
    found = 0
    for name in dict.fromkeys(h.validation for h in heads.heads.values()):
        series = written[name]
        later = np.isin(series.epoch, series.epoch[series.order > first])
        check = (series.order < first) & (series.step == 0) & later
        if check.any():
            written[name] = series.where(~check)
            found = max(found, int(check.sum()))
    if found:
        text = f"{counted(found, 'validation')} before any training, counted as the epoch of a later one (a check of the code), left out."
        flags.append(Flag("order", None, text))


def _finite(series: Series, name: str, head: str, axis: Axis, flags: list[Flag]) -> Series:
    """Points that can be computed with: squares and ratios of losses must be finite too."""
    size = np.abs(series.value)
    finite = size <= _LARGEST
    bad = int((~finite).sum())
    if bad:
        rest = f"{bad:,} of {counted(len(finite), 'value')}"
        points = _points(series, axis)
        good = np.flatnonzero(np.abs(points.value) <= _LARGEST)
        tail = len(finite) - 1 - int(good[-1]) if len(good) else 0
        if tail > 1 and tail >= 0.05 * len(finite):
            last = float(points.at[good[-1]])
            text = (
                f"'{said(name)}' is not finite after {axis} {last:g} ({rest}): the training of '{said(head, 40)}' diverged, and is looked at "
                "up to there."
            )
            flags.append(Flag("diverged", head, text))
        else:
            are = "is" if bad == 1 else "are"
            text = f"{rest} of '{said(name)}' {are} not finite (or beyond {_LARGEST:g}): left out."
            flags.append(Flag("not finite", head, text))
    kept = series.where(finite)
    return kept._replace(value=np.where(np.abs(kept.value) < 1 / _LARGEST, 0.0, kept.value))


def _axis(validation: list[Series], train: list[Series]) -> Axis:
    """What checkpoints are counted in: epochs where each has its own, else steps, else the order of the points."""
    both = [*validation, *train]
    epochs = all(np.isfinite(s.epoch).all() for s in both)
    if epochs and all(len(np.unique(s.epoch)) == len(s.epoch) for s in validation):
        return "epoch"
    if all((s.step >= 0).all() for s in both):
        return "step"
    if epochs:
        return "epoch"
    if len({len(s.value) for s in both}) == 1:
        return "point"
    raise LogError(
        "train and validation losses have neither steps nor epochs in common, and differ in number: they cannot be put side by side."
    )


def _points(series: Series, axis: Axis) -> _Points:
    at = series.epoch if axis == "epoch" else series.step.astype(np.float64)
    order = np.argsort(at, kind="stable")
    return _Points(at[order], series.value[order])


def _at_places(points: _Points) -> _Points:
    """One value for each place: the mean where most places have several (one for each batch), else the last."""
    places, first, counts = np.unique(points.at, return_index=True, return_counts=True)
    if np.median(counts) > 1:
        return _Points(places, np.add.reduceat(points.value, first) / counts)
    return _Points(places, points.value[first + counts - 1])


def _put_side_by_side(
    held: dict[str, _Points], axis: Axis, flags: list[Flag]
) -> dict[str, _Points]:
    """Validations of heads that were logged one after the other, but at the same checkpoint, at one place."""
    every = list(held.values())
    if len(every) < 2 or len({len(points.at) for points in every}) > 1:
        return held
    together = np.array([points.at for points in every])
    common = set.intersection(*(set(points.at.tolist()) for points in every))
    in_turn = (together.max(axis=0)[:-1] < together.min(axis=0)[1:]).all()
    if len(common) >= len(together[0]) / 2 or not in_turn:
        return held
    text = f"the heads are validated at different {axis}s, in turn: their first, second, ... validations are put side by side."
    flags.append(Flag("order", None, text))
    at = together.max(axis=0)
    return {name: _Points(at, points.value) for name, points in held.items()}


def _say_own_checkpoints(
    names: list[str],
    there: np.ndarray,
    written: dict[str, Series],
    heads: LossMap,
    axis: Axis,
    flags: list[Flag],
) -> None:
    """That heads were validated at different places, where it is not because a loss turned NaN."""
    most = int(there.sum(axis=1).max())
    for name, own in zip(names, there, strict=True):
        rare = len(written[heads.heads[name].validation].value) < 0.9 * most
        if rare and own.sum() < 0.9 * most:
            text = f"'{said(name, 40)}' was validated at {counted(int(own.sum()), 'checkpoint')}, other heads at up to {most:,}."
            flags.append(Flag("gap", name, text))
    if len(names) > 1 and not there.all(axis=0).any():
        text = f"there is no {axis} at which all heads were validated: what compares all of them has no value."
        flags.append(Flag("gap", None, text))


def _train(
    name: str,
    head: HeadMap,
    taken: dict[str, Series],
    ends: FloatArray,
    axis: Axis,
    flags: list[Flag],
) -> tuple[FloatArray, int]:
    """Train losses of a head at its checkpoints, shape ``(T,)``, NaN where there is none; and about how many values are behind each."""
    points = _points(taken[head.train], axis)
    if axis == "step" and _in_turn(points.at, ends):
        text = f"the train loss of '{said(name)}' was logged after each validation: the first of each are put side by side, and so on."
        flags.append(Flag("order", name, text))
        return points.value, 1
    if len(np.unique(points.at)) == len(points.at) and _of_whole_epochs(points.at, head, axis):
        # One value for each epoch belongs to that epoch, also where epochs without a validation lie between.
        at = np.searchsorted(points.at, ends)
        inside = at < len(points.at)
        exact = np.zeros(len(ends), bool)
        exact[inside] = points.at[at[inside]] == ends[inside]
        if exact.mean() > 0.5:
            values = np.full(len(ends), np.nan)
            values[exact] = points.value[at[exact]]
            _say_gaps(name, exact, flags)
            return values, 1
    if axis == "step" and _in_other_units(points.at, ends):
        between = _written_between(taken[head.train], taken[head.validation], ends)
        if between is not None:
            text = (
                f"train and validation losses of '{said(name)}' are counted in different units (up to {points.at[-1]:g} and {ends[-1]:g}, "
                "steps and epochs?): the train loss is that of the values written between two validations."
            )
            flags.append(Flag("order", name, text))
            return between
    values, counts = _window_means(points, ends)
    _say_units(name, points.at, ends, axis, flags)
    _say_gaps(name, counts > 0, flags)
    return values, int(np.median(counts[counts > 0])) if (counts > 0).any() else 1


def _of_whole_epochs(at: FloatArray, head: HeadMap, axis: Axis) -> bool:
    """Whether each value is that of an epoch, rather than of the steps since the one before."""
    if axis == "epoch":
        return bool((at == np.round(at)).all())
    return "epoch" in head.train.lower()


def _say_units(
    name: str, train: FloatArray, ends: FloatArray, axis: Axis, flags: list[Flag]
) -> None:
    """That train and validation losses are counted in different units, as steps and epochs."""
    if axis != "step" or not _in_other_units(train, ends):
        return
    late = int((train > ends[-1]).sum())
    text = (
        f"{late:,} of {len(train):,} train losses of '{said(name)}' were logged after the last validation (at {axis} {ends[-1]:g}, training "
        f"goes on to {train.max():g}): the two are probably counted in different units, and were not measured at the same time."
    )
    flags.append(Flag("order", name, text, unusable=True))


def _in_other_units(train: FloatArray, ends: FloatArray) -> bool:
    return len(ends) > 1 and bool((train > ends[-1]).sum() > len(train) / 2)


def _written_between(
    train: Series, held: Series, ends: FloatArray
) -> tuple[FloatArray, int] | None:
    """Mean train losses between two validations by the order in which they were written; ``None`` where it is not known.

    Series of different files are each counted from their own beginning: then places coincide, or lie beside each other.
    """
    places, last = np.unique(held.step[::-1], return_index=True)
    order = held.order[::-1][last]
    if not np.array_equal(places, ends) or (np.diff(order) <= 0).any():
        return None
    if np.isin(train.order, held.order).any():
        return None
    window = np.searchsorted(order, train.order)
    counts = np.bincount(window, minlength=len(ends) + 1)[: len(ends)]
    if (counts == 0).any():
        return None
    sums = np.bincount(window, weights=train.value, minlength=len(ends) + 1)[: len(ends)]
    return sums / counts, int(np.median(counts))


def _say_gaps(name: str, there: np.ndarray, flags: list[Flag]) -> None:
    # A validation before any training has no train loss to go with it, which is no gap.
    gaps = int((~there[int(np.argmax(there)) :]).sum())
    if gaps and there.any():
        have = "has" if gaps == 1 else "have"
        text = f"{gaps:,} of {len(there):,} checkpoints of '{said(name)}' {have} no train loss since the one before: left out."
        flags.append(Flag("gap", name, text))


def _in_turn(train: FloatArray, ends: FloatArray) -> bool:
    """Whether each validation comes right before the train loss of the same epoch, as two calls of a logger count them."""
    return len(train) == len(ends) > 2 and bool((train == ends + 1).all())


def _window_means(points: _Points, ends: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Mean of the values in each window that ends at (and includes) one of ``ends``, and their number."""
    window = np.searchsorted(ends, points.at, side="left")
    inside = window < len(ends)
    counts = np.bincount(window[inside], minlength=len(ends))
    sums = np.bincount(window[inside], weights=points.value[inside], minlength=len(ends))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, np.nan), counts


def _pooled(losses: Losses) -> Losses:
    """At most ``MOST_CHECKPOINTS`` of them, each the mean of neighbours."""
    T = len(losses.at)
    if T <= MOST_CHECKPOINTS:
        return losses
    starts = np.unique(np.linspace(0, T, MOST_CHECKPOINTS + 1).astype(int)[:-1])
    counts = np.add.reduceat(np.isfinite(losses.train), starts, axis=1, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        train, validation = (
            np.add.reduceat(np.nan_to_num(x), starts, axis=1) / counts
            for x in (losses.train, losses.validation)
        )
    last = np.append(starts[1:], T) - 1
    window = f"{losses.window}; {T:,} checkpoints averaged to {len(starts):,}"
    return replace(losses, at=losses.at[last], train=train, validation=validation, window=window)
