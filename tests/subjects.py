"""Small subjects for whole audits: a model, its data and a spec, importable by name so that processes can share them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import mmaudit

MODALITIES = {"audio": {"inputs": "audio"}, "image": {"inputs": "image"}}
SPEC = {"modalities": MODALITIES, "target": "label", "ids": "id", "group": "clip"}


class Late(nn.Module):
    """Two encoders with batch norm and dropout, and a head; ``pause`` seconds per forward make it as slow as wanted."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ears = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.eyes = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(16, 4)
        self.pause = pause

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        time.sleep(self.pause)
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1))


class Data:
    """Samples from a seed, the same whatever the batch size."""

    def __init__(self, samples: int, size: int = 64) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return -(-self.samples // self.size)

    def __iter__(self) -> Iterator[dict[str, object]]:
        generator = torch.Generator().manual_seed(0)
        both = torch.randn(self.samples, 11, generator=generator)
        for start in range(0, self.samples, self.size):
            audio, image = both[start : start + self.size, :6], both[start : start + self.size, 6:]
            rows = range(start, start + len(audio))
            yield {
                "audio": audio,
                "image": image,
                "label": (audio[:, 0] > 0).long() + 2 * (image[:, 0] > 0).long(),
                "id": [f"s{row}" for row in rows],
                "clip": [f"c{row // 2}" for row in rows],
            }


if __name__ == "__main__":
    out, samples, pause, *flags = sys.argv[1:]
    mmaudit.audit(
        Late(float(pause)),
        Data(int(samples), 512),
        SPEC,
        out=out,
        replicates=200,
        device="cpu",
        resume="resume" in flags,
    )
