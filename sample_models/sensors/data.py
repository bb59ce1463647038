"""Readings of three sensors of a machine, and its wear: drawn from a seed, so that every answer can be worked out."""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

__all__ = ["FEATURES", "SENSORS", "Reading", "Readings", "Split", "batches", "samples"]

Split: TypeAlias = Literal["train", "validation", "test"]

SENSORS = ("vibration", "temperature", "pressure")
FEATURES = 6
"""Numbers in a reading of one sensor."""

_SAMPLES = {"train": 3000, "validation": 500, "test": 600}
_LOAD, _PLAY, _LEAK, _CHANCE = 2.0, 1.0, 1.0, 0.3
_NOISE = 0.2
_SHOWS: dict[str, tuple[int, ...]] = {"vibration": (0, 1), "temperature": (0,), "pressure": (2,)}
"""Sensor -> the hidden causes that it shows: load, play, leak."""


class Reading(TypedDict):
    """One sample; a batch has the same keys."""

    vibration: Tensor
    temperature: Tensor
    pressure: Tensor
    wear: Tensor
    id: str


class Readings(Dataset[Reading]):
    """Samples of one split.

        wear = 2 load + play + leak + 0.3 chance        (all standard normal, independent)

    Args:
        split: ``train`` (3,000 samples), ``validation`` (500) or ``test`` (600).
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        rng = np.random.default_rng([7, list(_SAMPLES).index(split)])
        mixing = np.random.default_rng(7)
        n = _SAMPLES[split]
        causes = rng.standard_normal((n, 3))
        wear = causes @ [_LOAD, _PLAY, _LEAK] + _CHANCE * rng.standard_normal(n)
        self.wear = torch.from_numpy(wear.astype(np.float32))
        self.inputs = {}
        for sensor in SENSORS:
            shown = _SHOWS[sensor]
            directions = mixing.standard_normal((len(shown), FEATURES))
            values = causes[:, shown] @ directions + _NOISE * rng.standard_normal((n, FEATURES))
            self.inputs[sensor] = torch.from_numpy(values.astype(np.float32))

    def __len__(self) -> int:
        return len(self.wear)

    def __getitem__(self, index: int) -> Reading:
        return {
            "vibration": self.inputs["vibration"][index],
            "temperature": self.inputs["temperature"][index],
            "pressure": self.inputs["pressure"][index],
            "wear": self.wear[index],
            "id": f"{self.split}-{index:05d}",
        }


@cache
def samples(split: Split) -> Readings:
    """One split; ``vibration``, ``temperature`` and ``pressure`` of shape ``(6,)``, ``wear`` a number, ``id``."""
    return Readings(split)


def batches(split: Split = "test", batch_size: int = 100) -> DataLoader[Reading]:
    """One split in a fixed order; a batch is a mapping with the keys of a sample."""
    return DataLoader(samples(split), batch_size=batch_size)
