"""Scenes with four labels, heard, seen and described: drawn from a seed, so that the best possible answers are known."""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = [
    "FEATURES",
    "LABELS",
    "RATES",
    "STRENGTHS",
    "Scene",
    "Scenes",
    "Split",
    "batches",
    "samples",
]

Split: TypeAlias = Literal["train", "validation", "test"]

LABELS = ("dog", "rain", "music", "crowd")
RATES = (0.4, 0.3, 0.5, 0.25)
"""Share of the scenes that have each label, independently of each other."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "audio": (0.5, 1.5, 2.0, 0.0),
    "image": (2.0, 0.5, 0.0, 1.5),
    "text": (1.5, 1.5, 1.5, 1.5),
}
"""Modality -> how far apart yes and no are for each label, in standard deviations to either side."""

FEATURES = 12
"""Numbers in each input: the evidence for four labels and eight of noise, turned by a fixed rotation."""

_SAMPLES = {"train": 2400, "validation": 400, "test": 600}
_UNKNOWN = 0.05


class Scene(TypedDict):
    """One sample; a batch has the same keys."""

    audio: Tensor
    image: Tensor
    text: Tensor
    labels: Tensor
    id: str


class Scenes(Dataset[Scene]):
    """Samples of one split.

    Args:
        split: ``train`` (2,400 samples), ``validation`` (400) or ``test`` (600).
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        rng = np.random.default_rng([11, list(_SAMPLES).index(split)])
        turning = np.random.default_rng(11)
        n = _SAMPLES[split]
        truth = rng.random((n, len(LABELS))) < RATES
        self.inputs = {}
        for modality, strengths in STRENGTHS.items():
            rotation = np.linalg.qr(turning.standard_normal((FEATURES, FEATURES)))[0]
            values = rng.standard_normal((n, FEATURES))
            values[:, : len(LABELS)] += np.where(truth, 1.0, -1.0) * strengths
            self.inputs[modality] = torch.from_numpy((values @ rotation).astype(np.float32))
        known = rng.random(truth.shape) >= _UNKNOWN
        self.labels = torch.from_numpy(np.where(known, truth, -1).astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Scene:
        return {
            "audio": self.inputs["audio"][index],
            "image": self.inputs["image"][index],
            "text": self.inputs["text"][index],
            "labels": self.labels[index],
            "id": f"{self.split}-{index:05d}",
        }


@cache
def samples(split: Split) -> Scenes:
    """One split; ``audio``, ``image`` and ``text`` of shape ``(12,)``, ``labels`` ``(4,)``: 1, 0, or -1 where nobody knows, ``id``."""
    return Scenes(split)


def batches(split: Split = "test", batch_size: int = 100) -> DataLoader[Scene]:
    """One split in a fixed order; a batch is a mapping with the keys of a sample."""
    return DataLoader(samples(split), batch_size=batch_size)
