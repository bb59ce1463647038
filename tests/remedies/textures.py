"""A planted fault: two images of the same texture, one clean and one noisy, and encoders that must learn to tell textures.

Plain joint training learns the clean one and leaves the encoder of the noisy one as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.remedies.nets import CLASSES, spec
from tests.remedies.running import run

DIRECTIONS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])


class Textures(nn.Module):
    """Two convolutional encoders that end in four averaged features, so that a linear head alone cannot do their work."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 4, 3, padding=1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([self.encoders[0](a), self.encoders[1](b)], 1))


def textures(n: int, seed: int) -> list[dict[str, Tensor]]:
    """Waves of four directions and unknown phase, ``(1, 8, 8)``; noise 0.3 in the first image and 1 in the second."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    places = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"))
    angle = 1.57 * torch.einsum("nd,dij->nij", DIRECTIONS[labels], places)
    images = []
    for noise in (0.3, 1.0):
        phase = 6.283 * torch.rand(n, 1, 1, generator=generator)
        wave = torch.cos(angle + phase)
        images.append((wave + noise * torch.randn(n, 8, 8, generator=generator)).unsqueeze(1))
    return [{"x0": images[0][i], "x1": images[1][i], "y": labels[i]} for i in range(n)]


def accuracy_of_the_noisy_one(
    key: str, folder: Path, seeds: tuple[int, ...] = (0, 1, 2, 3), **options: Any
) -> float:
    """Accuracy on unseen samples with the clean image masked, after training with a remedy; mean over seeds."""
    samples, unseen = textures(256, 0), textures(400, 1)
    noisy = torch.stack([sample["x1"] for sample in unseen])
    labels = torch.stack([sample["y"] for sample in unseen])
    hits = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = Textures()
        run(
            key,
            model,
            spec(2),
            samples,
            folder / f"{key}-{seed}",
            validation=textures(64, 2),
            recipe={"epochs": 8, "batch_size": 32, "momentum": 0.9, "seed": seed},
            **options,
        )
        model.eval()
        with torch.no_grad():
            hits.append((model(torch.zeros_like(noisy), noisy).argmax(1) == labels).float().mean())
    return float(torch.stack(hits).mean())
