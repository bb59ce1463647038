"""Reads safetensors: one file, or the shards that an index names.

The format runs no code, but it has no checksum either: a flipped bit in a value cannot be noticed. The SHA-256 that the
record keeps is what a later reading is compared with.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmaudit.checkpoint.formats import recognise, refusal
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = [
    "MOST_TENSORS",
    "described",
    "described_shards",
    "read_index",
    "read_safetensors",
    "read_shards",
]

MOST_TENSORS = 100_000
"""More tensors than any real model has; a file of millions of empty ones takes minutes and gigabytes."""
_LARGEST_HEADER = 10_000_000


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read one safetensors file.

    Args:
        path: The file, already recognised as safetensors.

    Returns:
        Key -> tensor on the CPU, in the file's order; mapped from the file where the platform allows it.

    Raises:
        CheckpointError: If the header is too large, damaged or repeats a key, or the file is shorter or longer than it says.
    """
    described(path)
    try:
        return dict(load_file(path, device="cpu"))
    except Exception as error:
        raise CheckpointError(
            f"{shown(path)} is a damaged safetensors file ({_reason(error)}); copy or download it again."
        ) from error


def described(path: Path) -> dict[str, Tensor]:
    """What a safetensors file says that it holds, from its header alone, however large it is.

    Args:
        path: The file, already recognised as safetensors.

    Returns:
        Key -> tensor without data (on the device ``meta``) of the stated shape. Its dtype says nothing.

    Raises:
        CheckpointError: If the header is too large, damaged or repeats a key, or the file is shorter or longer than it says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise CheckpointError(
                f"{shown(path)} has a safetensors header of {length} bytes, more than the {_LARGEST_HEADER} allowed;"
                " check the file."
            )
        if 8 + length > size:
            raise CheckpointError(
                f"{shown(path)} is a truncated safetensors file: its header says {8 + length} bytes, it has {size};"
                " copy or download it again."
            )
        header = file.read(length)
    try:
        entries = json.loads(header, object_pairs_hook=_distinct)
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged_header(path, shown(error, 60)) from error
    if len(entries) > MOST_TENSORS:
        raise CheckpointError(
            f"{shown(path)} holds {len(entries)} tensors, more than the {MOST_TENSORS} allowed; check the file."
        )
    if 8 + length + end != size:
        state = "truncated" if 8 + length + end > size else "damaged"
        raise CheckpointError(
            f"{shown(path)} is a {state} safetensors file: its tensors end at byte {8 + length + end}, it has {size};"
            " copy or download it again."
        )
    tensors = {}
    for key, shape in shapes.items():
        try:
            tensors[key] = torch.empty(shape, device="meta")
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            reason = f"'{shown(key, 40)}' has the shape {shown(shape, 40)}"
            raise _damaged_header(path, reason) from error
    return tensors


def described_shards(path: Path, places: dict[str, Path]) -> dict[str, Tensor]:
    """What the shards of an index say that they hold, as :func:`described`.

    Args:
        path: The index, for messages.
        places: Key -> shard, from :func:`read_index`.

    Raises:
        CheckpointError: As of :func:`read_shards`, as far as it shows without the values.
    """
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        kind = recognise(shard)
        if kind != "safetensors":
            raise (
                CheckpointError(
                    f"{shown(shard)} is a torch file, but shards must be safetensors; convert them."
                )
                if kind in ("torch zip", "safetensors index")
                else refusal(shard, kind)
            )
        found = described(shard)
        promised = {key for key, place in places.items() if place == shard}
        if promised != set(found):
            missing, extra = sorted(promised - set(found)), sorted(set(found) - promised)
            what = f"lacks {listed(missing)}" if missing else f"also holds {listed(extra)}"
            raise CheckpointError(
                f"{shown(shard)} {what}, against what {shown(path.name, 40)} says; copy or download the shards again."
            )
        tensors |= found
    return tensors


def read_index(path: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Read the index of a sharded checkpoint.

    Args:
        path: The index, a JSON file with a ``weight_map`` of key -> file name.

    Returns:
        Key -> shard, and the names of the shards, sorted.

    Raises:
        CheckpointError: If a shard's name leads out of the index's folder.
    """
    shards: dict[str, Any] = json.loads(path.read_bytes())["weight_map"]
    if len(shards) > MOST_TENSORS:
        raise CheckpointError(
            f"{shown(path)} names {len(shards)} tensors, more than the {MOST_TENSORS} allowed; check the file."
        )
    places = {}
    for key, name in shards.items():
        inside = isinstance(name, str) and name.strip() and "\\" not in name and "\0" not in name
        parts = PurePosixPath(name).parts if inside else ("..",)
        if ".." in parts or PurePosixPath(*parts).is_absolute() or ":" in parts[0]:
            raise CheckpointError(
                f"{shown(path)} places {shown(key, 40)} in '{shown(name, 60)}', which is no file in the index's own folder;"
                " put all shards beside the index."
            )
        places[key] = path.parent / name
    return places, tuple(sorted(set(shards.values())))


def read_shards(path: Path, places: dict[str, Path]) -> dict[str, Tensor]:
    """Read the shards that an index names, and check that together they hold exactly the keys it promises.

    Args:
        path: The index, for messages.
        places: Key -> shard, from :func:`read_index`.

    Raises:
        CheckpointError: If a shard is missing, of another format or damaged, or holds other keys than the index says.
    """
    described_shards(path, places)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        tensors |= read_safetensors(shard)
    return tensors


def _damaged_header(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(path)} has a damaged safetensors header ({reason}); copy or download it again."
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key appears twice")
    return entries


def _reason(error: Exception) -> str:
    return shown(str(error).partition(":")[2].strip() or type(error).__name__, 80)
