"""What a subject warns of before anything is measured."""

from __future__ import annotations

import pytest
import torch

from mmaudit.checkpoint.subject import open_subject
from mmaudit.exceptions import SpecError
from tests.checkpoint.files import torch_bytes

CODE = """
from torch import nn

def build():
    net = nn.Module()
    net.audio, net.head = nn.Linear(2, 2), nn.Linear(2, 2)
    net.forward = lambda x: net.head(net.audio(x))
    return net
"""
SPEC = "model: own_subject_net:build\ndata: test.npz\nmodalities: {a: x}\ntarget: y\n"


@pytest.fixture
def opened(tmp_path):
    """The warnings of an audit file with some more lines."""
    (tmp_path / "own_subject_net.py").write_text(CODE)

    def run(more):
        (tmp_path / "audit.yaml").write_text(SPEC + more)
        notes = open_subject(tmp_path / "audit.yaml").notes
        return [note.text for note in notes if note.kind == "warning"]

    return run


def test_a_model_without_a_checkpoint_is_warned_of(opened, tmp_path):
    (text,) = opened("")
    assert text.startswith("No checkpoint is named") and "own_subject_net:build" in text
    with pytest.raises(SpecError, match="'checkpoint' is blank"):
        opened("checkpoint:\n")


def test_weights_that_no_file_brings_are_warned_of(opened, tmp_path):
    part = torch_bytes({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    (tmp_path / "audio.pt").write_bytes(part)
    (tmp_path / "head.pt").write_bytes(part)
    (text,) = opened("checkpoint: {audio: audio.pt}\n")
    assert "2 weights are in no file" in text and "head.weight" in text
    assert opened("checkpoint: {audio: audio.pt, head: head.pt}\n") == []
