"""Two convolutional branches that exchange information through multimodal transfer modules (Joze et al. 2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["MMTM", "BranchedModel", "Scores", "build"]

_AUDIO, _IMAGE, _CLASSES = (12, 24, 32), (16, 32, 32), 10


class Scores(NamedTuple):
    """What the model returns; all of shape ``(B, 10)``."""

    logits: Tensor
    """Mean of the two branches' logits."""
    audio: Tensor
    image: Tensor


class MMTM(nn.Module):
    """Squeeze and excitation across two modalities: each branch's channels are gated by what both branches have seen.

        S_i = mean of F_i over space;  Z = relu(W [S_0; S_1] + b);  F_i <- F_i * sigmoid(W_i Z + b_i)

    Args:
        audio: Channels of the audio branch.
        image: Channels of the image branch.
    """

    def __init__(self, audio: int, image: int) -> None:
        super().__init__()
        width = (audio + image) // 2
        self.squeeze = nn.Linear(audio + image, width)
        self.excite_audio = nn.Linear(width, audio)
        self.excite_image = nn.Linear(width, image)

    def forward(self, audio: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Gated features, of the same shapes ``(B, C, H, W)``."""
        squeezed = torch.cat([audio.mean((2, 3)), image.mean((2, 3))], dim=1)
        z = torch.relu(self.squeeze(squeezed))
        gates = torch.sigmoid(self.excite_audio(z)), torch.sigmoid(self.excite_image(z))
        return audio * gates[0][:, :, None, None], image * gates[1][:, :, None, None]


class BranchedModel(nn.Module):
    """An audio and an image branch of three blocks each, with an MMTM after the second and the third."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_blocks = nn.ModuleList(_blocks(_AUDIO))
        self.image_blocks = nn.ModuleList(_blocks(_IMAGE))
        self.mmtm2 = MMTM(_AUDIO[1], _IMAGE[1])
        self.mmtm3 = MMTM(_AUDIO[2], _IMAGE[2])
        self.audio_head = nn.Linear(_AUDIO[2], _CLASSES)
        self.image_head = nn.Linear(_IMAGE[2], _CLASSES)

    def forward(self, audio: Tensor, image: Tensor) -> Scores:
        """Logits of both branches and their mean, of sounds ``(B, 1, 32, 48)`` and pictures ``(B, 1, 8, 8)``."""
        exchange = (None, self.mmtm2, self.mmtm3)
        for hear, see, mmtm in zip(self.audio_blocks, self.image_blocks, exchange, strict=True):
            audio, image = hear(audio), see(image)
            if mmtm is not None:
                audio, image = mmtm(audio, image)
        heard = self.audio_head(audio.mean((2, 3)))
        seen = self.image_head(image.mean((2, 3)))
        return Scores((heard + seen) / 2, heard, seen)


def build() -> BranchedModel:
    """The model without its weights."""
    return BranchedModel()


def _blocks(channels: tuple[int, ...]) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    inputs = 1
    for number, outputs in enumerate(channels):
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        if number < 2:
            layers.append(nn.MaxPool2d(2))
        blocks.append(nn.Sequential(*layers))
        inputs = outputs
    return blocks
