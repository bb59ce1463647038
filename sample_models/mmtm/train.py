"""Trains the shipped model: ``python -m sample_models.mmtm.train`` (one thread, half a minute).

The fault is planted here and nowhere else: the image branch has already been trained alone for one epoch when the joint training
starts. From then on the shortest way for the audio branch to answer is to be told: its gates learn what the picture shows, and its
convolutions hardly learn to hear.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmaudit.training import Recipe, TrainingStep, accuracy, cross_entropy, train
from sample_models.digits.data import Split, samples
from sample_models.mmtm.model import BranchedModel, Scores, build
from sample_models.pairs import Pairs

__all__ = ["HEAD_START", "JOINT", "main", "sum_of_losses"]

HEAD_START = Recipe(optimizer="adamw", lr=2e-3, epochs=1, seed=0)
JOINT = Recipe(optimizer="adamw", lr=2e-3, epochs=6, seed=0)


def sum_of_losses(scores: Scores, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum of the branches' cross-entropies, as Wu et al. 2022 train; shape ``(B,)``, nats."""
    return cross_entropy(scores.audio, batch) + cross_entropy(scores.image, batch)


def main(
    runs: Path = Path("runs/mmtm"),
    weights: Path = Path(__file__).parent,
    resume: bool = False,
) -> None:
    """Train the image branch ahead, then both.

    Args:
        runs: Folder for the states of the runs.
        weights: Folder for the selected weights.
        resume: Go on from interrupted runs.
    """
    torch.set_num_threads(1)
    data = {split: samples(split) for split in get_args(Split)}
    torch.manual_seed(0)
    model = build()
    ahead = [*model.image_blocks.parameters(), *model.image_head.parameters()]
    model.requires_grad_(False)
    for parameter in ahead:
        parameter.requires_grad_(True)
    train(
        model,
        data["train"],
        data["validation"],
        HEAD_START,
        loss=lambda scores, batch: cross_entropy(scores.image, batch),
        forward=_call,
        out=runs / "head_start",
        resume=resume,
        device="cpu",
    )
    model.requires_grad_(True)
    result = train(
        model,
        data["train"],
        data["validation"],
        JOINT,
        loss=sum_of_losses,
        scores={"accuracy": lambda scores, batch: accuracy(scores.logits, batch)},
        forward=_call,
        out=runs / "joint",
        resume=resume,
        device="cpu",
        progress=_tell,
    )
    shutil.copyfile(result.weights, weights / "model.safetensors")
    print(f"epoch {result.best_epoch}, test accuracies {measure(model, data['test'])}", flush=True)


@torch.no_grad()
def measure(model: BranchedModel, data: Pairs) -> dict[str, float]:
    """Plain accuracy of the mean and of both branches; the model is put into evaluation mode."""
    model.eval()
    hits = dict.fromkeys(Scores._fields, 0.0)
    for batch in DataLoader(data, batch_size=128):
        for name, scores in _call(model, batch)._asdict().items():
            hits[name] += float(accuracy(scores, batch).sum())
    return {name: round(count / len(data), 4) for name, count in hits.items()}


def _call(model: nn.Module, batch: Mapping[str, Any]) -> Scores:
    scores: Scores = model(batch["audio"], batch["image"])
    return scores


def _tell(step: TrainingStep) -> None:
    if step.values:
        values = "  ".join(f"{key} {value:.3f}" for key, value in step.values.items())
        print(f"epoch {step.epoch} of {step.epochs}  {values}", flush=True)


if __name__ == "__main__":
    typer.run(main)
