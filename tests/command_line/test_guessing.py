"""Guesses about batches, from names, shapes and values."""

from __future__ import annotations

import pytest
import torch

from mmaudit.command_line.entries import entries
from mmaudit.command_line.guessing import guess
from mmaudit.exceptions import DataError

B = 24


def _guess(batch, parameters=()):
    return guess(entries(batch), list(parameters))


@pytest.mark.parametrize(
    ("batch", "path"),
    [
        ({"x": torch.randn(B, 3), "label": torch.arange(B) % 3}, "label"),
        ({"x": torch.randn(B, 3), "is_target": torch.arange(B) % 2 == 0}, "is_target"),
        (
            {"x": torch.randn(B, 3), "emotion": torch.arange(B) % 3, "index": torch.arange(B)},
            "emotion",
        ),
        ({"x": torch.randn(B, 3), "y": (torch.arange(B) % 2).float()}, "y"),
        ({"x": torch.randn(B, 3), "age": torch.rand(B)}, None),
        ((torch.randn(B, 3), torch.arange(B) % 4, torch.arange(B) % 2), "2"),
        ({"x": torch.randn(B, 3), "labels": torch.arange(B).view(-1, 1) % 4}, "labels"),
        ({"x": torch.randn(B, 3), "lengths": torch.arange(B) % 4}, None),
        ({"x": torch.randn(B, 3), "label": ["cat", "dog"] * (B // 2)}, "label"),
        ({"x": torch.randn(B, 3), "target": torch.randn(B)}, "target"),
        ({"x": torch.randn(B, 3), "target": torch.randn(B, 2)}, "target"),
        ({"x": torch.randn(B, 3), "labels": (torch.randn(B, 5) > 0).long()}, "labels"),
        ({"x": torch.randn(B, 3), "y": torch.arange(B) - 7}, None),
        ({"x": torch.randn(B, 3), "scores": torch.randn(B, 2)}, None),
    ],
)
def test_target(batch, path):
    found = _guess(batch).target
    assert (found.path if found else None) == path


def test_ids_and_groups():
    found = _guess(
        {
            "x": torch.randn(B, 3),
            "label": torch.arange(B) % 3,
            "patient": ["p", "q"] * (B // 2),
            "sample_id": torch.arange(B),
        }
    )
    assert (found.ids.path, found.group.path) == ("sample_id", "patient")


def test_masks_go_with_their_input():
    batch = {
        "video": torch.randn(B, 5, 8),
        "video_mask": torch.ones(B, 5, dtype=torch.bool),
        "speech": torch.randn(B, 9, 4),
        "speech_lengths": torch.full((B,), 9),
        "label": torch.arange(B) % 3,
    }
    found = _guess(batch)
    assert {m.name: (list(m.inputs), m.masks) for m in found.modalities} == {
        "video": (["video", "video_mask"], {"video": "zero", "video_mask": "keep"}),
        "speech": (["speech", "speech_lengths"], {"speech": "zero", "speech_lengths": "keep"}),
    }


def test_what_forward_does_not_take_is_left_out_and_said():
    batch = {
        "x": torch.randn(B, 3),
        "spare": torch.randn(B, 9),
        "weight": torch.rand(B),
        "label": torch.arange(B) % 3,
    }
    found = _guess(batch, ["x"])
    assert [m.name for m in found.modalities] == ["x"]
    assert found.left_out == {
        "spare": "forward has no argument of this name",
        "weight": "one number per sample, and no argument of forward",
    }


def test_what_has_no_rows_is_left_out():
    found = _guess(
        {"x": torch.randn(B, 3), "edges": torch.zeros(2, 7), "label": torch.arange(B) % 3}
    )
    assert found.left_out == {"edges": f"no dimension of {B} samples"}


def test_batch_without_tensors():
    with pytest.raises(DataError, match="without a tensor"):
        entries({"text": ["a", "b"]})
