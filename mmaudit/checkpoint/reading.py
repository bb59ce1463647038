"""Reads the weights of a checkpoint, whatever file they are in; each file is hashed before and unchanged after.

Weights are data: safetensors and the zip of ``torch.save`` are read as such, the latter with ``weights_only=True``, and a
refusal is never tried again in another way. What can only be loaded by running it is loaded where the caller says ``trust``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.formats import FORMATS, find_weights, recognise, refusal
from mmaudit.checkpoint.pickled_names import names_in_file
from mmaudit.checkpoint.safetensors_file import (
    described,
    described_shards,
    read_index,
    read_safetensors,
    read_shards,
)
from mmaudit.checkpoint.state_dict import Wanted, averaged_tensors, check_tensors, find_state_dict
from mmaudit.checkpoint.torch_zip import check_storages, foreign_names, read_torch_zip
from mmaudit.checkpoint.wording import shown
from mmaudit.exceptions import CheckpointError
from mmaudit.report.schema import FileRecord

__all__ = [
    "Expects",
    "Stamp",
    "WeightsFile",
    "check_unchanged",
    "file_record",
    "needs_trust",
    "read_stamped",
    "read_weights",
    "stamped",
]


Expects: TypeAlias = Callable[[Mapping[str, Tensor]], object]
"""Gets key -> tensor without data (on ``meta``) before the values are read, and raises where the weights do not fit; their
shapes count, their dtypes do not."""


class WeightsFile(NamedTuple):
    """Weights as they were read, and what the record says about them."""

    tensors: dict[str, Tensor]
    """Key -> tensor on the CPU, plain and dense, possibly mapped from the file."""
    format: str
    """For example ``safetensors`` or ``torch zip, weights only, Lightning``."""
    files: tuple[FileRecord, ...]
    """Hashed before they were read."""
    notes: tuple[str, ...]
    """Sentences for the record."""


class Stamp(NamedTuple):
    """What changes when somebody writes to a file; cheap to look at."""

    path: Path
    size: int
    modified: int
    inode: int


def read_weights(
    path: Path,
    *,
    role: str = "checkpoint",
    trust: bool = False,
    weights: Wanted = "model",
    directory: Path | None = None,
) -> WeightsFile:
    """Read the weights of a file, recognised by its content.

    Args:
        path: A safetensors file, the index of a sharded one, a zip file of ``torch.save``, or a directory with exactly one
            index or exactly one safetensors file; with ``trust`` also a pickle, TorchScript or ``.pt2``.
        role: What the file is, for the record.
        trust: Load what runs code when it is loaded; it is named on the log before.
        weights: The ``model``'s, or their exponential moving average (``ema``).
        directory: Folder that trusted pickles may import from.

    Raises:
        CheckpointError: If the file is missing, damaged, of another format, holds more than weights, or changes meanwhile.
    """
    found, stamps = read_stamped(
        Path(path), role, trust=trust, weights=weights, directory=directory
    )
    check_unchanged(stamps)
    return found


def read_stamped(
    path: Path,
    role: str,
    *,
    trust: bool = False,
    weights: Wanted = "model",
    directory: Path | None = None,
    home: Any = None,
    expects: Expects | None = None,
) -> tuple[WeightsFile, list[Stamp]]:
    """As :func:`read_weights`, with what has to be unchanged once the values, which may be mapped, have been copied.

    Args:
        path: The same.
        role: The same.
        trust: The same.
        weights: The same.
        directory: The same.
        home: Where a trusted pickle's classes of ``__main__`` are looked for.
        expects: Called with the keys and shapes before a safetensors file is hashed and before any value is read, so that a
            file of any size that does not fit is refused at once. Not called for what is trusted, and not for averages.
    """
    file = find_weights(path)
    kind = recognise(file)
    if trust and needs_trust(file, kind):
        return _read_trusted(file, kind, role, weights, directory, home)
    if FORMATS[kind].advice:
        raise refusal(file, kind, names_in_file(file, kind) if FORMATS[kind].trusted else ())
    try:
        return _read_known(file, kind, role, weights, expects)
    except CheckpointError:
        raise
    except (
        Exception
    ) as error:  # whatever a damaged file makes of its reader, it is one sentence here
        raise CheckpointError(
            f"{shown(file)} cannot be read ({type(error).__name__}); copy or download it again."
        ) from error


def needs_trust(file: Path, kind: str) -> bool:
    """Whether a file can be loaded only by running what is in it.

    Raises:
        CheckpointError: If it is a damaged zip file of torch.save.
    """
    return FORMATS[kind].trusted or (kind == "torch zip" and bool(foreign_names(file)))


def file_record(path: Path, role: str) -> FileRecord:
    """Path, size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(path=str(path), sha256=digest, bytes=file.tell(), role=role)


