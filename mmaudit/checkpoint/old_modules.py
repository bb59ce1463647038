"""Gives pickled modules of older versions of torch the attributes that newer versions read.

A pickled module carries the attributes its class had when it was saved, and torch's own ``__setstate__`` fills in only some of
what came later. An attribute added since has, with few exceptions, a constructor argument of its name, whose default is what
older versions did. Arguments that the class's code never reads as an attribute have none.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["completed"]

_NO_ATTRIBUTES = frozenset({"self", "device", "dtype", "bias"})


def completed(model: nn.Module) -> tuple[str, ...]:
    """Add missing attributes of torch's own modules in place.

    Args:
        model: A module that was unpickled.

    Returns:
        What was added, as ``module.attribute``.

    Example:
        >>> old = nn.GELU()
        >>> del old.approximate
        >>> completed(old), old.approximate
        (('GELU.approximate',), 'none')
    """
    added: dict[str, None] = {}
    for module in list(model.modules()):
        kind = _torch_class(module)
        if kind is None:
            continue
        # A class can be hashed; the checker sees what its instances say.
        defaults = _defaults(kind)  # type: ignore[arg-type]
        for name, value in {**defaults, **_derived(module)}.items():
            if not hasattr(module, name):
                setattr(module, name, value)
                added[f"{kind.__name__}.{name}"] = None
        tracks = isinstance(module, _NormBase) and module.track_running_stats
        if tracks and not hasattr(module, "num_batches_tracked"):
            module.register_buffer("num_batches_tracked", torch.tensor(0))
            added[f"{kind.__name__}.num_batches_tracked"] = None
    return tuple(added)


def _torch_class(module: nn.Module) -> type[nn.Module] | None:
    """The first class of torch itself among a module's own and its bases; users derive from them."""
    for kind in type(module).__mro__:
        if kind in (nn.Module, object):
            return None
        if kind.__module__.startswith("torch.nn.modules."):
            return kind
    return None


@cache
def _defaults(kind: type[nn.Module]) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    read = _attributes_read(kind)
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.default is not parameter.empty
        and parameter.name not in _NO_ATTRIBUTES
        and parameter.name in read
        and isinstance(parameter.default, (bool, int, float, str, type(None)))
    }


def _attributes_read(kind: type[nn.Module]) -> set[str]:
    """What the code of a class and its bases says after ``self.``."""
    names: set[str] = set()
    for base in kind.__mro__:
        if base is nn.Module:
            break
        names |= set(re.findall(r"\bself\.(\w+)", inspect.getsource(base)))
    return names


def _derived(module: nn.Module) -> dict[str, Any]:
    """Attributes without an argument of their own."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and not isinstance(
        module.padding, str
    ):
        both_sides = [size for size in reversed(module.padding) for _ in range(2)]
        return {"_reversed_padding_repeated_twice": both_sides}
    if isinstance(module, nn.TransformerEncoderLayer):
        activation = getattr(module, "activation", None)
        is_relu = activation is nn.functional.relu or isinstance(activation, nn.ReLU)
        is_gelu = activation is nn.functional.gelu or isinstance(activation, nn.GELU)
        return {"activation_relu_or_gelu": 1 if is_relu else 2 if is_gelu else 0}
    if isinstance(module, nn.TransformerEncoder):
        return {"enable_nested_tensor": False, "use_nested_tensor": False}
    return {}
