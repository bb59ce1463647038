"""Small projects of users, as they lie in a folder: a model, its weights, its data."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

__all__ = ["PROJECTS", "write_project"]

_LATE = """
import torch
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.ears, self.eyes, self.head = nn.Linear(6, 4), nn.Linear(9, 4), nn.Linear(8, 3)

    def forward(self, audio, image):
        return self.head(torch.cat([self.ears(audio).relu(), self.eyes(image.flatten(1)).relu()], 1))


def build():
    return Late()


def rows(n=40):
    g = torch.Generator().manual_seed(0)
    return [
        {
            "id": f"s{i}",
            "audio": torch.randn(6, generator=g),
            "image": torch.rand(1, 3, 3, generator=g),
            "label": i % 3,
            "speaker": f"speaker {i // 4}",
        }
        for i in range(n)
    ]


def loader():
    return DataLoader(rows(), batch_size=16)
"""

_TUPLES = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(7, 5)

    def forward(self, lidar, radar):
        return {"features": lidar, "logits": (self.a(lidar) + self.b(radar)).softmax(-1)}


def build():
    torch.manual_seed(0)
    return Sum()


def loader():
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(20, 4), torch.randn(20, 7), torch.randint(0, 5, (20,))), batch_size=10)
"""

_TOKENS = """
import torch
from torch import nn
from torch.utils.data import DataLoader


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.eyes, self.head = nn.Embedding(50, 4, padding_idx=1), nn.Conv2d(3, 4, 3), nn.Linear(8, 1)

    def forward(self, input_ids, attention_mask, pixel_values, labels=None):
        kept = attention_mask.unsqueeze(-1).float()
        text = (self.embed(input_ids) * kept).sum(1) / kept.sum(1).clamp(min=1)
        return {"loss": None, "logits": self.head(torch.cat([text, self.eyes(pixel_values).mean((2, 3))], 1))[:, 0]}


def build():
    torch.manual_seed(0)
    return Words()


def sample(i):
    length = 3 + i % 5
    ids = torch.ones(8, dtype=torch.long)
    ids[:length] = torch.arange(2, 2 + length)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(8) < length).long(),
        "pixel_values": torch.rand(3, 6, 6),
        "labels": i % 2,
    }


def loader():
    torch.manual_seed(0)
    return DataLoader([sample(i) for i in range(24)], batch_size=8)
"""

_NESTED = """
import torch
from torch import nn


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x):
        first, second = x
        return self.a(first) + self.b(second)


def build():
    torch.manual_seed(0)
    return Pair()


def loader():
    torch.manual_seed(1)
    return [((torch.randn(6, 4), torch.randn(6, 5)), torch.arange(6) % 3) for _ in range(3)]
"""

_WHOLE = """
import torch
from torch import nn


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, batch):
        return (self.a(batch["pose"]) + self.b(batch["face"])).log_softmax(-1)


def build():
    torch.manual_seed(0)
    return Whole()


def loader():
    torch.manual_seed(1)
    return [{"pose": torch.randn(6, 4), "face": torch.randn(6, 5), "y": torch.arange(6) % 3} for _ in range(3)]
"""

PROJECTS = {"late": _LATE, "tuples": _TUPLES, "tokens": _TOKENS, "nested": _NESTED, "whole": _WHOLE}


def write_project(folder: Path, kind: str) -> Path:
    """Write ``train.py`` and ``best.pt`` of a project; returns the folder."""
    (folder / "train.py").write_text(PROJECTS[kind])
    space: dict = {"__name__": f"project_{kind}"}
    exec(compile(PROJECTS[kind], "train.py", "exec"), space)  # the text is above
    torch.save(space["build"]().state_dict(), folder / "best.pt")
    sys.modules.pop("train", None)
    return folder
