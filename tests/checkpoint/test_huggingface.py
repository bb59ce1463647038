from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

transformers = pytest.importorskip("transformers")

import mmaudit  # noqa: E402
from mmaudit.checkpoint.loader import load_checkpoint  # noqa: E402
from mmaudit.exceptions import CheckpointError, SpecError  # noqa: E402

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
TEXT = {**TINY, "vocab_size": 50, "max_position_embeddings": 16}
IMAGE = {**TINY, "image_size": 8, "patch_size": 4}


def tiny(kind: str):
    """A model of a few thousand parameters, with random weights."""
    torch.manual_seed(0)
    if kind == "text":
        config = transformers.BertConfig(**TEXT, num_labels=3)
        return transformers.BertForSequenceClassification(config)
    if kind == "image":
        return transformers.ViTForImageClassification(transformers.ViTConfig(**IMAGE, num_labels=3))
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=8)
    return transformers.CLIPModel(config)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Kind -> directory as transformers itself writes it, and the model that was saved."""
    folder = tmp_path_factory.mktemp("hub")
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("text", "image", "both"):
            model = tiny(kind).eval()
            model.save_pretrained(folder / kind)
            made[kind] = (folder / kind, model)
    return made


@pytest.fixture
def directory(originals, tmp_path):
    """A copy of the image classifier, to be changed."""
    return Path(shutil.copytree(originals["image"][0], tmp_path / "net"))


@pytest.fixture
def network(monkeypatch):
    """Every attempt to reach anything; none succeeds."""
    tried: list[object] = []

    def refuse(*args, **kwargs):
        tried.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def batch(kind: str, n: int = 6) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 49, (n, 7), generator=draw)
    ids[:, -1] = 49
    pixels = torch.randn(n, 3, 8, 8, generator=draw)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {
        "text": text,
        "image": {"pixel_values": pixels},
        "both": {**text, "pixel_values": pixels},
    }[kind]


def change(directory: Path, **values) -> dict:
    """Change the configuration; ``None`` removes a key."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return config


def refused(directory: Path, words: str) -> str:
    with warnings.catch_warnings(), pytest.raises(CheckpointError, match=words) as caught:
        warnings.simplefilter("error")
        load_checkpoint(directory)
    text = str(caught.value)
    assert text.isprintable() and text.endswith(".") and len(text) < 420, text
    return text


# --- opening -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "image", "both"])
def test_the_model_is_the_one_that_was_saved(originals, network, kind):
    folder, original = originals[kind]
    loaded = load_checkpoint(folder)
    assert type(loaded.model) is type(original) and not loaded.model.training
    with torch.no_grad():
        found, expected = loaded.model(**batch(kind)), original(**batch(kind))
    for key in expected:
        if isinstance(expected[key], torch.Tensor):
            assert torch.equal(found[key], expected[key])
    assert loaded.format.startswith(
        f"Hugging Face directory, {type(original).__name__}, safetensors"
    )
    assert [Path(record.path).name for record in loaded.files] == [
        "config.json",
        "model.safetensors",
    ]
    assert loaded.notes == () and network == []


def test_shards_and_other_dtypes(originals, tmp_path):
    model = copy.deepcopy(originals["text"][1]).half()
    model.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.dtype == torch.float32
    assert any("Converted weights" in note and "float16" in note for note in loaded.notes)
    assert torch.equal(loaded.model.classifier.weight, model.classifier.weight.float())


def test_a_factory_may_still_be_given(originals):
    folder, original = originals["text"]
    loaded = load_checkpoint(folder, lambda: tiny("text"))
    assert torch.equal(loaded.model.classifier.weight, original.classifier.weight)
    assert loaded.format == "safetensors"


