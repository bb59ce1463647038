"""Trains the shipped model: ``python -m sample_models.scenes.train`` (one thread, some ten seconds).

The fault is planted here: sound and picture are trained first, the caption set to zero; it joins for two epochs at a low rate, when
the others already explain most of the labels.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.training import Recipe, TrainingStep, train
from sample_models.scenes.data import STRENGTHS, samples
from sample_models.scenes.model import build

__all__ = ["FIRST", "JOINT", "label_accuracy", "label_loss", "main"]

FIRST = Recipe(optimizer="adamw", lr=3e-3, epochs=12, seed=0)
JOINT = Recipe(optimizer="sgd", lr=1e-2, momentum=0.9, epochs=2, seed=0)


def label_loss(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean binary cross-entropy of the labels that are known, shape ``(B,)``, nats."""
    known = batch["labels"] >= 0
    truth = batch["labels"].clamp(min=0).to(logits)
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (each * known).sum(1) / known.sum(1).clamp(min=1)


def label_accuracy(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Share of a sample's known labels that are right, shape ``(B,)``."""
    known = batch["labels"] >= 0
    right = (logits > 0) == (batch["labels"] == 1)
    return (right & known).sum(1) / known.sum(1).clamp(min=1)


def main(
    runs: Path = Path("runs/scenes"),
    weights: Path = Path(__file__).parent,
    resume: bool = False,
) -> None:
    """Train sound and picture, then all three.

    Args:
        runs: Folder for the states of the runs.
        weights: Folder for the selected weights.
        resume: Go on from interrupted runs.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build()
    stages: dict[str, tuple[Recipe, Callable[..., Tensor]]] = {
        "first": (FIRST, _without_text),
        "joint": (JOINT, _everything),
    }
    for stage, (recipe, forward) in stages.items():
        result = train(
            model,
            samples("train"),
            samples("validation"),
            recipe,
            loss=label_loss,
            scores={"accuracy": label_accuracy},
            forward=forward,
            out=runs / stage,
            resume=resume,
            device="cpu",
            progress=_tell,
        )
    shutil.copyfile(result.weights, weights / "model.safetensors")


def _everything(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    logits: Tensor = model(*(batch[name] for name in STRENGTHS))
    return logits


def _without_text(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    return _everything(model, {**batch, "text": torch.zeros_like(batch["text"])})


def _tell(step: TrainingStep) -> None:
    if step.values:
        values = "  ".join(f"{key} {value:.3f}" for key, value in step.values.items())
        print(f"epoch {step.epoch} of {step.epochs}  {values}", flush=True)


if __name__ == "__main__":
    typer.run(main)
