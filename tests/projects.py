"""What a user has before anything is retrained: code, data, weights, an audit file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

__all__ = ["make_project"]

_CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.ears = nn.Sequential(nn.Linear(6, width), nn.Tanh())
        self.eyes = nn.Sequential(nn.Linear(5, width), nn.Tanh())
        self.head = nn.Linear(2 * width, 3)

    def forward(self, sound, picture):
        return self.head(torch.cat([self.ears(sound), self.eyes(picture)], 1))


def build(width=8):
    return Net(width)
"""


def make_project(folder: Path) -> Path:
    """A folder with code, data, weights and an audit file; the weights hear almost nothing. Returns the audit file."""
    (folder / "own_net.py").write_text(_CODE)
    rng = np.random.default_rng(0)
    sounds, pictures = rng.normal(size=(3, 6)), rng.normal(size=(3, 5))
    for split, n in (("train", 240), ("test", 150)):
        y = rng.integers(0, 3, n)
        np.savez(
            folder / f"{split}.npz",
            sound=(sounds[y] + 0.8 * rng.normal(size=(n, 6))).astype(np.float32),
            picture=(pictures[y] + 0.8 * rng.normal(size=(n, 5))).astype(np.float32),
            y=y,
        )
    namespace: dict[str, Any] = {}
    exec(_CODE, namespace)  # noqa: S102  the test's own text
    torch.manual_seed(0)
    model = namespace["build"]()
    with torch.no_grad():
        model.head.weight[:, :8] *= 0.01
    save_file(model.state_dict(), folder / "weights.safetensors")
    audit_file = {
        "title": "Toy",
        "model": {"factory": "own_net:build", "args": {"width": 8}},
        "checkpoint": "weights.safetensors",
        "data": {"test": "test.npz", "train": "train.npz"},
        "modalities": {"sound": "sound", "picture": "picture"},
        "target": "y",
    }
    path = folder / "audit.yaml"
    path.write_text(yaml.safe_dump(audit_file, sort_keys=False))
    return path