def test_the_file_inside_points_to_its_folder(originals):
    with pytest.raises(
        SpecError, match=r"or give the folder, whose config\.json may name its class"
    ):
        load_checkpoint(originals["text"][0] / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "modalities", "path"),
    [
        ("text", {"text": {"inputs": ["input_ids", "attention_mask"], "mask": {"input_ids": {"token": 0}, "attention_mask": "keep"}}}, "logits"),
        ("image", {"image": "pixel_values"}, "logits"),
        ("both", {"text": {"inputs": ["input_ids", "attention_mask"], "mask": {"input_ids": {"token": 1}, "attention_mask": "keep"}}, "image": "pixel_values"}, "logits_per_image"),
    ],
)  # fmt: skip
def test_an_audit_equals_brute_force(originals, kind, modalities, path):
    folder, original = originals[kind]
    data = batch(kind)
    classes = 6 if kind == "both" else 3
    spec = {
        "modalities": modalities,
        "call": {"kwargs": {name: name for name in data}},
        "outputs": {"path": path},
        "target": "y",
    }
    batches = [{**data, "y": torch.arange(6) % classes}]
    report = mmaudit.audit(folder, batches, spec, replicates=100, measures=["coalitions"])
    texts = [note.text for note in report.record.notes]
    assert any(
        text.startswith("The checkpoint holds the whole model: Hugging Face") for text in texts
    )
    outputs = mmaudit.evaluate_coalitions(load_checkpoint(folder).model, batches[0], spec)
    with torch.no_grad():
        whole = original(**data)[path]
        masked = dict(data)
        if "pixel_values" in data:
            masked["pixel_values"] = torch.zeros_like(data["pixel_values"])
        else:
            masked["input_ids"] = torch.zeros_like(data["input_ids"])
        without = original(**masked)[path]
    names = frozenset(modalities)
    assert torch.allclose(outputs[names], whole, atol=1e-5)
    last = "image" if "image" in names else "text"
    assert torch.allclose(outputs[names - {last}], without, atol=1e-5)


def test_an_audit_file_of_a_directory(originals, tmp_path):
    shutil.copytree(originals["image"][0], tmp_path / "net")
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "test.npz",
        pixel_values=rng.normal(size=(30, 3, 8, 8)).astype(np.float32),
        y=np.arange(30) % 3,
    )
    (tmp_path / "audit.yaml").write_text(
        "checkpoint: net\ndata: test.npz\nmodalities: {image: pixel_values}\ntarget: y\n"
        "call: {kwargs: {pixel_values: pixel_values}}\noutputs: {path: logits}\n"
    )
    report = mmaudit.audit(tmp_path / "audit.yaml", replicates=100, measures=["coalitions"])
    assert report.record.subject.title == "ViTForImageClassification of net"


# --- hostile directories -----------------------------------------------------------------------------------------------


def evil_code(directory: Path, marker: Path) -> None:
    """Code of every kind that a directory can bring; each file marks that it was imported."""
    text = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    names = ("evil", "modeling_vit", "modeling_evil", "configuration_vit", "configuration_evil")
    for name in (*names, "tokenization_evil", "handler", "pipeline", "sitecustomize", "__init__"):
        (directory / f"{name}.py").write_text(
            text + "from transformers import ViTConfig, ViTForImageClassification\n"
            "class EvilConfig(ViTConfig): pass\n"
            "class Evil(ViTForImageClassification): config_class = EvilConfig\n"
        )
    (directory / "custom_generate").mkdir()
    (directory / "custom_generate" / "generate.py").write_text(text)


