"""A small model and data for the loop's tests; run as a module it trains, so that tests can kill it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import nn

from mmaudit.training import Recipe, accuracy, cross_entropy, train

RECIPE = Recipe(
    optimizer="adamw", lr=0.02, epochs=6, batch_size=16, seed=3, clip=1.0, scheduler="cosine"
)
PLAIN = RECIPE.model_copy(
    update={"optimizer": "sgd", "epochs": 4, "batch_size": 23, "accumulation": 2}
)
"""For models without random layers: batches of 20, so nothing divides evenly by 2 processes and 2 micro-batches twice."""


def data(n: int = 120, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    label = (x[:, 0] + x[:, 1] > 0).long() + (x[:, 2] > 0).long()
    return [{"x": x[i], "label": label[i]} for i in range(n)]


def build(*, random_layers: bool = True) -> nn.Module:
    torch.manual_seed(11)
    extra = [nn.BatchNorm1d(16), nn.Dropout(0.3)] if random_layers else []
    return nn.Sequential(nn.Linear(6, 16), *extra, nn.ReLU(), nn.Linear(16, 3))


def run(out: Path, recipe: Recipe = RECIPE, model: nn.Module | None = None, **options):
    return train(
        build() if model is None else model,
        data(),
        data(60, seed=1),
        recipe,
        loss=cross_entropy,
        scores={"accuracy": accuracy},
        forward=lambda model, batch: model(batch["x"]),
        out=out,
        device="cpu",
        **options,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), resume=True, progress=lambda step: time.sleep(float(sys.argv[2])))
