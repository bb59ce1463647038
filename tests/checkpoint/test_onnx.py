from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import mmaudit  # noqa: E402
from mmaudit.checkpoint.loader import load_checkpoint  # noqa: E402
from mmaudit.exceptions import CheckpointError, ModelError, SpecError  # noqa: E402
from tests.checkpoint.files import weights  # noqa: E402
from tests.checkpoint.onnx_files import (  # noqa: E402
    SIX,
    WEIGHT,
    external,
    linear,
    model_of,
    save,
    six_inputs,
)


def refused(path: Path) -> str:
    with warnings.catch_warnings(), pytest.raises(CheckpointError) as caught:
        warnings.simplefilter("error")
        load_checkpoint(path)
    text = str(caught.value)
    assert text.isprintable() and text.endswith(".") and len(text) < 400, text
    return text


def six_values(n: int, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "audio.mel": torch.randn(n, 3, generator=draw),
        "video": torch.randn(n, 2, generator=draw).half(),
        "token_ids": torch.randint(0, 9, (n, 4), generator=draw),
        "mask": torch.rand(n, 4, generator=draw) > 0.5,
        "age": torch.rand(n, 1, generator=draw).double(),
        "site": torch.randint(0, 3, (n, 1), generator=draw).int(),
    }


def six_expected(values: dict[str, torch.Tensor]) -> torch.Tensor:
    total = sum((i + 1) * v.float().sum(1, keepdim=True) for i, v in enumerate(values.values()))
    return torch.cat([total, -total], 1)


# --- calling -----------------------------------------------------------------------------------------------------------


def test_a_model_with_one_input(tmp_path):
    loaded = load_checkpoint(save(linear(), tmp_path / "net.onnx"))
    x = torch.randn(5, 3)
    expected = x @ torch.arange(6.0).reshape(3, 2) + torch.tensor([0.5, -0.5])
    for found in (loaded.model(x), loaded.model(x=x)):
        assert torch.allclose(found, expected, atol=1e-6)
    assert loaded.format.startswith("ONNX, opset 17, written by tests, onnxruntime ")
    assert [record.role for record in loaded.files] == ["checkpoint"]
    assert loaded.notes == (
        "An ONNX model is measured from its inputs and outputs alone, on the CPU.",
    )
    # Whatever the file is called.
    assert load_checkpoint(save(linear(), tmp_path / "net.pt")).model(x).shape == (5, 2)


def test_six_inputs_of_every_type_by_name_and_in_order(tmp_path):
    model = load_checkpoint(save(six_inputs(), tmp_path / "net.onnx")).model
    values = six_values(5)
    by_python_name = {name.replace(".", "_"): value for name, value in values.items()}
    for found in (model(**values), model(*values.values()), model(**by_python_name)):
        assert set(found) == {"logits", "total"}, "text is left out, and said so"
        assert torch.allclose(found["logits"], six_expected(values), atol=2e-2)
    import inspect

    assert list(inspect.signature(model.forward).parameters) == [n.replace(".", "_") for n in SIX]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_a_fixed_batch_size_is_fed_in_batches_of_it(tmp_path, batch, n):
    loaded = load_checkpoint(save(six_inputs(batch), tmp_path / "net.onnx"))
    values = six_values(n)
    found = loaded.model(**values)
    assert found["logits"].shape == (n, 2)
    assert torch.allclose(found["logits"], six_expected(values), atol=2e-2)
    assert f"takes batches of {batch}" in loaded.notes[1]


