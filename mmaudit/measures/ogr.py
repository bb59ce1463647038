"""Overfitting against generalization along a training, and the blend of losses that follows from it (Wang et al. 2020).

Everything here works on losses that are comparable: means over samples, train and validation at the same checkpoint, both in
evaluation mode. What was logged is brought there, or flagged, in ``mmaudit.evidence.losses``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.onset import find_onset
from mmaudit.typing import FloatArray, IntArray

__all__ = [
    "NO_CHANGE",
    "BlendPolicy",
    "BlendWeights",
    "Trajectory",
    "best_checkpoints",
    "blend_weights",
    "first_overfitting",
    "ogr_trajectory",
    "smoothed",
    "super_epoch_weights",
]

BlendPolicy: TypeAlias = Literal["clip", "signed", "abs"]
"""What a head counts whose validation loss rose: nothing; negatively; or, as public code has it, as if it had fallen."""

NO_CHANGE = 1e-4
"""Share of the validation loss below which a change of it is none: OGR divides by it and is undefined there."""

_FLOOR = 1e-2
_MARGIN = 0.01


class Trajectory(NamedTuple):
    """What a training gained and overfitted between checkpoints, one row for each head."""

    overfitting: FloatArray
    """O = validation - train loss, shape ``(H, T)``."""
    overfitted: FloatArray
    """dO from checkpoint t to t + lag, shape ``(H, T - lag)``."""
    generalized: FloatArray
    """dG, how far the validation loss fell; above 0 is an improvement; shape ``(H, T - lag)``."""
    train_gain: FloatArray
    """How far the train loss fell, shape ``(H, T - lag)``: dO + dG."""
    ogr: FloatArray
    """|dO / dG|, shape ``(H, T - lag)``; NaN where the validation loss did not change."""


class BlendWeights(NamedTuple):
    """Weights of the heads' losses, and what was done where they are not given by the formula alone."""

    weights: FloatArray
    """Shape ``(H,)``, sum 1; negative ones only with policy ``signed``."""
    reason: str | None
    """Why the weights are the previous or equal ones; ``None`` where they follow from the losses."""


def ogr_trajectory(
    train: FloatArray, validation: FloatArray, *, lag: int | None = 1, no_change: float = NO_CHANGE
) -> Trajectory:
    """Overfitting-to-generalization ratios along a training.

        O_t = V_t - T_t,  dO = O_{t+n} - O_t,  dG = V_t - V_{t+n},  OGR = |dO / dG|       (Wang et al. 2020)

    An OGR near 0 says nothing where nothing was learnt: read it beside ``generalized``.

    Args:
        train: Mean train loss of each head at each checkpoint, shape ``(H, T)`` or ``(T,)``.
        validation: Mean held-out loss, the same shape.
        lag: Checkpoints between the two that are compared; ``None`` compares each with the first (cumulative).
        no_change: Share of the earlier validation loss below which dG counts as none.

    Returns:
        A :class:`Trajectory`.

    Raises:
        UndefinedMeasureError: If the shapes differ or there are too few checkpoints.

    Example:
        >>> t, v = np.array([2, 1.5, 1, 0.6]), np.array([2.1, 1.7, 1.5, 1.6])
        >>> ogr_trajectory(t, v).ogr.round(6).tolist(), ogr_trajectory(t, v, lag=None).ogr.round(6).tolist()
        ([[0.25, 1.5, 5.0]], [[0.25, 0.666667, 1.8]])
    """
    train, validation = (
        np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (train, validation)
    )
    T = train.shape[1]
    if train.shape != validation.shape:
        raise UndefinedMeasureError(
            f"train losses have shape {train.shape}, validation losses {validation.shape}; they must agree"
        )
    if lag is not None and lag < 1:
        raise UndefinedMeasureError(f"the lag is {lag}; expected at least 1 checkpoint")
    if (lag or 1) >= T:
        raise UndefinedMeasureError(
            f"{T} checkpoints are too few: OGR compares two that are {lag or 1} apart"
        )
    overfitting = validation - train
    then = np.zeros(T - 1, dtype=int) if lag is None else np.arange(T - lag)
    now = np.arange(1, T) if lag is None else np.arange(lag, T)
    overfitted = overfitting[:, now] - overfitting[:, then]
    generalized = validation[:, then] - validation[:, now]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(overfitted / generalized)
    nothing = np.abs(generalized) < no_change * np.abs(validation[:, then])
    ratio = np.where(nothing | (generalized == 0), np.nan, ratio)
    return Trajectory(overfitting, overfitted, generalized, train[:, then] - train[:, now], ratio)


