"""Trains the shipped models of the degraded setting: ``python -m sample_models.mnist_fsdd.train``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
import typer

from mmaudit.training import Recipe
from sample_models.mnist_fsdd.data import Split, samples
from sample_models.mnist_fsdd.model import Kind, build
from sample_models.training import fit

__all__ = ["RECIPE", "main"]

_SHIPPED: tuple[Kind, ...] = ("late", "audio", "image")

RECIPE = Recipe(
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    scheduler="cosine",
    epochs=8,
    batch_size=64,
    seed=0,
)


def main(
    runs: Path = Path("runs/mnist_fsdd"),
    weights: Path = Path(__file__).parent,
    resume: bool = False,
) -> None:
    """Train late fusion, audio alone and image alone, on one thread.

    Args:
        runs: Folder for the states of the runs.
        weights: Folder for the selected weights.
        resume: Go on from interrupted runs.
    """
    torch.set_num_threads(1)
    data = {split: samples(split, "degraded") for split in get_args(Split)}
    for kind in _SHIPPED:
        torch.manual_seed(RECIPE.seed)
        fit(
            build(kind),
            kind,
            RECIPE,
            data=data,
            runs=runs,
            weights=weights / f"{kind}.safetensors",
            resume=resume,
        )


if __name__ == "__main__":
    typer.run(main)
