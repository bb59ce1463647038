"""From logged points to losses that can be compared: train and validation of every head at the same checkpoints.

A checkpoint is where the validation loss was measured. The train loss there is what was logged at it, or the mean of what was
logged since the checkpoint before; which of the two it is, and what makes the comparison doubtful, is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mmaudit.evidence.loss_map import LossMap
from mmaudit.evidence.readers import Run
from mmaudit.evidence.readers.base import Series
from mmaudit.exceptions import LogError
from mmaudit.typing import FloatArray, IntArray

__all__ = ["Axis", "Flag", "Losses", "align", "aligned_runs"]

Axis = Literal["epoch", "step", "point"]

FEWEST_CHECKPOINTS = 5
_OFF_SCALE = 1.8
_SUM_OVER_BATCHES = 10.0
_SAME_SUM = 0.02
_MOSTLY = 0.8


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
        "negative",
        "test set",
    ]
    head: str | None
    text: str
    """One sentence with its numbers."""
    unusable: bool = False
    """OGR of this head would be wrong, rather than rough."""


@dataclass(frozen=True)
class Losses:
    """Losses of one run, comparable as far as the flags do not say otherwise.

    Attributes:
        run: Its title.
        heads: Their names, H of them.
        joint: The joint head, where there is one.
        axis: What checkpoints are counted in.
        at: Place of each checkpoint on the axis, shape ``(T,)``.
        train: Shape ``(H, T)``.
        validation: Shape ``(H, T)``.
        window: How the train loss was taken, in words.
        flags: What makes the comparison doubtful.
        files: Where it was read from.
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

    @property
    def unusable(self) -> frozenset[str]:
        """Heads whose OGR would be wrong."""
        return frozenset(
            flag.head for flag in self.flags if flag.unusable and flag.head is not None
        )


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
                    f"run '{run.title}' has no series '{series}' (the {split} loss of '{name}'); it has {_listed(run)}."
                )
    flags: list[Flag] = []
    used = {series for h in heads.heads.values() for series in (h.train, h.validation)}
    taken = {name: _last_written(run, name, flags) for name in sorted(used)}
    axis = _axis(
        [taken[h.validation] for h in heads.heads.values()],
        [taken[h.train] for h in heads.heads.values()],
    )
    places = None
    columns: dict[str, tuple[dict[float, float], dict[float, float]]] = {}
    most = 1
    for name, head in heads.heads.items():
        validation = _finite(taken[head.validation], head.validation, name, flags)
        train = _finite(taken[head.train], head.train, name, flags)
        at = _positions(validation, axis)
        held = dict(zip(at.tolist(), validation.value.tolist(), strict=True))
        ends = np.array(sorted(held))
        means, counts = _window_means(_positions(train, axis), train.value, ends)
        there = {
            end: mean
            for end, mean in zip(ends.tolist(), means.tolist(), strict=True)
            if np.isfinite(mean)
        }
        gaps = int((counts == 0).sum())
        # A validation before any training has no train loss to go with it, which is no gap.
        gaps -= int(len(counts) > 0 and counts[0] == 0)
        if gaps > 0:
            text = f"{gaps} of {len(ends)} checkpoints of '{name}' have no train loss since the one before: left out."
            flags.append(Flag("gap", name, text))
        most = max(most, int(np.median(counts[counts > 0])) if (counts > 0).any() else 1)
        columns[name] = (there, held)
        places = set(there) if places is None else places & set(there)
    if not places:
        raise LogError(
            f"run '{run.title}': no checkpoint has a train and a validation loss of every head; are they counted in the same {axis}s?"
        )
    at = np.array(sorted(places))
    shared = at.tolist()
    trained = np.array([[columns[name][0][x] for x in shared] for name in heads.heads])
    held_out = np.array([[columns[name][1][x] for x in shared] for name in heads.heads])
    window = "train loss as logged at each checkpoint"
    if most > 1:
        window = f"train loss: mean of the (about {most}) values logged since the checkpoint before"
    names = tuple(heads.heads)
    flags += _doubts(names, heads, trained, held_out, most)
    return Losses(
        run.title, names, heads.joint_head, axis, at, trained, held_out, window, tuple(dict.fromkeys(flags)),
        tuple(str(file) for file in run.files),
    )  # fmt: skip


def _last_written(run: Run, name: str, flags: list[Flag]) -> Series:
    """Points without those that a restarted training wrote again: of what was logged twice, the later counts."""
    series = run.series[name]
    if (series.step < 0).any() or len(series.step) < 2:
        return series
    later = np.minimum.accumulate(series.step[::-1])[::-1]
    keep = np.append(series.step[:-1] < later[1:], True)
    lost = int((~keep).sum())
    if lost:
        again = int((np.diff(series.step) < 0).sum())
        how = (
            f"the training was restarted {again} time{'s' if again > 1 else ''}"
            if again
            else "steps were logged twice"
        )
        flags.append(
            Flag(
                "restart",
                None,
                f"'{name}': {how}; {lost} points that were written again later are left out.",
            )
        )
    return series.where(keep)


