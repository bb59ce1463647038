from __future__ import annotations

import os
import shutil
import struct
import warnings
import zipfile

import pytest
import torch

from mmaudit.checkpoint import formats
from mmaudit.checkpoint.formats import FORMATS, find_weights, recognise, refusal
from mmaudit.checkpoint.loader import read_weights
from mmaudit.exceptions import CheckpointError
from tests.checkpoint.files import foreign_files, rename_all, save_safetensors, torch_bytes, weights

FOREIGN = foreign_files()


def one_sentence(error: Exception) -> str:
    text = str(error)
    assert "\n" not in text and "\r" not in text and text.isprintable()
    assert text.endswith(".") and len(text) < 400, text
    return text


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files_are_named_and_refused_whatever_they_are_called(tmp_path, what):
    key, content = FOREIGN[what]
    path = tmp_path / "file"
    path.write_bytes(content)
    for copy in [path, *rename_all(path)]:
        assert recognise(copy) == key
        with pytest.raises(CheckpointError) as caught:
            read_weights(copy)
        assert FORMATS[key].words in one_sentence(caught.value)
        assert copy.name in str(caught.value)


def test_every_format_that_cannot_be_read_is_tried_above():
    tried = {key for key, _ in FOREIGN.values()}
    # Two are no files, one is large; they have tests of their own.
    assert {key for key, known in FORMATS.items() if known.advice} - tried == {
        "distributed checkpoint",
        "special",
        "crowded zip",
    }


def test_readable_formats_are_recognised_under_any_name(tmp_path):
    for key, content in [
        ("safetensors", save_safetensors(weights())),
        ("torch zip", torch_bytes(weights())),
        ("safetensors index", b'{"metadata": {}, "weight_map": {"a": "one.safetensors"}}'),
    ]:
        path = tmp_path / key.replace(" ", "-")
        path.write_bytes(content)
        assert {recognise(copy) for copy in [path, *rename_all(path)]} == {key}
        assert not FORMATS[key].advice


@pytest.mark.parametrize("comment", [b"", b"x" * 65_535])
def test_zip_files_of_very_many_records_are_not_listed(tmp_path, monkeypatch, comment):
    assert formats._MOST_RECORDS > 100_000
    monkeypatch.setattr(formats, "_MOST_RECORDS", 70_000)
    path = tmp_path / "many.pt"
    for most, key in ((70_000, "zip"), (70_001, "crowded zip")):  # above 65535 by the larger format
        record = b"PK\x01\x02" + bytes(24) + b"\1\0" + bytes(16) + b"a"
        end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 0, len(comment))
        large = struct.pack(
            "<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, most, most, most * len(record), 4
        )
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, 4 + most * len(record), 1)
        path.write_bytes(b"PK\3\4" + record * most + large + locator + end + comment)
        with monkeypatch.context() as patched:
            if key != "zip":
                patched.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("listed"))
            assert recognise(path) == key


@pytest.mark.parametrize("key", [key for key, known in FORMATS.items() if known.advice])
def test_refusals_are_one_sentence_even_for_hostile_names(tmp_path, key):
    name = "a\nb\x1b[31m" + "x" * 300
    text = one_sentence(refusal(tmp_path / name, key))
    assert "\x1b" not in text


def test_a_distributed_checkpoint_is_refused(tmp_path):
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(weights(), checkpoint_id=tmp_path / "dcp")
    with pytest.raises(CheckpointError, match=r"distributed checkpoint \(DCP\)"):
        read_weights(tmp_path / "dcp")
    with pytest.raises(CheckpointError, match="plain pickle"):
        read_weights(tmp_path / "dcp" / ".metadata")
    # A part of it is a torch zip for each tensor, joined: neither one archive nor a state dict.
    for part in (tmp_path / "dcp").glob("*.distcp"):
        with pytest.raises(CheckpointError) as caught:
            read_weights(part)
        one_sentence(caught.value)


def test_directories(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(
        CheckpointError, match="without safetensors weights; give the file of weights"
    ):
        find_weights(folder)
    (folder / "config.json").write_text("{}")
    (folder / "best.bin").write_bytes(torch_bytes(weights()))
    with pytest.raises(CheckpointError, match=r"give the file itself, for example best\.bin"):
        find_weights(folder)
    one = folder / "weights-without-suffix"
    one.write_bytes(save_safetensors(weights()))
    assert find_weights(folder) == one
    shutil.copy(one, folder / "two.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"2 files that could be meant \(two\.safetensors, weights-without-suffix\)",
    ):
        find_weights(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "two.safetensors"}}')
    assert find_weights(folder) == index


def test_tensorflow_directories_are_named(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(CheckpointError, match="TensorFlow SavedModel"):
        find_weights(tmp_path)


def test_places_that_are_no_files(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    broken = tmp_path / "broken"
    broken.symlink_to(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in [
        (loop, "leads back to itself"),
        (broken, "symbolic link to a file that does not exist"),
        (tmp_path / "nowhere", "does not exist"),
        (file / "below", "leads through a file"),
        (tmp_path / ("x" * 300), "cannot be opened"),
        (tmp_path / "nul\0byte", "cannot be opened"),
        (pipe, "neither a file nor a directory"),
    ]:
        with pytest.raises(CheckpointError, match=words) as caught:
            read_weights(path)
        one_sentence(caught.value)


def test_a_link_to_a_good_file_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(save_safetensors(weights()))
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    assert torch.equal(
        read_weights(tmp_path / "model.safetensors").tensors["0.bias"], weights()["0.bias"]
    )


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_permissions(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(torch_bytes(weights()))
    path.chmod(0)
    with pytest.raises(CheckpointError, match="check its permissions"):
        read_weights(path)


def test_a_refused_permission_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_bytes(torch_bytes(weights()))

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(CheckpointError, match="check its permissions"):
        recognise(path)
