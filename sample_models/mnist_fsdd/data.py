"""MNIST pictures paired with spoken digits of the Free Spoken Digit Dataset, clean or degraded.

The data are not part of the repository. They are looked for in ``avdigits`` under the folder that ``MMAUDIT_DATA`` names,
or else under ``../shared/data`` beside the checkout. Training clips meet training pictures only.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader

from mmaudit.exceptions import DataError
from sample_models.pairs import Pairs, Sample, pair_by_label

__all__ = ["Setting", "Split", "batches", "data_folder", "samples"]

Split: TypeAlias = Literal["train", "validation", "test"]
Setting: TypeAlias = Literal["clean", "degraded"]

_TAKES = {"test": (0, 5), "validation": (5, 10), "train": (10, 50)}  # test: the official split
_PICTURES_PER_CLIP = {"clean": 1, "degraded": 3}
_ENERGY = 0.25
_NOISE = 1.0
_SEED = 0


def data_folder() -> Path:
    """Where the arrays are.

    Raises:
        DataError: If they are not there.
    """
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("MMAUDIT_DATA", beside)) / "avdigits"
    for name in ("mnist.npz", "fsdd_logmel32x64.npz"):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name}: no such file; set MMAUDIT_DATA to the folder that holds avdigits/{name}."
            )
    return folder


@cache
def samples(split: Split, setting: Setting = "degraded") -> Pairs:
    """One split: 2,400 training, 300 validation and 300 test clips, with one picture each (clean) or three (degraded).

    Args:
        split: ``test`` is FSDD's official one (takes 0 to 4); takes 5 to 9 validate, the rest trains.
        setting: ``degraded`` cuts the pictures to the leading principal components that hold 25 % of the variance of
            MNIST's training pictures and adds noise of one standard deviation to the sounds, drawn once per clip.

    Returns:
        Samples with ``audio`` (1, 32, 64), log-mel standardised on the training clips, ``image`` (1, 28, 28), standardised
        on MNIST's training pictures, ``label`` 0 to 9, ``id`` and ``clip``. Clips repeat: resample by ``clip``.

    Raises:
        DataError: If the data are not on this machine.
    """
    folder = data_folder()
    with np.load(folder / "fsdd_logmel32x64.npz") as stored:
        digit, speaker, take = stored["digit"], stored["speaker"], stored["index"]
        mel = stored["mel"].astype(np.float32)
    trained = take >= _TAKES["train"][0]
    mel = (mel - mel[trained].mean()) / mel[trained].std()
    if setting == "degraded":
        mel = mel + _NOISE * np.random.default_rng(_SEED).normal(size=mel.shape).astype(np.float32)
    part = "test" if split == "test" else "train"
    with np.load(folder / "mnist.npz") as stored:
        pictures, classes = stored[f"x_{part}"], stored[f"y_{part}"].astype(int)
        reference = stored["x_train"]
    rng = np.random.default_rng([_SEED, list(_TAKES).index(split)])
    first, stop = _TAKES[split]
    heard = np.where((take >= first) & (take < stop), digit, -1)
    # Validation and training pictures come from one pool, cut in two.
    half = slice(0, 50_000) if split == "train" else slice(50_000, None)
    if split != "test":
        pictures, classes = pictures[half], classes[half]
    seen = _as_many(heard, classes, _PICTURES_PER_CLIP[setting], rng)
    chosen = np.flatnonzero(seen >= 0)
    image = _standardised(pictures[chosen], reference, degraded=setting == "degraded")
    return Pairs(
        audio=torch.from_numpy(mel[:, None]),
        image=torch.from_numpy(image[:, None]),
        label=digit,
        clips=[f"{d}_{s}_{t}" for d, s, t in zip(digit, speaker, take, strict=True)],
        pairs=pair_by_label(heard, seen[chosen], repeats=1, rng=rng),
        prefix=f"{setting}-{split}",
    )


def batches(
    split: Split = "test", setting: Setting = "degraded", batch_size: int = 64
) -> DataLoader[Sample]:
    """One split in a fixed order; a batch is a mapping with the keys of a sample."""
    return DataLoader(samples(split, setting), batch_size=batch_size)


def _as_many(
    heard: np.ndarray, classes: np.ndarray, per_clip: int, rng: np.random.Generator
) -> np.ndarray:
    """Class of each picture that is drawn, -1 elsewhere: ``per_clip`` for every clip of the class."""
    seen = np.full(len(classes), -1)
    for digit in range(10):
        count = per_clip * int((heard == digit).sum())
        seen[rng.permutation(np.flatnonzero(classes == digit))[:count]] = digit
    return seen


def _standardised(pictures: np.ndarray, reference: np.ndarray, *, degraded: bool) -> np.ndarray:
    """Pictures with the mean and standard deviation of the training pictures taken out, float32."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32) / 255
    every = reference.reshape(len(reference), -1).astype(np.float32) / 255
    if degraded:
        mean = every.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov(every, rowvar=False))
        share = np.cumsum(variances[::-1]) / variances.sum()
        kept = axes[:, ::-1][:, : int(np.searchsorted(share, _ENERGY)) + 1].astype(np.float32)
        flat = mean + (flat - mean) @ kept @ kept.T
    return ((flat - every.mean()) / every.std()).reshape(-1, 28, 28).astype(np.float32)