def test_values_are_converted_where_nothing_is_lost(tmp_path):
    model = load_checkpoint(save(six_inputs(), tmp_path / "net.onnx")).model
    values = six_values(3)
    other = {
        **values,
        "age": values["age"].float(),
        "token_ids": values["token_ids"].int(),
        "site": values["site"].long(),
        "audio.mel": values["audio.mel"].double(),
    }
    assert torch.allclose(model(**other)["logits"], six_expected(other), atol=2e-2)
    with pytest.raises(ModelError, match="takes 'token_ids' as int64, and the data give float32"):
        model(**{**values, "token_ids": values["token_ids"].float() + 0.5})
    with pytest.raises(ModelError, match="takes 'site' as int32, and the data give int64"):
        model(**{**values, "site": torch.full((3, 1), 2**40)})
    with pytest.raises(ModelError, match=r"with 2 dimensions \(\?, 3\), and the data give"):
        model(**{**values, "audio.mel": torch.ones(3, 3, 3)})
    with pytest.raises(ModelError, match="cannot do without its input 'age'"):
        model(**{**values, "age": None})
    with pytest.raises(ModelError, match="say under 'call' which input goes where"):
        model(values["age"])
    with pytest.raises(ModelError, match="onnxruntime cannot run the model on this batch"):
        model(**{**values, "age": torch.ones(7, 1)})


