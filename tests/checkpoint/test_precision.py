"""Models that were saved whole in another type than float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import mmaudit
from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.precision import in_float32
from mmaudit.exceptions import CheckpointError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.audio = nn.Linear(6, 4)
        self.video = nn.Linear(5, 4)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, a, v):
        return self.head(self.norm(torch.cat([self.audio(a), self.video(v)], 1)).relu())


KINDS = [torch.float16, torch.bfloat16, torch.float64]


def save(net, path, kind, dtype):
    inputs = (torch.randn(4, 6).to(dtype), torch.randn(4, 5).to(dtype))
    if kind == "module":
        torch.save(net, path)
    elif kind == "scripted":
        torch.jit.script(net).save(path)
    elif kind == "frozen":
        torch.jit.freeze(torch.jit.script(net)).save(path)
    else:
        shapes = [{0: torch.export.Dim("b")}] * 2 if kind == "dynamic" else None
        torch.export.save(torch.export.export(net, inputs, dynamic_shapes=shapes), path)


@pytest.mark.filterwarnings("ignore")  # torch's own, on TorchScript
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("kind", ["module", "scripted", "frozen", "dynamic", "fixed"])
def test_whole_models_take_and_give_float32(tmp_path, dtype, kind):
    torch.manual_seed(0)
    net = Net().eval().to(dtype)
    path = tmp_path / ("net.pt2" if kind in ("dynamic", "fixed") else "net.pt")
    save(net, path, kind, dtype)
    loaded = load_checkpoint(path, trust=True)
    a, v = torch.randn(9, 6), torch.randn(9, 5)
    with torch.no_grad():
        found, expected = loaded.model(a, v), net.float()(a, v)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0.03)
    if kind == "module":
        assert torch.equal(found, expected), "exact: float32 holds every value"
    name = str(dtype).removeprefix("torch.")
    assert any(name in note and "float32" in note for note in loaded.notes[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_such_a_module_is_audited(tmp_path, dtype):
    torch.save(Net().eval().to(dtype), tmp_path / "net.pt")
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(40, 6)),
        "v": rng.normal(size=(40, 5)),
        "y": rng.integers(0, 3, 40),
    }
    np.savez(tmp_path / "test.npz", **arrays)
    (tmp_path / "audit.yaml").write_text(
        "checkpoint: net.pt\ndata: test.npz\nmodalities: {a: a, v: v}\ntarget: y\ncall: {args: [a, v]}\n"
    )
    report = mmaudit.audit(
        tmp_path / "audit.yaml", replicates=100, measures=["coalitions"], trust=True
    )
    assert any("to float32" in note.text for note in report.record.notes)


def test_types_that_are_mixed_or_right_are_left():
    net = Net()
    assert in_float32(net) == ()
    net.audio.half()
    assert in_float32(net) == () and net.audio.weight.dtype is torch.float16


def test_what_float32_does_not_hold_is_refused():
    net = nn.Linear(2, 1).double()
    with torch.no_grad():
        net.weight[0, 0] = 1e300
    with pytest.raises(CheckpointError, match="weight of the module does not survive"):
        in_float32(net)
    assert net.weight.dtype is torch.float64
