"""Conditional learning speeds from the norms that were recorded during a training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

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


def learning_speeds(log: Path | str) -> LearningSpeeds:
    """Conditional learning speeds (Wu et al. 2022) from the log of a recorder.

    Sums run over the recorded steps. Where only every n-th step was recorded they stand for all steps.

    Args:
        log: Written by :class:`mmaudit.training.LossRecorder` with ``norms``.

    Returns:
        The speeds. Without cross-modal parameters there is no conditional speed, and ``own`` is all there is.

    Raises:
        LogError: If the log cannot be read or holds no norms.
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
    steps = np.array(sorted({s for quantities in found.values() for s in quantities["gradient"]}))
    own = np.stack([_updates(found.get((name, "own")), steps) for name in names])
    if not any(group == "crossing" for _, group in found):
        return LearningSpeeds(names, steps, own, None, None, None)
    crossing = np.stack([_updates(found.get((name, "crossing")), steps) for name in names])
    speed = conditional_learning_speed(crossing, own)
    difference = speed_difference(speed) if len(names) > 1 else None
    return LearningSpeeds(names, steps, own, crossing, speed, difference)


def _updates(quantities: dict[str, dict[int, float]] | None, steps: IntArray) -> FloatArray:
    """The updates of one group at every step, ``(T,)``."""
    mu = np.zeros(len(steps))
    if quantities is None:
        return mu
    gradients, weights = quantities["gradient"], quantities["weight"]
    there = [at for at, step in enumerate(steps.tolist()) if step in gradients and step in weights]
    chosen = [int(steps[at]) for at in there]
    top = np.array([[gradients[step]] for step in chosen])
    bottom = np.array([[weights[step]] for step in chosen])
    mu[there] = effective_updates(top, bottom)
    return mu
