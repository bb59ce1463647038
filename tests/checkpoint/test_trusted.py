"""What runs code when it is loaded: refused without trust, named and loaded with it."""

from __future__ import annotations

import argparse
import collections
import copy
import io
import logging
import pathlib
import pickle
import sys
import tarfile
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import mmaudit
from mmaudit.checkpoint.loader import load_checkpoint, read_weights
from mmaudit.checkpoint.programs import ScriptedModel
from mmaudit.checkpoint.wording import shown
from mmaudit.exceptions import CheckpointError, MMAuditError, ModelError, SpecError
from tests.checkpoint.files import (
    foreign_files,
    gadgets,
    hostile_files,
    marked_as_folders,
    records_of,
    torch_bytes,
    weights,
    zip_bytes,
)

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.width = width
        self.ears, self.eyes = nn.Linear(3, width), nn.Linear(5, width)
        self.head = nn.Linear(2 * width, 2)

    def forward(self, audio, image):
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1))


def build(width=4):
    return Net(width)
"""


@pytest.fixture
def project(tmp_path):
    """A folder with ``own_trusted_net.py``; its module is forgotten afterwards."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own_trusted_net.py").write_text(CODE)
    yield folder
    for name in [n for n in sys.modules if n.startswith("own_trusted_net")]:
        del sys.modules[name]


@pytest.fixture
def net(project):
    """A module of a class that only the project's folder has."""
    torch.manual_seed(0)
    return load_checkpoint(None, "own_trusted_net:build", directory=project).model


def save_pickled(net: nn.Module, path: Path, how: str, value=None) -> Path:
    """Pickle in one of the ways that people do; the class's module is importable meanwhile."""
    value = net if value is None else value
    module = types.ModuleType("own_trusted_net")
    module.__dict__.update(vars(sys.modules.get("own_trusted_net", module)))
    module.Net = type(net)
    sys.modules["own_trusted_net"] = module
    try:
        if how == "zip":
            torch.save(value, path)
        elif how == "zip, newest protocol":
            torch.save(value, path, pickle_protocol=5)
        elif how == "legacy":
            torch.save(value, path, _use_new_zipfile_serialization=False)
        else:
            path.write_bytes(pickle.dumps(value, protocol=int(how.split()[1])))
    finally:
        del sys.modules["own_trusted_net"]
    return path


HOW = ("zip", "zip, newest protocol", "legacy", "pickle 0", "pickle 2", "pickle 4")


def data(n: int = 40) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "audio": torch.randn(n, 3, generator=draw),
            "image": torch.randn(n, 5, generator=draw),
            "y": torch.arange(n) % 2,
        }
        for _ in range(2)
    ]


SPEC = {"modalities": {"audio": "audio", "image": "image"}, "target": "y"}


def outputs(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model(batch["audio"], batch["image"])


# --- pickled modules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_pickled_modules(project, net, tmp_path, how, caplog):
    path = save_pickled(net, tmp_path / "net.pt", how)
    for factory in (None, "own_trusted_net:build"):
        with pytest.raises(CheckpointError, match=r"trust=True") as caught:
            load_checkpoint(path, factory, directory=project)
        assert "own_trusted_net.Net" in str(caught.value) and len(str(caught.value)) < 400
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        loaded = load_checkpoint(path, directory=project, trust=True)
    (record,) = caplog.records
    assert "own_trusted_net.Net" in record.getMessage() and str(path) in record.getMessage()
    assert loaded.notes[0] == record.getMessage() and loaded.format == "pickled module, trusted"
    assert type(loaded.model).__name__ == "Net" and not loaded.model.training
    batch = data()[0]
    assert torch.equal(outputs(loaded.model, batch), outputs(net, batch))
    assert {Path(f.path).name: f.role for f in loaded.files} == {
        "net.pt": "checkpoint",
        "own_trusted_net.py": "code",
    }
    filled = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
    assert torch.equal(outputs(filled.model, batch), outputs(net, batch))


def test_it_is_named_before_it_runs(project, net, tmp_path, monkeypatch):
    path = save_pickled(net, tmp_path / "net.pt", "zip")
    order = []
    monkeypatch.setattr(logging.Logger, "warning", lambda self, text, *a: order.append(text))
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (order.append("load"), real(*a, **k))[1])
    load_checkpoint(path, directory=project, trust=True)
    assert order[1] == "load" and order[0].startswith("Trusted as you said")


