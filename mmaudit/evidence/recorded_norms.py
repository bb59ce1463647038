"""Squared norms of gradients and weights as recorders log them beside the losses: read from a run, branch by branch.

What conditional learning speeds are made of. The names are written by :func:`mmaudit.training.norms.group_norms`; they are read
here, where no torch is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmaudit.evidence.readers.base import Run, Series, counted
from mmaudit.typing import FloatArray, IntArray

__all__ = ["GroupNorms", "Norms", "norm_notes", "read_norm_name", "recorded_norms"]

_SPLIT = "norms/"
_NAME = re.compile(
    r"(?:(?P<modality>.+) )?(?P<group>own|crossing|shared) (?P<what>gradient|weight)", re.DOTALL
)
_LARGEST = 1e50
"""Of a ratio of squared norms: sums of ratios must be finite too."""


class GroupNorms(NamedTuple):
    """Squared L2 norms, pooled over one group of parameters for each branch, at every step that counts."""

    gradient: FloatArray
    """Shape ``(M, T)``; 0 where no parameter of the group had a gradient."""
    weight: FloatArray
    """Shape ``(M, T)``, above 0; 1 where no parameter of the group had a gradient."""


class Norms(NamedTuple):
    """The norms of one run."""

    branches: tuple[str, ...]
    """M of them, in the order in which they were logged."""
    step: IntArray
    """Optimiser steps that count, shape ``(T,)``, ascending."""
    own: GroupNorms
    """Of the parameters of each branch."""
    crossing: GroupNorms | None
    """Of the parameters that carry the other branches into it; ``None`` where there are none, as in late fusion."""
    left_out: IntArray
    """Recorded steps that do not count, shape ``(L,)``: norms were not finite, as where a loss scaler skips a step, all weights of
    a group were 0, or the step was written by half."""


def read_norm_name(name: str) -> tuple[str | None, str, str] | None:
    """Modality, group and quantity that a logged norm speaks of; ``None`` where the name is that of no norm.

    Example:
        >>> read_norm_name("left eye crossing weight"), read_norm_name("shared gradient"), read_norm_name("loss")
        (('left eye', 'crossing', 'weight'), (None, 'shared', 'gradient'), None)
    """
    found = _NAME.fullmatch(name)
    if found is None or (found["modality"] is None) != (found["group"] == "shared"):
        return None
    return found["modality"], found["group"], found["what"]


def recorded_norms(run: Run) -> Norms | None:
    """The norms of a run; ``None`` where none were recorded.

    Of a step that was logged twice the later values count. A step at which one group has no gradient at all counts, as 0 of it.

    Args:
        run: As it was read.
    """
    found: dict[tuple[str, str], dict[str, Series]] = {}
    for name, series in run.series.items():
        read = read_norm_name(name.removeprefix(_SPLIT)) if name.startswith(_SPLIT) else None
        if read is not None and read[0] is not None:
            found.setdefault((read[0], read[1]), {})[read[2]] = series
    found = {key: group for key, group in found.items() if "gradient" in group}
    branches = tuple(dict.fromkeys(branch for branch, _ in found))
    if not branches:
        return None
    logged = np.concatenate([group["gradient"].step for group in found.values()])
    every = np.unique(logged[logged >= 0])
    counts = np.ones(len(every), bool)
    own, crossing = (
        _at_steps([found.get((branch, which), {}) for branch in branches], every, counts)
        for which in ("own", "crossing")
    )
    crosses = any(which == "crossing" for _, which in found)
    return Norms(
        branches,
        every[counts],
        _counted(own, counts),
        _counted(crossing, counts) if crosses else None,
        every[~counts],
    )


def norm_notes(runs: Sequence[Norms | None]) -> tuple[str, ...]:
    """What a reader must know about the norms of several runs: where there are none, and what was left out.

    Args:
        runs: One for each run; ``None`` where none were recorded.
    """
    known = [norms for norms in runs if norms is not None]
    if not known:
        return ()
    notes = []
    if len(known) < len(runs):
        notes.append(
            f"Norms for learning speeds were recorded in {len(known)} of {len(runs)} runs."
        )
    lost = sum(len(norms.left_out) for norms in known)
    if lost:
        every = lost + sum(len(norms.step) for norms in known)
        notes.append(
            f"{lost:,} of {counted(every, 'step')} with norms left out of the learning speeds: some norm is not finite (as where a loss "
            "scaler skips a step) or missing, or all weights of a group are 0."
        )
    return tuple(notes)


def _at_steps(
    groups: Sequence[dict[str, Series]], steps: IntArray, counts: np.ndarray
) -> GroupNorms:
    """Norms of one group for each branch, ``(M, T)``; steps at which they mean nothing are struck off ``counts``."""
    gradients, weights = np.zeros((2, len(groups), len(steps)))
    weights += 1
    for m, group in enumerate(groups):
        gradient, has_gradient = _values(group.get("gradient"), steps)
        weight, has_weight = _values(group.get("weight"), steps)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            ratio = gradient / weight
        whole = (
            has_gradient & has_weight & (gradient >= 0) & (weight > 0) & (ratio <= _LARGEST)
        ) & np.isfinite(weight)
        counts &= whole | ~(has_gradient | has_weight)
        gradients[m, whole], weights[m, whole] = gradient[whole], weight[whole]
    return GroupNorms(gradients, weights)


def _values(series: Series | None, steps: IntArray) -> tuple[FloatArray, np.ndarray]:
    """Values of a series at some steps, and where it has one, each ``(T,)``."""
    values, has = np.zeros(len(steps)), np.zeros(len(steps), bool)
    if series is not None:
        inside = np.isin(series.step, steps)
        place = np.searchsorted(steps, series.step[inside])
        # Of several values for one place numpy keeps the last.
        values[place], has[place] = series.value[inside], True
    return values, has


def _counted(group: GroupNorms, counts: np.ndarray) -> GroupNorms:
    return GroupNorms(group.gradient[:, counts], group.weight[:, counts])