def _finite(series: Series, name: str, head: str, flags: list[Flag]) -> Series:
    finite = np.isfinite(series.value)
    if not finite.all():
        bad = int((~finite).sum())
        flags.append(
            Flag(
                "not finite",
                head,
                f"{bad} of {len(finite)} values of '{name}' are not finite: left out.",
            )
        )
    return series.where(finite)


def _axis(validation: list[Series], train: list[Series]) -> Axis:
    """What checkpoints are counted in: epochs where each has its own, else steps, else the order of the points."""
    both = [*validation, *train]
    epochs = all(len(s.epoch) and np.isfinite(s.epoch).all() for s in both)
    if epochs and all(len(np.unique(s.epoch)) == len(s.epoch) for s in validation):
        return "epoch"
    if all(len(s.step) and (s.step >= 0).all() for s in both):
        return "step"
    if epochs:
        return "epoch"
    if len({len(s.value) for s in both}) == 1:
        return "point"
    raise LogError(
        "train and validation losses have neither steps nor epochs in common, and differ in number: they cannot be put side by side."
    )


def _positions(series: Series, axis: Axis) -> FloatArray:
    if axis == "epoch":
        return series.epoch
    if axis == "step":
        return series.step.astype(np.float64)
    return np.arange(len(series.value), dtype=np.float64)


def _window_means(
    at: FloatArray, values: FloatArray, ends: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Mean of the values in each window that ends at (and includes) one of ``ends``, and their number."""
    window = np.searchsorted(ends, at, side="left")
    inside = window < len(ends)
    counts = np.bincount(window[inside], minlength=len(ends))
    sums = np.bincount(window[inside], weights=values[inside], minlength=len(ends))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, np.nan), counts


def _doubts(
    names: tuple[str, ...], heads: LossMap, train: FloatArray, validation: FloatArray, most: int
) -> list[Flag]:
    """What the numbers themselves say against the comparison."""
    flags = []
    T = train.shape[1]
    if T < FEWEST_CHECKPOINTS:
        text = f"{T} checkpoint{'s' if T > 1 else ''} with both losses, fewer than {FEWEST_CHECKPOINTS}: too few to speak of a trajectory."
        flags.append(Flag("few checkpoints", None, text))
    sums = _looks_like_sum(names, heads.joint_head, train)
    for h, name in enumerate(names):
        T_h, V_h = train[h], validation[h]
        if min(T_h.min(), V_h.min()) < 0:
            text = f"'{name}' has losses below 0: shares of the loss mean nothing there."
            flags.append(Flag("negative", name, text))
            continue
        # Where the train loss is an average over the epoch, that of the first epoch is far above what was reached in it.
        early = T_h[:3] / np.maximum(V_h[:3], 1e-12)
        above, under = float(np.median(early)), 1 / max(float(early.max()), 1e-12)
        if sums.get(name):
            text = f"the train loss of '{name}' is the sum of those of {sums[name]}; its validation loss is not."
            flags.append(Flag("sum", name, text, unusable=True))
        elif above > _OFF_SCALE:
            text = (
                f"the train loss of '{name}' is {above:.1f} times its validation loss at the beginning: this looks like a sum (of several"
                " losses, or over batches) beside a mean."
            )
            flags.append(Flag("sum", name, text, unusable=True))
        elif under > _SUM_OVER_BATCHES:
            text = (
                f"the validation loss of '{name}' is {under:.0f} times its train loss at the beginning: this looks like a sum over batches"
                " beside a mean."
            )
            flags.append(Flag("sum", name, text, unusable=True))
        elif under > _OFF_SCALE:
            text = f"the validation loss of '{name}' is {under:.1f} times its train loss from the beginning: other data, or another scale."
            flags.append(Flag("scale", name, text))
        below = float((V_h < T_h).mean())
        if T >= FEWEST_CHECKPOINTS and below > _MOSTLY:
            text = (
                f"the train loss of '{name}' is above its validation loss at {below:.0%} of the checkpoints: it was probably"
                " measured in training mode (augmentation, dropout, label smoothing), so that overfitting is understated."
            )
            flags.append(Flag("training mode", name, text))
        series = heads.heads[name].train.lower()
        if most > 1 or "epoch" in series or "avg" in series:
            text = (
                f"the train loss of '{name}' is an average over steps between checkpoints, while the weights change: it lags"
                " behind, and overfitting looks smaller early on."
            )
            flags.append(Flag("window", name, text))
    return flags


def _looks_like_sum(names: tuple[str, ...], joint: str | None, train: FloatArray) -> dict[str, str]:
    """Heads whose train loss is what those of the others add up to."""
    found = {}
    for h, name in enumerate(names):
        rest = [i for i in range(len(names)) if i != h]
        if len(rest) < 2 or (joint is not None and name != joint):
            continue
        total = train[rest].sum(axis=0)
        if np.median(np.abs(train[h] - total) / np.maximum(np.abs(total), 1e-12)) < _SAME_SUM:
            found[name] = " and ".join(f"'{names[i]}'" for i in rest)
    return found


def _listed(run: Run) -> str:
    names = list(run.series)
    shown = ", ".join(f"'{name[:40]}'" for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")
