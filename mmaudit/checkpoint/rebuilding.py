"""Finds the call that builds a module anew: its class with the arguments it was made with, as far as the module still tells.

A pickled module brings its class's name and its attributes, but not its constructor's arguments. Most constructors keep their
arguments under their own names (or with an underscore before), so they are read from there, the module is built again and
everything that weights do not bring is compared (:mod:`mmaudit.checkpoint.sameness`). Where something differs, or cannot be
compared, there is no call: a wrong one would be worse.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmaudit.checkpoint.model import seeded
from mmaudit.checkpoint.sameness import difference

__all__ = ["BuildingCall", "Rebuilding", "building_call", "rebuilding"]

_PLAIN = (bool, int, float, str, type(None))
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_SKIPPED = frozenset({"self", "device", "dtype"})
_SEEDS = (0, 104_729)


class BuildingCall(NamedTuple):
    """An expression that builds a module, and the classes that it names and torch does not have: name -> class."""

    expression: str
    classes: dict[str, type]


class Rebuilding(NamedTuple):
    """The call that builds a module, or what stands against it.

    Attributes:
        call: The call; ``None`` where there is none that gives the same module again.
        difference: What a module built so would have otherwise, as ``module.attribute``; empty where nothing could be built.
    """

    call: BuildingCall | None
    difference: str = ""


class _NoCallError(Exception):
    """The module does not tell how it was built."""


def building_call(model: nn.Module) -> BuildingCall | None:
    """Find the call that builds a module of the same classes, shapes and settings.

    Args:
        model: Any module.

    Returns:
        The call, tried out; ``None`` where there is none that gives the same module again.

    Example:
        >>> building_call(nn.Sequential(nn.Linear(2, 3), nn.ReLU())).expression
        'nn.Sequential(nn.Linear(in_features=2, out_features=3), nn.ReLU())'
    """
    return rebuilding(model).call


def rebuilding(model: nn.Module) -> Rebuilding:
    """As :func:`building_call`, and where there is no call: what a module built from its attributes would have otherwise."""
    found: BuildingCall | None = None
    # Twice, from two seeds: what a constructor draws and no state dict holds would be another draw each time.
    for seed in _SEEDS:
        classes: dict[str, type] = {}
        try:
            with seeded(seed):
                expression, again = _call(model, classes)
        except (
            Exception
        ):  # a constructor may do anything with arguments that are not those it was given
            return Rebuilding(None)
        differs = difference(model, again)
        if differs:
            return Rebuilding(None, differs)
        found = BuildingCall(expression, classes)
    return Rebuilding(found)


def _call(module: nn.Module, classes: dict[str, type]) -> tuple[str, nn.Module]:
    """An expression and what it builds."""
    kind = type(module)
    if kind in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        parts = {name: _call(child, classes) for name, child in module.named_children()}
        modules = {name: built for name, (_, built) in parts.items()}
        if kind is nn.ModuleDict:
            inside = ", ".join(f"{name!r}: {text}" for name, (text, _) in parts.items())
            return f"nn.ModuleDict({{{inside}}})", nn.ModuleDict(modules)
        if list(parts) != [str(i) for i in range(len(parts))]:
            if kind is nn.ModuleList:
                raise _NoCallError
            inside = ", ".join(f"({name!r}, {text})" for name, (text, _) in parts.items())
            named = nn.Sequential()
            for name, built in modules.items():
                named.add_module(name, built)
            return f"nn.Sequential(OrderedDict([{inside}]))", named
        inside = ", ".join(text for text, _ in parts.values())
        if kind is nn.ModuleList:
            return f"nn.ModuleList([{inside}])", nn.ModuleList(modules.values())
        return f"nn.Sequential({inside})", nn.Sequential(*modules.values())
    name = kind.__name__
    if getattr(nn, name, None) is kind:
        shown = f"nn.{name}"
    elif "<locals>" in kind.__qualname__ or not name.isidentifier():
        raise _NoCallError
    else:
        if classes.setdefault(name, kind) is not kind:
            raise _NoCallError
        shown = name
    arguments = _arguments(module, kind)
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{shown}({written})", kind(**arguments)


def _arguments(module: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    source = nn.RNNBase if kind in _RECURRENT else kind
    found: dict[str, Any] = {}
    for parameter in inspect.signature(source).parameters.values():
        name, default = parameter.name, parameter.default
        if name in _SKIPPED or (name == "mode" and source is nn.RNNBase):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise _NoCallError
        value = _kept(module, name, default)
        if name == "bias" and (isinstance(value, Tensor) or value is None):
            value = value is not None
        if not _is_plain(value):
            if default is parameter.empty:
                raise _NoCallError
            continue
        if default is parameter.empty or value != default or type(value) is not type(default):
            found[name] = value
    return found


def _kept(module: nn.Module, name: str, default: Any) -> Any:
    """What a module keeps of an argument: under its name, else privately; plain values before others."""
    mangled = [f"_{kind.__name__.lstrip('_')}__{name}" for kind in type(module).__mro__]
    held = [getattr(module, kept) for kept in (name, f"_{name}", *mangled) if hasattr(module, kept)]
    return next((value for value in held if _is_plain(value)), held[0] if held else default)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return type(value) is dict and all(
            isinstance(key, str) and _is_plain(part) for key, part in value.items()
        )
    if type(value) is float and not math.isfinite(value):  # what is written would be no Python
        return False
    return type(value) in _PLAIN
