"""Finds the weights in what a file of ``torch.save`` holds, and checks each of them.

People save a bare state dict, a dictionary with the state dict under some name, or a trainer's whole state. Where several
entries hold weights, the first of ``WEIGHT_KEYS`` is taken; where none has such a name, a single one is taken and several
are joined as sub-modules. Averaged weights are looked for where they are asked for (:mod:`mmaudit.checkpoint.averages`).
The record says so in every case.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from mmaudit.checkpoint.safetensors_file import MOST_TENSORS
from mmaudit.checkpoint.wording import listed, shown
from mmaudit.exceptions import CheckpointError

__all__ = [
    "LIGHTNING_LAST",
    "WEIGHT_KEYS",
    "StateDict",
    "Wanted",
    "averaged_tensors",
    "check_tensors",
    "find_state_dict",
    "holds_weights",
    "plain",
]

Wanted: TypeAlias = Literal["model", "ema"]
"""Which weights of a checkpoint: the model's, or their exponential moving average."""

WEIGHT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "net_state_dict",
    "params",
    "weights",
    "ema_state_dict",
    "model_ema",
    "state_dict_ema",
    "params_ema",
    "ema",
)
"""Where the weights are looked for, in this order: plain weights before averaged ones."""

LIGHTNING_LAST = "current_model_state"
"""Where Lightning's averaging callbacks keep the model's own weights; ``state_dict`` then holds the average."""

_DEEPEST = 3
_HOLDERS = ("models", "modules", "nets", "networks", "state_dicts", "model_state_dicts")
_PIECE = 1 << 22


class StateDict(NamedTuple):
    """The weights, what wrote them as far as it shows, and sentences for the record."""

    tensors: dict[str, Tensor]
    writer: str
    notes: tuple[str, ...]


def find_state_dict(path: Path, loaded: Any, *, weights: Wanted = "model") -> StateDict:
    """Find the state dict in what a file holds.

    Args:
        path: The file, for messages.
        loaded: What ``torch.load`` returned.
        weights: The ``model``'s, or their exponential moving average (``ema``).

    Returns:
        Its tensors by name, detached, as plain tensors.

    Raises:
        CheckpointError: If there are no such weights, or what holds them also holds other values.
    """
    if weights == "ema":
        from mmaudit.checkpoint.averages import find_average

        return find_average(path, loaded)
    writer = "Lightning" if _is_mapping(loaded) and "pytorch-lightning_version" in loaded else ""
    trail = ""
    left: list[str] = []
    joined: list[str] = []
    for _ in range(_DEEPEST):
        if not _is_mapping(loaded):
            kind = "a single tensor" if isinstance(loaded, Tensor) else f"a {type(loaded).__name__}"
            raise CheckpointError(
                f"{shown(path)} holds {kind} and not a mapping of names to tensors; save model.state_dict()."
            )
        loaded = plain(loaded)
        inner = {
            key: plain(part)
            for key, part in loaded.items()
            if isinstance(key, str) and holds_weights(part)
        }
        known = [key for key in (LIGHTNING_LAST, *WEIGHT_KEYS) if key in inner]
        holder = _holder(loaded) if not inner else None
        if holder is not None:  # {"models": {"audio": state_dict, ...}}
            loaded = loaded[holder]
            trail = f"{trail}.{holder}" if trail else holder
            continue
        if not known and any(isinstance(v, Tensor) and v.ndim > 0 for v in loaded.values()):
            break
        if known or len(inner) == 1:
            taken = (known or list(inner))[0]
            loaded = inner.pop(taken)
            trail = f"{trail}.{taken}" if trail else taken
            left += inner
        else:
            if inner:
                loaded = {
                    f"{name}.{key}": value
                    for name in inner
                    for key, value in _unwrapped(inner[name]).items()
                }
                joined = list(inner)
            break
    name = shown(path.name)
    also = f"; the file also holds weights under {_quoted(left)}, which were left" if left else ""
    notes = [f"Took the weights under '{shown(trail)}' of {name}{also}."] * bool(trail)
    if joined:
        notes.append(f"Joined the weights under {_quoted(joined)} of {name} as sub-modules.")
    return StateDict(_plain_tensors(path, loaded, trail), writer, tuple(notes))


