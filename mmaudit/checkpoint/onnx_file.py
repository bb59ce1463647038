"""Checks an ONNX file before a runtime sees it, and copies what it refers to into a private folder.

An ONNX file may keep weights in other files, by paths that are the file's own choice. The runtime follows hard links, and in
older versions more than that, so every such path is checked here: relative, downwards, through no link, to an ordinary file
with one name. What was checked is copied and only the copy is loaded. The protocol buffer is read with the ``onnx``
package, which comes with the extra: tensors hide in attributes, functions and sub-graphs, and a reader of our own would miss some.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError
from mmaudit.report.schema import FileRecord

__all__ = ["OnnxFile", "private_copy"]

_OWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Of operators that the runtime has itself."""

_OUTSIDE = frozenset(
    {"EPContext", "PythonOp", "PythonOpGrad", "ATen", "ATenGrad", "TritonOp", "ExternalGraph"}
)
"""Operators of the runtime that reach for other files, other code or other devices."""

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_MOST_FILES = 10_000
_LARGEST_GRAPH = 2**31 - 1
_PIECE = 1 << 22


class OnnxFile(NamedTuple):
    """A checked ONNX model in a folder of its own."""

    path: Path
    records: tuple[FileRecord, ...]
    opset: int
    producer: str


def private_copy(path: Path, folder: Path) -> OnnxFile:
    """Check an ONNX model and copy it with its external data.

    Args:
        path: The model.
        folder: An empty folder that nobody else writes to; it has to stay until the runtime has read it.

    Returns:
        The copy, with the SHA-256 of every file that went into it.

    Raises:
        CheckpointError: If the file is damaged, needs operators that are no part of the runtime, or refers to data that is not an
            ordinary file below its own folder.
    """
    import onnx

    if path.stat().st_size > _LARGEST_GRAPH:
        raise CheckpointError(
            f"{shown(path)} is larger than 2 GiB, which no ONNX graph is; keep its weights as external data."
        )
    content = path.read_bytes()
    records = [
        FileRecord(
            path=str(path),
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            role="checkpoint",
        )
    ]
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)} is a damaged ONNX file ({type(error).__name__} while reading it); copy or download it again."
        ) from error
    if not model.graph.node and not model.graph.output:
        raise CheckpointError(f"{shown(path)} is an ONNX file without a graph; export it again.")
    parts = list(_messages(model))
    _check_operators(path, model, [part for part in parts if isinstance(part, onnx.NodeProto)])
    copies: dict[str, str] = {}
    for tensor in parts:
        if not isinstance(tensor, onnx.TensorProto):
            continue
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            if tensor.external_data:
                raise _refused(path, "keeps data inside and outside at once")
            continue
        location, offset, length = _external(path, tensor)
        if location not in copies:
            if len(copies) == _MOST_FILES:
                raise _refused(path, f"refers to more than {_MOST_FILES} files")
            copies[location] = f"data{len(copies)}"
            records.append(_copied(path, location, folder / copies[location]))
        size = (folder / copies[location]).stat().st_size
        if offset + (length or 0) > size:
            raise _refused(path, f"refers to bytes behind the end of '{shown(location, 60)}'")
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = copies[location]
    target = folder / "model.onnx"
    target.write_bytes(model.SerializeToString() if copies else content)
    try:
        onnx.checker.check_model(str(target))
    except Exception as error:
        reason = shown(" ".join(str(error).split()), 160).rstrip(".")
        raise CheckpointError(
            f"{shown(path)} is no valid ONNX model ({reason}); export it again."
        ) from error
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return OnnxFile(target, tuple(records), max(versions, default=0), shown(producer, 60))


def _messages(message: Any) -> Iterator[Any]:
    """A protocol buffer message and every one inside it, wherever it is."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is None:
                continue
            waiting += [value] if hasattr(value, "ListFields") else list(value)


def _check_operators(path: Path, model: Any, nodes: list[Any]) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    foreign: dict[str, None] = {}
    for node in nodes:
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in _OWN_DOMAINS or node.op_type in _OUTSIDE:
            foreign[f"{node.domain or 'ai.onnx'}.{node.op_type}"] = None
    if foreign:
        raise CheckpointError(
            f"{shown(path)} needs operators that are no part of onnxruntime ({listed(foreign, 3)}); export it with standard"
            " operators only."
        )


def _external(path: Path, tensor: Any) -> tuple[str, int, int | None]:
    """Where a tensor's data lies: path, first byte, number of bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not set(entries) <= _KEYS:
        raise _refused(path, f"describes the data of '{shown(tensor.name, 40)}' in an unknown way")
    location = entries.get("location", "")
    numbers = []
    for key in ("offset", "length"):
        text = entries.get(key, "0")
        if not (text.isascii() and text.isdecimal()) or len(text) > 18:
            raise _refused(path, f"gives '{shown(text, 20)}' as the {key} of external data")
        numbers.append(int(text))
    parts = PurePosixPath(location).parts
    harmless = (
        location.strip()
        and location.isprintable()
        and not set(location) & set('\\:*?"<>|\0')
        and parts
        and ".." not in parts
        and not PurePosixPath(location).is_absolute()
        and "." not in location.split("/")
    )
    if not harmless:
        raise _refused(
            path, f"places data in '{shown(location, 60)}', which is no path below its own folder"
        )
    return location, numbers[0], numbers[1] if "length" in entries else None


def _copied(path: Path, location: str, target: Path) -> FileRecord:
    """Copy a file of external data, through no link, and hash what was copied."""
    place = path.parent
    for part in PurePosixPath(location).parts:
        place = place / part
        try:
            status = place.lstat()
        except OSError:
            raise _refused(
                path, f"places data in '{shown(location, 60)}', which does not exist"
            ) from None
        if stat.S_ISLNK(status.st_mode):
            raise _refused(path, f"places data in '{shown(location, 60)}', behind a symbolic link")
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _NONBLOCK)
        with os.fdopen(descriptor, "rb") as source, target.open("xb") as copy:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _refused(
                    path, f"places data in '{shown(location, 60)}', which is no ordinary file"
                )
            if status.st_nlink != 1:
                raise _refused(
                    path,
                    f"places data in '{shown(location, 60)}', which has {status.st_nlink} names (hard links)",
                )
            while piece := source.read(_PIECE):
                digest.update(piece)
                copy.write(piece)
                size += len(piece)
    except OSError as error:
        raise _refused(
            path, f"places data in '{shown(location, 60)}', which cannot be read ({error.strerror})"
        ) from error
    return FileRecord(path=str(place), sha256=digest.hexdigest(), bytes=size, role="checkpoint")


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""So that a pipe in the place of a file is refused and not waited for."""


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(path)} {what}; keep external data as an ordinary file beside the model."
    )
