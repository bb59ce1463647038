"""From comparable losses to what a record of them holds: losses, OGR along the training, where each head turns, blend weights.

Norms of gradients that were recorded beside the losses become conditional learning speeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmaudit.evidence.losses import Losses
from mmaudit.evidence.recorded_norms import Norms
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.blending import blend_rows
from mmaudit.measures.ogr import NO_CHANGE, BlendPolicy, ogr_trajectory
from mmaudit.measures.run_set import (
    RunSet,
    check_lengths,
    mean_estimate,
    place_name,
    ratio_estimate,
    stack_runs,
)
from mmaudit.measures.speed_rows import measure_speeds
from mmaudit.measures.turning import turning_rows
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from mmaudit.typing import FloatArray

__all__ = ["Options", "measure_losses"]

_REFERENCE = "Wang et al. 2020, arXiv:1905.12681"
_NO_CHANGE = f"the validation loss changed by less than {NO_CHANGE:g} of itself"
_ABSENT = "no run has this checkpoint"


class Options(NamedTuple):
    """How losses are measured."""

    lag: int = 1
    smoothing: float = 0.0
    policy: BlendPolicy = "clip"
    super_epoch: int | None = None
    """Checkpoints of a super-epoch; ``None``: a fifth of the training."""


def measure_losses(
    losses: Sequence[Losses], options: Options, norms: Sequence[Norms | None] = ()
) -> dict[str, MeasureResult]:
    """All measures of repeated runs.

    Args:
        losses: Of at least one run, all with the same heads.
        options: Lag, smoothing, policy and super-epochs.
        norms: Of the same runs, ``None`` for one where none were recorded; left out: of none.

    Returns:
        ``losses``, ``ogr``, ``overfitting`` and ``blend_weights``, each with its rows or the reason why there are none; where norms
        were recorded also ``learning_speed``.

    Raises:
        UndefinedMeasureError: If the lag, the smoothing or the super-epoch is out of range.
    """
    check_lengths(options.lag, options.super_epoch, losses)
    runs = stack_runs(losses, smoothing=options.smoothing)
    doubts = _in_most([_unusable(run) for run in losses])
    apart = {**_in_most([run.incomparable for run in losses]), **doubts}
    unit = "units of the loss"
    settings: dict[str, Any] = {"smoothing": options.smoothing, "runs": len(losses)}
    shared = losses[0].evaluation_sets
    speeds = measure_speeds(norms)
    return {
        "losses": _result(
            "losses", "Losses at common checkpoints", unit, lambda: _loss_rows(runs), settings
        ),
        "ogr": _result(
            "ogr",
            "Overfitting against generalization between checkpoints",
            f"{unit}; OGR: ratio",
            lambda: _trajectory_rows(runs, options.lag, doubts),
            {**settings, "lag": options.lag, "no_change": NO_CHANGE},
        ),
        "overfitting": _result(
            "overfitting",
            "Where each head turns, and what it gained",
            f"checkpoints, fractions or {unit}, as the quantity says",
            lambda: turning_rows(runs, doubts, apart, compare=not shared),
            settings,
        ),
        "blend_weights": _result(
            "blend_weights",
            f"Gradient-Blend weights, policy '{options.policy}'",
            f"share of the total loss; G, O: {unit}",
            lambda: blend_rows(
                runs, apart, policy=options.policy, length=options.super_epoch, shared=shared
            ),
            {**settings, "policy": options.policy, "super_epoch": options.super_epoch},
        ),
        **({} if speeds is None else {"learning_speed": speeds}),
    }


def _result(key: str, title: str, unit: str, rows: Any, settings: dict[str, Any]) -> MeasureResult:
    found: tuple[LabelledEstimate, ...] = ()
    undefined = None
    try:
        found = tuple(rows())
    except UndefinedMeasureError as error:
        undefined = str(error)
    return MeasureResult(
        key=key,
        title=title,
        unit=unit,
        direction="balanced",
        reference=_REFERENCE,
        settings=settings,
        rows=found,
        undefined=undefined,
    )


def _unusable(run: Losses) -> dict[str, str]:
    return {flag.head: flag.text for flag in reversed(run.flags) if flag.unusable and flag.head}


def _in_most(found: Sequence[dict[str, str]]) -> dict[str, str]:
    """Head -> why, where it is so in half of the runs or more."""
    texts: dict[str, list[str]] = {}
    for of_run in found:
        for head, text in of_run.items():
            texts.setdefault(head, []).append(text)
    return {head: told[0] for head, told in texts.items() if 2 * len(told) >= len(found)}


def _loss_rows(runs: RunSet) -> Iterator[LabelledEstimate]:
    quantities = {
        "train": runs.train,
        "validation": runs.validation,
        "overfitting": runs.validation - runs.train,
    }
    for h, head in enumerate(runs.heads):
        for p, place in enumerate(runs.at.tolist()):
            labels = {"head": head, "checkpoint": place_name(place)}
            for name, values in quantities.items():
                if not np.isfinite(values[:, h, p]).any():
                    continue
                estimate = mean_estimate(values[:, h, p], len(runs.titles), _ABSENT)
                yield LabelledEstimate(labels={**labels, "quantity": name}, estimate=estimate)


def _trajectory_rows(runs: RunSet, lag: int, doubts: dict[str, str]) -> Iterator[LabelledEstimate]:
    if len(runs.at) < 2:
        raise UndefinedMeasureError("one checkpoint is no trajectory: overfitting compares two")
    for label, number in ((str(lag), lag), ("cumulative", None)):
        arrays = _trajectories(runs, number)
        for h, head in enumerate(runs.heads):
            for p, place in enumerate(runs.at.tolist()):
                here = {name: values[:, h, p] for name, values in arrays.items()}
                if not np.isfinite(here["dG"]).any():
                    continue
                for name, estimate in _at_checkpoint(here, doubts.get(head)):
                    labels = {
                        "head": head,
                        "checkpoint": place_name(place),
                        "lag": label,
                        "quantity": name,
                    }
                    yield LabelledEstimate(labels=labels, estimate=estimate)


def _trajectories(runs: RunSet, lag: int | None) -> dict[str, FloatArray]:
    """Quantity -> one value for each run, head and place, shape ``(R, H, P)``; NaN where there is none."""
    found = {
        name: np.full(runs.train.shape, np.nan) for name in ("dO", "dG", "train gain", "before")
    }
    for r in range(len(runs.titles)):
        for h in range(len(runs.heads)):
            own, train, validation = runs.of_head(r, h)
            if len(own) <= (lag or 1):
                continue
            course = ogr_trajectory(train, validation, lag=lag)
            now = own[lag or 1 :]
            found["dO"][r, h, now] = course.overfitted[0]
            found["dG"][r, h, now] = course.generalized[0]
            found["train gain"][r, h, now] = course.train_gain[0]
            found["before"][r, h, now] = validation[0] if lag is None else validation[:-lag]
    return found


def _at_checkpoint(
    here: dict[str, FloatArray], doubt: str | None
) -> Iterator[tuple[str, Estimate]]:
    runs = len(here["dG"])
    for name in ("dO", "dG", "train gain"):
        yield name, mean_estimate(here[name], runs, _ABSENT, doubt)
    nothing = abs(np.nanmean(here["dG"])) < NO_CHANGE * abs(np.nanmean(here["before"]))
    if nothing:
        yield "OGR", Estimate(undefined=_NO_CHANGE)
    else:
        yield "OGR", ratio_estimate(here["dO"], here["dG"], _NO_CHANGE, doubt)
