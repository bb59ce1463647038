"""Conditional learning speeds of repeated runs as a measure of the record of losses.

All sums are made over every recorded step, before places are chosen: a long training keeps a thousand of them and loses nothing of
what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmaudit.evidence.losses import MOST_CHECKPOINTS
from mmaudit.evidence.recorded_norms import Norms
from mmaudit.measures.learning_speed import (
    NO_STEP_COUNTS,
    LearningSpeeds,
    speed_difference,
    speeds_of,
)
from mmaudit.measures.run_set import mean_estimate, place_name
from mmaudit.report.schema import LabelledEstimate, MeasureResult
from mmaudit.typing import FloatArray, IntArray

__all__ = ["measure_speeds"]

_NO_CROSSING = (
    "no parameters carry one branch into another, as in late fusion: there is no conditional speed"
)
_NOTHING_YET = (
    "up to here its own parameters, or those that carry the others into it, have not been updated"
)
_NOT_ALL = "up to here not every branch has a conditional speed"
_ABSENT = "no run has this step"


class _Stacked(NamedTuple):
    """R runs with M branches at P places."""

    branches: tuple[str, ...]
    at: IntArray
    """Optimiser steps, shape ``(P,)``, ascending."""
    own: FloatArray
    """Sums of mu up to each place, shape ``(R, M, P)``; NaN only before the first and after the last recorded step of a run,
    and where a run has no such branch."""
    crossing: FloatArray
    speed: FloatArray
    difference: FloatArray
    """Shape ``(R, P)``."""


def measure_speeds(runs: Sequence[Norms | None]) -> MeasureResult | None:
    """Conditional learning speeds of each branch along the training (Wu et al. 2022).

    Args:
        runs: One for each run; ``None`` where no norms were recorded.

    Returns:
        ``learning_speed``, with rows by branch, checkpoint (optimiser step) and quantity: ``speed`` (log10); ``own`` and
        ``crossing``, the sums of mu that it is made of; and ``difference`` of the branches. A value belongs to the last recorded
        step up to its place. ``None`` where no run has norms.

    Example:
        >>> from mmaudit.evidence.recorded_norms import GroupNorms
        >>> ones = np.ones((2, 1))
        >>> crossing = GroupNorms(np.array([[10.0], [1.0]]), ones)
        >>> norms = Norms(("audio", "image"), np.array([7]), GroupNorms(ones, ones), crossing, np.array([]))
        >>> row = measure_speeds([norms]).rows[-1]
        >>> row.labels["branch"], row.estimate.value
        ('audio less image', 1.0)
    """
    known = [norms for norms in runs if norms is not None]
    if not known:
        return None
    counted = [speeds_of(norms) for norms in known if len(norms.step)]
    return MeasureResult(
        key="learning_speed",
        title="Conditional learning speed of each branch, up to each step",
        unit="log10; own, crossing: sums of |gradient|^2 / |weights|^2 over the recorded steps",
        direction="balanced",
        reference="Wu et al. 2022, arXiv:2202.05306",
        settings={
            "runs": len(known),
            "recorded_steps": max(len(norms.step) for norms in known),
            "left_out_steps": sum(len(norms.left_out) for norms in known),
        },
        rows=tuple(_rows(_stacked(counted), len(runs), _uneven(counted))) if counted else (),
        undefined=None if counted else NO_STEP_COUNTS,
    )


def _stacked(runs: Sequence[LearningSpeeds]) -> _Stacked:
    branches = tuple(dict.fromkeys(name for run in runs for name in run.modalities))
    at = _thinned(np.unique(np.concatenate([run.step for run in runs])))
    own, crossing, speed = np.full((3, len(runs), len(branches), len(at)), np.nan)
    for r, run in enumerate(runs):
        last = np.searchsorted(run.step, at, side="right") - 1
        # What was recorded every so many steps holds until it would have been recorded again.
        every = _recorded(run)
        here = np.flatnonzero((last >= 0) & (at < every[-1] + _gap(every)))
        place = np.ix_(np.array([branches.index(name) for name in run.modalities]), here)
        own[r][place] = run.own.cumsum(axis=1)[:, last[here]]
        if run.crossing is not None and run.speed is not None:
            crossing[r][place] = run.crossing.cumsum(axis=1)[:, last[here]]
            speed[r][place] = run.speed[:, last[here]]
    difference = np.full((len(runs), len(at)), np.nan)
    if len(branches) > 1:
        difference = np.stack([speed_difference(of_run) for of_run in speed])
    return _Stacked(branches, at, own, crossing, speed, difference)


def _thinned(steps: IntArray) -> IntArray:
    """At most ``MOST_CHECKPOINTS`` of the steps, the first and the last among them."""
    if len(steps) <= MOST_CHECKPOINTS:
        return steps
    places = np.linspace(0, len(steps) - 1, MOST_CHECKPOINTS).round().astype(int)
    return np.asarray(steps[places])


def _uneven(runs: Sequence[LearningSpeeds]) -> str | None:
    """That sums of several runs are over unlike numbers of steps; their ratios are not touched by it."""
    gaps = [_gap(every) for run in runs if len(every := _recorded(run)) > 1]
    if not gaps or max(gaps) <= min(gaps):
        return None
    return f"some runs recorded every {min(gaps):g} steps, others every {max(gaps):g}: the sums are over unlike numbers of steps"


def _recorded(run: LearningSpeeds) -> IntArray:
    """All steps at which norms were recorded, those left out among them."""
    return np.union1d(run.step, run.left_out)


def _gap(steps: IntArray) -> float:
    """Steps from one record to the next."""
    return float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0


def _rows(found: _Stacked, runs: int, uneven: str | None) -> Iterator[LabelledEstimate]:
    crosses = bool(np.isfinite(found.crossing).any())
    for m, branch in enumerate(found.branches):
        for p, place in enumerate(found.at.tolist()):
            if not np.isfinite(found.own[:, m, p]).any():
                continue
            labels = {"branch": branch, "checkpoint": place_name(place)}
            estimates = {"own": mean_estimate(found.own[:, m, p], runs, _ABSENT, uneven)}
            if crosses:
                estimates["crossing"] = mean_estimate(
                    found.crossing[:, m, p], runs, _NO_CROSSING, uneven
                )
            estimates["speed"] = mean_estimate(
                found.speed[:, m, p], runs, _NOTHING_YET if crosses else _NO_CROSSING
            )
            for quantity, estimate in estimates.items():
                yield LabelledEstimate(labels={**labels, "quantity": quantity}, estimate=estimate)
    if not crosses or len(found.branches) < 2:
        return
    first, second = found.branches[:2]
    both = f"{first} less {second}" if len(found.branches) == 2 else "largest less smallest"
    for p, place in enumerate(found.at.tolist()):
        if np.isfinite(found.own[:, :, p]).any():
            labels = {"branch": both, "checkpoint": place_name(place), "quantity": "difference"}
            estimate = mean_estimate(found.difference[:, p], runs, _NOT_ALL)
            yield LabelledEstimate(labels=labels, estimate=estimate)
