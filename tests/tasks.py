"""Small models of every task, with data and what brute force says of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Two(nn.Module):
    """Two encoders and a head, on the last axis, so that samples may have segments."""

    def __init__(self, outputs: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.ears = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
            self.eyes = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
            self.head = nn.Linear(16, outputs)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], -1))


SPEC = {"modalities": {"audio": "audio", "image": "image"}, "target": "y", "ids": "id"}


def inputs(n: int, segments: int | None = None, *, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of n samples."""
    draw = torch.Generator().manual_seed(seed)
    shape = (n,) if segments is None else (n, segments)
    return {
        "audio": torch.randn(*shape, 4, generator=draw),
        "image": torch.randn(*shape, 3, generator=draw),
    }


def batches(data: dict, size: int) -> list[dict]:
    """Cut columns into batches."""
    n = len(data["audio"])
    data = {"id": [f"s{i}" for i in range(n)], **data}
    return [{name: v[at : at + size] for name, v in data.items()} for at in range(0, n, size)]


def everything(model: nn.Module, data: dict[str, Tensor]) -> Tensor:
    """Outputs of the coalitions none, audio, image, both, by plain calls; zeros stand in."""
    audio, image = data["audio"], data["image"]
    with torch.no_grad():
        return torch.stack([model(audio * (c & 1), image * (c >> 1 & 1)) for c in range(4)])
