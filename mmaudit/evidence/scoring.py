"""From a model's outputs to what is stored per row: the value functions of the coalition game.

A value function says what the outputs are, which rows of the table a batch makes (samples, segments, labels, numbers), and what
stands in them. Everything else about a task follows from the rows, so that nothing else has to know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from mmaudit.evidence.classification import (
    Classification,
    MultiLabel,
    Segments,
    class_scores,
    label_scores,
)
from mmaudit.evidence.regression import Regression, value_scores
from mmaudit.evidence.rows import Rows
from mmaudit.masking.batches import Batch
from mmaudit.masking.spec import MaskingSpec, OutputSpec
from mmaudit.typing import FloatArray, TaskName

__all__ = [
    "Classification",
    "MultiLabel",
    "Regression",
    "Segments",
    "ValueFunction",
    "class_scores",
    "task_scores",
    "value_function",
]


class ValueFunction(Protocol):
    """What a task has to say about outputs."""

    task: TaskName
    classes: int | None
    """Number of class cells: K classes, L labels or D numbers; known after the first outputs."""
    warning: str | None
    """What looks wrong about the outputs."""

    def scores(self, output: Tensor) -> Tensor:
        """What is judged, float64 on the CPU.

        Class scores in logit space, ``(n, K)`` or ``(n, T, K)``; logits of labels, ``(n, L)``; numbers, ``(n, D)``.
        """

    def rows(self, batch: Batch) -> Rows:
        """Rows of the coalition table that a batch makes."""

    def said(self, scores: Tensor, names: Sequence[str] | None) -> tuple[str, float | None]:
        """What the model says of one sample, in words, and how sure it is where it says one thing."""

    def told(self, target: np.ndarray, names: Sequence[str] | None) -> str:
        """What is true of one sample, in the same words."""

    def judged(self, scores: Tensor, rows: Rows) -> dict[str, np.ndarray]:
        """How right S versions of the scores are, ``(S, n, ...)``: columns of shape ``(r, S)``, ``loglik`` among them."""

    def columns(self, scores: Tensor, rows: Rows, responses: FloatArray) -> dict[str, np.ndarray]:
        """Columns of the coalition table for all ``2**M`` coalitions: those of :meth:`judged`, and of the responses."""


def value_function(spec: MaskingSpec, classes: Sequence[str] | None = None) -> ValueFunction:
    """The value function of a spec's task."""
    names = classes if classes is not None else spec.classes
    known = len(names) if names else None
    if spec.task == "regression":
        return Regression(classes=known)
    if spec.task == "multilabel":
        return MultiLabel(spec.outputs.kind, classes=known)
    if spec.task == "segments":
        return Segments(spec.outputs.kind, classes=known)
    return Classification(spec.outputs.kind, binary=spec.task == "binary", classes=known)


def task_scores(output: Tensor, outputs: OutputSpec, task: TaskName) -> Tensor:
    """The same scores as :meth:`ValueFunction.scores`, for gradients to flow through: float32 or wider, on the output's device.

    Args:
        output: What the model gives.
        outputs: What that is.
        task: What the model predicts.

    Raises:
        ModelError: If the shape is not what the spec says.
    """
    if task == "regression":
        return value_scores(output)
    if task == "multilabel":
        return label_scores(output, outputs.kind)
    return class_scores(output, outputs.kind, segments=task == "segments")
