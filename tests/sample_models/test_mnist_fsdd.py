from __future__ import annotations

import pytest
import torch

from mmaudit.exceptions import DataError
from sample_models.mnist_fsdd import build
from sample_models.mnist_fsdd.data import data_folder, samples


@pytest.fixture
def available():
    try:
        data_folder()
    except DataError as error:
        pytest.skip(f"data not on this machine: {error}")


def test_missing_data_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MMAUDIT_DATA", str(tmp_path))
    with pytest.raises(DataError, match="set MMAUDIT_DATA to the folder"):
        data_folder()


def test_the_models_take_the_shapes_of_the_data():
    audio, image = torch.zeros(2, 1, 32, 64), torch.zeros(2, 1, 28, 28)
    assert build()(audio, image).shape == (2, 10)
    assert build("audio")(audio).shape == build("image")(image).shape == (2, 10)


def test_the_official_split_is_kept_and_nothing_is_in_two_splits(available):
    parts = {split: samples(split, "clean") for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [2400, 300, 300]
    assert {clip.rsplit("_", 1)[1] for clip in _clips(parts["test"])} == set("01234")
    every = [set(_clips(part)) for part in parts.values()]
    assert len(set().union(*every)) == sum(map(len, every)) == 3000
    images = [{image.numpy().tobytes() for image in part.image} for part in parts.values()]
    assert not images[0] & images[1]


def test_the_degraded_setting_has_three_pictures_a_clip(available):
    part = samples("test")
    assert len(part) == 900 and len(set(_clips(part))) == 300
    flat = part.image.flatten(1)
    rank = torch.linalg.matrix_rank(flat - flat.mean(0), rtol=1e-3).item()
    assert rank < 10, "pictures keep a few principal components only"
    clean = samples("test", "clean")
    noise = (part.audio - clean.audio).flatten()
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert part[0]["label"] == int(part[0]["clip"][0])


def _clips(part):
    return [part.clips[i] for i in part.pairs[:, 0]]
