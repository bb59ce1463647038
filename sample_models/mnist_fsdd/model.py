"""Late and early fusion for MNIST x FSDD, and the late model's encoders alone."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from sample_models.encoders import EarlyFusion, LateFusion, Unimodal, conv_encoder

__all__ = ["Kind", "build"]

Kind: TypeAlias = Literal["late", "early", "audio", "image"]

_CHANNELS, _WIDTH, _CLASSES = (12, 24, 40), 48, 10


def build(kind: Kind = "late") -> nn.Module:
    """A model without its weights.

    Args:
        kind: ``late`` and ``early`` take ``(audio, image)``; ``audio`` and ``image`` take their own input.
    """
    if kind == "late":
        return LateFusion(_encoder(), _encoder(), _WIDTH, _CLASSES)
    if kind == "early":
        encoder = conv_encoder(_CHANNELS, grid=(4, 4), width=_WIDTH, inputs=2)
        return EarlyFusion(encoder, _WIDTH, _CLASSES)
    if kind in ("audio", "image"):
        return Unimodal(_encoder(), _WIDTH, _CLASSES)
    raise ValueError(f"unknown kind '{kind}'; expected late, early, audio or image")


def _encoder() -> nn.Sequential:
    return conv_encoder(_CHANNELS, grid=(4, 4), width=_WIDTH)
