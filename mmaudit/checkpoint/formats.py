"""Recognises a file by its content, never by its name.

Three formats hold weights and run nothing: safetensors, sharded safetensors, and the zip that ``torch.save`` writes. Two
hold a whole model: ONNX, and a directory of Hugging Face. All others are named and refused in one sentence. Some of them
(pickles, TorchScript, ``.pt2``) run code when they are loaded, and are loaded only where the user says to trust them;
``torch.package`` and distributed checkpoints never are. Nothing is unpickled here and no loader is tried.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmaudit.checkpoint.named_globals import told
from mmaudit.checkpoint.pickled_names import names_in_pickle
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = ["CONFIG", "FORMATS", "TRUST", "Format", "find_weights", "recognise", "refusal"]


class Format(NamedTuple):
    """What a file is, in words that follow its name, and what to do about it; ``advice`` is empty for readable formats."""

    words: str
    advice: str = ""
    trusted: bool = False
    """Whether it is loaded where the user says that the file is to be trusted."""


CONFIG = "config.json"
"""What makes a directory one of Hugging Face."""

TRUST = "where you trust it, say --trust-checkpoint (in Python trust=True)"
"""Advice for what runs code when it is loaded."""

_SAVE_WEIGHTS = (
    "where you trust it, load it with its own library and save model.state_dict() as safetensors"
)
_COPY_AGAIN = "copy or download it again"
_CONVERT = "convert it to a PyTorch state_dict first"

FORMATS: dict[str, Format] = {
    "safetensors": Format("is a safetensors file"),
    "safetensors index": Format("is the index of a sharded safetensors checkpoint"),
    "torch zip": Format("is a zip file of torch.save"),
    "torchscript": Format(
        "is a TorchScript program, which can run code when it is loaded", TRUST, trusted=True
    ),
    "pt2": Format(
        "is an exported program (.pt2), which can run code when it is loaded", TRUST, trusted=True
    ),
    "torch package": Format("is a torch.package archive, which holds code", _SAVE_WEIGHTS),
    "torch legacy": Format(
        "is a torch file of the old pickle format (before torch 1.6), which has no checksums",
        TRUST,
        trusted=True,
    ),
    "torch tar": Format("is a torch file of the oldest tar format", TRUST, trusted=True),
    "pickle": Format(
        "is a plain pickle, which can run code when it is loaded", TRUST, trusted=True
    ),
    "distributed checkpoint": Format(
        "is a distributed checkpoint (DCP), whose metadata is a pickle that can run code when it is loaded",
        _SAVE_WEIGHTS,
    ),
    "onnx": Format(
        "is an ONNX model, which holds a graph and not the weights of a module",
        "audit it as it is, without a factory",
    ),
    "ort": Format("is an ONNX Runtime file (.ort)", "give the ONNX model that it was made from"),
    "hdf5": Format("is an HDF5 file, as TensorFlow and Keras write it", _CONVERT),
    "keras": Format("is a Keras archive", _CONVERT),
    "savedmodel": Format("is a TensorFlow SavedModel", _CONVERT),
    "tflite": Format("is a TensorFlow Lite model", _CONVERT),
    "gguf": Format("is a GGUF file", _CONVERT),
    "npy": Format("is a NumPy array (.npy)", _CONVERT),
    "npz": Format("is an archive of NumPy arrays (.npz)", _CONVERT),
    "gzip": Format("is compressed with gzip", "unpack it first"),
    "bzip2": Format("is compressed with bzip2", "unpack it first"),
    "xz": Format("is compressed with xz", "unpack it first"),
    "zstandard": Format("is compressed with zstandard", "unpack it first"),
    "7z": Format("is a 7z archive", "unpack it first"),
    "rar": Format("is a RAR archive", "unpack it first"),
    "tar": Format("is a tar archive", "unpack it first and give the file of weights inside"),
    "zip": Format(
        "is a zip archive, but not one of torch.save",
        "unpack it first and give the file of weights inside",
    ),
    "crowded zip": Format(
        "is a zip archive of more records than any model has tensors", "give the file of weights"
    ),
    "truncated zip": Format("begins as a zip file but its end is missing or damaged", _COPY_AGAIN),
    "empty": Format("is empty (0 bytes)", _COPY_AGAIN),
    "zeros": Format("holds nothing but zero bytes", _COPY_AGAIN),
    "lfs pointer": Format(
        "is a Git LFS pointer, not the weights themselves", "fetch them with 'git lfs pull'"
    ),
    "html": Format(
        "is an HTML page, probably the error page of a download", "download the file itself"
    ),
    "json": Format("is a JSON file without weights", "give the file of weights"),
    "text": Format("is a text file", "give the file of weights"),
    "special": Format("is neither a file nor a directory", "give a file of weights"),
    "unknown": Format(
        "is of no known format", "give a safetensors file or a state_dict saved with torch.save"
    ),
}
"""Key -> what the file is. Only the first three have no advice, and only they can be read."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstandard"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"GGUF", "gguf"),
    (4, b"TFL3", "tflite"),
    (4, b"ORTM", "ort"),
)
_HEAD = 4096
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
_LARGEST_INDEX = 10_000_000
_MOST_FILES = 10_000
_MOST_RECORDS = 110_000
_RECORD, _END, _END_64 = b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06"
_SHORTEST_RECORD, _LONGEST_RECORD = 46, 400
"""Bytes in the directory of a zip file; the name of the file that was saved is part of each."""
_TAIL = 22 + 65_535 + 76
"""Bytes at the end of a zip file that hold what says how large its directory is: 22, a comment, and 76 in large files."""