AUTO = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"}  # fmt: skip
IGNORED = {
    "auto_map": {"auto_map": AUTO},
    "auto_map to another repository": {"auto_map": {"AutoModel": "evil/repo--evil.Evil"}},
    "trust flag": {"trust_remote_code": True},
    "trust flag and auto_map": {"trust_remote_code": True, "auto_map": AUTO},
    "attention from the hub": {"_attn_implementation": "kernels-community/evil"},
    "attention, internal": {"_attn_implementation_internal": "kernels-community/evil:fn"},
    "attention, public": {"attn_implementation": "kernels-community/evil"},
    "attention per part": {"_attn_implementation": {"": "evil/evil"}},
    "experts from the hub": {"_experts_implementation": "evil/evil"},
    "kernels": {
        "use_kernels": True,
        "kernel_config": {"kernel_mapping": {"Linear": "evil/evil:L"}},
    },
    "custom pipeline": {"custom_pipelines": {"x": {"impl": "evil.Evil", "pt": ["AutoModel"]}}},
    "other weights": {"transformers_weights": "../secret.safetensors"},
    "code revision": {"code_revision": "evil", "revision": "evil", "token": "x"},
}
LEFT_OUT = {
    "tokenizer": {"tokenizer_class": "EvilTokenizer"},
    "nested flags": {"text_config": {"trust_remote_code": True, "auto_map": AUTO}},
    "dunder": {"__class__": "evil", "__reduce__": ["os.system", "x"]},
    "methods": {"to_dict": 1, "save_pretrained": "x", "from_pretrained": "evil"},
    "hydra": {"_target_": "os.system", "cmd": "touch x"},
}
REFUSED = {
    "class of its own": ({"architectures": ["Evil"], "auto_map": AUTO}, "which is none of transformers"),
    "class by path": ({"architectures": ["evil.Evil"]}, "which is none of transformers"),
    "class by repository": ({"architectures": ["evil/repo--Evil"]}, "none of transformers"),
    "no model": ({"architectures": ["pipeline"]}, "none of transformers"),
    "a module": ({"architectures": ["os"]}, "none of transformers"),
    "a dunder": ({"architectures": ["__builtins__"]}, "none of transformers"),
    "auto class": ({"architectures": ["AutoModelForImageClassification"]}, "none of transformers"),
    "timm": ({"architectures": ["TimmWrapperForImageClassification"]}, "none of transformers"),
    "base class": ({"architectures": ["PreTrainedModel"]}, "none of transformers"),
    "no class": ({"architectures": None}, "names no class"),
    "two classes": ({"architectures": ["ViTModel", "BertModel"]}, "names no class"),
    "class as text": ({"architectures": "ViTForImageClassification"}, "names no class"),
    "other type": ({"model_type": "bert"}, "do not belong together"),
    "other class": ({"architectures": ["BertForSequenceClassification"]}, "do not belong together"),
    "quantised": ({"quantization_config": {"quant_method": "evil"}}, "wants its weights quantised"),
    "backbone": ({"backbone": "evil/repo", "use_pretrained_backbone": True}, "backbone to be fetched"),
    "wide": ({"hidden_size": 10**12}, "more than any model has"),
    "wide enough": ({"hidden_size": 10**7, "num_attention_heads": 1}, "describes a model of"),
    "deep": ({"num_hidden_layers": 10**6}, "more than any model has"),
    "labels": ({"num_labels": 10**9, "id2label": None}, "more than any model has"),
    "words for numbers": ({"hidden_size": "16; import os"}, "transformers|configuration"),
    "activation": ({"hidden_act": "os.system"}, "cannot build"),
    "other head": ({"id2label": {"0": "a", "1": "b"}}, "do not fit|disagree"),
}  # fmt: skip


def test_there_are_enough_hostile_directories():
    assert len(IGNORED) + len(LEFT_OUT) + len(REFUSED) >= 40


@pytest.mark.parametrize("name", [*IGNORED, *LEFT_OUT])
def test_what_asks_for_code_gets_none_and_is_told(directory, originals, tmp_path, network, name):
    marker = tmp_path / "marker"
    evil_code(directory, marker)
    change(directory, **{**IGNORED, **LEFT_OUT}[name])
    before = list(sys.path)
    loaded = load_checkpoint(directory)
    assert not marker.exists() and network == [] and sys.path == before
    assert type(loaded.model) is transformers.ViTForImageClassification
    with torch.no_grad():
        expected = originals["image"][1](**batch("image")).logits
        assert torch.equal(loaded.model(**batch("image")).logits, expected)
    told = " ".join(loaded.notes)
    for key in {**IGNORED, **LEFT_OUT}[name]:
        assert key in told
    assert ("chooses code or files" in told) == (name in IGNORED or name in ("dunder", "hydra"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_opened_is_one_sentence(directory, tmp_path, network, name):
    marker = tmp_path / "marker"
    evil_code(directory, marker)
    values, words = REFUSED[name]
    change(directory, **values)
    refused(directory, words)
    assert not marker.exists() and network == []


def test_nested_flags_are_ignored_in_nested_configurations(originals, tmp_path, network):
    folder = Path(shutil.copytree(originals["both"][0], tmp_path / "net"))
    marker = tmp_path / "marker"
    evil_code(folder, marker)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "auto_map": AUTO,
        "trust_remote_code": True,
        "_attn_implementation": "evil/x",
    }
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_checkpoint(folder)
    assert "text_config.auto_map" in loaded.notes[0] and not marker.exists() and network == []
    assert loaded.model.config.text_config._attn_implementation in ("sdpa", "eager")


def test_the_controls_fire(directory, tmp_path, monkeypatch):
    """What the tests above hold back does happen where nobody does."""
    marker = tmp_path / "marker"
    evil_code(directory, marker)
    raw = change(directory, auto_map=AUTO, _attn_implementation="kernels-community/evil")
    assert transformers.ViTConfig(**raw)._attn_implementation == "kernels-community/evil"
    change(directory, _attn_implementation=None)
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "cache")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForImageClassification.from_pretrained(
            directory, trust_remote_code=True
        )
    assert marker.exists() and type(model).__name__ == "Evil"


