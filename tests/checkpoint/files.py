"""Files for the tests of loading: good ones, foreign ones, and payloads that leave a harmless mark when they run."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import pickletools
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_safetensors


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "0.weight": torch.randn(4, 3, generator=generator),
        "0.bias": torch.randn(4, generator=generator),
        "1.weight": torch.randn(2, 4, generator=generator),
        "1.bias": torch.randn(2, generator=generator),
    }


def torch_bytes(value: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def zip_bytes(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def records_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def marked_as_folders(content: bytes) -> dict[str, bytes]:
    """Record -> the zip file with one bit changed, which says that this record is a folder; no checksum covers it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries, place = archive.infolist(), archive.start_dir
    found = {}
    for entry in entries:
        changed = bytearray(content)
        assert changed[place : place + 4] == b"PK\x01\x02"
        changed[place + 38] |= 0x10
        found[entry.filename] = bytes(changed)
        place += 46 + sum(struct.unpack_from("<HHH", content, place + 28))
    return found


def tar_bytes(records: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in records.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def safetensors_bytes(header: dict[str, object] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def torchscript_bytes() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def package_bytes() -> bytes:
    from torch.package import PackageExporter

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PackageExporter(buffer) as exporter:
            exporter.save_pickle("model", "model.pkl", {"a": 1})
    return buffer.getvalue()


def pt2_bytes() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
        torch.export.save(program, buffer)
    return buffer.getvalue()


ONNX = (
    bytes.fromhex("0808")
    + b"\x12\x07pytorch"
    + b"\x1a\x052.0.0"
    + b"\x3a\x04\x0a\x02ab"
    + b"\x42\x02\x10\x11"
)


def foreign_files() -> dict[str, tuple[str, bytes]]:
    """What it is -> (key of FORMATS, content)."""
    array = io.BytesIO()
    np.save(array, np.ones(3))
    arrays = io.BytesIO()
    np.savez(arrays, a=np.ones(3))
    good = torch_bytes(weights())
    legacy = torch_bytes(weights(), _use_new_zipfile_serialization=False)
    return {
        "torchscript": ("torchscript", torchscript_bytes()),
        "exported program": ("pt2", pt2_bytes()),
        "exported program, older layout": (
            "pt2",
            zip_bytes(
                {
                    "serialized_exported_program.json": b"{}",
                    "serialized_state_dict.pt": good,
                    "version": b"1",
                }
            ),
        ),
        "package": ("torch package", package_bytes()),
        "legacy": ("torch legacy", legacy),
        "legacy, higher protocol": (
            "torch legacy",
            torch_bytes(weights(), _use_new_zipfile_serialization=False, pickle_protocol=4),
        ),
        "old tar": (
            "torch tar",
            tar_bytes({"sys_info": b"x", "pickle": b"x", "tensors": b"x", "storages": b"x"}),
        ),
        "pickle": ("pickle", pickle.dumps({"a": 1})),
        "pickle, protocol 0": ("pickle", pickle.dumps({"a": [1, "b"]}, protocol=0)),
        "pickle, protocol 1": ("pickle", pickle.dumps({"a": [1, "b"]}, protocol=1)),
        "pickle, protocol 2": ("pickle", pickle.dumps([1, 2], protocol=2)),
        "onnx": ("onnx", ONNX),
        "savedmodel": ("savedmodel", b"\x08\x01\x12\x04abcd"),
        "hdf5": ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
        "keras": (
            "keras",
            zip_bytes({"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"x"}),
        ),
        "tflite": ("tflite", b"\x1c\0\0\0TFL3" + bytes(50)),
        "ort": ("ort", b"\x28\0\0\0ORTM" + bytes(50)),
        "gguf": ("gguf", b"GGUF\3\0\0\0" + bytes(50)),
        "npy": ("npy", array.getvalue()),
        "npz": ("npz", arrays.getvalue()),
        "gzip": ("gzip", gzip.compress(good)),
        "bzip2": ("bzip2", b"BZh91AY&SY" + bytes(20)),
        "xz": ("xz", b"\xfd7zXZ\x00" + bytes(20)),
        "zstandard": ("zstandard", b"\x28\xb5\x2f\xfd" + bytes(20)),
        "7z": ("7z", b"7z\xbc\xaf\x27\x1c" + bytes(20)),
        "rar": ("rar", b"Rar!\x1a\x07\x01\x00" + bytes(20)),
        "tar": ("tar", tar_bytes({"best.pt": good})),
        "zip": ("zip", zip_bytes({"best.pt": good, "notes.txt": b"n"})),
        "empty zip": ("zip", zip_bytes({})),
        "half a zip": ("truncated zip", good[: len(good) // 2]),
        "empty": ("empty", b""),
        "zeros": ("zeros", bytes(5000)),
        "lfs": (
            "lfs pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:"
            + b"a" * 64
            + b"\nsize 12345\n",
        ),
        "html": ("html", b"\n<!DOCTYPE html><html><body>404</body></html>"),
        "json": ("json", b'{"hidden_size": 768}'),
        "json list": ("json", b"[1, 2]"),
        "damaged json": ("text", b'{"hidden_size": '),
        "yaml": ("text", b"model: train:build\n"),
        "text": ("text", "Gr\u00fc\u00dfe\n".encode() * 2000),
        "random": ("unknown", bytes(range(200, 256)) * 20),
        "one byte": ("unknown", b"\xff"),
    }


def rename_all(path: Path) -> list[Path]:
    """Copies of a file under names that promise another format."""
    content = path.read_bytes()
    copies = []
    for name in (
        "a.safetensors",
        "b.pt",
        "c.ckpt",
        "d.onnx",
        "e.model.safetensors.index.json",
        "f",
    ):
        copy = path.with_name(f"renamed-{name}")
        copy.write_bytes(content)
        copies.append(copy)
    return copies


class Gadget:
    """Pickles to a call that leaves a mark: whoever loads it unsafely creates the marker."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def gadgets(marker: Path) -> dict[str, Gadget]:
    """Ways to run code on unpickling; each creates ``marker``."""
    import builtins
    import runpy
    import shutil
    import subprocess

    # Read when they run: the marker's folder has a script and a file to copy.
    script = marker.parent / "script.py"
    script.write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    source = marker.parent / "source"
    source.touch()
    name = str(marker)
    return {
        "os.system": Gadget(os.system, f"echo > {name}"),
        "subprocess": Gadget(subprocess.call, ["touch", name]),
        "eval": Gadget(eval, f"open({name!r}, 'w').close()"),
        "exec": Gadget(exec, f"open({name!r}, 'w').close()"),
        "open": Gadget(builtins.open, name, "w"),
        "mkdir": Gadget(os.mkdir, name),
        "copy": Gadget(shutil.copy, str(source), name),
        "touch": Gadget(Path.touch, Path(name)),
        "runpy": Gadget(runpy.run_path, str(script)),
        "nested loads": Gadget(pickle.loads, pickle.dumps(Gadget(os.mkdir, name))),
        "numpy": Gadget(np.save, name, np.ones(1)),
        "torch": Gadget(torch.save, torch.ones(1), name),
    }


def hostile_files(payload: Gadget) -> dict[str, bytes]:
    """Container -> file that carries the payload."""
    good = weights()
    bad = {**good, "evil": payload}
    pickled = pickle.dumps(payload, protocol=2)
    zipped = torch_bytes(bad)
    return {
        "zip, in the state dict": zipped,
        "zip, alone": torch_bytes(payload),
        "zip, beside the state dict": torch_bytes({"state_dict": good, "optimizer": payload}),
        "zip, deep inside": torch_bytes(
            {"model": {"state_dict": {**good, "x": [{"y": (payload,)}]}}}
        ),
        "zip, as a key": torch_bytes({"state_dict": good, payload: 1}) if payload.__hash__ else b"",
        "zip, Lightning": torch_bytes(
            {
                "pytorch-lightning_version": "2.0",
                "state_dict": good,
                "hyper_parameters": {"x": payload},
            }
        ),
        "zip, newer protocol": torch_bytes(bad, pickle_protocol=4),
        "zip, newest protocol": torch_bytes(bad, pickle_protocol=5),
        "zip, payload first": zip_bytes({"a/data.pkl": pickled, "a/version": b"3\n"}),
        "zip, deflated": zip_bytes(records_of(zipped), zipfile.ZIP_DEFLATED),
        "zip, upper case": zip_bytes(
            {**records_of(torch_bytes(good)), "archive/DATA.PKL": pickled}
        ),
        "zip, second archive behind": torch_bytes(good) + zipped,
        "zip, second archive before": zipped + torch_bytes(good),
        "zip in a zip": zip_bytes({"best.pt": zipped}),
        "legacy": torch_bytes(bad, _use_new_zipfile_serialization=False),
        "tar": tar_bytes({"pickle": pickled, "storages": pickled, "tensors": pickled}),
        "pickle 0": pickle.dumps(payload, protocol=0),
        "pickle 1": pickle.dumps({"w": payload}, protocol=1),
        "pickle 2": pickled,
        "pickle 4": pickle.dumps({"w": payload}, protocol=4),
        "pickle, optimised": pickletools.optimize(pickle.dumps([payload], protocol=4)),
        "torchscript": zip_bytes(
            {**records_of(zipped), "archive/constants.pkl": pickled, "archive/code/m.py": b""}
        ),
        "pt2": zip_bytes(
            {
                "m/archive_format": b"pt2",
                "m/models/model.json": b"{}",
                "m/data/sample_inputs/model.pt": torch_bytes(payload),
                "m/data.pkl": pickled,
            }
        ),
        "pt2, older": zip_bytes(
            {"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": zipped}
        ),
        "package": zip_bytes(
            {"p/.data/extern_modules": b"os", "p/model.pkl": pickled, "p/data.pkl": pickled}
        ),
        "numpy objects": _object_array(payload),
        "gzip": gzip.compress(pickled),
    }


def _object_array(payload: Gadget) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload], dtype=object), allow_pickle=True)
    return buffer.getvalue()


__all__ = [
    "ONNX",
    "Gadget",
    "foreign_files",
    "gadgets",
    "hostile_files",
    "marked_as_folders",
    "records_of",
    "rename_all",
    "safetensors_bytes",
    "save_safetensors",
    "tar_bytes",
    "torch_bytes",
    "weights",
    "zip_bytes",
]
