"""A training in which one modality overfits by construction, from a known epoch on.

The target follows from ``signal``. ``noise`` is many numbers that have nothing to do with it, so that its branch can only learn the
few training samples by heart; it is held still until ``AWAKE`` epochs are over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn import functional as F

__all__ = ["AWAKE", "EPOCHS", "HEADS", "SPEC", "TwoHeads", "make_project", "samples", "train"]

AWAKE, EPOCHS = 5, 12
SPEC: dict[str, Any] = {
    "modalities": {"signal": "signal", "noise": "noise"},
    "target": "y",
    "outputs": {"path": "logits"},
}
HEADS = {"signal": "by_signal", "noise": "by_noise"}


class TwoHeads(nn.Module):
    """Late fusion by a sum; each branch's own scores are returned, too."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.signal = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.noise = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 3))  # fmt: skip

    def forward(self, signal: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        one, other = self.signal(signal), self.noise(noise)
        return {"logits": one + other, "by_signal": one, "by_noise": other}


def samples(n: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    centres = 1.5 * torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, -1], [0, 0, 1, 0]])
    signal = centres[y] + torch.randn(n, 4, generator=generator)
    return {"signal": signal, "noise": torch.randn(n, 64, generator=generator), "y": y}


def train(
    after: Callable[[nn.Module, int, int], None] = lambda model, step, epoch: None,
    *,
    epochs: int = EPOCHS,
) -> nn.Module:
    """Plain joint training of all three losses; ``after`` sees the model before the first epoch and after each."""
    torch.manual_seed(0)
    model, data, step = TwoHeads(), samples(60, 0), 0
    after(model, 0, 0)
    for epoch in range(1, epochs + 1):
        still = 0.0 if epoch <= AWAKE else 0.01
        groups = [{"params": model.signal.parameters(), "lr": 0.02}, {"params": model.noise.parameters(), "lr": still}]  # fmt: skip
        optimizer = torch.optim.Adam(groups) if epoch in (1, AWAKE + 1) else optimizer
        for rows in torch.randperm(60).split(20):
            out = model(data["signal"][rows], data["noise"][rows])
            loss = sum(F.cross_entropy(scores, data["y"][rows]) for scores in out.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        after(model, step, epoch)
    return model


_CODE = """
from tests.training.overfitting import TwoHeads


def build():
    return TwoHeads()
"""


def make_project(folder: Path, *, validation: bool = True, **more: Any) -> Path:
    """Data, code and an audit file; a checkpoint of every epoch in ``run``. Returns the audit file."""
    (folder / "overfitting_net.py").write_text(_CODE)
    for split, n, seed in (("train", 60, 0), ("validation", 150, 1), ("test", 90, 2)):
        np.savez(folder / f"{split}.npz", **{k: v.numpy() for k, v in samples(n, seed).items()})
    (folder / "run").mkdir()
    data = {"test": "test.npz", "train": "train.npz"}
    spec = {
        "title": "Two heads",
        "model": "overfitting_net:build",
        "data": {**data, **({"validation": "validation.npz"} if validation else {})},
        **SPEC,
        **more,
    }
    path = folder / "audit.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path