# --- files of a directory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_that_lead_out_are_refused(directory, tmp_path, name):
    (directory / name).rename(tmp_path / name)
    (directory / name).symlink_to(tmp_path / name)
    refused(directory, "is a link that leads out of its directory")


def test_shards_that_lead_out_are_refused(originals, tmp_path):
    folder = tmp_path / "net"
    originals["text"][1].save_pretrained(folder, max_shard_size="10KB")
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.rename(tmp_path / shard.name)
    shard.symlink_to(tmp_path / shard.name)
    refused(folder, "is a link that leads out of its directory")
    shard.unlink()
    index = folder / "model.safetensors.index.json"
    text = index.read_text().replace(shard.name, f"../{shard.name}")
    index.write_text(text)
    refused(folder, "no file in the index's own folder")


def test_the_cache_of_the_hub_is_one_directory(originals, tmp_path):
    cache = tmp_path / "models--own--net"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for entry in originals["image"][0].iterdir():
        shutil.copy(entry, cache / "blobs" / f"hash-{entry.name}")
        (snapshot / entry.name).symlink_to(Path("../../blobs") / f"hash-{entry.name}")
    assert type(load_checkpoint(snapshot).model) is transformers.ViTForImageClassification
    (snapshot / "model.safetensors").unlink()
    shutil.copy(originals["image"][0] / "model.safetensors", tmp_path / "secret.safetensors")
    (snapshot / "model.safetensors").symlink_to("../../../secret.safetensors")
    refused(snapshot, "is a link that leads out of its directory")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not readable as JSON"),
        (b"[]", "holds a list"),
        (b"\xff\xfe", "not readable as JSON"),
        (b'{"a": ' * 100_000, "not readable as JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not readable as JSON|names no class"),
        (b" " * 1_000_001, "larger than 1 MB"),
        (b"{}", "names no class"),
    ],
)
def test_damaged_configurations(directory, content, words):
    (directory / "config.json").write_bytes(content)
    refused(directory, words)


def test_weights_that_are_not_all_there(directory):
    path = directory / "model.safetensors"
    whole = load_file(path)
    for tensors, words in [
        (
            {k: v for k, v in whole.items() if k != "classifier.weight"},
            r"missing classifier\.weight",
        ),
        ({**whole, "extra": torch.ones(1)}, "unexpected extra"),
        ({**whole, "classifier.weight": torch.ones(5, 16)}, "do not fit|of another shape"),
        ({"x": torch.ones(1)}, "missing|do not fit"),
    ]:
        save_file(tensors, path)
        refused(directory, words)
    path.write_bytes(path.read_bytes()[:-1])
    refused(directory, "truncated safetensors")
    path.unlink()
    (directory / "pytorch_model.bin").write_bytes(b"x")
    refused(
        directory,
        "no safetensors weights, only pytorch_model.bin; make some with 'mmaudit convert'",
    )
    (directory / "pytorch_model.bin").unlink()
    refused(directory, "without safetensors weights")


def test_other_directories_of_the_hub_are_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/evil"}')
    refused(tmp_path, "an adapter without its base model")
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "model_index.json").write_text("{}")
    refused(tmp_path, "a pipeline of several models")


def test_a_pickle_in_the_place_of_weights_is_refused(directory, tmp_path):
    from tests.checkpoint.files import gadgets, torch_bytes

    marker = tmp_path / "marker.npy"
    (directory / "model.safetensors").write_bytes(torch_bytes({"a": gadgets(marker)["mkdir"]}))
    refused(directory, "posix.mkdir|nt.mkdir")
    assert not marker.exists()


def test_transformers_is_left_as_it_was(directory):
    import huggingface_hub.constants as hub
    from transformers.utils import logging

    logging.enable_progress_bar()
    before = (hub.HF_HUB_OFFLINE, logging.get_verbosity(), dict(os.environ), torch.get_rng_state())
    load_checkpoint(directory)
    change(directory, hidden_act="x")
    refused(directory, "cannot build")
    assert logging.is_progress_bar_enabled()
    after = (hub.HF_HUB_OFFLINE, logging.get_verbosity(), dict(os.environ), torch.get_rng_state())
    assert before[:3] == after[:3] and torch.equal(before[3], after[3])


def test_the_missing_extra_is_one_line(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(directory, r"pip install 'mmaudit\[transformers\]'")
