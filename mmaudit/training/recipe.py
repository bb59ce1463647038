"""How a model is trained, as one declarative record that is stored with every checkpoint.

A recipe has no defaults that depend on the machine: the same recipe, data and model give the same weights on the same
kind of device. What only changes speed (device, workers) is an argument of ``train``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

__all__ = ["Recipe", "build_optimizer", "learning_rate_factor"]


class Recipe(BaseModel):
    """Everything that decides the trajectory of a training, apart from model and data.

    Args:
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: Learning rate at the start.
        weight_decay: L2 penalty (``sgd``, ``adam``) or decoupled decay (``adamw``).
        momentum: Of ``sgd``; the others ignore it.
        scheduler: ``constant``; ``cosine`` or ``linear`` fall to 0 over all steps.
        epochs: Largest number of passes over the training data.
        batch_size: Samples per optimiser step, over all processes and micro-batches together.
        accumulation: Micro-batches that a step is computed in; the gradient stays that of the whole batch.
        seed: Of the data order and of everything random in the model.
        clip: Largest norm of the gradient; ``None`` does not clip.
        patience: Epochs without a better validation value after which training stops; ``None`` never stops early.
        monitor: Validation value that selects the model: ``loss`` (lower is better) or the name of a score (higher is).
        precision: ``fp32``, or ``bf16`` for autocast with float32 weights.

    Example:
        >>> Recipe(lr=0.1, epochs=3).batch_size
        64
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    scheduler: Literal["constant", "cosine", "linear"] = "constant"
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=1)
    accumulation: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    clip: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=None, ge=1)
    monitor: str = "loss"
    precision: Literal["fp32", "bf16"] = "fp32"


def build_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser a recipe names, over the parameters that require a gradient."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            trainable, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(trainable, recipe.lr, weight_decay=recipe.weight_decay)


def learning_rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of ``recipe.lr`` that optimiser step ``step`` of ``steps`` uses, in [0, 1].

    Example:
        >>> [learning_rate_factor(Recipe(scheduler="linear"), step, 4) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]
    """
    if recipe.scheduler == "constant":
        return 1.0
    done = min(step / steps, 1.0)
    return 1.0 - done if recipe.scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
