"""What a remedy may change about a training; as it stands here it changes nothing, and plain joint training is what runs.

One optimiser step, with the hooks in capitals::

    STEP:  for every micro-batch:
               batch = BATCH(batch)
               backward of LOSS(batch)              gradients are averaged over processes in here
           AFTER_BACKWARD                           once per step, on whole gradients
           clip, optimiser, scheduler

``PREPARE`` comes once before the first step and may hand over another module to train, ``COEFFICIENTS`` are asked for after
every epoch, and ``STATE`` goes into the checkpoint. Only a method that alternates between modalities replaces ``STEP``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from mmaudit.training.order import MicroBatch
from mmaudit.training.recipe import Recipe

__all__ = ["Hooks", "Means", "Micro", "State", "Training"]

Micro: TypeAlias = tuple[MicroBatch, Any]
"""A micro-batch of this process: its place in the step, and its batch on the device."""
State: TypeAlias = Mapping[str, Tensor | float]
"""What a remedy has to remember: tensors and numbers by name."""


class Training(Protocol):
    """What hooks see of the training that they are part of."""

    model: nn.Module
    """What is trained, without wrappers."""
    recipe: Recipe
    device: torch.device
    processes: int
    steps: int
    """Optimiser steps of the whole training, over all epochs, if it is not stopped early."""

    def joint_loss(self, batch: Any, micro: MicroBatch) -> Tensor:
        """Loss of the model's own forward on a micro-batch, as its share of the step; a scalar."""

    def share(self, losses: Tensor, micro: MicroBatch) -> Tensor:
        """Per-sample losses of this process -> a scalar whose gradient, averaged over processes, is that of the step's mean."""

    def backward(self, batch: Any, micro: MicroBatch, part: int = 0) -> None:
        """Add the gradients of ``LOSS`` on one micro-batch; after the last one of a step they are averaged over processes."""

    def update(self, *, last: bool = True) -> None:
        """Clip, step the optimiser, clear the gradients; where it is the step's last update the scheduler follows."""

    def reduce(self, tensor: Tensor) -> Tensor:
        """Sum over processes."""


class Hooks:
    """Plain joint training, and what every remedy starts from."""

    def prepare(self, run: Training) -> nn.Module:
        """Look at the model before the first step.

        Returns:
            The module to train, select and save; it takes the same batches.

        Raises:
            ModelError: If the method cannot be applied to this model.
        """
        return run.model

    def batch(self, run: Training, batch: Any, micro: MicroBatch) -> Any:
        """The micro-batch as the training is to see it."""
        return batch

    def loss(self, run: Training, batch: Any, micro: MicroBatch, part: int) -> Tensor:
        """What is minimised on one micro-batch; a scalar, see :meth:`Training.share`.

        It runs inside the module that shares gradients between processes: every forward that needs gradients belongs here.

        Args:
            run: The training.
            batch: From :meth:`batch`.
            micro: Its place in the step.
            part: Given by :meth:`step`, for methods with several losses.
        """
        return run.joint_loss(batch, micro)

    def step(self, run: Training, micros: Sequence[Micro]) -> None:
        """One optimiser step over its micro-batches."""
        for micro, batch in micros:
            run.backward(batch, micro)
        self.after_backward(run, micros[-1][0])
        run.update()

    def after_backward(self, run: Training, micro: MicroBatch) -> None:
        """Change the gradients of the whole step: averaged over processes and micro-batches, not clipped yet."""

    def coefficients(self) -> dict[str, float]:
        """What was applied since this was last asked: name -> value, for the record."""
        return {}

    def state(self) -> State:
        """Everything that a resumed training needs to go on as if nothing had happened."""
        return {}

    def load_state(self, state: State) -> None:
        """Take back what :meth:`state` gave."""


class Means:
    """Means, smallest and largest values of coefficients, kept on the device until they are asked for.

    Args:
        names: Of the coefficients, one per entry of what is added.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._rows: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Remember one step's values, shape ``(len(names),)``."""
        self._rows.append(values.detach())

    def take(self) -> dict[str, float]:
        """``name``, ``name (min)`` and ``name (max)`` over what was added since; empty if nothing was."""
        if not self._rows:
            return {}
        rows = torch.stack(self._rows).double().cpu()
        self._rows = []
        found: dict[str, float] = {}
        for column, name in enumerate(self._names):
            values = rows[:, column]
            found[name] = float(values.mean())
            found[f"{name} (min)"], found[f"{name} (max)"] = (
                float(values.min()),
                float(values.max()),
            )
        return found
