from __future__ import annotations

import argparse
import functools
import json
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

import mmaudit
from mmaudit.checkpoint.converting import convert_checkpoint
from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.rebuilding import building_call
from mmaudit.checkpoint.sameness import difference
from mmaudit.exceptions import CheckpointError, MMAuditError, ModelError
from tests.checkpoint.files import foreign_files, save_safetensors, torch_bytes, weights
from tests.checkpoint.test_trusted import (  # noqa: F401  fixtures
    data,
    exported,
    net,
    outputs,
    project,
    save_pickled,
    scripted,
)


def reloaded(found, out: Path) -> nn.Module:
    """The result, opened as anybody would: without trust, in its own folder."""
    loaded = load_checkpoint(found.weights, "factory:build", directory=out)
    assert loaded.format == "safetensors"
    return loaded.model


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle 2"])
def test_a_pickled_module_of_a_known_class(project, net, tmp_path, how):  # noqa: F811
    out = tmp_path / "out"
    path = save_pickled(net, tmp_path / "net.pt", how)
    with pytest.raises(CheckpointError, match="--trust-checkpoint"):
        convert_checkpoint(path, out, directory=project)
    assert not out.exists()
    found = convert_checkpoint(path, out, directory=project, trust=True)
    assert found.ready and found.says == "returns Net()" and found.tensors == 6
    assert found.notes[0].startswith("Trusted as you said")
    model = reloaded(found, out)
    assert torch.equal(outputs(model, data()[0]), outputs(net, data()[0]))


def test_arguments_are_read_from_attributes(project, tmp_path):  # noqa: F811
    wide = load_checkpoint(
        None, "own_trusted_net:build", args={"width": 7}, directory=project
    ).model
    path = save_pickled(wide, tmp_path / "net.pt", "zip")
    found = convert_checkpoint(path, tmp_path / "out", directory=project, trust=True)
    assert found.says == "returns Net(width=7)"
    assert torch.equal(
        outputs(reloaded(found, tmp_path / "out"), data()[0]), outputs(wide, data()[0])
    )


def test_a_class_that_does_not_tell_is_to_be_filled_in(project, tmp_path):  # noqa: F811
    text = (project / "own_trusted_net.py").read_text().replace("        self.width = width\n", "")
    (project / "own_trusted_net.py").write_text(text)
    wide = load_checkpoint(
        None, "own_trusted_net:build", args={"width": 7}, directory=project
    ).model
    path = save_pickled(wide, tmp_path / "net.pt", "zip")
    out = tmp_path / "out"
    found = convert_checkpoint(path, out, directory=project, trust=True)
    assert not found.ready and "own_trusted_net.Net with the arguments" in found.says
    with pytest.raises(ModelError, match=r"fill in build\(\): call own_trusted_net\.Net"):
        reloaded(found, out)
    other = tmp_path / "other"
    given = convert_checkpoint(
        path, other, factory="own_trusted_net:build", args={"width": 7}, directory=project,
        trust=True,
    )  # fmt: skip
    assert given.ready and given.says == "calls own_trusted_net:build"
    assert torch.equal(outputs(reloaded(given, other), data()[0]), outputs(wide, data()[0]))


STANDARD = {
    "layers": nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Dropout(0.25), nn.Linear(4, 2)),
    "named": nn.Sequential(OrderedDict([("first", nn.Linear(3, 4)), ("act", nn.LeakyReLU(0.3)), ("last", nn.Linear(4, 2))])),
    "images": nn.Sequential(nn.Conv2d(3, 4, (3, 1), padding=(1, 0), stride=2, groups=1, bias=False), nn.BatchNorm2d(4, momentum=0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "series": nn.LSTM(3, 5, num_layers=2, batch_first=True, bidirectional=True, bias=False),
    "attention": nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True),
    "lists": nn.ModuleDict({"a": nn.ModuleList([nn.Embedding(5, 3, padding_idx=0), nn.GELU("tanh")]), "b": nn.LayerNorm(3, eps=1e-3)}),
}  # fmt: skip


