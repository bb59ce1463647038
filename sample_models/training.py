"""What the training scripts of the audio-visual subjects share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmaudit.training import Recipe, TrainingStep, accuracy, cross_entropy, train
from sample_models.pairs import Pairs

__all__ = ["call", "fit", "measure"]


def call(kind: str) -> Callable[[nn.Module, Mapping[str, Any]], Tensor]:
    """How a model of a kind is called on a batch: fusion models take both inputs, the others their own."""
    if kind in ("audio", "image"):
        return lambda model, batch: model(batch[kind])
    return lambda model, batch: model(batch["audio"], batch["image"])


def fit(
    model: nn.Module,
    kind: str,
    recipe: Recipe,
    *,
    data: Mapping[str, Pairs],
    runs: Path,
    weights: Path,
    resume: bool,
) -> float:
    """Train one model and put the selected weights in their place.

    Args:
        model: Trained in place.
        kind: ``audio``, ``image``, or a fusion of both.
        recipe: How.
        data: ``train``, ``validation`` and ``test``.
        runs: Folder for the states of all runs.
        weights: Where the selected weights go.
        resume: Whether to go on from an interrupted run.

    Returns:
        Accuracy on the test data, in [0, 1].
    """
    result = train(
        model,
        data["train"],
        data["validation"],
        recipe,
        loss=cross_entropy,
        scores={"accuracy": accuracy},
        forward=call(kind),
        out=runs / weights.stem,
        resume=resume,
        progress=lambda step: _tell(weights.stem, step),
        device="cpu",
    )
    shutil.copyfile(result.weights, weights)
    score = measure(model, kind, data["test"])
    print(f"{weights.name}: epoch {result.best_epoch}, test accuracy {score:.3f}", flush=True)
    return score


@torch.no_grad()
def measure(model: nn.Module, kind: str, data: Pairs) -> float:
    """Plain accuracy, in [0, 1]; the model is put into evaluation mode."""
    model.eval()
    batches = DataLoader(data, batch_size=128)
    hits = sum(float(accuracy(call(kind)(model, batch), batch).sum()) for batch in batches)
    return hits / len(data)


def _tell(name: str, step: TrainingStep) -> None:
    if step.values:
        values = "  ".join(f"{key} {value:.3f}" for key, value in step.values.items())
        print(f"{name}: epoch {step.epoch} of {step.epochs}  {values}", flush=True)
