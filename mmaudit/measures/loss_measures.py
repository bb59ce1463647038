"""From comparable losses to what a record of them holds: losses, OGR along the training, where each head turns, blend weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmaudit.evidence.losses import Losses
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.blending import blend_rows
from mmaudit.measures.ogr import NO_CHANGE, BlendPolicy, ogr_trajectory
from mmaudit.measures.run_set import (
    RunSet,
    check_lag,
    mean_estimate,
    place_name,
    ratio_estimate,
    stack_runs,
)
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


def measure_losses(losses: Sequence[Losses], options: Options) -> dict[str, MeasureResult]:
    """All measures of repeated runs.

    Args:
        losses: Of at least one run, all with the same heads.
        options: Lag, smoothing, policy and super-epochs.

    Returns:
        ``losses``, ``ogr``, ``overfitting`` and ``blend_weights``, each with its rows or the reason why there are none.

    Raises:
        UndefinedMeasureError: If the lag, the smoothing or the super-epoch is out of range.
    """
    check_lag(options.lag, losses)
    if options.super_epoch is not None and options.super_epoch < 1:
        raise UndefinedMeasureError(
            f"a super-epoch of {options.super_epoch} checkpoints; expected at least 1"
        )
    runs = stack_runs(losses, smoothing=options.smoothing)
    doubts = _doubts(losses)
    unit = "units of the loss"
    settings: dict[str, Any] = {"smoothing": options.smoothing, "runs": len(losses)}
    shared = losses[0].evaluation_sets
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
            lambda: turning_rows(runs, doubts, compare=not shared),
            settings,
        ),
        "blend_weights": _result(
            "blend_weights",
            f"Gradient-Blend weights, policy '{options.policy}'",
            f"share of the total loss; G, O: {unit}",
            lambda: blend_rows(
                runs, doubts, policy=options.policy, length=options.super_epoch, shared=shared
            ),
            {**settings, "policy": options.policy, "super_epoch": options.super_epoch},
        ),
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


def _doubts(losses: Sequence[Losses]) -> dict[str, str]:
    """Head -> why its comparison is wrong, where it is in half of the runs or more."""
    found: dict[str, list[str]] = {}
    for run in losses:
        for head in run.unusable:
            texts = [flag.text for flag in run.flags if flag.unusable and flag.head == head]
            found.setdefault(head, []).append(texts[0])
    return {head: texts[0] for head, texts in found.items() if 2 * len(texts) >= len(losses)}


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
        own, train, validation = runs.of_run(r)
        if len(own) <= (lag or 1):
            continue
        course = ogr_trajectory(train, validation, lag=lag)
        now = own[lag or 1 :]
        found["dO"][r][:, now] = course.overfitted
        found["dG"][r][:, now] = course.generalized
        found["train gain"][r][:, now] = course.train_gain
        then = validation[:, :1] if lag is None else validation[:, :-lag]
        found["before"][r][:, now] = np.broadcast_to(then, course.generalized.shape)
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
