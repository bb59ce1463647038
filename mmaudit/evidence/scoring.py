"""From a model's outputs to what is stored per sample: the value functions of the coalition game.

A value function turns outputs into class scores and these into per-sample numbers. Classification is here; another task is
another class with the same two methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.tables import LEAST_LOGLIK, NOTHING, TIE
from mmaudit.typing import FloatArray

__all__ = ["Classification", "ValueFunction", "class_scores", "value_function"]


class ValueFunction(Protocol):
    """What a task has to say about outputs."""

    classes: int | None
    """Number K of class scores; known after the first outputs."""
    warning: str | None
    """What looks wrong about the outputs."""

    def scores(self, output: Tensor) -> Tensor:
        """Class scores in logit space, float64 ``(n, K)``, on the CPU."""

    def columns(
        self, scores: Tensor, targets: np.ndarray, responses: FloatArray
    ) -> dict[str, np.ndarray]:
        """Columns of the coalition table for n samples."""


class Classification:
    """Multi-class and binary classification.

    Args:
        kind: What the outputs are: ``logits``, ``probabilities``, ``log_probabilities`` or ``one_logit``.
        binary: Whether there must be exactly two classes.
        classes: Number K of classes, if it is known beforehand.
    """

    def __init__(self, kind: str, *, binary: bool = False, classes: int | None = None) -> None:
        self.kind, self.binary, self.classes = kind, binary, classes
        self.warning: str | None = None

    def scores(self, output: Tensor) -> Tensor:
        """Class scores in logit space.

        Args:
            output: Shape ``(n, K)``; ``(n,)`` or ``(n, 1)`` for ``one_logit`` and for the probability of class 1.

        Returns:
            Float64 ``(n, K)`` on the CPU; log-probabilities where the model gives probabilities, ``(0, z)`` for one logit z.

        Raises:
            ModelError: If the outputs are not what the spec says they are.
        """
        values = _by_class(output.detach().double().cpu(), self.kind)
        if self.kind == "one_logit" and len(values) > 1:
            single = values[:, 1]
            if bool(((single > 0) & (single < 1)).all()):
                self.warning = "All outputs lie between 0 and 1: they look like probabilities, the spec says one_logit (a probability per sample is outputs.kind probabilities)."
        if self.binary and values.shape[1] != 2:
            raise ModelError(f"task 'binary' expects 2 classes, the model gives {values.shape[1]}.")
        if self.classes is not None and values.shape[1] != self.classes:
            raise ModelError(
                f"the model gives {values.shape[1]} class scores where {self.classes} classes are known."
            )
        self.classes = values.shape[1]
        return self._logarithms(values)

    def _logarithms(self, values: Tensor) -> Tensor:
        finite = torch.isfinite(values).all(1)
        known = values[finite]
        if self.kind == "probabilities":
            if len(known) and (known.min() < -1e-4 or (known.sum(1) - 1).abs().max() > 1e-2):
                raise ModelError(
                    "outputs.kind is 'probabilities', but the rows do not sum to 1: are they logits?"
                )
            return _log(values)
        if (
            self.kind == "log_probabilities"
            and len(known)
            and (known.exp().sum(1) - 1).abs().max() > 1e-2
        ):
            raise ModelError(
                "outputs.kind is 'log_probabilities', but their exponentials do not sum to 1: are they logits?"
            )
        if (
            self.kind == "logits"
            and len(known)
            and known.min() >= 0
            and (known.sum(1) - 1).abs().max() < 1e-4
        ):
            self.warning = "The outputs sum to 1 in every row: they look like probabilities, the spec says logits."
        return values

    def columns(
        self, scores: Tensor, targets: np.ndarray, responses: FloatArray
    ) -> dict[str, np.ndarray]:
        """Columns of the coalition table.

        Args:
            scores: Class scores of every coalition, float64 ``(2**M, n, K)``.
            targets: Classes, ``(n,)`` in ``[0, K)``.
            responses: Shapley weights, ``(M, 2**M)``: a row times the coalition axis is one mono-modal response.

        Returns:
            Column -> array of n rows, as ``report.tables.coalition_schema`` lists them.

        Raises:
            DataError: If a target is no class.
        """
        S, n, K = scores.shape
        if n and (targets.min() < 0 or targets.max() >= K):
            wrong = int(np.flatnonzero((targets < 0) | (targets >= K))[0])
            raise DataError(
                f"target {targets[wrong]} is no class: the model has {K} (0 to {K - 1})."
            )
        y = torch.as_tensor(targets, dtype=torch.long)
        logp = torch.log_softmax(scores, -1)
        confidence, prediction = logp.max(-1)
        columns = {
            "prediction": prediction.T,
            "correct": (prediction == y).T,
            "loglik": logp.gather(-1, y.expand(S, n).unsqueeze(-1)).squeeze(-1).T,
            "confidence": confidence.exp().T,
            "entropy": torch.special.entr(logp.exp()).sum(-1).T,
        }
        scale = (
            scores.abs().amax((0, 2)).unsqueeze(-1)
        )  # per sample: what a difference of logits is small beside
        weights = torch.as_tensor(np.asarray(responses), dtype=torch.float64)
        zeroed = weights.clone()
        zeroed[:, 0] = 0
        for empty, table in (("exact", weights), ("zero", zeroed)):
            phi = torch.einsum("ms,snk->mnk", table, scores)
            top = phi.max(-1, keepdim=True).values
            best = phi >= top - TIE * scale
            hit = best.gather(-1, y.expand(len(phi), n).unsqueeze(-1)).squeeze(-1)
            loglik = (
                torch.log_softmax(phi, -1)
                .gather(-1, y.expand(len(phi), n).unsqueeze(-1))
                .squeeze(-1)
            )
            columns[f"response_prediction_{empty}"] = phi.argmax(-1).T
            columns[f"response_score_{empty}"] = (hit / best.sum(-1)).T
            columns[f"response_loglik_{empty}"] = loglik.clamp(min=LEAST_LOGLIK).T
            if empty == "exact":
                size = (phi - phi.mean(-1, keepdim=True)).abs().amax(-1)
                columns["response_size"] = size.where(size > NOTHING * scale.squeeze(-1), 0.0).T
        return {name: value.numpy() for name, value in columns.items()}


def class_scores(output: Tensor, kind: str) -> Tensor:
    """Class scores that gradients flow through.

    Args:
        output: As :meth:`Classification.scores` takes it.
        kind: What the outputs are.

    Returns:
        Float32 or wider, ``(n, K)``, in logit space, on the device of the output.

    Raises:
        ModelError: If the shape is not what the kind says.
    """
    values = _by_class(output if output.dtype is torch.float64 else output.float(), kind)
    return _log(values) if kind == "probabilities" else values


def _by_class(values: Tensor, kind: str) -> Tensor:
    """One column per class, also where the model gives one number per sample."""
    shape = tuple(values.shape)
    single = values[:, 0] if values.dim() == 2 and values.shape[1] == 1 else values
    if kind == "one_logit":
        if single.dim() != 1:
            raise ModelError(f"outputs have shape {shape}; 'one_logit' expects (n,) or (n, 1).")
        return torch.stack([torch.zeros_like(single), single], 1)
    if kind == "probabilities" and single.dim() == 1:
        return torch.stack([1 - single, single], 1)
    if values.dim() != 2 or values.shape[1] < 2:
        hint = (
            " (one number per sample: outputs.kind one_logit, or probabilities after a sigmoid?)"
            if values.dim() == 1 or values.shape[-1] == 1
            else ""
        )
        raise ModelError(
            f"outputs have shape {shape}; classification expects (n, K) with K >= 2{hint}."
        )
    return values


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()


def value_function(spec: MaskingSpec, classes: Sequence[str] | None = None) -> ValueFunction:
    """The value function of a spec's task."""
    names = classes if classes is not None else spec.classes
    return Classification(
        spec.outputs.kind, binary=spec.task == "binary", classes=len(names) if names else None
    )
