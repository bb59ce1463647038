"""Samples that pair a sound with a picture, as all audio-visual subjects hand them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["Pairs", "Sample", "pair_by_label"]


class Sample(TypedDict):
    """One sample; a batch has the same keys."""

    audio: Tensor
    image: Tensor
    label: int
    id: str
    clip: str


class Pairs(Dataset[Sample]):
    """A sound and a picture of the same class per sample.

    Args:
        audio: All sounds, shape ``(A, 1, H, W)``, float32.
        image: All pictures, shape ``(I, 1, h, w)``, float32.
        label: Class of each sound, shape ``(A,)``.
        clips: Name of each sound.
        pairs: Position of sound and picture of each sample, shape ``(N, 2)``.
        prefix: Start of the sample ids.
    """

    def __init__(
        self,
        audio: Tensor,
        image: Tensor,
        label: np.ndarray,
        clips: Sequence[str],
        pairs: np.ndarray,
        prefix: str,
    ) -> None:
        self.audio, self.image, self.label, self.clips = audio, image, label, clips
        self.pairs, self.prefix = pairs, prefix

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        sound, picture = (int(position) for position in self.pairs[index])
        return {
            "audio": self.audio[sound],
            "image": self.image[picture],
            "label": int(self.label[sound]),
            "id": f"{self.prefix}-{index:05d}-{picture}-{self.clips[sound]}",
            "clip": str(self.clips[sound]),
        }


def pair_by_label(
    sounds: np.ndarray, pictures: np.ndarray, *, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """Pair every picture with ``repeats`` sounds of its class, every sound of a class about equally often.

    Args:
        sounds: Class of each sound, shape ``(A,)``; -1 is left out.
        pictures: Class of each picture, shape ``(I,)``; -1 is left out.
        repeats: Sounds per picture.
        rng: Decides who meets whom.

    Returns:
        Positions of sound and picture, shape ``(N, 2)``, in random order.
    """
    rows = []
    for digit in range(10):
        heard, seen = np.flatnonzero(sounds == digit), np.flatnonzero(pictures == digit)
        seen = np.tile(rng.permutation(seen), repeats)
        turns = -(-len(seen) // len(heard))
        dealt = np.concatenate([rng.permutation(heard) for _ in range(turns)])[: len(seen)]
        rows.append(np.stack([dealt, seen], axis=1))
    return rng.permutation(np.concatenate(rows))
