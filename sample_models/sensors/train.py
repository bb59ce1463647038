"""Trains the shipped model: ``python -m sample_models.sensors.train`` (one thread, some ten seconds).

What is planted is planted here: pressure is set to zero throughout the training, as if the line had been unplugged while it ran; and
for a part of the samples vibration or temperature is set to zero, so that the model learns to do with either.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor, nn

from mmaudit.training import Recipe, TrainingStep, train
from sample_models.sensors.data import SENSORS, samples
from sample_models.sensors.model import build

__all__ = ["RECIPE", "main", "squared_error"]

RECIPE = Recipe(optimizer="adamw", lr=3e-3, scheduler="cosine", epochs=30, batch_size=100, seed=0)
_LOST = 0.25
"""Share of the samples without vibration, and of those without temperature."""


def squared_error(wear: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Squared error, shape ``(B,)``."""
    return (wear - batch["wear"]) ** 2


def main(
    runs: Path = Path("runs/sensors"),
    weights: Path = Path(__file__).parent,
    resume: bool = False,
) -> None:
    """Train the model.

    Args:
        runs: Folder for the states of the run.
        weights: Folder for the selected weights.
        resume: Go on from an interrupted run.
    """
    torch.set_num_threads(1)
    torch.manual_seed(RECIPE.seed)
    model = build()
    result = train(
        model,
        samples("train"),
        samples("validation"),
        RECIPE,
        loss=squared_error,
        forward=_unplugged,
        out=runs,
        resume=resume,
        device="cpu",
        progress=_tell,
    )
    shutil.copyfile(result.weights, weights / "model.safetensors")


def _unplugged(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    readings = {sensor: batch[sensor] for sensor in SENSORS}
    readings["pressure"] = torch.zeros_like(readings["pressure"])
    if model.training:
        drawn = torch.rand(len(batch["wear"]), 1)
        readings["vibration"] = readings["vibration"] * (drawn >= _LOST)
        readings["temperature"] = readings["temperature"] * (drawn < 1 - _LOST)
    wear: Tensor = model(**readings)
    return wear


def _tell(step: TrainingStep) -> None:
    if step.values:
        values = "  ".join(f"{key} {value:.3f}" for key, value in step.values.items())
        print(f"epoch {step.epoch} of {step.epochs}  {values}", flush=True)


if __name__ == "__main__":
    typer.run(main)
