"""Whether two modules compute the same once they hold the same state dict.

Everything is compared that a state dict does not bring: classes, shapes, hooks, attributes however they are named, methods that
an instance replaces, and values of buffers that are not saved. What cannot be compared counts as different.
"""

from __future__ import annotations

import functools
import weakref
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["difference"]

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_DEEPEST = 20


def difference(one: nn.Module, other: nn.Module) -> str:
    """Name the first thing in which two modules differ and which a state dict does not bring.

    Args:
        one: A module.
        other: Another.

    Returns:
        ``module.attribute``; empty where they are the same.

    Example:
        >>> difference(nn.Dropout(0.1), nn.Dropout(0.2)), difference(nn.Linear(2, 1), nn.Linear(2, 1))
        ('p', '')
    """
    ours: dict[str, nn.Module] = dict(one.named_modules())
    theirs: dict[str, nn.Module] = dict(other.named_modules())
    for name in (*ours, *theirs):
        if name not in ours or name not in theirs:
            return name
    if list(ours) != list(theirs):
        return "order of modules"
    pair = _Pair(one, other)
    for name, module in ours.items():
        differs = pair.module_difference(module, theirs[name])
        if differs:
            return f"{name}.{differs}" if name else differs
    return ""


class _Pair:
    """Two trees of modules, in which equal things have equal names."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        self.names = [_names(root) for root in (one, other)]

    def module_difference(self, one: nn.Module, other: nn.Module) -> str:
        if type(one) is not type(other):
            return type(one).__name__
        if list(one._modules) != list(other._modules):  # in a Sequential the order counts
            return min(set(one._modules) ^ set(other._modules), default="order of modules")
        for module in (one, other):
            if module._forward_hooks or module._forward_pre_hooks:
                return "forward hooks"
        unsaved: set[str] = one._non_persistent_buffers_set
        odd = unsaved ^ other._non_persistent_buffers_set
        if odd:
            return min(odd)
        for held, theirs in ((one._parameters, other._parameters), (one._buffers, other._buffers)):
            names: list[str] = [*held, *theirs]
            for name in names:
                both = name in held and name in theirs
                if not both or _shape(held[name]) != _shape(theirs[name]):
                    return name
        for name in unsaved:
            if not _rounded_equal(one._buffers.get(name), other._buffers.get(name)):
                return name
        mine, its = _settings(one), _settings(other)
        for name in (*mine, *its):
            if name in mine and name in its:
                if not self.equal(mine[name], its[name]):
                    return name
            # Private attributes of torch's own modules come and go with its versions.
            elif not (name.startswith("_") and type(one).__module__.startswith("torch.nn.")):
                return name
        return ""

    def equal(self, one: Any, other: Any, depth: int = 0) -> bool:
        """Whether two attributes mean the same; a member of one tree only equals its namesake in the other."""
        registered = [
            names.get(id(value)) for names, value in zip(self.names, (one, other), strict=True)
        ]
        if registered != [None, None]:
            return registered[0] == registered[1]
        if type(one) is not type(other) or depth > _DEEPEST:
            return False
        if isinstance(one, nn.Module):  # its weights are in no state dict
            return False
        if one is other:
            return True
        if isinstance(one, Tensor):
            return one.dtype == other.dtype and _rounded_equal(one, other)
        if isinstance(one, np.ndarray):
            return one.dtype == other.dtype and one.dtype != object and np.array_equal(one, other)
        if isinstance(one, dict):
            return list(one) == list(other) and all(
                self.equal(value, other[key], depth + 1) for key, value in one.items()
            )
        if isinstance(one, (list, tuple)):
            return len(one) == len(other) and all(
                self.equal(a, b, depth + 1) for a, b in zip(one, other, strict=True)
            )
        if isinstance(one, weakref.ref):
            return self.equal(one(), other(), depth + 1)
        if isinstance(one, MethodType):
            return one.__func__ is other.__func__ and self.equal(
                one.__self__, other.__self__, depth + 1
            )
        if isinstance(one, functools.partial):
            return self.equal(
                (one.func, one.args, one.keywords),
                (other.func, other.args, other.keywords),
                depth + 1,
            )
        try:
            return bool(one == other)
        except Exception:  # foreign comparisons
            return False


def _names(root: nn.Module) -> dict[int, str]:
    """Modules, parameters and saved buffers by identity; loading a state dict makes namesakes the same."""
    found: dict[int, str] = {}
    for prefix, module in root.named_modules():
        found[id(module)] = f"module {prefix}"
        for name, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None and name not in module._non_persistent_buffers_set:
                found.setdefault(id(value), f"tensor {prefix}.{name}")
    return found


def _settings(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}


def _shape(value: Tensor | None) -> Any:
    return None if value is None else tuple(value.shape)


def _rounded_equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Equal values, in the coarser of two dtypes: a module that was cast is built uncast."""
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.layout != other.layout or one.is_quantized:
        return False
    if one.dtype != other.dtype:
        if not (one.is_floating_point() and other.is_floating_point()):
            return False
        coarse = max((one.dtype, other.dtype), key=lambda dtype: torch.finfo(dtype).eps)
        one, other = one.to(coarse), other.to(coarse)
    try:
        same = (one == other) | ((one != one) & (other != other))
    except RuntimeError:  # dtypes without a comparison
        return False
    return bool(same.all())