def stamped(path: Path) -> Stamp:
    """Look at a file, for :func:`check_unchanged`."""
    status = path.stat()
    return Stamp(path, status.st_size, status.st_mtime_ns, status.st_ino)


def check_unchanged(stamps: list[Stamp]) -> None:
    """Check that files are as they were.

    Raises:
        CheckpointError: If one was written to or replaced.
    """
    for stamp in stamps:
        if not stamp.path.exists() or stamped(stamp.path) != stamp:
            raise CheckpointError(
                f"{shown(stamp.path)} changed while it was read; wait until it is written and load it again."
            )


def _read_known(
    file: Path, kind: str, role: str, weights: Wanted, expects: Expects | None
) -> tuple[WeightsFile, list[Stamp]]:
    stamps = [stamped(file)]
    expects = expects if weights == "model" else None
    notes: tuple[str, ...] = ()
    words = "safetensors"
    if kind == "torch zip":
        records = [file_record(file, role)]
        loaded, sizes = read_torch_zip(file)
        state = find_state_dict(file, loaded, weights=weights)
        del loaded  # the optimizer's state and the like
        tensors, notes = state.tensors, state.notes
        words = ", ".join(["torch zip, weights only", *([state.writer] if state.writer else [])])
        if expects is not None and not any(tensor.is_nested for tensor in tensors.values()):
            expects({key: torch.empty(t.shape, device="meta") for key, t in tensors.items()})
        notes += check_tensors(file, tensors)
        check_storages(file, tensors, sizes)
        return WeightsFile(tensors, words, tuple(records), notes), stamps
    if kind == "safetensors":
        # Before it is hashed: the header alone tells most damage, and hashing takes a second for each gigabyte.
        found = described(file)
        if expects is not None:
            expects(found)
        records = [file_record(file, role)]
        tensors = read_safetensors(file)
    else:
        places, names = read_index(file)
        for name in names:
            recognise(file.parent / name)  # says so where a shard is missing
            stamps.append(stamped(file.parent / name))
        found = described_shards(file, places)
        if expects is not None:
            expects(found)
        records = [file_record(place, role) for place in (file, *map(file.parent.joinpath, names))]
        tensors = read_shards(file, places)
        words = f"safetensors in {len(names)} shards"
    if weights == "ema":
        tensors, notes = averaged_tensors(file, tensors)
    notes += check_tensors(file, tensors)
    return WeightsFile(tensors, words, tuple(records), notes), stamps


def _read_trusted(
    file: Path,
    kind: str,
    role: str,
    weights: Wanted,
    directory: Path | None,
    home: Any,
) -> tuple[WeightsFile, list[Stamp]]:
    # Here, so that whoever trusts nothing does not even import what runs foreign code.
    from mmaudit.checkpoint.trusted import load_trusted

    stamps = [stamped(file)]
    records = (file_record(file, role),)
    loaded = load_trusted(file, kind, weights=weights, directory=directory, home=home)
    tensors, notes = _tensors_of(file, loaded.value, weights)
    notes = (*loaded.notes, *notes, *check_tensors(file, tensors))
    return WeightsFile(tensors, f"{loaded.words}, trusted", records, notes), stamps


def _tensors_of(
    file: Path, value: Any, weights: Wanted
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if not isinstance(value, nn.Module):
        found = find_state_dict(file, value, weights=weights)
        return found.tensors, found.notes
    state = value.state_dict()
    others = [key for key, tensor in state.items() if not isinstance(tensor, Tensor)]
    if others:
        raise CheckpointError(
            f"{shown(file)} holds a module with state that is no tensor ({shown(others[0], 60)}); save its weights without it."
        )
    return {key: Tensor.detach(tensor) for key, tensor in state.items()}, (
        f"Took the weights of the {type(value).__name__} in {shown(file.name, 60)}.",
    )
