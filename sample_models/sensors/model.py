"""An encoder for each sensor and a small network over all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sample_models.sensors.data import FEATURES, SENSORS

__all__ = ["SensorModel", "build"]

_WIDTH, _HIDDEN = 16, 48


class SensorModel(nn.Module):
    """Predicts the wear.

    Encoders have no biases and the last layer of pressure's starts at zero: while pressure is zero, nothing about it is learnt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                sensor: nn.Sequential(
                    nn.Linear(FEATURES, _HIDDEN, bias=False),
                    nn.ReLU(),
                    nn.Linear(_HIDDEN, _WIDTH, bias=False),
                )
                for sensor in SENSORS
            }
        )
        nn.init.zeros_(self.encoders["pressure"][2].weight)
        self.head = nn.Sequential(
            nn.Linear(_WIDTH * len(SENSORS), _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)
        )

    def forward(self, vibration: Tensor, temperature: Tensor, pressure: Tensor) -> Tensor:
        """Wear, shape ``(B,)``, of three readings ``(B, 6)``."""
        readings = (vibration, temperature, pressure)
        latents = [encode(x) for encode, x in zip(self.encoders.values(), readings, strict=True)]
        wear: Tensor = self.head(torch.cat(latents, dim=1)).squeeze(1)
        return wear


def build() -> SensorModel:
    """The model without its weights."""
    return SensorModel()
