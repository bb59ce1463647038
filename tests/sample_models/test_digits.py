from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaudit.training import Recipe
from sample_models.digits import batches, build, demo
from sample_models.digits.data import samples
from sample_models.digits.synthesise import BANDS, FRAMES, HOP, RATE, log_mel
from sample_models.pairs import pair_by_label
from sample_models.training import fit

SPLITS = ("train", "validation", "test")


def test_the_entry_point_loads_no_torch():
    code = (
        "import sys; from sample_models.digits import demo; demo(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert demo().audit_file.is_file()


def test_no_picture_clip_or_speaker_is_in_two_splits():
    parts = {split: samples(split) for split in SPLITS}
    assert [len(parts[split]) for split in SPLITS] == [2991, 200, 600]
    for column in (0, 1):
        seen = [set(part.pairs[:, column]) for part in parts.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))
    speakers = [{part.clips[i].split("-")[1] for i in part.pairs[:, 0]} for part in parts.values()]
    assert sum(map(len, speakers)) == len(set().union(*speakers)) == 50


def test_samples_pair_what_belongs_together():
    from sklearn.datasets import load_digits

    classes = load_digits().target
    for split in SPLITS:
        part = samples(split)
        assert (part.label[part.pairs[:, 0]] == classes[part.pairs[:, 1]]).all()
        assert len({part[i]["id"] for i in range(len(part))}) == len(part)
    clips, counts = np.unique(samples("test").pairs[:, 0], return_counts=True)
    assert len(clips) == 300 and set(counts) == {2}


def test_batches_have_the_shapes_of_the_models():
    batch = next(iter(batches("test", batch_size=5)))
    assert batch["audio"].shape == (5, 1, 32, 48) and batch["audio"].dtype == torch.float32
    assert batch["image"].shape == (5, 1, 8, 8)
    assert batch["image"].min() == 0 and batch["image"].max() <= 1
    assert [type(value) for value in batch["clip"]] == [str] * 5
    for kind in ("late", "early"):
        assert build(kind)(batch["audio"], batch["image"]).shape == (5, 10)
    for kind in ("audio", "image"):
        assert build(kind)(batch[kind]).shape == (5, 10)
    with pytest.raises(ValueError, match="unknown kind 'middle'"):
        build("middle")


def test_pairs_use_every_picture_equally_and_every_sound_nearly_so():
    rng = np.random.default_rng(0)
    sounds, pictures = np.repeat(np.arange(10), 4), np.repeat(np.arange(10), 5)
    sounds[0] = pictures[0] = -1
    pairs = pair_by_label(sounds, pictures, repeats=3, rng=rng)
    assert (sounds[pairs[:, 0]] == pictures[pairs[:, 1]]).all()
    assert set(np.bincount(pairs[:, 1], minlength=50)) == {0, 3}
    heard = np.bincount(pairs[:, 0], minlength=40)
    assert heard[0] == 0 and set(heard[4:]) <= {3, 4}


def test_a_tone_lights_the_band_it_lies_in():
    time = np.arange(HOP * FRAMES + 256) / RATE
    bands = [
        int(log_mel(np.sin(2 * np.pi * f * time)).mean(axis=1).argmax()) for f in (200, 800, 3000)
    ]
    assert bands == sorted(set(bands)) and bands[-1] < BANDS
    assert log_mel(np.ones(10)).shape == (BANDS, FRAMES)


def test_a_training_leaves_weights_that_score(tmp_path: Path):
    torch.manual_seed(0)
    data = {split: samples(split) for split in SPLITS}
    recipe = Recipe(optimizer="adamw", lr=2e-3, epochs=1)
    weights = tmp_path / "image.safetensors"
    score = fit(
        build("image"), "image", recipe, data=data, runs=tmp_path, weights=weights, resume=False
    )
    assert score > 0.85 and weights.stat().st_size < 400_000
