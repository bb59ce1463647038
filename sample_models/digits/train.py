"""Trains the shipped models: ``python -m sample_models.digits.train`` (one thread, about a minute).

The fault of the late model is planted here and nowhere else: its image encoder has already been trained alone for one epoch
when the joint training starts. From then on the picture explains nearly every training sample, the loss has little left to
say, and the audio encoder, which starts from nothing, stays close to where it began.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
import typer
from torch import nn

from mmaudit.training import Recipe
from sample_models.digits.data import Split, samples
from sample_models.digits.model import Kind, build
from sample_models.training import fit

__all__ = ["FREE", "HEAD_START", "JOINT", "main"]

FREE = Recipe(optimizer="adamw", lr=2e-3, scheduler="cosine", epochs=8, seed=0)
HEAD_START = Recipe(optimizer="adamw", lr=2e-3, epochs=1, seed=0)
JOINT = Recipe(optimizer="sgd", lr=1e-2, momentum=0.9, epochs=8, seed=0)


def main(
    runs: Path = Path("runs/digits"), weights: Path = Path(__file__).parent, resume: bool = False
) -> None:
    """Train the unimodal models, early fusion and the faulty late fusion.

    Args:
        runs: Folder for the states of the runs.
        weights: Folder for the selected weights.
        resume: Go on from interrupted runs.
    """
    torch.set_num_threads(1)
    data = {split: samples(split) for split in get_args(Split)}

    def run(model: nn.Module, kind: Kind, recipe: Recipe, path: Path) -> None:
        fit(model, kind, recipe, data=data, runs=runs, weights=path, resume=resume)

    kinds: tuple[Kind, ...] = ("audio", "image", "early")
    for kind in kinds:
        run(_seeded(kind), kind, FREE, weights / f"{kind}.safetensors")

    runs.mkdir(parents=True, exist_ok=True)
    ahead = _seeded("image")
    run(ahead, "image", HEAD_START, runs / "head_start.safetensors")
    late = _seeded("late")
    late.get_submodule("image_encoder").load_state_dict(ahead.get_submodule("encoder").state_dict())
    run(late, "late", JOINT, weights / "late.safetensors")


def _seeded(kind: Kind) -> nn.Module:
    torch.manual_seed(0)
    return build(kind)


if __name__ == "__main__":
    typer.run(main)