def test_an_audit_of_a_pickled_module_says_so(project, net):
    save_pickled(net, project / "net.pt", "zip")
    np.savez(
        project / "test.npz", **{k: torch.cat([b[k] for b in data()]).numpy() for k in data()[0]}
    )
    spec = {"checkpoint": "net.pt", "data": "test.npz", **SPEC}
    (project / "audit.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(CheckpointError, match="--trust-checkpoint"):
        mmaudit.audit(project / "audit.yaml", replicates=100)
    report = mmaudit.audit(
        project / "audit.yaml", replicates=100, trust=True, measures=["coalitions"]
    )
    (warning,) = [n for n in report.record.notes if n.text.startswith("Trusted as you said")]
    assert warning.kind == "warning" and "own_trusted_net.Net" in warning.text
    assert report.record.subject.structure.encoders == {"audio": ("ears",), "image": ("eyes",)}
    # An audit file cannot say it itself.
    (project / "audit.yaml").write_text(yaml.safe_dump({**spec, "trust": True}))
    with pytest.raises(SpecError, match="unknown key"):
        mmaudit.audit(project / "audit.yaml", replicates=100)


def test_people_s_containers(project, net, tmp_path):
    batch = data()[0]
    args = argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs"))
    state = net.state_dict()
    for value, words in [
        ({"model": net, "epoch": 3, "args": args}, "Took the module under 'model'"),
        (
            {"net": nn.DataParallel(net), "optimizer": torch.optim.SGD(net.parameters(), 0.1)},
            "'net'",
        ),
        ({"best": net}, "Took the module under 'best'"),
        (nn.DataParallel(net), "Trusted"),
    ]:
        path = save_pickled(net, tmp_path / "net.pt", "zip", value)
        loaded = load_checkpoint(path, directory=project, trust=True)
        assert type(loaded.model).__name__ == "Net"
        assert torch.equal(outputs(loaded.model, batch), outputs(net, batch))
        assert any(words in note for note in loaded.notes)
    parts = {name: copy.deepcopy(part) for name, part in net.named_children()}
    for value in (
        {"state_dict": {f"module.{k}": v for k, v in state.items()}, "args": args},
        {"model": collections.defaultdict(list, state), "metrics": np.float64(0.5), "args": args},
        {name: part.state_dict() for name, part in parts.items()} | {"args": args},
        parts | {"args": args},
        {"hyper_parameters": args, "state_dict": state, "pytorch-lightning_version": "2.0"},
    ):
        path = save_pickled(net, tmp_path / "net.pt", "zip", value)
        with pytest.raises(
            CheckpointError, match=r"argparse\.Namespace|defaultdict|_reconstruct|nn\.modules"
        ):
            load_checkpoint(path, "own_trusted_net:build", directory=project)
        loaded = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
        assert torch.equal(outputs(loaded.model, batch), outputs(net, batch))
        with pytest.raises(SpecError, match="name a factory"):
            load_checkpoint(path, directory=project, trust=True)


def test_classes_of_the_script_that_saved_them(project, net, tmp_path):
    content = save_pickled(net, tmp_path / "net.pt", "zip").read_bytes()
    records = records_of(content)
    root = next(iter(records)).partition("/")[0]
    key = f"{root}/data.pkl"
    records[key] = records[key].replace(b"cown_trusted_net\nNet\n", b"c__main__\nNet\n")
    assert records[key] != records_of(content)[key]
    path = tmp_path / "script.pt"
    path.write_bytes(zip_bytes(records))
    with pytest.raises(
        CheckpointError, match=r"names __main__\.Net, which the script that saved it"
    ):
        load_checkpoint(path, directory=project, trust=True)
    loaded = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
    assert torch.equal(outputs(loaded.model, data()[0]), outputs(net, data()[0]))


def test_what_cannot_be_loaded_is_one_sentence(project, net, tmp_path):
    path = save_pickled(net, tmp_path / "net.pt", "zip")
    with pytest.raises(
        CheckpointError,
        match=r"needs own_trusted_net\.Net, and the module 'own_trusted_net' is neither in",
    ):
        load_checkpoint(path, directory=tmp_path, trust=True)
    (project / "own_trusted_net.py").write_text("class Other: pass\n")
    with pytest.raises(
        CheckpointError, match=r"needs own_trusted_net\.Net, which its module does not have"
    ):
        load_checkpoint(path, directory=project, trust=True)
    (project / "own_trusted_net.py").write_text("raise RuntimeError('broken')\n")
    del sys.modules["own_trusted_net"]
    with pytest.raises(
        CheckpointError, match=r"was trusted and yet cannot be loaded \(RuntimeError: broken\)"
    ):
        load_checkpoint(path, directory=project, trust=True)
    for value in (3, "text", [1], {"a": 1}, print):
        path.write_bytes(torch_bytes({"x": value, "y": argparse.Namespace(a=1)}))
        with pytest.raises(MMAuditError) as caught:
            load_checkpoint(path, torch.nn.Linear(1, 1), trust=True)
        assert str(caught.value).isprintable()


def saved_with_absent_classes(path: Path, make) -> Path:
    """Pickle objects of classes in a module that is gone afterwards; ``make(module)`` gives what is pickled."""
    module = types.ModuleType("long_gone")
    text = (
        "from torch import nn\nclass Config(dict): pass\nclass Items(list): pass\n"
        "class Plain:\n    def __init__(self): self.x = 1\n"
        "class Layer(nn.Linear): pass\ndef scheduler(*a): return Plain()\n"
        "class Reduced:\n    def __reduce__(self): return scheduler, (1, 2), {'a': 1}\n"
    )
    exec(text, module.__dict__)  # noqa: S102  the test's own text
    sys.modules["long_gone"] = module
    try:
        torch.save(make(module), path)
    finally:
        del sys.modules["long_gone"]
    return path


def test_what_lies_beside_the_weights_need_not_be_here(project, net, tmp_path):
    """Configurations and callbacks of libraries that nobody has installed."""
    state = net.state_dict()

    def make(gone):
        beside = [gone.Config(a=1, b=gone.Config()), gone.Items([1, gone.Plain()]), gone.Plain]
        return {
            "state_dict": state,
            "cfg": beside,
            "sched": gone.Reduced(),
            gone.Plain: {"best": 1},
        }

    path = saved_with_absent_classes(tmp_path / "best.pt", make)
    with pytest.raises(CheckpointError, match=r"long_gone\.Config"):
        load_checkpoint(path, "own_trusted_net:build", directory=project)
    loaded = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
    assert torch.equal(outputs(loaded.model, data()[0]), outputs(net, data()[0]))
    (note,) = [note for note in loaded.notes if "left empty" in note]
    assert "long_gone.Config" in note and "long_gone.Items" in note


def test_what_the_model_is_made_of_has_to_be_here(project, tmp_path):
    for make in (
        lambda gone: gone.Layer(2, 2),
        lambda gone: nn.Sequential(nn.Linear(2, 2), gone.Layer(2, 2)),
        lambda gone: {"model": nn.Sequential(gone.Layer(2, 2)), "epoch": 1},
        lambda gone: gone.Plain(),
    ):
        path = saved_with_absent_classes(tmp_path / "net.pt", make)
        for factory in (None, lambda: nn.Linear(2, 2)):
            with pytest.raises(CheckpointError, match=r"needs long_gone\.\w+, and the module"):
                load_checkpoint(path, factory, directory=project, trust=True)
    path = saved_with_absent_classes(
        tmp_path / "net.pt", lambda gone: {"model": gone.Config(torch_dict=torch.ones(1))}
    )
    with pytest.raises(CheckpointError, match=r"needs long_gone\.Config"):
        load_checkpoint(path, nn.Linear(2, 2), directory=project, trust=True)
    torch.save({"args": argparse.Namespace(a=1), "epoch": 3}, path)
    with pytest.raises(CheckpointError, match="holds no weights: its keys are args, epoch"):
        load_checkpoint(path, nn.Linear(2, 2), trust=True)


def test_trust_forgives_no_damage(project, net, tmp_path):
    good = save_pickled(net, tmp_path / "net.pt", "zip").read_bytes()
    tensor = net.head.weight.detach().numpy().tobytes()
    flipped = bytearray(good)
    flipped[good.index(tensor)] ^= 0x40
    for content, words in [
        (bytes(flipped), "checksum"),
        (good[:-30], "end is missing|damaged"),
        (zip_bytes(records_of(good), zipfile.ZIP_DEFLATED), "compressed records"),
    ]:
        path = tmp_path / "damaged.pt"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(path, directory=project, trust=True)


# --- old versions of torch ---------------------------------------------------------------------------------------------


def forgotten(model: nn.Module, names) -> nn.Module:
    """The model as an older version of torch would have pickled it: without attributes that came later."""
    for module in model.modules():
        for name in names:
            module.__dict__.pop(name, None)
    return model


OLD = {
    "GELU": (nn.GELU(), ["approximate"], (2, 3)),
    "Upsample": (nn.Upsample(scale_factor=2), ["recompute_scale_factor"], (1, 2, 4, 4)),
    "Conv2d": (nn.Conv2d(2, 3, 3, padding=1), ["padding_mode", "_reversed_padding_repeated_twice"], (1, 2, 5, 5)),
    "Conv1d, circular": (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), ["_reversed_padding_repeated_twice"], (1, 2, 5)),
    "LSTM": (nn.LSTM(3, 4), ["proj_size"], (5, 1, 3)),
    "MaxPool2d": (nn.MaxPool2d(2), ["ceil_mode", "return_indices", "dilation"], (1, 2, 4, 4)),
    "LeakyReLU": (nn.LeakyReLU(), ["inplace"], (2, 3)),
    "BatchNorm1d": (nn.BatchNorm1d(3), ["track_running_stats"], (2, 3)),
    "TransformerEncoderLayer": (nn.TransformerEncoderLayer(4, 2, 8, batch_first=False), ["norm_first", "activation_relu_or_gelu"], (5, 2, 4)),
    "hooks": (nn.Linear(3, 2), ["_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_non_persistent_buffers_set", "_is_full_backward_hook", "_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_forward_pre_hooks_with_kwargs", "_backward_pre_hooks"], (2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_modules_of_old_versions_are_completed(tmp_path, name, how):
    model, names, shape = OLD[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        expected = model(x)
    old = forgotten(nn.Sequential(copy.deepcopy(model)), names)
    path = tmp_path / "old.pt"
    torch.save(old, path, _use_new_zipfile_serialization=how == "zip")
    loaded = load_checkpoint(path, trust=True)
    with torch.no_grad():
        found = loaded.model(x)
    for one, other in zip(
        *(value if isinstance(value, tuple) else (value,) for value in (found, expected)),
        strict=True,
    ):
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_control_without_completion_an_old_module_fails(tmp_path):
    old = forgotten(nn.Sequential(nn.GELU()), ["approximate"])
    torch.save(old, tmp_path / "old.pt")
    with pytest.raises(AttributeError):
        torch.load(tmp_path / "old.pt", weights_only=False)(torch.ones(2))
    loaded = load_checkpoint(tmp_path / "old.pt", trust=True)
    assert "GELU.approximate" in loaded.notes[1]


def test_a_norm_without_its_counter_gets_one(tmp_path):
    model = nn.Sequential(nn.BatchNorm1d(3))
    del model[0]._buffers["num_batches_tracked"]
    torch.save(model, tmp_path / "old.pt")
    loaded = load_checkpoint(tmp_path / "old.pt", trust=True).model
    assert list(loaded.state_dict())[-1] == "0.num_batches_tracked"


def test_the_oldest_format(tmp_path):
    """Before torch 0.1.2 a file was a tar archive of pickles."""
    buffer = io.BytesIO()
    values = {"0.weight": np.arange(12, dtype=np.float32).reshape(4, 3)}
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name, content):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        add("sys_info", pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2))
        storages = pickle.dumps(1, 2) + pickle.dumps((7, "cpu", torch.FloatStorage), 2)
        data = values["0.weight"]
        storages += np.array([data.size], "<i8").tobytes() + data.tobytes() + pickle.dumps([], 2)
        add("storages", storages)
        tensors = pickle.dumps(1, 2) + pickle.dumps((3, 7, torch.FloatTensor), 2)
        tensors += np.array([2], "<i4").tobytes() + bytes(4)
        tensors += np.array([4, 3, 3, 1, 0], "<i8").tobytes()
        add("tensors", tensors)

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                return "3" if value == "TENSOR" else None

        pickled = io.BytesIO()
        Pickler(pickled, 2).dump({"0.weight": "TENSOR"})
        add("pickle", pickled.getvalue())
    path = tmp_path / "oldest.pt"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="oldest tar format"):
        read_weights(path)
    read = read_weights(path, trust=True)
    assert read.tensors["0.weight"].tolist() == values["0.weight"].tolist()
    assert "has no checksums" in read.notes[1]


# --- programs ----------------------------------------------------------------------------------------------------------


def scripted(net, path, how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "traced":
            program = torch.jit.trace(net.eval(), (torch.ones(2, 3), torch.ones(2, 5)))
        else:
            program = torch.jit.script(net.train() if how == "training" else net.eval())
            program = torch.jit.freeze(program.eval()) if how == "frozen" else program
        torch.jit.save(program, str(path))
    return path


def exported(net, path, *, dynamic, by_keyword=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args, kwargs = (torch.ones(4, 3), torch.ones(4, 5)), {}
        shapes = {"audio": {0: torch.export.Dim("n")}, "image": {0: torch.export.Dim("n")}}
        if by_keyword:
            args, kwargs = args[:1], {"image": args[1]}
        program = torch.export.export(
            net.eval(), args, kwargs, dynamic_shapes=shapes if dynamic else None
        )
        torch.export.save(program, path)
    return path


@pytest.mark.parametrize("how", ["scripted", "traced", "frozen", "training"])
def test_torchscript_is_measured_from_its_inputs(net, tmp_path, how):
    path = scripted(net, tmp_path / "net.pt", how)
    with pytest.raises(CheckpointError, match=r"is a TorchScript program, .* trust=True"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, trust=True)
    batch = data()[0]
    expected = outputs(net.eval(), batch)
    assert torch.allclose(outputs(loaded.model, batch), expected, atol=1e-6)
    assert torch.allclose(
        loaded.model(image=batch["image"], audio=batch["audio"]), expected, atol=1e-6
    )
    assert any("runs no hooks" in note for note in loaded.notes)
    report = mmaudit.audit(path, data(), SPEC, trust=True, replicates=100, measures=["coalitions"])
    assert report.record.evidence.method == "full passes"
    assert report.record.subject.structure.unknown == (
        "The model is a TorchScript program: its parts cannot be seen.",
    )
    plain = mmaudit.audit(net, data(), SPEC, replicates=100, measures=["coalitions"])
    values = [r.to_frame("coalitions")["value"].to_numpy() for r in (report, plain)]
    assert np.allclose(values[0], values[1], atol=1e-9, equal_nan=True)


def test_a_program_in_memory_leaves_as_it_came(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.script(net.train())
    mmaudit.audit(program, data(), SPEC, replicates=100, measures=["coalitions"])
    assert all(module.training for module in program.modules())


def test_weights_of_a_program_fill_a_factory(project, net, tmp_path):
    for path in (
        scripted(net, tmp_path / "net.pt", "scripted"),
        exported(net, tmp_path / "net.pt2", dynamic=True),
    ):
        loaded = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
        assert torch.equal(outputs(loaded.model, data()[0]), outputs(net, data()[0]))


@pytest.mark.parametrize("by_keyword", [False, True])
def test_exported_programs_are_unflattened_so_that_hooks_fire(net, tmp_path, by_keyword):
    path = exported(net, tmp_path / "net.pt2", dynamic=True, by_keyword=by_keyword)
    with pytest.raises(CheckpointError, match=r"exported program \(\.pt2\)"):
        load_checkpoint(path)
    loaded = load_checkpoint(path, trust=True)
    batch = data()[0]
    expected = outputs(net, batch)
    for found in (
        outputs(loaded.model, batch),
        loaded.model(audio=batch["audio"], image=batch["image"]),
        loaded.model(batch["audio"], image=batch["image"]),
    ):
        assert torch.allclose(found, expected, atol=1e-6)
    with pytest.raises(ModelError, match=r"the program takes \(audio, image\)"):
        loaded.model(batch["audio"])
    fired = []
    loaded.model.ears.register_forward_hook(lambda *_: fired.append(1))
    loaded.model(**{k: batch[k] for k in ("audio", "image")})
    assert fired == [1]
    report = mmaudit.audit(path, data(), SPEC, trust=True, replicates=100, measures=["coalitions"])
    structure = report.record.subject.structure
    assert structure.encoders == {"audio": ("ears",), "image": ("eyes",)}
    assert report.record.evidence.method == "packed"


@pytest.mark.parametrize("n", [1, 4, 7])
def test_programs_exported_for_one_batch_size_take_any(net, tmp_path, n):
    loaded = load_checkpoint(exported(net, tmp_path / "net.pt2", dynamic=False), trust=True)
    batch = {key: value[:n] for key, value in data()[0].items()}
    assert torch.allclose(outputs(loaded.model, batch), outputs(net, batch), atol=1e-6)
    assert "exported for batches of 4" in loaded.notes[1]


def test_a_scripted_module_moves_and_counts(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ScriptedModel(torch.jit.script(net))
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in net.parameters())
    assert set(model.state_dict()) == set(net.state_dict())
    assert model.to(torch.float64).program.head.weight.dtype == torch.float64


@pytest.mark.parametrize("what", ["pickled module", "scripted", "exported"])
def test_trust_covers_no_record_that_is_marked_as_a_folder(project, net, tmp_path, what):
    """torch leaves such a record out without a word, so that weights would be what was in memory before."""
    path = tmp_path / "net.pt"
    if what == "pickled module":
        save_pickled(net, path, "zip")
    elif what == "scripted":
        scripted(net, path, "scripted")
    else:
        exported(net, path, dynamic=True)
    good = path.read_bytes()
    seen = 0
    for record, content in marked_as_folders(good).items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="marked as a folder") as caught:
            load_checkpoint(path, directory=project, trust=True)
        assert shown(record, 60) in str(caught.value)
        seen += 1
    assert seen == len(records_of(good)) > 4


def test_a_long_pickle_is_told_as_one_and_loaded_where_it_is_trusted(
    project, net, tmp_path, monkeypatch
):
    from mmaudit.checkpoint import torch_zip

    path = save_pickled(net, tmp_path / "net.pt", "zip")
    for limit in ("_LARGEST_PICKLE", "MOST_STEPS"):
        monkeypatch.setattr(torch_zip, "_BYTES_PER_RECORD", 0)
        monkeypatch.setattr(torch_zip, "_STEPS_PER_RECORD", 0)
        monkeypatch.setattr(torch_zip, limit, 40)
        with pytest.raises(CheckpointError, match="more than 40"):
            load_checkpoint(path, directory=project)
        loaded = load_checkpoint(path, directory=project, trust=True)
        assert "more beyond the part that was looked through" in loaded.notes[0]
        assert torch.equal(outputs(loaded.model, data()[0]), outputs(net, data()[0]))
        monkeypatch.undo()


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle 2", "pickle 4"])
def test_arrays_of_numpy_are_taken_for_tensors(project, net, tmp_path, how):
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    foreign = {
        key: array[::-1].copy()[::-1].astype(array.dtype.newbyteorder(">"))
        for key, array in state.items()
    }
    for value in (state, {"state_dict": foreign, "epoch": 3, "names": np.array(["a"], object)}):
        path = save_pickled(net, tmp_path / "net.pt", how, value)
        loaded = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
        assert torch.equal(outputs(loaded.model, data()[0]), outputs(net, data()[0]))
        assert "Took the NumPy arrays of net.pt for tensors." in loaded.notes
    # Beside tensors an array is something else, for example a confusion matrix.
    value = {"best": net.state_dict(), "confusion": np.eye(2)}
    path = save_pickled(net, tmp_path / "net.pt", how, value)
    loaded = load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)
    assert torch.equal(outputs(loaded.model, data()[0]), outputs(net, data()[0]))
    assert not any("NumPy" in note for note in loaded.notes)
    path = save_pickled(net, tmp_path / "net.pt", how, {"names": np.array(["a"])})
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_checkpoint(path, "own_trusted_net:build", directory=project, trust=True)


# --- what trust does not open ------------------------------------------------------------------------------------------


def test_packages_and_distributed_checkpoints_stay_refused(tmp_path):
    import torch.distributed.checkpoint as dcp

    key, content = foreign_files()["package"]
    assert key == "torch package"
    (tmp_path / "p.pt").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(weights(), checkpoint_id=tmp_path / "dcp")
    for path in (tmp_path / "p.pt", tmp_path / "dcp", tmp_path / "dcp" / ".metadata"):
        for factory in (None, nn.Linear(1, 1)):
            with pytest.raises(CheckpointError, match=r"package|distributed"):
                load_checkpoint(path, factory, trust=True)


def test_trust_changes_nothing_for_all_other_files(tmp_path):
    from mmaudit.checkpoint.formats import FORMATS

    path = tmp_path / "file"
    for key, content in foreign_files().values():
        if FORMATS[key].trusted or key == "onnx":
            continue
        path.write_bytes(content)
        told = set()
        for trust in (False, True):
            for factory in (None, nn.Linear(1, 1)):
                with pytest.raises(CheckpointError) as caught:
                    load_checkpoint(path, factory, trust=trust)
                told.add(str(caught.value))
        assert len(told) == 1


def test_two_hundred_hostile_files_run_without_factory_or_with_only_where_trusted(tmp_path):
    """None runs without trust, whichever way it is opened; the same files run with it, so the test can fail."""
    marker = tmp_path / "marker.npy"
    refused = ran = 0
    path = tmp_path / "net.pt"
    for payload in gadgets(marker).values():
        for content in hostile_files(payload).values():
            path.write_bytes(content)
            for factory in (None, nn.Linear(1, 1)):
                with pytest.raises(MMAuditError) as caught:
                    load_checkpoint(path, factory)
                assert str(caught.value).isprintable() and len(str(caught.value)) < 420
                refused += 1
            assert not marker.exists()
            with warnings.catch_warnings(), pytest.raises(MMAuditError):
                warnings.simplefilter("ignore")
                load_checkpoint(path, trust=True)
            if marker.exists():
                ran += 1
                marker.rmdir() if marker.is_dir() else marker.unlink()
    assert refused >= 400 and ran >= 100


def test_a_refusal_is_never_tried_again(project, net, tmp_path, monkeypatch):
    path = save_pickled(net, tmp_path / "net.pt", "zip")
    calls = []
    monkeypatch.setattr(torch, "load", lambda *a, **k: calls.append(k))
    for _ in range(2):
        with pytest.raises(CheckpointError):
            load_checkpoint(path, directory=project)
    assert calls == []


def test_an_average_among_modules(project, net, tmp_path):
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.bias += 1
    path = save_pickled(net, tmp_path / "net.pt", "zip", {"model": net, "ema": other})
    found = load_checkpoint(path, directory=project, trust=True, weights="ema").model
    assert torch.equal(found.head.bias, other.head.bias)
    path = save_pickled(net, tmp_path / "net.pt", "zip")
    with pytest.raises(CheckpointError, match="holds one set of weights"):
        load_checkpoint(path, directory=project, trust=True, weights="ema")
    with pytest.raises(CheckpointError, match="holds one set of weights"):
        load_checkpoint(scripted(net, tmp_path / "s.pt", "scripted"), trust=True, weights="ema")
    with pytest.raises(SpecError, match="expected 'model' or 'ema'"):
        load_checkpoint(path, weights="swa")
