"""Files made to harm: payloads that run on load, damage, and bombs. None may run, none may be taken for something else."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from mmaudit.checkpoint import reading, safetensors_file, state_dict, torch_zip
from mmaudit.checkpoint.loader import load_checkpoint, read_weights
from mmaudit.exceptions import CheckpointError
from tests.checkpoint.files import (
    Gadget,
    gadgets,
    hostile_files,
    marked_as_folders,
    records_of,
    safetensors_bytes,
    save_safetensors,
    torch_bytes,
    weights,
    zip_bytes,
)

SUFFIXES = (".pt", ".safetensors", ".ckpt", "", ".bin", ".json")


def one_sentence(error: Exception) -> str:
    text = str(error)
    assert type(error) is CheckpointError
    assert text.isprintable() and len(text) < 400 and text.endswith("."), text
    return text


def refused(path: Path) -> str:
    with warnings.catch_warnings(record=True) as caught, pytest.raises(CheckpointError) as error:
        warnings.simplefilter("always")
        read_weights(path)
    assert not caught, [str(w.message) for w in caught]
    return one_sentence(error.value)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def remove(marker: Path) -> None:
    marker.rmdir() if marker.is_dir() else marker.unlink()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[k].dtype == other[k].dtype and torch.equal(one[k], other[k]) for k in one
    )


def changed(tensors: dict[str, torch.Tensor]) -> bool:
    return not same(tensors, weights())


# --- payloads ----------------------------------------------------------------------------------------------------------


def test_every_payload_runs_where_it_is_loaded_unsafely(tmp_path):
    """The control: a marker that nothing can create would make every test below pass."""
    marker = tmp_path / "marker.npy"  # numpy adds the suffix where it is missing
    tried = gadgets(marker)
    for name, payload in tried.items():
        for options in ({}, {"_use_new_zipfile_serialization": False}):
            path = write(
                tmp_path / "control.pt", torch_bytes({**weights(), "evil": payload}, **options)
            )
            assert not marker.exists()
            evil = torch.load(path, weights_only=False)["evil"]
            assert marker.exists(), f"the payload '{name}' is dead"
            if hasattr(evil, "close"):
                evil.close()
            remove(marker)
    assert len(tried) >= 10


def test_no_payload_runs_in_any_container(tmp_path):
    marker = tmp_path / "marker.npy"
    seen = 0
    for number, (kind, payload) in enumerate(gadgets(marker).items()):
        for position, (container, content) in enumerate(hostile_files(payload).items()):
            path = tmp_path / f"file{SUFFIXES[(number + position) % len(SUFFIXES)]}"
            write(path, content)
            text = refused(path)
            assert not marker.exists(), f"{kind} ran in {container}"
            assert path.name in text
            seen += 1
    assert seen >= 250


def test_names_of_what_a_pickle_needs_are_told(tmp_path):
    payload = gadgets(tmp_path / "marker.npy")["subprocess"]
    path = write(tmp_path / "best.ckpt", torch_bytes({"state_dict": weights(), "x": payload}))
    assert "subprocess.call" in refused(path)
    # Newer protocols put the names on the stack; where nothing but weights is named, the protocol itself is the reason.
    path = write(
        tmp_path / "best.ckpt",
        torch_bytes({"state_dict": weights(), "x": payload}, pickle_protocol=4),
    )
    assert "subprocess.call" in refused(path)
    assert "newer pickle protocol" in refused(
        write(tmp_path / "newer.pt", torch_bytes(weights(), pickle_protocol=4))
    )
    module = write(tmp_path / "model.pt", torch_bytes(torch.nn.GRU(2, 2)))
    assert "torch.nn.modules.rnn.GRU" in refused(module)


@pytest.mark.parametrize("harmless", [0, 3, 40])
def test_what_would_run_code_is_told_however_many_other_names_there_are(tmp_path, harmless):
    kinds = [kind for kind in vars(torch.nn).values() if isinstance(kind, type)][:harmless]
    payload = gadgets(tmp_path / "marker.npy")["os.system"]
    value = {"state_dict": weights(), "layers": kinds, "x": payload}
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        text = refused(write(tmp_path / "best.pt", torch_bytes(value, **options)))
        assert f"{os.system.__module__}.system" in text
        assert "_rebuild_tensor" not in text and "OrderedDict" not in text
    assert f"{os.system.__module__}.system" in refused(
        write(tmp_path / "x.pkl", pickle.dumps(value))
    )


def test_renaming_changes_nothing(tmp_path):
    marker = tmp_path / "marker.npy"
    for container, content in hostile_files(gadgets(marker)["open"]).items():
        told = {
            refused(write(tmp_path / f"x{suffix}", content)).replace(f"x{suffix}", "x", 1)
            for suffix in SUFFIXES
        }
        assert len(told) == 1, container
    assert not marker.exists()


def test_distributed_checkpoints_are_refused_unread(tmp_path):
    marker = tmp_path / "marker.npy"
    for number, payload in enumerate(gadgets(marker).values()):
        folder = tmp_path / f"dcp{number}"
        folder.mkdir()
        write(folder / ".metadata", pickle.dumps(payload))
        write(folder / "__0_0.distcp", torch_bytes(payload))
        refused(folder)
        refused(folder / ".metadata")
        refused(folder / "__0_0.distcp")
    assert not marker.exists()


def test_neither_environment_nor_allowlist_opens_the_door(tmp_path, monkeypatch):
    marker = tmp_path / "marker.npy"
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for payload in gadgets(marker).values():
        content = torch_bytes({**weights(), "evil": payload})
        with torch.serialization.safe_globals([payload.call[0]]):
            refused(write(tmp_path / "best.pt", content))
    assert not marker.exists()
    # The control: with the allowlist alone, torch itself runs it.
    path = write(
        tmp_path / "control.pt",
        torch_bytes({"evil": Gadget(eval, f"open({str(marker)!r}, 'w').close()")}),
    )
    with torch.serialization.safe_globals([eval]):
        torch.load(path, weights_only=True)
    assert marker.exists()


def test_a_refused_checkpoint_leaves_the_model_alone(tmp_path):
    marker = tmp_path / "marker.npy"
    path = write(tmp_path / "best.pt", torch_bytes({**weights(), "evil": gadgets(marker)["open"]}))
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_checkpoint(path, model)
    assert same(before, dict(model.state_dict())) and not marker.exists()


def test_no_module_of_the_package_loads_unsafely():
    """Every call that could unpickle says in its own arguments that it does not; one module alone may, for what is trusted."""
    seen = 0
    for source in Path(torch_zip.__file__).parents[1].rglob("*.py"):
        if source.parts[-2:] == ("checkpoint", "trusted.py"):
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert not name.endswith(
                ("pickle.load", "pickle.loads", "jit.load", "export.load", "yaml.load")
            ), source
            assert options.get("allow_pickle", "False") == "False", source
            if name == "torch.load":
                seen += 1
                assert options.get("weights_only") == "True", source
    assert seen >= 2


def test_the_app_and_its_jobs_never_trust():
    """Trust is said on the command line and in Python; no module behind the browser passes it on."""
    root = Path(torch_zip.__file__).parents[2]
    behind = [*(root / "mmaudit" / "jobs").rglob("*.py"), *(root / "dashboard").rglob("*.py")]
    assert len(behind) > 10
    for source in behind:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            named = node.arg if isinstance(node, ast.keyword) else ""
            assert named != "trust", source
            assert not (isinstance(node, ast.Constant) and node.value == "--trust-checkpoint"), (
                source
            )


def test_what_runs_foreign_code_is_imported_with_trust_alone(tmp_path):
    """In a fresh interpreter, refusals never import the module that could load what they refuse."""
    marker = tmp_path / "marker.npy"
    for number, content in enumerate(hostile_files(gadgets(marker)["mkdir"]).values()):
        write(tmp_path / f"{number}.pt", content)
    code = (
        "import pathlib, sys\n"
        "from mmaudit.checkpoint.loader import load_checkpoint\n"
        "from mmaudit.exceptions import MMAuditError\n"
        f"for path in pathlib.Path({str(tmp_path)!r}).glob('*.pt'):\n"
        "    for factory in (None, lambda: __import__('torch').nn.Linear(1, 1)):\n"
        "        try:\n"
        "            load_checkpoint(path, factory)\n"
        "        except MMAuditError:\n"
        "            continue\n"
        "        raise SystemExit(f'{path} was accepted')\n"
        "assert 'mmaudit.checkpoint.trusted' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    assert not marker.exists()


# --- damage ------------------------------------------------------------------------------------------------------------


def mutant(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    data = bytearray(content)
    kind = draw.choice(["truncate", "flip", "byte", "zero", "cut", "repeat", "swap", "append"])
    place = draw.randrange(len(data))
    length = min(draw.choice([1, 4, 64, 512]), len(data) - place)
    if kind == "truncate":
        del data[place:]
    elif kind == "flip":
        data[place] ^= 1 << draw.randrange(8)
    elif kind == "byte":
        data[place] = draw.randrange(256)
    elif kind == "zero":
        data[place : place + length] = bytes(length)
    elif kind == "cut":
        del data[place : place + length]
    elif kind == "repeat":
        data[place:place] = data[place : place + length]
    elif kind == "swap":
        other = draw.randrange(len(data) - length + 1)
        data[place : place + length], data[other : other + length] = (
            data[other : other + length],
            data[place : place + length],
        )
    else:
        data += draw.randbytes(length)
    return kind, bytes(data)


def test_damaged_torch_files_never_give_wrong_values(tmp_path):
    draw = random.Random(1)
    silent, accepted, naive = [], 0, 0
    values = {"a.weight": torch.randn(40, 20), "a.bias": torch.arange(200)}
    good = torch_bytes({"state_dict": values, "epoch": 3})
    for number in range(600):
        kind, content = mutant(good, draw)
        path = write(tmp_path / f"mutant-{number % 7}", content)
        try:
            tensors = read_weights(path).tensors
        except CheckpointError as error:
            one_sentence(error)
            naive += loads_wrong(path, values)
            continue
        accepted += 1
        if not same(tensors, values):
            silent.append((number, kind))
    assert not silent
    assert accepted < 300, "most damage is noticed"
    # The control: read without the checks, some of the same files give wrong values silently.
    assert naive > 60


def loads_wrong(path: Path, values: dict[str, torch.Tensor]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = torch.load(path, weights_only=True)
            return not same(loaded["state_dict"], values)
        except Exception:
            return False


def test_every_truncation_of_a_torch_file_is_refused(tmp_path):
    good = torch_bytes(weights())
    for length in range(0, len(good), 29):
        refused(write(tmp_path / "short", good[:length]))


def test_every_flipped_value_of_a_torch_file_is_refused(tmp_path):
    good = torch_bytes(weights())
    tensor = weights()["0.weight"].numpy().tobytes()
    start = good.index(tensor)
    for position in range(start, start + len(tensor)):
        content = bytearray(good)
        content[position] ^= 0x40
        assert "checksum" in refused(write(tmp_path / "flipped", bytes(content)))


def test_damaged_safetensors_are_refused_or_have_another_hash(tmp_path):
    """The format has no checksum: a changed value is read as it is, and only the recorded SHA-256 tells."""
    draw = random.Random(2)
    good = save_safetensors(weights())
    whole = read_weights(write(tmp_path / "good", good)).files[0].sha256
    outcomes = {"refused": 0, "same values": 0, "other values": 0}
    for number in range(400):
        kind, content = mutant(good, draw)
        path = write(tmp_path / f"mutant-{number % 7}", content)
        try:
            found = read_weights(path)
        except CheckpointError as error:
            one_sentence(error)
            outcomes["refused"] += 1
            continue
        if content == good:
            continue
        assert kind not in ("truncate", "append")
        assert found.files[0].sha256 != whole
        outcomes["other values" if changed(found.tensors) else "same values"] += 1
    assert outcomes["refused"] > 150 and outcomes["other values"] > 20, outcomes


def test_truncated_safetensors_say_so(tmp_path):
    good = save_safetensors(weights())
    for length in range(9, len(good), 5):
        assert "truncated" in refused(write(tmp_path / "short", good[:length]))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"{}garbage",
        b"[]",
        b'{"a": 1}',
        b'{"a": null}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1000000], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b"{" * 100_000,
        b'{"a": ' * 50_000 + b"1" + b"}" * 50_000,
    ],
)
def test_hostile_safetensors_headers(tmp_path, header):
    refused(write(tmp_path / "x.safetensors", safetensors_bytes(header, b"\0\0\x80\x3f")))


@pytest.mark.parametrize("name", ["best.pt", "best.safetensors"])
def test_records_that_are_marked_as_folders_are_refused(tmp_path, name):
    """Checksums still hold, and torch leaves such a record out: the weights are then what was in memory before."""
    good = torch_bytes(weights())
    assert same(read_weights(write(tmp_path / name, good)).tensors, weights())
    seen = 0
    for record, content in marked_as_folders(good).items():
        assert record in refused(write(tmp_path / name, content))
        seen += 1
    assert seen == len(records_of(good))


def test_names_that_end_as_folders_do_are_refused(tmp_path):
    records = records_of(torch_bytes(weights()))
    path = write(tmp_path / "x.pt", zip_bytes({**records, "archive/data/9/": b"content"}))
    assert "marked as a folder" in refused(path)
    # As zip programs write them: folders without content, in an archive that was made by hand.
    path = write(tmp_path / "x.pt", zip_bytes({"archive/data/": b"", **records}))
    assert same(read_weights(path).tensors, weights())


# --- bombs and lies ----------------------------------------------------------------------------------------------------


def test_compressed_records_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    records = records_of(torch_bytes(weights()))
    records["archive/data/0"] = bytes(30_000_000)
    path = write(tmp_path / "bomb.pt", zip_bytes(records, zipfile.ZIP_DEFLATED))

    def unpack(*args, **kwargs):
        raise AssertionError("unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "open", unpack)
    assert "compressed records" in refused(path)


def test_shapes_that_exceed_their_storage(tmp_path):
    for value in (torch.zeros(1).expand(10**12), torch.zeros(2, 1).expand(2, 3)):
        path = write(tmp_path / "expanded.pt", torch_bytes({"x": value}))
        assert "exceeds its storage" in refused(path)


def test_storages_that_the_archive_does_not_have(tmp_path):
    """A mapped file would give the bytes of a neighbour."""
    good = torch_bytes({"a": torch.ones(100), "b": torch.full((100,), 7.0)})
    records = records_of(good)
    short = {**records, "archive/data/0": records["archive/data/0"][:200]}
    for change in (short, {k: v for k, v in records.items() if k != "archive/data/0"}):
        refused(write(tmp_path / "lie.pt", zip_bytes(change)))


def test_pickles_that_allocate_are_refused(tmp_path):
    # The names are torch's own allowed ones; with arguments of their choice they allocate any amount.
    for name in ("builtins\nbytearray", "torch._utils\n_rebuild_device_tensor_from_cpu_tensor"):
        pickled = b"\x80\x02c" + name.encode() + b"\nJ\x00\xff\xff\x7f\x85R."
        records = {**records_of(torch_bytes(weights())), "archive/data.pkl": pickled}
        assert name.rpartition("\n")[2] in refused(write(tmp_path / "big.pt", zip_bytes(records)))


def test_a_memo_bomb_is_never_unrolled(tmp_path):
    value: object = "x"
    for _ in range(60):
        value = [value] * 10
    path = write(tmp_path / "memo.pt", torch_bytes({"state_dict": weights(), "bomb": value}))
    start = time.perf_counter()
    assert same(read_weights(path).tensors, weights())
    path = write(tmp_path / "memo.pt", torch_bytes({**weights(), "bomb": value}))
    assert "bomb" in refused(path)
    assert time.perf_counter() - start < 20, "unrolled, it has 10**60 entries"


def test_a_deep_nest_is_refused(tmp_path):
    pickled = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    records = {**records_of(torch_bytes(weights())), "archive/data.pkl": pickled}
    refused(write(tmp_path / "deep.pt", zip_bytes(records)))


def test_too_many_tensors(tmp_path, monkeypatch):
    assert safetensors_file.MOST_TENSORS == 100_000
    monkeypatch.setattr(safetensors_file, "MOST_TENSORS", 1000)
    header = {str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(1001)}
    path = write(
        tmp_path / "many.safetensors",
        safetensors_bytes(json.dumps(header, separators=(",", ":")).encode()),
    )
    assert "1001 tensors" in refused(path)
    monkeypatch.setattr(state_dict, "MOST_TENSORS", 3)
    assert "4 tensors" in refused(write(tmp_path / "many.pt", torch_bytes(weights())))
    monkeypatch.setattr(torch_zip, "MOST_TENSORS", 3)
    assert "records, more than the 3" in refused(tmp_path / "many.pt")


def test_too_large_headers(tmp_path, monkeypatch):
    for length in (10_000_001, 1 << 39):
        content = struct.pack("<Q", length) + b"{" + bytes(100)
        assert "header of" in refused(write(tmp_path / "x", content))
    path = write(tmp_path / "x.pt", torch_bytes(weights()))
    monkeypatch.setattr(torch_zip, "_BYTES_PER_RECORD", 0)
    monkeypatch.setattr(torch_zip, "_LARGEST_PICKLE", 10)
    assert "describes its tensors in more than 10 bytes" in refused(path)


def test_a_long_description_is_not_followed_to_its_end(tmp_path, monkeypatch):
    """Two million lists take seconds and hundreds of megabytes to build, and a file of them holds no weights."""
    pickled = b"\x80\x02](" + b"]" * 1_100_000 + b"e."
    path = write(tmp_path / "lists.pt", zip_bytes({"a/data.pkl": pickled, "a/version": b"3\n"}))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("built"))
    assert "more than 1000000 steps" in refused(path)
    monkeypatch.undo()
    # Each tensor brings its own share: a model of many is no bomb.
    many = write(tmp_path / "many.pt", torch_bytes({str(i): torch.ones(1) for i in range(300)}))
    monkeypatch.setattr(torch_zip, "MOST_STEPS", 0)
    assert len(read_weights(many).tensors) == 300
    monkeypatch.setattr(torch_zip, "_STEPS_PER_RECORD", 20)
    assert "steps" in refused(many)


def test_a_bound_on_the_description_leaves_room_for_the_largest_models():
    """A training state with two averages for each weight, as Adam keeps them, uses half of what is allowed."""
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(500)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    records = records_of(torch_bytes(state))
    tensors = sum(name.startswith("archive/data/") for name in records)
    pickled = records["archive/data.pkl"]
    steps = sum(1 for _ in pickletools.genops(pickled))
    assert tensors >= 3000
    assert steps < 0.8 * torch_zip._STEPS_PER_RECORD * tensors
    assert len(pickled) < 0.5 * torch_zip._BYTES_PER_RECORD * tensors


def test_a_safetensors_file_of_the_wrong_length_is_refused_before_it_is_hashed(
    tmp_path, monkeypatch
):
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}},
    ).encode()
    monkeypatch.setattr(reading, "file_record", lambda *_: pytest.fail("hashed"))
    for length in (99, 101):
        path = write(tmp_path / "x.safetensors", safetensors_bytes(header, bytes(length)))
        assert "its tensors end at byte" in refused(path)
    index = {"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}
    path = write(tmp_path / "index.json", json.dumps(index).encode())
    for name, words in (("a", "its tensors end at byte"), ("b", "lacks b")):
        good = safetensors_bytes(header, bytes(100 if name == "b" else 99))
        write(tmp_path / "x.safetensors", good)
        write(tmp_path / "y.safetensors", safetensors_bytes(header, bytes(100)))
        assert words in refused(path)


def test_keys_and_shapes_can_be_compared_before_anything_is_read(tmp_path, monkeypatch):
    class NoFitError(CheckpointError):
        pass

    def compare(found):
        assert all(tensor.is_meta for tensor in found.values())
        seen.append({key: tuple(tensor.shape) for key, tensor in found.items()})
        raise NoFitError("They do not fit.")

    seen: list[dict[str, tuple[int, ...]]] = []
    content = save_safetensors(weights())
    one = write(tmp_path / "one.safetensors", content)
    places = {"weight_map": dict.fromkeys(weights(), "one.safetensors")}
    index = write(tmp_path / "index.json", json.dumps(places).encode())
    zipped = write(tmp_path / "one.pt", torch_bytes({"state_dict": weights()}))
    monkeypatch.setattr(reading, "check_tensors", lambda *_: pytest.fail("read"))
    for path in (zipped, one, index):
        with pytest.raises(NoFitError):
            reading.read_stamped(path, "checkpoint", expects=compare)
        monkeypatch.setattr(reading, "file_record", lambda *_: pytest.fail("hashed"))
    assert seen == [{key: tuple(value.shape) for key, value in weights().items()}] * 3
    monkeypatch.undo()
    found, _ = reading.read_stamped(one, "checkpoint", expects=lambda found: None)
    assert same(found.tensors, weights())


def test_looking_for_values_that_are_not_finite_takes_little_memory(monkeypatch):
    monkeypatch.setattr(state_dict, "_PIECE", 7)
    asked = []
    real = torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda t: (asked.append(t.numel()), real(t))[1])
    assert state_dict.check_tensors(Path("x"), {"a": torch.ones(5, 4), "b": torch.ones(())}) == ()
    assert max(asked) == 7 and sum(asked) == 21
    odd = {"a": torch.ones(5, 4), "b": torch.ones(3, 5).T}
    odd["a"][4, 3] = float("nan")
    odd["b"][4, 2] = float("inf")
    (note,) = state_dict.check_tensors(Path("x"), odd)
    assert "a, b" in note


def test_unusual_tensors_are_refused_by_name(tmp_path):
    sparse = torch.eye(3).to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        files = {
            name: torch_bytes({"odd.one": value, **weights()})
            for name, value in {"sparse": sparse, "quantized": quantized, "nested": nested}.items()
        }
        files["without data"] = torch_bytes({"odd.one": torch.ones(3, device="meta"), **weights()})
    for name, content in files.items():
        text = refused(write(tmp_path / "odd.pt", content))
        assert "odd.one" in text and name in text


def test_attributes_that_hide_methods(tmp_path):
    """A file can put attributes on the containers and tensors it holds."""
    from collections import OrderedDict

    class Hidden:
        def __reduce__(self):
            hiding = dict.fromkeys(("items", "values", "keys", "get", "copy", "_metadata"), 1)
            return OrderedDict, (), hiding, None, iter(weights().items())

    hidden = Hidden()
    path = write(tmp_path / "hidden.pt", torch_bytes({"state_dict": hidden}))
    assert same(read_weights(path).tensors, weights())
    path = write(tmp_path / "hidden.pt", torch_bytes(hidden))
    assert same(read_weights(path).tensors, weights())
    tensor = torch.nn.Parameter(torch.ones(2))
    tensor.detach = 1
    tensor.untyped_storage = 1
    path = write(tmp_path / "hidden.pt", torch_bytes({"a": tensor}))
    found = read_weights(path).tensors["a"]
    assert type(found) is torch.Tensor and not vars(found)


def test_hostile_names_do_not_reach_the_terminal(tmp_path):
    evil = "a\n\x1b[31mFAKE\u202e" + "x" * 100_000
    content = torch_bytes({evil: torch.ones(2), "b": "text"})
    refused(write(tmp_path / "x.pt", content))
    content = torch_bytes({evil: torch.zeros(1).expand(5)})
    refused(write(tmp_path / "x.pt", content))
    path = write(tmp_path / "x.pt", torch_bytes({evil: torch.full((2,), float("nan"))}))
    (note,) = read_weights(path).notes
    assert note.isprintable() and len(note) < 400
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, torch.nn.Linear(1, 1))
    one_sentence(caught.value)


def test_polyglots_are_refused(tmp_path):
    """Two readers must not be able to see two files in one."""
    good, tensors = torch_bytes(weights()), save_safetensors(weights())
    for content in (
        b"#!/bin/sh\n" + good,
        good + b"\n",
        tensors + good,
        good + bytes(22),
        b"PK\x03\x04" + good,
    ):
        refused(write(tmp_path / "two", content))
    buffer = io.BytesIO(good)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"hello"
    refused(write(tmp_path / "commented", buffer.getvalue()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO(good)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("archive/data/0", bytes(48))
    assert "appears twice" in refused(write(tmp_path / "twice", buffer.getvalue()))
    records = records_of(good)
    other = {**records, **{k.replace("archive", "other"): v for k, v in records.items()}}
    assert "more than one folder" in refused(write(tmp_path / "roots", zip_bytes(other)))


def test_files_without_checksums_are_refused(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        content = torch_bytes(weights())
    finally:
        torch.serialization.set_crc32_options(True)
    assert "without checksums" in refused(write(tmp_path / "unchecked.pt", content))