def recognise(path: Path) -> str:
    """Name the format of a file from its content.

    Args:
        path: A file. Its name plays no part.

    Returns:
        A key of ``FORMATS``.

    Raises:
        CheckpointError: If the file does not exist or cannot be opened.
    """
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        return "special"
    if status.st_size == 0:
        return "empty"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise _unreadable(path, error) from error
    for offset, magic, key in _MAGIC:
        if head.startswith(magic, offset):
            return key
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _recognise_zip(path)
    if _begins_as_safetensors(head):
        return "safetensors"
    if head[257:262] == b"ustar":
        return _recognise_tar(path)
    if _LEGACY_MAGIC in head[:64]:
        return "torch legacy"
    if head[0] == 0x80 and head[1:2] in (b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return _recognise_text(path, head) or _recognise_rest(path, head, status.st_size)


def refusal(path: Path, key: str, names: Sequence[str] = ()) -> CheckpointError:
    """The one sentence that says what a file is and what to do instead of loading it.

    Args:
        path: The file.
        key: Its format.
        names: What a pickle in it would import.
    """
    known = FORMATS[key]
    inside = told(names)
    inside = f" and names {inside}" if inside else ""
    return CheckpointError(f"{shown(path)} {known.words}{inside}; {known.advice}.")


def find_weights(path: Path) -> Path:
    """The file to read: ``path`` itself, or what a directory holds.

    A directory is taken where it holds exactly one index of a sharded checkpoint, or else exactly one safetensors file.

    Raises:
        CheckpointError: If the path does not exist, or the directory does not say which file is meant.
    """
    if not stat.S_ISDIR(_status(path).st_mode):
        return path
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(entries) > _MOST_FILES:
        raise CheckpointError(
            f"{shown(path)} is a directory of {len(entries)} files, too many to search for weights; give the file."
        )
    names = {entry.name for entry in entries}
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        raise refusal(path, "distributed checkpoint")
    if "saved_model.pb" in names:
        raise refusal(path, "savedmodel")
    kinds = {entry: recognise(entry) for entry in entries if _is_readable_file(entry)}
    for wanted in ("safetensors index", "safetensors"):
        found = [entry for entry, kind in kinds.items() if kind == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise CheckpointError(
                f"{shown(path)} is a directory with {len(found)} files that could be meant"
                f" ({listed(entry.name for entry in found)}); give one of them, or the index of the shards."
            )
    others = [entry.name for entry, kind in kinds.items() if kind in ("torch zip", "onnx")]
    hint = (
        f"give the file itself, for example {listed(others, 1)}"
        if others
        else "give the file of weights"
    )
    raise CheckpointError(f"{shown(path)} is a directory without safetensors weights; {hint}.")


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return CheckpointError(
                f"{shown(path)} is a symbolic link to a file that does not exist; check the link."
            )
        return CheckpointError(f"{shown(path)} does not exist; check the path of the checkpoint.")
    if isinstance(error, PermissionError):
        return CheckpointError(
            f"{shown(path)} may not be read by this user; check its permissions."
        )
    if isinstance(error, NotADirectoryError):
        return CheckpointError(
            f"{shown(path)} leads through a file as if it were a directory; check the path."
        )
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return CheckpointError(
            f"{shown(path)} is a symbolic link that leads back to itself; check the link."
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return CheckpointError(
        f"{shown(path)} cannot be opened ({shown(reason)}); check the path of the checkpoint."
    )


def _is_readable_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK)
    except OSError:
        return False


def _recognise_zip(path: Path) -> str:
    try:
        if _records_of(path) > _MOST_RECORDS:
            return "crowded zip"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises half a dozen types on damaged directories
        return "truncated zip"
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        return "torchscript"
    if {"archive_format", "models/model.json"} & inside or {
        "serialized_exported_program.json",
        "serialized_state_dict.pt",
        "serialized_state_dict.json",
    } & (inside | set(names)):
        return "pt2"
    if {".data/extern_modules", ".data/python_version"} & inside:
        return "torch package"
    if "data.pkl" in inside:
        return "torch zip"
    if "model.weights.h5" in names:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "zip"


def _records_of(path: Path) -> int:
    """At most how many records a zip file has, without making an object of each, as ``zipfile`` does."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        length = max(_stated_lengths(tail), default=0)
        if length > _LONGEST_RECORD * _MOST_RECORDS:
            return length // _SHORTEST_RECORD
        start = max(0, size - _TAIL - length)
        file.seek(start)
        return file.read().count(_RECORD)


def _stated_lengths(tail: bytes) -> list[int]:
    """Sizes of the directory as the ends of the archive state it: the one that counts, and a larger one of large files."""
    found = []
    for mark, offset, width in ((_END, 12, 4), (_END_64, 40, 8)):
        place = tail.rfind(mark)
        if place >= 0:
            length = int.from_bytes(tail[place + offset : place + offset + width], "little")
            found.append(length if length != 0xFFFFFFFF else 0)
    return found


def _recognise_tar(path: Path) -> str:
    names = set()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                names.add(member.name)
                if len(names) == 8:
                    break
    except (tarfile.TarError, OSError, ValueError, EOFError):
        pass  # a damaged tar is still a tar
    return "torch tar" if {"storages", "tensors", "pickle"} & names else "tar"


def _begins_as_safetensors(head: bytes) -> bool:
    """Eight bytes of header length, then the header, a JSON object. The length is checked where the file is read."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40


def _recognise_text(path: Path, head: bytes) -> str | None:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The head may end inside a character.
        if len(head) < _HEAD or error.start < len(head) - 4:
            return None
        text = head[: error.start].decode("utf-8-sig")
    if any(not (c.isprintable() or c in "\t\n\r\f") for c in text):
        return None
    start = text.lstrip().lower()
    if start.startswith("version https://git-lfs"):
        return "lfs pointer"
    if start.startswith(("<!doctype html", "<html", "<head", "<?xml")):
        return "html"
    if start.startswith(("{", "[")):
        return _recognise_json(path) or ("pickle" if _is_pickle(path) else "text")
    return "pickle" if _is_pickle(path) else "text"


def _recognise_json(path: Path) -> str | None:
    if path.stat().st_size > _LARGEST_INDEX:
        return "json"
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None
    shards = content.get("weight_map") if isinstance(content, dict) else None
    return "safetensors index" if isinstance(shards, dict) and shards else "json"


def _recognise_rest(path: Path, head: bytes, size: int) -> str:
    fields = _protobuf_fields(head, size)
    if fields.get(1) == 0 and {7, 8} & set(fields):
        return "onnx"
    if fields.get(1) == 0 and 2 in fields and set(fields) <= {1, 2}:
        return "savedmodel"
    if _is_pickle(path):
        return "pickle"
    return "zeros" if not any(head) else "unknown"


def _is_pickle(path: Path) -> bool:
    """Whether the file is one whole pickle, read as opcodes only; older protocols have no signature."""
    if path.stat().st_size > 1_000_000:
        return False
    content = path.read_bytes()
    try:
        names_in_pickle(content)
    except Exception:  # pickletools raises half a dozen types on what is no pickle
        return False
    return content[:1] != b"."  # nothing but the end


def _protobuf_fields(head: bytes, size: int) -> dict[int, int]:
    """Top-level fields of a protobuf message, number -> wire type; empty where the bytes are no such message."""
    fields: dict[int, int] = {}
    position = 0
    while position < len(head):
        tag, position = _varint(head, position)
        number, wire = tag >> 3, tag & 7
        value, after = _varint(head, position)
        if number == 0 or wire not in (0, 2) or after < 0 or number > 30:
            return {}
        position = after if wire == 0 else after + value
        if position > size:
            return {}
        fields[number] = wire
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if not 0 <= position < len(data):
            return 0, -1
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 0, -1
