"""Handwritten digits (scikit-learn) paired with spoken ones (``clips.npz``).

Pictures and clips are split first and paired afterwards, so that neither is in two splits; no speaker is in two either.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

from sample_models.pairs import Pairs, Sample, pair_by_label

__all__ = ["Split", "batches", "samples"]

Split: TypeAlias = Literal["train", "validation", "test"]

_PICTURES_PER_CLASS = {"test": 60, "validation": 20}  # the rest, 94 to 103, is for training
_REPEATS = {"train": 3, "validation": 1, "test": 1}
_SEED = 0
_AUDIO_MEAN, _AUDIO_STD = 17.0, 4.7  # of the training clips
_NOISE = 1.0
"""Standard deviation of the noise on every band and frame, beside 1 of the sound: a witness, but a worse one than the picture."""


@cache
def samples(split: Split) -> Pairs:
    """One split: 2,991 training, 200 validation or 600 test samples.

    Args:
        split: ``train``, ``validation`` or ``test``.

    Returns:
        Samples with ``audio`` (1, 32, 48), standardised log-mel, ``image`` (1, 8, 8) in [0, 1], ``label`` 0 to 9, ``id`` and
        ``clip``. Every test clip meets two pictures: resample by ``clip``.
    """
    rng = np.random.default_rng([_SEED, list(_REPEATS).index(split)])
    with np.load(Path(__file__).with_name("clips.npz")) as stored:
        mel, digit, clip = stored["mel"], stored["digit"].astype(int), stored["clip"]
        heard = np.where(stored["split"] == split, digit, -1)
    noise = np.random.default_rng(_SEED).normal(0, _NOISE, mel.shape).astype(np.float32)
    pictures, classes = load_digits(return_X_y=True)
    seen = np.where(_picture_splits(classes) == split, classes, -1)
    return Pairs(
        audio=torch.from_numpy((mel.astype(np.float32) - _AUDIO_MEAN) / _AUDIO_STD + noise)[
            :, None
        ],
        image=torch.from_numpy(pictures.reshape(-1, 1, 8, 8).astype(np.float32) / 16),
        label=digit,
        clips=clip.tolist(),
        pairs=pair_by_label(heard, seen, repeats=_REPEATS[split], rng=rng),
        prefix=split,
    )


def batches(split: Split = "test", batch_size: int = 64) -> DataLoader[Sample]:
    """One split in a fixed order; a batch is a mapping with the keys of a sample."""
    return DataLoader(samples(split), batch_size=batch_size)


def _picture_splits(classes: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(_SEED)
    splits = np.full(len(classes), "train", dtype="<U10")
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(classes == digit))
        taken = 0
        for split, count in _PICTURES_PER_CLASS.items():
            splits[order[taken : taken + count]] = split
            taken += count
    return splits
