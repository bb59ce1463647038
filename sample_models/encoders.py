"""The small convolutional parts the audio-visual subjects are built from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EarlyFusion", "LateFusion", "Unimodal", "conv_encoder"]


def conv_encoder(
    channels: Sequence[int], *, grid: tuple[int, int], width: int, inputs: int = 1
) -> nn.Sequential:
    """Convolution blocks, average-pooled to a grid and projected to a latent.

    Args:
        channels: Output channels of each block; every block but the last halves the resolution.
        grid: Height and width that are left before the projection.
        width: Size of the latent.
        inputs: Input channels.

    Returns:
        A module from ``(B, inputs, H, W)`` to ``(B, width)``, at least 0.
    """
    layers: list[nn.Module] = []
    for number, outputs in enumerate(channels, start=1):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        if number < len(channels):
            layers.append(nn.MaxPool2d(2))
        inputs = outputs
    size = inputs * grid[0] * grid[1]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(grid), nn.Flatten(), nn.Linear(size, width), nn.ReLU()
    )


class LateFusion(nn.Module):
    """One encoder per modality; a linear head over both latents."""

    def __init__(
        self, audio_encoder: nn.Module, image_encoder: nn.Module, width: int, classes: int
    ) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.image_encoder = image_encoder
        self.head = nn.Linear(2 * width, classes)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """Logits, shape ``(B, classes)``."""
        return self.head(torch.cat([self.audio_encoder(audio), self.image_encoder(image)], dim=1))


class EarlyFusion(nn.Module):
    """The picture is laid over the sound as a second channel; one encoder sees both."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """Logits, shape ``(B, classes)``."""
        image = F.interpolate(image, size=audio.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(self.encoder(torch.cat([audio, image], dim=1)))


class Unimodal(nn.Module):
    """One of the late model's encoders with a head of its own."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, values: Tensor) -> Tensor:
        """Logits, shape ``(B, classes)``."""
        return self.head(self.encoder(values))
