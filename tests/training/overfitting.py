"""A training in which one modality overfits by construction, from a known epoch on.

The target follows from ``signal``, four numbers. Of the 64 numbers of ``noise`` two say a little about it, and the others are enough
to know every training sample by heart. Up to epoch ``AWAKE`` each epoch has new samples, so that nothing can be learnt by heart; from
then on the same 60 come again and again, with a new ``signal`` each time.
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


_CENTRES = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, -1], [-1, 0, 1, 0]])


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
    noise = torch.randn(n, 64, generator=generator)
    noise[:, :2] += _CENTRES[y, :2]
    return {"signal": _signals(y, generator), "noise": noise, "y": y}


def _signals(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return 1.5 * _CENTRES[y] + torch.randn(len(y), 4, generator=generator)


def train(
    after: Callable[[nn.Module, int, int], None] = lambda model, step, epoch: None,
    *,
    epochs: int = EPOCHS,
) -> nn.Module:
    """Plain joint training of all three losses; ``after`` sees the model before the first epoch and after each."""
    torch.manual_seed(0)
    model, known, step = TwoHeads(), samples(60, 0), 0
    optimizer = torch.optim.Adam(
        [{"params": model.signal.parameters()}, {"params": model.noise.parameters(), "lr": 3e-3}],
        lr=1e-2,
    )
    after(model, 0, 0)
    for epoch in range(1, epochs + 1):
        generator = torch.Generator().manual_seed(1000 + epoch)
        for _ in range(1 if epoch <= AWAKE else 10):
            data = samples(600, 100 + epoch)
            if epoch > AWAKE:
                data = {**known, "signal": _signals(known["y"], generator)}
            for rows in torch.randperm(len(data["y"])).split(20):
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