def blend_weights(
    generalized: FloatArray,
    overfitted: FloatArray,
    *,
    scale: FloatArray | None = None,
    policy: BlendPolicy = "clip",
    floor: float = _FLOOR,
    previous: FloatArray | None = None,
) -> BlendWeights:
    """Gradient-Blend weights, w_h = (1/Z) G_h / O_h^2 with Z such that they sum to 1 (Wang et al. 2020).

    The proposition prints a Z with which they would sum to 2; only the learning rate changes.

    Args:
        generalized: G of each head over the window, shape ``(H,)``; above 0 where the validation loss fell.
        overfitted: O of each head over the window, shape ``(H,)``.
        scale: Validation losses at the start of the window, shape ``(H,)``: O^2 is at least ``(floor * scale)**2``, so that a head
            that did not overfit at all does not take everything. Left out: no floor.
        policy: What a head counts whose validation loss rose.
        floor: See ``scale``.
        previous: Weights to keep where no head improved; equal ones where there are none.

    Returns:
        The weights, and why they are not the formula's, if so.

    Raises:
        UndefinedMeasureError: If a head has no finite G or O, or, without a floor, O is 0.

    Example:
        >>> G, O = np.array([0.6, 0.7, 0.8]), np.array([0.9, 0.1, 0.8])
        >>> blend_weights(G, O).weights.round(6).tolist()
        [0.010289, 0.972347, 0.017363]
    """
    G, O = (np.asarray(x, dtype=np.float64) for x in (generalized, overfitted))  # noqa: E741
    if not (np.isfinite(G).all() and np.isfinite(O).all()):
        raise UndefinedMeasureError("blend weights need finite losses of every head")
    least = np.zeros_like(O) if scale is None else (floor * np.asarray(scale)) ** 2
    square = np.maximum(O**2, least)
    if (square == 0).any():
        raise UndefinedMeasureError(
            "a head did not overfit at all, so that G / O^2 is infinite: give the scale of its loss for a floor"
        )
    gained = {"clip": np.maximum(G, 0.0), "signed": G, "abs": np.abs(G)}[policy]
    raw = gained / square
    total = raw.sum()
    equal = np.full(len(G), 1 / len(G))
    kept, named = (equal, "equal") if previous is None else (np.asarray(previous), "the previous")
    if not (gained > 0).any():
        return BlendWeights(kept, f"no head's validation loss fell: {named} weights")
    if total <= 1e-12 * np.abs(raw).sum():
        return BlendWeights(
            kept, f"the signed weights do not sum to anything positive: {named} weights"
        )
    return BlendWeights(raw / total, None)


def super_epoch_weights(
    train: FloatArray,
    validation: FloatArray,
    *,
    length: int | None = None,
    policy: BlendPolicy = "clip",
) -> list[tuple[int, int, BlendWeights]]:
    """Weights that Gradient-Blend would give over a training: for each super-epoch, or once for all of it.

    These are estimates from one joint training. The method itself trains a copy of each head for the estimate.

    Args:
        train: Shape ``(H, T)``.
        validation: Shape ``(H, T)``.
        length: Checkpoints of a super-epoch; the last may be shorter. Left out: one window over everything (offline).
        policy: See :func:`blend_weights`.

    Returns:
        First and last checkpoint of each window, and its weights.
    """
    T = train.shape[1]
    step = length or T - 1
    found: list[tuple[int, int, BlendWeights]] = []
    for first in range(0, T - 1, step):
        last = min(first + step, T - 1)
        O = validation - train  # noqa: E741
        weights = blend_weights(
            validation[:, first] - validation[:, last],
            O[:, last] - O[:, first],
            scale=validation[:, first],
            policy=policy,
            previous=found[-1][2].weights if found else None,
        )
        found.append((first, last, weights))
    return found


def best_checkpoints(validation: FloatArray) -> IntArray:
    """Checkpoint with the lowest validation loss of each head, the first of equal ones; shape ``(H,)``."""
    return np.asarray(np.nanargmin(np.atleast_2d(validation), axis=1))


def first_overfitting(
    train: FloatArray, validation: FloatArray, *, margin: float = _MARGIN
) -> list[int | None]:
    """First checkpoint of each head at which it overfits.

    That is where a rise of the validation loss begins that lasts to the end and is larger than a margin and than noise explains,
    while the train loss does not rise along with it. A rise that is made good later is none. See :mod:`mmaudit.measures.onset`.

    Args:
        train: Shape ``(H, T)`` or ``(T,)``, finite.
        validation: The same shape.
        margin: Share of the lowest validation loss by which it has to rise.

    Returns:
        A checkpoint for each head, ``None`` where it does not overfit.

    Example:
        >>> first_overfitting(np.array([[2, 1.5, 1, 0.6]]), np.array([[2.1, 1.7, 1.5, 1.6]]))
        [3]
    """
    pairs = zip(np.atleast_2d(train), np.atleast_2d(validation), strict=True)
    return [find_onset(trained, held_out, margin=margin) for trained, held_out in pairs]


def smoothed(losses: FloatArray, weight: float) -> FloatArray:
    """Exponential moving average along the checkpoints, corrected for its start as TensorBoard does it.

    Args:
        losses: Shape ``(..., T)``, finite.
        weight: Of what came before, in [0, 1); 0 changes nothing.
    """
    if not 0 <= weight < 1:
        raise UndefinedMeasureError(f"the smoothing is {weight}; expected 0 <= smoothing < 1")
    losses = np.asarray(losses, dtype=np.float64)
    out = np.empty_like(losses)
    last = np.zeros(losses.shape[:-1])
    for t in range(losses.shape[-1]):
        last = weight * last + (1 - weight) * losses[..., t]
        out[..., t] = last / (1 - weight ** (t + 1))
    return out