@pytest.mark.parametrize("name", STANDARD)
def test_modules_of_torch_are_written_out(tmp_path, name):
    model = STANDARD[name]
    torch.save(model, tmp_path / "net.pt")
    found = convert_checkpoint(tmp_path / "net.pt", tmp_path / "out", trust=True)
    assert found.ready
    again = reloaded(found, tmp_path / "out")
    assert repr(again) == repr(model.eval())
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )


class Hidden(nn.Module):
    """Keeps its argument under another name, with no trace in the shapes."""

    def __init__(self, slope=0.5):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.steepness = slope


class Changed(nn.Module):
    def __init__(self, slope=0.5):
        super().__init__()
        self.slope = slope
        self.layer = nn.Linear(2, 2)
        self.extra = None


def test_a_wrong_call_is_never_written():
    assert building_call(Hidden(0.5)) is not None
    assert building_call(Hidden(0.7)) is None, "it would be built with another slope"
    changed = Changed()
    assert building_call(changed).expression == "Changed()"
    changed.slope = 0.9
    assert building_call(changed).expression == "Changed(slope=0.9)"
    changed.extra = "set later"
    assert building_call(changed) is None
    changed = Changed()
    changed.layer = nn.Sequential(nn.Linear(2, 2))
    assert building_call(changed) is None
    changed = Changed()
    changed.layer.register_forward_hook(lambda *a: None)
    assert building_call(changed) is None
    local = type("Local", (Hidden,), {"__qualname__": "f.<locals>.Local"})()
    assert building_call(local) is None


class Private(nn.Module):
    """Keeps its arguments privately, one under a mangled name; its buffer is saved with no weights."""

    def __init__(self, act="relu", power=1):
        super().__init__()
        self._act = act
        self.__power = power
        self._t = 1.0
        self.layer = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2), persistent=False)

    def forward(self, x):
        return getattr(torch, self._act)(self.layer(x) * self.scale) ** self.__power * self._t


class Drawing(nn.Module):
    """Draws what is in no state dict."""

    def __init__(self):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(3), persistent=False)


class Listing(nn.Module):
    """Holds its own parameters a second time, and a layer that is not registered."""

    def __init__(self, deep=False):
        super().__init__()
        self.deep = deep
        self.layer = nn.Linear(2, 2)
        self.seen = [self.layer.weight, self.layer]
        self.method = self.forward
        self.hidden = [nn.Linear(2, 2)] if deep else []

    def forward(self, x):
        return self.layer(x)


def other_forward(module, x):
    return -module.layer(x)


def test_private_arguments_are_read(tmp_path):
    path = tmp_path / "net.pt"
    model = Private("sin", power=3).eval()
    torch.save(model, path)
    found = convert_checkpoint(path, tmp_path / "out", trust=True)
    assert found.ready and found.says == "returns Private(act='sin', power=3)"
    x = torch.randn(5, 2)
    assert torch.equal(reloaded(found, tmp_path / "out")(x), model(x))