def averaged_tensors(
    path: Path, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The averaged weights among tensors that are all in one mapping, such as a safetensors file, and sentences on it.

    Raises:
        CheckpointError: If there are none.
    """
    found = find_state_dict(path, dict(tensors), weights="ema")
    return found.tensors, found.notes


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Check every tensor before anything is done with it.

    Returns:
        Sentences about values that are not finite. They are no error: some models hold masks of ``-inf``.

    Raises:
        CheckpointError: If there are none or too many, or one is sparse, quantized, nested or without data, or its shape
            exceeds its storage. Sparse and quantized weights are refused because their values cannot be compared as stored.
    """
    if not tensors:
        raise CheckpointError(
            f"{shown(path)} holds no tensors; save model.state_dict() of the trained model."
        )
    if len(tensors) > MOST_TENSORS:
        raise CheckpointError(
            f"{shown(path)} holds {len(tensors)} tensors, more than the {MOST_TENSORS} allowed; check the file."
        )
    odd = []
    for key, tensor in tensors.items():
        kind = _unusual(tensor)
        if kind:
            raise CheckpointError(
                f"{shown(path)} holds {shown(key, 60)} as a {kind} tensor, which cannot be loaded here;"
                " save it as an ordinary dense tensor."
            )
        if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{shown(path)} gives {shown(key, 60)} the shape {shown(tuple(tensor.shape), 60)}, which exceeds its storage"
                f" of {tensor.untyped_storage().nbytes()} bytes; save it again with .contiguous()."
            )
        if not _all_finite(tensor):
            odd.append(key)
    return (f"Values of {listed(odd, 3)} in {shown(path.name)} are not finite.",) if odd else ()


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def plain(mapping: dict[Any, Any]) -> dict[Any, Any]:
    """A plain copy; a file can set attributes on an OrderedDict that hide its own methods."""
    return dict(dict.items(mapping))


def holds_weights(value: Any, depth: int = 1) -> bool:
    """Whether a value is a mapping of names to tensors, or holds one under a known name."""
    if not _is_mapping(value) or not value:
        return False
    value = plain(value)
    if all(isinstance(key, str) for key in value) and any(
        isinstance(item, Tensor) for item in value.values()
    ):
        return True
    return depth < _DEEPEST and any(holds_weights(value.get(key), depth + 1) for key in WEIGHT_KEYS)


def _holder(loaded: dict[Any, Any]) -> str | None:
    """The entry that holds the weights of several modules by name: a known one, else the only one."""
    found = [
        key
        for key, part in loaded.items()
        if isinstance(key, str)
        and _is_mapping(part)
        and any(isinstance(k, str) and holds_weights(v) for k, v in plain(part).items())
    ]
    known = next((key for key in _HOLDERS if key in found), None)
    return known or (found[0] if len(found) == 1 else None)


def _unwrapped(mapping: dict[Any, Any]) -> dict[Any, Any]:
    """What is inside a part that keeps its weights under a known name of their own."""
    for _ in range(_DEEPEST):
        if any(isinstance(value, Tensor) for value in mapping.values()):
            break
        key = next((key for key in WEIGHT_KEYS if holds_weights(mapping.get(key))), None)
        if key is None:
            break
        mapping = plain(mapping[key])
    return mapping


def _plain_tensors(path: Path, found: Mapping[Any, Any], trail: str) -> dict[str, Tensor]:
    within = f" under '{trail}'" if trail else ""
    if not any(isinstance(value, Tensor) for value in found.values()):
        keys = f"its keys are {listed(found)}" if found else "it is empty"
        raise CheckpointError(
            f"{shown(path)} holds no weights{within}: {keys}; save model.state_dict() of the trained model."
        )
    others = [
        key
        for key, value in found.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{shown(path)} mixes weights{within} with other values ({listed(others, 3)});"
            " save the weights alone, for example under 'state_dict'."
        )
    return {key: Tensor.detach(value) for key, value in found.items()}


def _unusual(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantized"
    if tensor.device.type != "cpu":
        return f"{tensor.device.type} (without data)" if tensor.is_meta else tensor.device.type
    return ""


def _all_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
        return True
    # In pieces: the comparison of a large tensor takes as much memory as the tensor.
    parts = tensor.flatten().split(_PIECE) if tensor.is_contiguous() else [tensor]
    # float8 has no comparison of its own.
    return all(
        bool(torch.isfinite(part.float() if part.itemsize == 1 else part).all()) for part in parts
    )


def _quoted(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{shown(name, 40)}'" for name in names[:3]) + more
