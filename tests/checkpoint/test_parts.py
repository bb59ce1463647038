"""Files that name the parts of a model otherwise than the model does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.exceptions import CheckpointError
from tests.checkpoint.files import torch_bytes


class Net(nn.Module):
    def __init__(self, audio=6, video=5):
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(audio, 4))
        self.video = nn.Sequential(nn.Linear(video, 4))
        self.head = nn.Linear(8, 3)


def saved(path, names, **sizes):
    torch.manual_seed(1)
    net = Net(**sizes)
    parts = zip(names, (net.audio, net.video, net.head), strict=True)
    path.write_bytes(torch_bytes({"epoch": 1, **{n: p.state_dict() for n, p in parts}}))
    return net


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "names",
    [
        ("audio_state_dict", "video_state_dict", "head_state_dict"),
        ("audio_net", "video_net", "Head"),
        ("model_audio", "video_encoder", "head"),
    ],
)
def test_words_around_a_name_do_not_matter(tmp_path, names):
    """Sub-modules of the same shape are told apart by their names."""
    net = saved(tmp_path / "best.pt", names, audio=5)
    loaded = load_checkpoint(tmp_path / "best.pt", lambda: Net(audio=5))
    assert same(loaded.model, net)
    assert any(f"{names[0]} for audio" in note for note in loaded.notes)


def test_other_names_are_paired_where_keys_and_shapes_leave_no_choice(tmp_path):
    net = saved(tmp_path / "best.pt", ("netA", "netV", "classifier"))
    loaded = load_checkpoint(tmp_path / "best.pt", Net)
    assert same(loaded.model, net)
    assert any("netA for audio" in n and "by their keys and shapes" in n for n in loaded.notes)


def test_where_there_is_a_choice_the_sentence_says_what_to_do(tmp_path):
    saved(tmp_path / "best.pt", ("netA", "netV", "classifier"), audio=5)
    with pytest.raises(
        CheckpointError, match="under the names of the model's, audio, video, head"
    ) as caught:
        load_checkpoint(tmp_path / "best.pt", lambda: Net(audio=5))
    assert "strip_prefix" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_name_is_not_overruled_by_shapes(tmp_path):
    """What is called video and has the shapes of audio is a mistake to be told."""
    saved(tmp_path / "best.pt", ("video_net", "audio_net", "head_net"))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "best.pt", Net)


def test_parts_trained_in_parallel(tmp_path):
    net = Net()
    parts = {
        f"{name}_state_dict": {f"module.{k}": v for k, v in part.state_dict().items()}
        for name, part in net.named_children()
    }
    (tmp_path / "best.pt").write_bytes(torch_bytes(parts))
    assert same(load_checkpoint(tmp_path / "best.pt", Net).model, net)
