from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmaudit.checkpoint import reading
from mmaudit.checkpoint.loader import load_checkpoint, load_into, read_weights
from mmaudit.exceptions import CheckpointError, MMAuditError, ModelError, SpecError
from tests.checkpoint.files import save_safetensors, torch_bytes, weights

DATA = Path(os.environ.get("MMAUDIT_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
LIGHTNING = DATA / "checkpoints" / "lightning_mnist_cnn.ckpt"


def build() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


class Two(nn.Module):
    """Two encoders and a head; what the files of sub-modules go into."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.audio = build()
        self.image = build()
        self.head = nn.Linear(width, 2)
        self.dropout = nn.Dropout()

    def forward(self, audio, image):
        return self.head(torch.cat([self.audio(audio), self.image(image)], 1))


def same(module: nn.Module, tensors: dict[str, torch.Tensor]) -> bool:
    state = module.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[k], tensors[k]) for k in state)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def prefixed(prefix: str, tensors=None) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in (tensors or weights()).items()}


def fault(module: nn.Module, tensors: dict[str, torch.Tensor], **options) -> str:
    """The sentence of a refused load; the module must be unchanged."""
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(module, tensors, where="runs/best.ckpt", **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 400
    assert same(module, before)
    return text


# --- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["best.pt", "best.safetensors", "best", "best.index.json"])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_reading_by_content(tmp_path, name, kind):
    content = torch_bytes(weights()) if kind == "torch" else save_safetensors(weights())
    path = write(tmp_path / name, content)
    read = read_weights(path)
    assert read.format == ("torch zip, weights only" if kind == "torch" else "safetensors")
    assert same(build_with(read.tensors), weights())
    (file,) = read.files
    assert (file.path, file.role, file.bytes) == (str(path), "checkpoint", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert read.notes == ()


def build_with(tensors) -> nn.Module:
    model = build()
    load_into(model, tensors, where="x")
    return model


@pytest.mark.parametrize(
    ("saved", "taken"),
    [
        (lambda w: {"state_dict": w, "epoch": 3}, "state_dict"),
        (
            lambda w: {
                "model": w,
                "optimizer": {"state": {0: {"exp_avg": w["0.bias"]}}, "param_groups": []},
            },
            "model",
        ),
        (lambda w: {"model_state_dict": w, "loss": torch.tensor(0.5)}, "model_state_dict"),
        (lambda w: {"net": w, "acc": 90.0}, "net"),
        (lambda w: {"params": w}, "params"),
        (lambda w: {"generator": w, "epoch": 1}, "generator"),
        (lambda w: {"model": {"state_dict": w}, "args": {"lr": 0.1}}, "model.state_dict"),
        (lambda w: {"ema": {k: v + 1 for k, v in w.items()}, "model": w}, "model"),
        (lambda w: {"model": {k: v + 1 for k, v in w.items()}, "state_dict": w}, "state_dict"),
    ],
)
def test_nested_state_dicts(tmp_path, saved, taken):
    read = read_weights(write(tmp_path / "best.pt", torch_bytes(saved(weights()))))
    assert same(build_with(read.tensors), weights())
    assert f"Took the weights under '{taken}' of best.pt" in read.notes[0]


def test_the_other_weights_are_named(tmp_path):
    saved = {"ema": weights(), "model": weights(), "epoch": 1}
    (note,) = read_weights(write(tmp_path / "best.pt", torch_bytes(saved))).notes
    assert (
        note
        == "Took the weights under 'model' of best.pt; the file also holds weights under 'ema', which were left."
    )


def test_state_dicts_of_several_modules_are_joined(tmp_path):
    model = Two()
    saved = {name: part.state_dict() for name, part in model.named_children() if name != "dropout"}
    read = read_weights(write(tmp_path / "best.pt", torch_bytes({**saved, "epoch": 3})))
    assert same(model, read.tensors)
    assert read.notes == (
        "Joined the weights under 'audio', 'image', 'head' of best.pt as sub-modules.",
    )


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        (
            {**weights(), "epoch": 3, "name": "x"},
            r"mixes weights with other values \(epoch, name\)",
        ),
        (
            {"model": {**weights(), "epoch": 3}},
            r"mixes weights under 'model' with other values \(epoch\)",
        ),
        (
            {"state": {}, "param_groups": [{"lr": 0.1}]},
            "holds no weights: its keys are state, param_groups",
        ),
        ({}, "holds no weights: it is empty"),
        (torch.ones(3), "holds a single tensor and not a mapping"),
        ([torch.ones(3)], "holds a list and not a mapping"),
        ({1: torch.ones(3)}, r"mixes weights with other values \(1\)"),
    ],
)
def test_files_without_a_state_dict(tmp_path, saved, words):
    with pytest.raises(CheckpointError, match=words):
        read_weights(write(tmp_path / "best.pt", torch_bytes(saved)))


def test_values_that_are_not_finite_are_noted(tmp_path):
    odd = {**weights(), "1.bias": torch.tensor([float("nan"), 1.0])}
    for content in (torch_bytes(odd), save_safetensors(odd)):
        read = read_weights(write(tmp_path / "best", content))
        assert read.notes == ("Values of 1.bias in best are not finite.",)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8, torch.bool]
)
def test_every_dtype_is_read_as_it_was_saved(tmp_path, dtype):
    tensors = {
        "x": torch.tensor([0, 1, 1]).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "none": torch.ones(0).to(dtype),
    }
    for content in (torch_bytes(tensors), save_safetensors(tensors)):
        found = read_weights(write(tmp_path / "best", content)).tensors
        assert all(found[k].dtype == dtype and torch.equal(found[k], tensors[k]) for k in tensors)


def test_float8_is_read(tmp_path):
    tensors = {"x": torch.tensor([0.5, 1.0]).to(torch.float8_e4m3fn)}
    found = read_weights(write(tmp_path / "best", torch_bytes(tensors))).tensors["x"]
    assert torch.equal(found.float(), tensors["x"].float())


def test_views_of_one_storage_are_read(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"all": base, "row": base[1], "turned": base.T, "part": base[:, 1:3]}
    found = read_weights(write(tmp_path / "best", torch_bytes(tensors))).tensors
    assert all(torch.equal(found[k], tensors[k]) for k in tensors)


@pytest.mark.skipif(
    not LIGHTNING.is_file(), reason="the shared data are not here (set MMAUDIT_DATA)"
)
def test_a_real_lightning_checkpoint():
    read = read_weights(LIGHTNING)
    assert read.format == "torch zip, weights only, Lightning"
    assert read.notes == ("Took the weights under 'state_dict' of lightning_mnist_cnn.ckpt.",)
    expected = torch.load(LIGHTNING, weights_only=True)["state_dict"]
    assert list(read.tensors) == list(expected)
    assert all(torch.equal(read.tensors[key], expected[key]) for key in expected)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            convolutions = [
                nn.Conv2d(1, 32, 3),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 3),
                nn.ReLU(),
            ]
            self.features = nn.Sequential(*convolutions)
            self.classifier = nn.Linear(3136, 10)

    loaded = load_checkpoint(LIGHTNING, Net)
    assert torch.equal(loaded.model.classifier.weight, expected["classifier.weight"])


# --- shards ------------------------------------------------------------------------------------------------------------


def shards(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    parts = {"one.safetensors": ["0.weight", "0.bias"], "two.safetensors": ["1.weight", "1.bias"]}
    for name, keys in parts.items():
        (folder / name).write_bytes(save_safetensors({key: weights()[key] for key in keys}))
    index = folder / "model.safetensors.index.json"
    places = {key: name for name, keys in parts.items() for key in keys}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_sharded_checkpoints(tmp_path):
    index = shards(tmp_path / "model")
    renamed = index.with_name("renamed.pt")
    for path in (index, index.parent):
        read = read_weights(path)
        assert same(build_with(read.tensors), weights())
        assert read.format == "safetensors in 2 shards"
        assert [Path(f.path).name for f in read.files] == [
            index.name,
            "one.safetensors",
            "two.safetensors",
        ]
    index.rename(renamed)
    assert same(build_with(read_weights(renamed).tensors), weights())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret.safetensors", "no file in the index's own folder"),
        ("/etc/passwd", "no file in the index's own folder"),
        ("a/../../x", "no file in the index's own folder"),
        ("..\\x", "no file in the index's own folder"),
        ("C:x", "no file in the index's own folder"),
        ("", "no file in the index's own folder"),
        (3, "no file in the index's own folder"),
        ("nul\0", "no file in the index's own folder"),
        ("three.safetensors", "does not exist"),
        ("best.pt", "shards must be safetensors"),
        ("model.safetensors.index.json", "shards must be safetensors"),
        ("notes.txt", "is a text file"),
        ("one.safetensors", "lacks 1.bias, 1.weight"),
    ],
)
def test_faults_of_an_index(tmp_path, name, words):
    index = shards(tmp_path / "model")
    (tmp_path / "secret.safetensors").write_bytes(save_safetensors(weights()))
    (index.parent / "best.pt").write_bytes(torch_bytes(weights()))
    (index.parent / "notes.txt").write_text("notes")
    content = json.loads(index.read_text())
    content["weight_map"] |= {"1.weight": name, "1.bias": name}
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_weights(index)
    assert len(str(caught.value)) < 400 and str(caught.value).endswith(".")


def test_shards_that_hold_more_than_the_index_says(tmp_path):
    index = shards(tmp_path / "model")
    content = json.loads(index.read_text())
    del content["weight_map"]["0.bias"]
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"one\.safetensors also holds 0\.bias"):
        read_weights(index)


# --- fitting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("module.", "the prefix 'module.'"),
        ("model.", "the prefix 'model.'"),
        ("net.", "the prefix 'net.'"),
        ("_orig_mod.", "the prefix '_orig_mod.'"),
        ("module._orig_mod.", "the prefix 'module.' and '_orig_mod.'"),
        ("_orig_mod.module.", "the prefix 'module.' and '_orig_mod.'"),
        ("model.net.", "the prefix 'model.net.'"),
        ("module.model._orig_mod.net.", "the prefix 'module.model.net.' and '_orig_mod.'"),
    ],
)
def test_prefixes_of_wrappers_are_removed_and_named(prefix, words):
    model = build()
    notes = load_into(model, prefixed(prefix), where="runs/best.ckpt")
    assert notes == (f"Removed {words} from the keys of best.ckpt.",)
    assert same(model, weights())


def test_wrappers_inside_the_keys():
    model = Two()
    tensors = {
        key.replace("audio.", "audio._orig_mod.").replace("image.", "image.module."): value
        for key, value in Two().state_dict().items()
    }
    notes = load_into(model, tensors, where="best.ckpt")
    assert notes == (
        "Removed the prefix '_orig_mod.' and 'module.' inside from the keys of best.ckpt.",
    )
    assert torch.equal(model.image[0].weight, tensors["image.module.0.weight"])


def test_a_part_that_really_has_a_wrapper_s_name_is_left_alone():
    model = nn.ModuleDict({"model": build(), "net": nn.Linear(2, 2)})
    tensors = {key: torch.rand_like(value) for key, value in model.state_dict().items()}
    assert load_into(model, tensors, where="x") == ()
    assert same(model, tensors)
    assert "the prefix 'model.'" in load_into(model, prefixed("model.", tensors), where="x")[0]
    assert same(model, tensors)


def test_models_that_are_wrapped_themselves():
    model = nn.ModuleDict({"_orig_mod": build()})
    for tensors in (weights(), prefixed("_orig_mod."), prefixed("module.")):
        load_into(model, tensors, where="x")
        assert same(model["_orig_mod"], weights())


def test_averaged_models():
    averaged = torch.optim.swa_utils.AveragedModel(build())
    model = build()
    notes = load_into(model, averaged.state_dict(), where="swa.pt")
    assert same(model, averaged.module.state_dict())
    assert notes[1] == "Left out 'n_averaged', the counter of torch's AveragedModel, in swa.pt."


def test_an_explicit_prefix():
    model = build()
    tensors = {**prefixed("backbone."), "loss.weight": torch.ones(1)}
    assert load_into(model, tensors, strip_prefix="backbone.", where="x.pt") == (
        "Removed the prefix 'backbone.' from the keys of x.pt.",
        "Left out 1 keys of x.pt without that prefix: loss.weight.",
    )
    assert same(model, weights())
    assert (
        "no key of runs/best.ckpt begins with 'bone.'"
        in fault(model, tensors, strip_prefix="bone.").lower()
    )
    # Nothing is removed where the caller says so.
    assert "missing" in fault(model, prefixed("module."), strip_prefix="")


def test_missing_unexpected_and_misshaped_keys_are_named():
    model = build()
    lacking = weights()
    del lacking["1.bias"]
    assert "missing 1.bias; check that the factory" in fault(model, lacking)
    assert "unexpected extra; check" in fault(model, {**weights(), "extra": torch.ones(1)})
    text = fault(model, prefixed("module.backbone."))
    assert "missing 0.weight, 0.bias, 1.weight (+1), unexpected" in text
    assert "the file's keys begin with 'module.backbone.'" in text and "strip_prefix" in text
    wrong = {**weights(), "0.weight": torch.ones(5, 3), "1.bias": torch.ones(7)}
    text = fault(model, wrong)
    assert (
        "disagree in shape: 0.weight is (5, 3) and should be (4, 3), 1.bias is (7,) and should be (2,)"
        in text
    )
    scalar = nn.Module()
    scalar.register_buffer("scale", torch.tensor(1.0))
    assert "scale is (1,) and should be ()" in fault(scalar, {"scale": torch.ones(1)})


def test_long_names_still_fit_one_sentence():
    deep = nn.ModuleDict(
        {"encoder_of_the_first_modality" * 3: nn.ModuleDict({"layer" * 20: build()})}
    )
    text = fault(deep, {f"{'some_other_encoder' * 6}.{i}.weight": torch.ones(1) for i in range(50)})
    assert "missing" in text and "unexpected" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int16])
def test_other_dtypes_are_converted_and_noted(dtype):
    model = build()
    tensors = {key: (value * 8).round().to(dtype) for key, value in weights().items()}
    (note,) = load_into(model, tensors, where="x.pt")
    name = str(dtype).removeprefix("torch.")
    assert note == f"Converted 4 tensors of x.pt from {name} to float32: 0.weight, 0.bias (+2)."
    assert same(model, {key: value.float() for key, value in tensors.items()})
    assert model[0].weight.dtype == torch.float32


def test_values_that_do_not_survive_a_conversion_are_refused():
    half = build().half()
    assert "from float32 to float16" in fault(half, {**weights(), "0.bias": torch.full((4,), 1e6)})
    assert "from complex64 to float32" in fault(
        build(), {**weights(), "0.bias": torch.full((4,), 1j)}
    )
    counter = nn.BatchNorm1d(2)
    state = dict(counter.state_dict())
    assert "from float32 to int64" in fault(
        counter, {**state, "num_batches_tracked": torch.tensor(2.5)}
    )
    load_into(counter, {**state, "num_batches_tracked": torch.tensor(7.0)}, where="x")
    assert counter.num_batches_tracked.item() == 7
    # What was not finite before may stay so.
    load_into(half, {**weights(), "0.bias": torch.full((4,), float("inf"))}, where="x")


def tied() -> nn.ModuleDict:
    model = nn.ModuleDict(
        {"embed": nn.Linear(3, 5, bias=False), "head": nn.Linear(3, 5, bias=False)}
    )
    model["head"].weight = model["embed"].weight
    return model


def test_tied_weights():
    value = torch.rand(5, 3)
    for key, other in (("embed.weight", "head.weight"), ("head.weight", "embed.weight")):
        model = tied()
        assert load_into(model, {key: value}, where="x.pt") == (
            f"Tied weights are stored once in x.pt: {other} (tied to {key}).",
        )
        assert (
            torch.equal(model["embed"].weight, value)
            and model["embed"].weight is model["head"].weight
        )
    assert (
        load_into(tied(), {"embed.weight": value, "head.weight": value.clone()}, where="x.pt") == ()
    )
    assert "are one parameter in the model but differ" in fault(
        tied(), {"embed.weight": value, "head.weight": value + 1}
    )


def test_lazy_modules_are_named():
    with pytest.raises(
        CheckpointError, match=r"parameters without a shape \(0\.weight, 0\.bias\)"
    ) as caught:
        load_into(nn.Sequential(nn.LazyLinear(4)), weights(), where="x")
    assert "call the model once" in str(caught.value)


def test_older_files_are_adapted_by_the_model_s_own_rules():
    norm = nn.Sequential(nn.BatchNorm1d(2))
    old = {key: value for key, value in norm.state_dict().items() if not key.endswith("tracked")}
    (note,) = load_into(norm, {**old, "0.running_mean": torch.tensor([3.0, 4.0])}, where="x")
    assert note == "The model's own rules for older files supplied 0.num_batches_tracked."
    assert norm[0].running_mean.tolist() == [3, 4]
    assert "missing 0.running_mean" in fault(
        norm, {k: v for k, v in old.items() if k != "0.running_mean"}
    )

    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)))
    g, v = torch.rand(4, 1), torch.rand(4, 3)
    notes = load_into(new, {"0.weight_g": g, "0.weight_v": v, "0.bias": torch.zeros(4)}, where="x")
    assert "own rules" in notes[0]
    assert torch.allclose(new[0].weight, g * v / v.norm(dim=1, keepdim=True))


def test_random_subsets_never_load_halfway():
    draw = random.Random(0)
    whole = weights()
    for _ in range(50):
        keys = draw.sample(list(whole), draw.randrange(len(whole)))
        fault(build(), {key: whole[key] for key in keys})


# --- checkpoints -------------------------------------------------------------------------------------------------------


def test_a_file_and_a_factory(tmp_path):
    path = write(tmp_path / "best.pt", torch_bytes({"state_dict": prefixed("module.")}))
    loaded = load_checkpoint(path, build)
    assert same(loaded.model, weights()) and not loaded.model.training
    assert loaded.notes == (
        "Took the weights under 'state_dict' of best.pt.",
        "Removed the prefix 'module.' from the keys of best.pt.",
    )
    assert [file.role for file in loaded.files] == ["checkpoint"]
    assert load_checkpoint("best.pt", build, directory=tmp_path).format == "torch zip, weights only"
    assert load_checkpoint(str(path), Two().audio).model[0].weight.shape == (4, 3)


def test_the_loaded_values_do_not_follow_the_file(tmp_path):
    path = write(tmp_path / "best.pt", torch_bytes(weights()))
    model = load_checkpoint(path, build).model
    path.write_bytes(bytes(path.stat().st_size))
    assert same(model, weights())


def test_files_of_sub_modules(tmp_path):
    torch.manual_seed(0)
    full = Two()
    write(tmp_path / "a.pt", torch_bytes(full.audio.state_dict()))
    write(
        tmp_path / "i.safetensors", save_safetensors(prefixed("module.", full.image.state_dict()))
    )
    parts = {"audio": "a.pt", "image": tmp_path / "i.safetensors"}
    loaded = load_checkpoint(parts, Two, directory=tmp_path)
    assert torch.equal(loaded.model.image[1].weight, full.image[1].weight)
    assert [file.role for file in loaded.files] == ["checkpoint of audio", "checkpoint of image"]
    assert loaded.format == "torch zip, weights only, safetensors"
    assert loaded.notes[-1].startswith(
        "2 weights are in no file and keep the values that the factory gave them: head."
    )
    write(tmp_path / "l.pt", torch_bytes(full.audio[1].state_dict()))
    deep = load_checkpoint({"audio.1": "l.pt"}, Two, directory=tmp_path).model
    assert torch.equal(deep.audio[1].bias, full.audio[1].bias)


def test_no_sub_module_is_loaded_where_one_file_is_wrong(tmp_path):
    write(tmp_path / "a.pt", torch_bytes(weights()))
    write(tmp_path / "i.pt", torch_bytes({**weights(), "1.bias": torch.ones(3)}))
    model = Two()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"i\.pt for image and the model disagree in shape"):
        load_checkpoint({"audio": "a.pt", "image": "i.pt"}, model, directory=tmp_path)
    assert same(model, before)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"adio": "a.pt"}, "no sub-module adio, .*its sub-modules are audio, image, head, dropout"),
        ({"audio": "a.pt", "audio.0": "a.pt"}, r"a file for audio and one for audio\.0 inside it"),
        ({"": "a.pt", "audio": "a.pt"}, "the whole model and one for audio"),
        ({}, "names no file"),
    ],
)
def test_faults_of_a_mapping(tmp_path, parts, words):
    write(tmp_path / "a.pt", torch_bytes(weights()))
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(parts, Two, directory=tmp_path)


def test_models_in_memory_pass_through():
    model = build().train()
    assert load_checkpoint(model) == (model, (), "in memory", ())
    assert model.training, "a model in memory is left as it came"
    assert load_checkpoint(len).model is len
    with pytest.raises(SpecError, match="needs no factory"):
        load_checkpoint(model, build)
    with pytest.raises(CheckpointError, match="A int is no checkpoint"):
        load_checkpoint(3)


def test_factories(tmp_path):
    built = load_checkpoint(None, Two, args={"width": 6})
    assert built.model.head.in_features == 6 and not built.model.training
    assert load_checkpoint(None, lambda: len).model is len
    with pytest.raises(
        SpecError, match=r"'Two' does not take the arguments given .* it takes width=\.\.\.\."
    ):
        load_checkpoint(None, Two, args={"widht": 6})
    path = write(tmp_path / "best.pt", torch_bytes(weights()))
    with pytest.raises(SpecError, match="Weights need a model"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "worst.pt")
    with pytest.raises(SpecError, match="takes no arguments"):
        load_checkpoint("best.pt", build(), args={"a": 1})
    with pytest.raises(
        ModelError,
        match=r"returned a dict of modules \(audio, image\); wrap them in one nn\.Module",
    ):
        load_checkpoint(None, lambda: {"audio": build(), "image": build()})


def test_weights_need_a_module(tmp_path):
    path = write(tmp_path / "best.pt", torch_bytes(weights()))
    with pytest.raises(
        ModelError,
        match="returned a builtin_function_or_method; a factory must return an nn.Module",
    ):
        load_checkpoint(path, lambda: len)


AUDIT = """
model: {factory: "train:build", args: {width: 4}}
checkpoint: runs/best.pt
modalities: {audio: batch.0, image: batch.1}
data: {test: "train:data"}
"""
TRAIN = """
from torch import nn
def build(width): return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
def data(): return []
"""


def audit_folder(root: Path, audit: str = AUDIT) -> Path:
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "best.pt").write_bytes(torch_bytes(prefixed("backbone.")))
    (root / "train.py").write_text(TRAIN)
    (root / "audit.yaml").write_text(audit)
    return root / "audit.yaml"


@pytest.fixture
def modules_as_before():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("modules_as_before")
def test_an_audit_file(tmp_path):
    path = audit_folder(tmp_path / "one", AUDIT + "strip_prefix: backbone.\n")
    loaded = load_checkpoint(path)
    assert same(loaded.model, weights()) and not loaded.model.training
    assert {Path(file.path).name: file.role for file in loaded.files} == {
        "audit.yaml": "audit file",
        "best.pt": "checkpoint",
        "train.py": "code",
    }
    assert loaded.notes == ("Removed the prefix 'backbone.' from the keys of best.pt.",)
    with pytest.raises(SpecError, match="names its own model"):
        load_checkpoint(path, build)
    with pytest.raises(SpecError):
        load_checkpoint(tmp_path / "nowhere.yaml")


@pytest.mark.usefixtures("modules_as_before")
def test_an_audit_file_s_prefix_can_be_overruled(tmp_path):
    path = audit_folder(tmp_path / "one")
    with pytest.raises(CheckpointError, match=r"keys begin with 'backbone\.'"):
        load_checkpoint(path)
    assert same(load_checkpoint(path, strip_prefix="backbone.").model, weights())


def test_a_text_file_is_no_checkpoint_even_with_a_factory(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("model: x")
    with pytest.raises(CheckpointError, match="is a text file"):
        load_checkpoint(path, build)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "best.safetensors", save_safetensors(weights()))
    read = reading.read_safetensors

    def rewrite(file):
        tensors = read(file)
        file.write_bytes(save_safetensors(prefixed("x")))
        return tensors

    monkeypatch.setattr(reading, "read_safetensors", rewrite)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        read_weights(path)
    path = write(tmp_path / "best.safetensors", save_safetensors(weights()))
    with pytest.raises(MMAuditError, match="changed while it was read"):
        load_checkpoint(path, build)


@pytest.mark.parametrize(
    ("checkpoint", "options", "words"),
    [
        ({"audio": None}, {}, "found None for 'audio'"),
        ({"audio": {"0": "a.pt"}}, {}, r"name a part of a sub-module with a dot \('audio.0'\)"),
        ("", {}, "found ''; write the path"),
        ("best.pt", {"strip_prefix": 5}, "strip_prefix is 5; expected the text"),
        ("best.pt", {"args": [1]}, r"args is \[1\]; expected a mapping"),
    ],
)
def test_arguments_of_the_wrong_kind_are_one_sentence(tmp_path, checkpoint, options, words):
    write(tmp_path / "best.pt", torch_bytes(weights()))
    with pytest.raises(MMAuditError, match=words) as caught:
        load_checkpoint(checkpoint, Two, directory=tmp_path, **options)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_a_directory_may_be_text(tmp_path):
    write(tmp_path / "best.pt", torch_bytes(weights()))
    assert same(load_checkpoint("best.pt", build, directory=str(tmp_path)).model, weights())


def test_a_model_on_the_meta_device_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelError, match="meta device, which holds no numbers"):
        load_checkpoint(path, lambda: torch.nn.Linear(2, 2, device="meta"))
