"""The audio-visual digit models: late and early fusion, and the late model's encoders alone."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from sample_models.encoders import EarlyFusion, LateFusion, Unimodal, conv_encoder

__all__ = ["Kind", "build"]

Kind: TypeAlias = Literal["late", "early", "audio", "image"]

_WIDTH, _CLASSES = 48, 10


def build(kind: Kind = "late") -> nn.Module:
    """A model without its weights.

    Args:
        kind: ``late`` and ``early`` take ``(audio, image)``; ``audio`` and ``image`` take their own input.
    """
    if kind == "late":
        return LateFusion(_audio_encoder(), _image_encoder(), _WIDTH, _CLASSES)
    if kind == "early":
        encoder = conv_encoder((12, 24, 32), grid=(4, 4), width=_WIDTH, inputs=2)
        return EarlyFusion(encoder, _WIDTH, _CLASSES)
    if kind in ("audio", "image"):
        encoder = _audio_encoder() if kind == "audio" else _image_encoder()
        return Unimodal(encoder, _WIDTH, _CLASSES)
    raise ValueError(f"unknown kind '{kind}'; expected late, early, audio or image")


def _audio_encoder() -> nn.Sequential:
    return conv_encoder((12, 24, 32), grid=(4, 4), width=_WIDTH)


def _image_encoder() -> nn.Sequential:
    return conv_encoder((16, 32), grid=(4, 4), width=_WIDTH)