CHANGES = {
    "_t": lambda m: setattr(m, "_t", 2.0),
    "scale": lambda m: m.scale.mul_(2),
    "forward": lambda m: setattr(m, "forward", functools.partial(other_forward, m)),
    "_more": lambda m: setattr(m, "_more", [1]),
    "layer.forward": lambda m: setattr(m.layer, "forward", m.layer.extra_repr),
    "layer.bias": lambda m: setattr(m.layer, "bias", None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_after_building_is_to_be_filled_in(tmp_path, name):
    model = Private().eval()
    assert building_call(model).expression == "Private()"
    CHANGES[name](model)
    torch.save(model, tmp_path / "net.pt")
    found = convert_checkpoint(tmp_path / "net.pt", tmp_path / "out", trust=True)
    assert not found.ready and f"its {name} is not what the call gives" in found.says


def test_what_a_constructor_draws_is_not_called_the_same():
    torch.manual_seed(0)
    assert building_call(Drawing()) is None


def test_members_held_twice_are_the_same_and_hidden_ones_are_not():
    assert building_call(Listing()).expression == "Listing()"
    changed = Listing()
    changed.seen = [changed.layer.bias, changed.layer]
    assert building_call(changed) is None
    assert building_call(Listing(deep=True)) is None, "its weights are in no state dict"
    swapped = nn.Sequential(nn.Tanh(), nn.ReLU())
    swapped._modules["0"] = swapped._modules.pop("0")
    assert difference(swapped, nn.Sequential(nn.Tanh(), nn.ReLU())) == "order of modules"


def test_values_that_cannot_be_written_are_to_be_filled_in():
    assert building_call(Changed(float("inf"))) is None


def test_a_program_s_buffers_that_are_no_weights_are_named(tmp_path):
    model = Private().eval()
    model.scale.mul_(3)
    torch.export.save(torch.export.export(model, (torch.ones(2, 2),)), tmp_path / "net.pt2")
    found = convert_checkpoint(tmp_path / "net.pt2", tmp_path / "out", trust=True)
    assert any("scale; build() has to set them" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["torchscript", "traced", "pt2"])
def test_programs_give_their_weights(project, net, tmp_path, kind):  # noqa: F811
    path = tmp_path / "net.bin"
    if kind == "pt2":
        exported(net, path, dynamic=False)
    else:
        scripted(net, path, "scripted" if kind == "torchscript" else "traced")
    with pytest.raises(CheckpointError, match="--trust-checkpoint"):
        convert_checkpoint(path, tmp_path / "out")
    found = convert_checkpoint(path, tmp_path / "out", trust=True)
    assert not found.ready and "that the program was made of" in found.says
    if kind == "torchscript":
        assert "of the class Net" in found.says
    model = load_checkpoint(found.weights, "own_trusted_net:build", directory=project).model
    assert torch.equal(outputs(model, data()[0]), outputs(net, data()[0]))


def test_a_frozen_program_has_no_names(net, tmp_path):  # noqa: F811
    path = scripted(net, tmp_path / "net.pt", "frozen")
    with pytest.raises(CheckpointError, match="a frozen program keeps them as constants"):
        convert_checkpoint(path, tmp_path / "out", trust=True)


def test_lightning_with_objects_and_averages(project, net, tmp_path):  # noqa: F811
    state = {f"model.{k}": v for k, v in net.state_dict().items()}
    saved = {
        "pytorch-lightning_version": "2.0",
        "state_dict": state,
        "ema_state_dict": {k: v + 1 for k, v in state.items()},
        "hyper_parameters": argparse.Namespace(lr=0.1),
    }
    path = tmp_path / "last.ckpt"
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace"):
        convert_checkpoint(path, tmp_path / "out")
    found = convert_checkpoint(path, tmp_path / "out", trust=True)
    assert not found.ready and "build the model with the parts model" in found.says
    model = load_checkpoint(found.weights, "own_trusted_net:build", directory=project).model
    assert torch.equal(outputs(model, data()[0]), outputs(net, data()[0]))
    average = convert_checkpoint(
        path, tmp_path / "ema", factory="own_trusted_net:build", directory=project, trust=True,
        weights="ema",
    )  # fmt: skip
    assert torch.equal(reloaded(average, tmp_path / "ema").head.bias, net.head.bias + 1)


def test_weights_alone(tmp_path):
    for content, words in [
        (torch_bytes({"audio_net": weights(), "video_net": weights()}), "audio_net, video_net"),
        (save_safetensors(weights()), "the parts 0, 1"),
    ]:
        (tmp_path / "best").write_bytes(content)
        found = convert_checkpoint(tmp_path / "best", tmp_path / "out", force=True)
        assert not found.ready and words in found.says
    text = found.factory.read_text()
    compile(text, "factory.py", "exec")


def test_tied_weights_and_views(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    (tmp_path / "best.pt").write_bytes(torch_bytes({"a": base, "b": base, "c": base.T}))
    found = convert_checkpoint(tmp_path / "best.pt", tmp_path / "out")
    from safetensors.torch import load_file

    read = load_file(found.weights)
    assert torch.equal(read["b"], base) and torch.equal(read["c"], base.T)


def test_files_in_the_way_are_kept(tmp_path):
    (tmp_path / "best.pt").write_bytes(torch_bytes(weights()))
    convert_checkpoint(tmp_path / "best.pt", tmp_path / "out")
    before = (tmp_path / "out" / "factory.py").read_text()
    (tmp_path / "out" / "factory.py").write_text("filled in")
    with pytest.raises(CheckpointError, match="say --force to replace them"):
        convert_checkpoint(tmp_path / "best.pt", tmp_path / "out")
    assert (tmp_path / "out" / "factory.py").read_text() == "filled in"
    convert_checkpoint(tmp_path / "best.pt", tmp_path / "out", force=True)
    assert (tmp_path / "out" / "factory.py").read_text() == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "factory.py",
        "model.safetensors",
    ]


def test_what_cannot_be_converted_leaves_nothing(tmp_path):
    from mmaudit.checkpoint.formats import FORMATS

    path = tmp_path / "file"
    for key, content in foreign_files().values():
        path.write_bytes(content)
        for trust in (False, *([True] if not FORMATS[key].trusted else [])):
            with pytest.raises(MMAuditError) as caught:
                convert_checkpoint(path, tmp_path / "out", trust=trust)
            assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert not (tmp_path / "out").exists()


def test_hostile_names_stay_text(tmp_path):
    """Names of a file end up in a Python file: as text, never as code."""
    evil = '"); import os; os.mkdir("owned"); print("'
    name = "a'\"\n'''\"\"\"\\{evil}" + evil
    (tmp_path / "best.pt").write_bytes(torch_bytes({name: torch.ones(2)}))
    found = convert_checkpoint(tmp_path / "best.pt", tmp_path / "out")
    with pytest.raises(ModelError, match="fill in build"):
        load_checkpoint(found.weights, "factory:build", directory=tmp_path / "out")
    assert not Path("owned").exists()


def test_onnx_stays_as_it_is(tmp_path):
    from tests.checkpoint.files import ONNX

    (tmp_path / "net.onnx").write_bytes(ONNX)
    with pytest.raises(CheckpointError, match="audit it as it is"):
        convert_checkpoint(tmp_path / "net.onnx", tmp_path / "out")


def test_hugging_face_directories(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        image_size=8, patch_size=4, num_labels=3,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.ViTForImageClassification(config).eval()
        model.save_pretrained(tmp_path / "net")
    x = torch.randn(2, 3, 8, 8)
    out = tmp_path / "out"
    found = convert_checkpoint(tmp_path / "net", out)
    assert found.ready and json.loads((out / "settings.json").read_text())["hidden_size"] == 16
    assert torch.equal(reloaded(found, out)(x).logits, model(x).logits)
    # The same weights as older versions saved them.
    from safetensors.torch import load_file

    path = tmp_path / "net" / "model.safetensors"
    torch.save(load_file(path), tmp_path / "net" / "pytorch_model.bin")
    path.unlink()
    old = convert_checkpoint(tmp_path / "net", tmp_path / "old")
    assert torch.equal(reloaded(old, tmp_path / "old")(x).logits, model(x).logits)


def test_what_was_converted_can_be_audited(project, net, tmp_path):  # noqa: F811
    path = save_pickled(net, tmp_path / "net.pt", "zip")
    convert_checkpoint(path, tmp_path / "out", directory=project, trust=True)
    spec = {
        "model": "factory:build",
        "checkpoint": "model.safetensors",
        "data": {"factory": "unused:data"},
        "modalities": {"audio": "audio", "image": "image"},
        "target": "y",
    }
    import yaml

    (tmp_path / "out" / "audit.yaml").write_text(yaml.safe_dump(spec))
    report = mmaudit.audit(
        tmp_path / "out" / "audit.yaml", data(), replicates=100, measures=["coalitions"]
    )
    assert report.record.subject.structure.encoders == {"audio": ("ears",), "image": ("eyes",)}