def test_text_goes_in(tmp_path):
    node = helper.make_node(
        "LabelEncoder",
        ["word"],
        ["score"],
        domain="ai.onnx.ml",
        keys_strings=["yes", "no"],
        values_floats=[1.0, -1.0],
    )
    model = model_of(
        [node],
        [helper.make_tensor_value_info("word", TensorProto.STRING, ["n", 1])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    found = load_checkpoint(save(model, tmp_path / "net.onnx")).model([["yes"], ["no"], ["yes"]])
    assert found.flatten().tolist() == [1, -1, 1]


# --- auditing ----------------------------------------------------------------------------------------------------------


def test_an_audit_of_six_inputs_equals_brute_force(tmp_path):
    path = save(six_inputs(), tmp_path / "net.onnx")
    batches = [{**six_values(20, seed), "y": torch.arange(20) % 2} for seed in range(4)]
    spec = {
        "modalities": {
            "sound": "audio.mel",
            "picture": "video",
            "text": {"inputs": ["token_ids", "mask"]},
            "patient": {"inputs": ["age", "site"]},
        },
        "call": {"kwargs": {name: name for name in SIX}},
        "outputs": {"path": "logits"},
        "target": "y",
    }
    report = mmaudit.audit(path, batches, spec, replicates=100, measures=["contributions"])
    record = report.record
    assert record.evidence.method == "full passes"
    assert record.evidence.reason == "the model is an ONNX model"
    assert record.subject.structure.unknown == (
        "The model is an ONNX model: its parts cannot be seen.",
    )
    texts = [note.text for note in record.notes]
    assert any(t.startswith("The checkpoint holds the whole model: ONNX, opset 17") for t in texts)
    masked = {**batches[0], "audio.mel": torch.zeros(20, 3), "video": torch.zeros(20, 2).half()}
    outputs = mmaudit.evaluate_coalitions(load_checkpoint(path).model, batches[0], spec)
    expected = six_expected({name: masked[name] for name in SIX})
    assert torch.allclose(outputs[frozenset({"text", "patient"})], expected, atol=2e-2)


def test_a_single_output_may_be_named_or_not(tmp_path):
    path = save(linear(), tmp_path / "net.onnx")
    batches = [{"x": torch.randn(30, 3), "y": torch.arange(30) % 2}]
    spec = {"modalities": {"x": "x"}, "call": {"args": ["x"]}, "target": "y"}
    scores = []
    for outputs in ({}, {"outputs": {"path": "scores"}}):
        report = mmaudit.audit(path, batches, {**spec, **outputs}, replicates=100)
        scores.append(report.to_frame("contributions")["value"].tolist())
    assert np.array_equal(scores[0], scores[1], equal_nan=True)


def test_an_audit_file_needs_no_factory(tmp_path):
    save(linear(4), tmp_path / "net.onnx")
    np.savez(
        tmp_path / "test.npz", x=np.random.default_rng(0).normal(size=(30, 3)), y=np.arange(30) % 2
    )
    (tmp_path / "audit.yaml").write_text(
        "checkpoint: net.onnx\ndata: test.npz\nmodalities: {x: x}\ncall: {args: [x]}\ntarget: y\nsecond_mask: off\n"
    )
    report = mmaudit.audit(tmp_path / "audit.yaml", replicates=100)
    assert report.record.subject.title == "net.onnx"
    assert {Path(f.path).name for f in report.record.subject.files} >= {"net.onnx"}


def test_it_cannot_be_trained_and_holds_one_set_of_weights(tmp_path):
    path = save(linear(), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="audit it as it is, without a factory"):
        load_checkpoint(path, torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="leave out 'weights: ema'"):
        load_checkpoint(path, weights="ema")
    with pytest.raises(SpecError, match="leave args out"):
        load_checkpoint(path, args={"a": 1})
    (tmp_path / "audit.yaml").write_text(
        "checkpoint: net.onnx\ndata: {test: a.npz, train: b.npz}\nmodalities: {x: x}\n"
    )
    with pytest.raises(SpecError, match="names no factory under 'model'"):
        mmaudit.retrain(tmp_path / "audit.yaml", out=tmp_path / "out")


# --- external data -----------------------------------------------------------------------------------------------------


def test_external_data_is_copied_hashed_and_read(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "W.bin").write_bytes(b"....." + WEIGHT.tobytes())
    path = save(external("sub/W.bin", offset=5), tmp_path / "net.onnx")
    loaded = load_checkpoint(path)
    assert [Path(record.path).name for record in loaded.files] == ["net.onnx", "W.bin"]
    (tmp_path / "sub" / "W.bin").unlink()
    found = loaded.model(torch.eye(3)) - torch.tensor([0.5, -0.5])
    assert torch.allclose(found, torch.from_numpy(WEIGHT))


SECRET = np.full((3, 2), 12345.0, np.float32)


def place(kind: str, folder: Path, secret: Path) -> str:
    """Put a way to the secret into the model's folder; returns the location that names it."""
    inside = folder / "W.bin"
    if kind == "parent":
        return "../secret.bin"
    if kind == "through a folder":
        (folder / "a").mkdir()
        return "a/../../secret.bin"
    if kind == "absolute":
        return str(secret)
    if kind == "symlink":
        inside.symlink_to(secret)
    elif kind == "folder link":
        (folder / "a").symlink_to(secret.parent, target_is_directory=True)
        return "a/secret.bin"
    elif kind == "hardlink":
        os.link(secret, inside)
    elif kind == "pipe":
        os.mkfifo(inside)
    elif kind == "folder":
        inside.mkdir()
    elif kind == "memory":
        return "*/_ORT_MEM_ADDR_/*"
    elif kind == "empty":
        return ""
    elif kind == "backslash":
        return "..\\secret.bin"
    elif kind == "itself":
        return "./W.bin"
    return "W.bin"


KINDS = (
    "parent",
    "through a folder",
    "absolute",
    "symlink",
    "folder link",
    "hardlink",
    "pipe",
    "folder",
    "memory",
    "empty",
    "backslash",
    "itself",
    "absent",
)


@pytest.mark.parametrize("kind", KINDS)
def test_external_data_never_leads_to_what_is_not_the_model_s(tmp_path, kind):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(SECRET.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    path = save(external(place(kind, folder, secret)), folder / "net.onnx")
    assert "keep external data as an ordinary file beside the model" in refused(path)


def test_the_control_without_the_checks_a_hard_link_is_read(tmp_path):
    """If a runtime refused it itself, the test above would not show that we do."""
    import onnxruntime

    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    os.link(tmp_path / "secret.bin", tmp_path / "W.bin")
    path = save(external("W.bin"), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.eye(3, dtype=np.float32)})[0].max() > 12000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offset": 1000}, "bytes behind the end"),
        ({"length": 10**9}, "bytes behind the end"),
        ({"length": -1}, "'-1' as the length"),
        ({"more": [("basepath", "/etc")]}, "in an unknown way"),
        ({"more": [("location", "other.bin")]}, "in an unknown way"),
        ({"length": 8}, "cannot be run by onnxruntime"),
    ],
)
def test_external_data_that_is_not_what_it_says(tmp_path, options, words):
    (tmp_path / "W.bin").write_bytes(WEIGHT.tobytes())
    assert words in refused(save(external("W.bin", **options), tmp_path / "net.onnx"))


