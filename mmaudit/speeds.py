"""Conditional learning speeds from the norms that were recorded during a training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from mmaudit.measures.learning_speed import (
    conditional_learning_speed,
    effective_updates,
    speed_difference,
)
from mmaudit.training.norms import read_norm_name
from mmaudit.typing import FloatArray, IntArray

__all__ = ["LearningSpeeds", "learning_speeds"]

_SPLIT = "norms/"


class LearningSpeeds(NamedTuple):
    """How fast each branch learns, by itself and through the others, up to each recorded step."""

    modalities: tuple[str, ...]
    """Branches, M of them."""
    step: IntArray
    """Optimiser steps at which norms were recorded, shape ``(T,)``."""
    own: FloatArray
    """mu of the parameters of each branch, shape ``(M, T)``; 0 where none of them had a gradient."""
    crossing: FloatArray | None
    """mu of the parameters that carry the others into it, ``(M, T)``; ``None`` where there are none, as in late fusion."""
    speed: FloatArray | None
    """Conditional learning speeds s, log10, shape ``(M, T)``; NaN until both sums are above 0."""
    difference: FloatArray | None
    """Of the speeds: s_0 - s_1 for two branches, largest minus smallest for more; ``None`` for one branch."""
    left_out: IntArray
    """Recorded steps that do not count, shape ``(L,)``: norms were not finite, as where a loss scaler skips a step, or all weights
    of a group were 0."""

    def to_frame(self) -> pd.DataFrame:
        """A row for each branch and step: ``step``, ``branch``, ``own``, and where there are such ``crossing`` and ``speed``."""
        columns = {"own": self.own, "crossing": self.crossing, "speed": self.speed}
        number = len(self.step)
        return pd.DataFrame(
            {
                "step": np.tile(self.step, len(self.modalities)),
                "branch": np.repeat(self.modalities, number),
                **{name: values.ravel() for name, values in columns.items() if values is not None},
            }
        )


def learning_speeds(log: Path | str) -> LearningSpeeds:
    """Conditional learning speeds (Wu et al. 2022) from the log of a recorder.

    Sums run over the recorded steps. Where only every n-th step was recorded they stand for all steps.

    Args:
        log: Written by :class:`mmaudit.training.LossRecorder` with ``norms``.

    Returns:
        The speeds. Without cross-modal parameters there is no conditional speed, and ``own`` is all there is.

    Raises:
        LogError: If the log cannot be read or holds no norms, or none that count.

    Example:
        >>> mmaudit.learning_speeds("losses.jsonl").to_frame().groupby("branch").last()     # doctest: +SKIP
    """
    path = Path(log)
    series = {
        name.removeprefix(_SPLIT): values
        for run in read_runs(path)
        for name, values in run.series.items()
        if name.startswith(_SPLIT)
    }
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for name, values in series.items():
        read = read_norm_name(name)
        if read is not None and read[0] is not None:
            points = dict(zip(values.step.tolist(), values.value.tolist(), strict=True))
            found.setdefault((read[0], read[1]), {})[read[2]] = points
    names = tuple(dict.fromkeys(modality for modality, _ in found))
    if not names:
        raise LogError(
            f"{path.name} holds no norms of gradients: call recorder.norms(model, step=...) after backward, or give the callback 'norms'."
        )
    every = np.array(sorted({s for quantities in found.values() for s in quantities["gradient"]}))
    counts = np.logical_and.reduce([_counts(quantities, every) for quantities in found.values()])
    steps, left_out = every[counts], every[~counts]
    if not len(steps):
        raise LogError(
            f"{path.name} holds no norms that count: at all {len(every)} recorded steps some are not finite, or all weights of a group are 0."
        )
    own = np.stack([_updates(found.get((name, "own")), steps) for name in names])
    if not any(group == "crossing" for _, group in found):
        return LearningSpeeds(names, steps, own, None, None, None, left_out)
    crossing = np.stack([_updates(found.get((name, "crossing")), steps) for name in names])
    speed = conditional_learning_speed(crossing, own)
    difference = speed_difference(speed) if len(names) > 1 else None
    return LearningSpeeds(names, steps, own, crossing, speed, difference, left_out)


def _counts(quantities: dict[str, dict[int, float]], steps: IntArray) -> np.ndarray:
    """Whether a step counts for a group, ``(T,)``: it has no gradients there, or finite ones and weights to compare them with."""
    top, bottom = (
        np.array([quantities.get(what, {}).get(step, empty) for step in steps.tolist()])
        for what, empty in (("gradient", 0.0), ("weight", 1.0))
    )
    return np.asarray(np.isfinite(top) & np.isfinite(bottom) & (bottom > 0))


def _updates(quantities: dict[str, dict[int, float]] | None, steps: IntArray) -> FloatArray:
    """The updates of one group at every step, ``(T,)``; 0 where it has none."""
    mu = np.zeros(len(steps))
    if quantities is None:
        return mu
    gradients, weights = quantities["gradient"], quantities.get("weight", {})
    there = [at for at, step in enumerate(steps.tolist()) if step in gradients and step in weights]
    chosen = [int(steps[at]) for at in there]
    top = np.array([[gradients[step]] for step in chosen])
    bottom = np.array([[weights[step]] for step in chosen])
    mu[there] = effective_updates(top, bottom)
    return mu
