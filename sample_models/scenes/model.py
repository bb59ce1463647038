"""An encoder for each modality and a linear head with one output for each label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sample_models.scenes.data import FEATURES, LABELS, STRENGTHS

__all__ = ["SceneModel", "build"]

_WIDTH, _HIDDEN = 12, 24


class SceneModel(nn.Module):
    """Late fusion; every label has a logit of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(FEATURES, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _WIDTH), nn.ReLU()
                )
                for name in STRENGTHS
            }
        )
        self.head = nn.Linear(_WIDTH * len(STRENGTHS), len(LABELS))

    def forward(self, audio: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """Logits of the labels, shape ``(B, 4)``, of three inputs ``(B, 12)``."""
        inputs = (audio, image, text)
        latents = [encode(x) for encode, x in zip(self.encoders.values(), inputs, strict=True)]
        logits: Tensor = self.head(torch.cat(latents, dim=1))
        return logits


def build() -> SceneModel:
    """The model without its weights."""
    return SceneModel()
