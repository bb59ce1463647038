"""Finds the call that builds a module anew: its class with the arguments it was made with, as far as the module still tells.

A pickled module brings its class's name and its attributes, but not its constructor's arguments. Most constructors keep their
arguments under their own names, so they are read from there, the module is built a second time and the two are compared
module by module. Where they differ, or something cannot be compared, there is no call: a wrong one would be worse.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmaudit.checkpoint.model import seeded

__all__ = ["BuildingCall", "building_call"]

_PLAIN = (bool, int, float, str, type(None))
_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
_SKIPPED = frozenset({"self", "device", "dtype"})


class BuildingCall(NamedTuple):
    """An expression that builds a module, and the classes that it names and torch does not have: name -> class."""

    expression: str
    classes: dict[str, type]


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
    classes: dict[str, type] = {}
    try:
        with seeded(0):
            expression, again = _call(model, classes)
    except (
        Exception
    ):  # a constructor may do anything with arguments that are not those it was given
        return None
    return BuildingCall(expression, classes) if _same(model, again) else None


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
        value = getattr(module, name, default)
        if name == "bias" and (isinstance(value, Tensor) or value is None):
            value = value is not None
        if not _is_plain(value):
            if default is parameter.empty:
                raise _NoCallError
            continue
        if default is parameter.empty or value != default or type(value) is not type(default):
            found[name] = value
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return type(value) is dict and all(
            isinstance(key, str) and _is_plain(part) for key, part in value.items()
        )
    return isinstance(value, _PLAIN) and type(value) in _PLAIN


def _same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = dict(one.named_modules()), dict(other.named_modules())
    return list(ours) == list(theirs) and all(
        _same_module(module, theirs[name]) for name, module in ours.items()
    )


def _same_module(one: nn.Module, other: nn.Module) -> bool:
    if type(one) is not type(other) or one._forward_hooks or one._forward_pre_hooks:
        return False
    for mine, its in ((one._parameters, other._parameters), (one._buffers, other._buffers)):
        shapes = [{name: _shape(value) for name, value in part.items()} for part in (mine, its)]
        if shapes[0] != shapes[1]:
            return False
    mine, its = _settings(one), _settings(other)
    return set(mine) == set(its) and all(_equal(mine[name], its[name]) for name in mine)


def _shape(value: Tensor | None) -> Any:
    return None if value is None else tuple(value.shape)


def _settings(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in ("training", "forward")
    }


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        return _same(one, other)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other).all())
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # foreign comparisons
        return False