@pytest.mark.parametrize("where", ["attribute", "subgraph", "function", "sparse"])
def test_external_data_is_found_wherever_it_hides(tmp_path, where):
    (tmp_path / "secret.bin").write_bytes(SECRET.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    tensor = external("../secret.bin").graph.initializer[0]
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1)))
    constant.attribute[0].t.CopyFrom(tensor)
    model = linear()
    if where == "attribute":
        model.graph.node.append(constant)
    elif where == "subgraph":
        branch = helper.make_graph([constant], "b", [], [])
        model.graph.node.append(
            helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
        )
    elif where == "function":
        model.functions.append(
            helper.make_function("own", "F", [], ["c"], [constant], [helper.make_opsetid("", 17)])
        )
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    assert "no path below its own folder" in refused(save(model, folder / "net.onnx"))


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_operators_from_elsewhere_are_refused_and_own_functions_are_not(tmp_path):
    model = linear()
    model.graph.node[0].domain = "com.evil"
    assert "com.evil.MatMul" in refused(save(model, tmp_path / "net.onnx"))
    model = linear()
    model.graph.node[0].domain = "com.microsoft"
    model.graph.node[0].op_type = "EPContext"
    assert "com.microsoft.EPContext" in refused(save(model, tmp_path / "net.onnx"))
    body = [helper.make_node("Neg", ["a"], ["b"])]
    model = linear()
    model.functions.append(
        helper.make_function("own", "Minus", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[1].output[0] = "plus"
    model.graph.node.append(helper.make_node("Minus", ["plus"], ["scores"], domain="own"))
    found = load_checkpoint(save(model, tmp_path / "own.onnx")).model(torch.zeros(2, 3))
    assert torch.allclose(found, torch.tensor([[-0.5, 0.5]] * 2))


def test_what_takes_or_gives_no_tensors_is_refused(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    model = model_of(
        [helper.make_node("SequenceLength", ["s"], ["n"])],
        [sequence],
        [helper.make_tensor_value_info("n", TensorProto.INT64, [])],
    )
    assert "takes inputs that are no tensors" in refused(save(model, tmp_path / "in.onnx"))
    model = model_of(
        [helper.make_node("SequenceConstruct", ["x"], ["s"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [sequence],
    )
    assert "returns no tensor of numbers" in refused(save(model, tmp_path / "out.onnx"))


def test_damaged_files_are_one_sentence(tmp_path):
    import random

    draw = random.Random(0)
    good = six_inputs().SerializeToString()
    refusals = 0
    for number in range(60):
        content = bytearray(good)
        if number % 3 == 0:
            del content[draw.randrange(1, len(content)) :]
        else:
            for _ in range(1 + number % 5):
                content[draw.randrange(len(content))] = draw.randrange(256)
        path = tmp_path / "net.onnx"
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path)
        except (CheckpointError, SpecError) as error:
            refusals += 1
            assert str(error).isprintable() and len(str(error)) < 500
            continue
        assert loaded.files[0].bytes == len(content)
    assert refusals > 20


def test_other_formats_are_not_taken_for_onnx(tmp_path):
    from tests.checkpoint.files import torch_bytes

    (tmp_path / "net.onnx").write_bytes(torch_bytes(weights()))
    with pytest.raises(SpecError, match="Weights need a model"):
        load_checkpoint(tmp_path / "net.onnx")


def test_the_missing_extra_is_one_line(tmp_path, monkeypatch):
    import builtins

    path = save(linear(), tmp_path / "net.onnx")
    real = builtins.__import__
    for absent in ("onnxruntime", "onnx"):

        def refuse(name, *args, absent=absent, **kwargs):
            if name == absent:
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        assert "pip install 'mmaudit[onnx]'" in refused(path)
