"""Paths into batches and model outputs: ``batch.0.audio``, ``inputs.pixel_values``, ``logits``.

A path is a dotted string. Each segment is a key of a mapping, an index of a sequence, or an attribute of an object; a key that
contains dots itself is found as well. A leading ``batch`` is dropped and ``batch`` alone is the whole container, so an entry
that is really called ``batch`` is written ``batch.batch``. Tensors, arrays and strings are leaves.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmaudit.exceptions import DataError

__all__ = [
    "find_value",
    "get_value",
    "leaf_values",
    "map_leaves",
    "map_tensors",
    "split_path",
    "tensor_paths",
    "with_values",
]

_ROOT = "batch"
_LEAVES = (Tensor, np.ndarray, np.generic, str, bytes, int, float, bool, complex, type(None), type)
_DEEPEST = 32


class _AbsentError(Exception):
    """A key of a mapping, or an attribute, that is not there."""


def split_path(path: str) -> tuple[str, ...]:
    """Segments of a path without the leading ``batch``; empty for ``batch`` alone.

    Raises:
        DataError: If a segment is empty.

    Example:
        >>> split_path("batch.0.audio"), split_path("batch")
        (('0', 'audio'), ())
    """
    segments = tuple(path.split("."))
    if not all(segments):
        raise DataError(f"path '{path}' has an empty segment; write for example 'batch.0.audio'")
    return segments[1:] if segments[0] == _ROOT else segments


def get_value(container: Any, path: str) -> Any:
    """Value at a path.

    Args:
        container: Mapping, sequence, dataclass, namedtuple or any object with attributes, nested as deep as the path says.
        path: See the module.

    Raises:
        DataError: If a step does not exist; the sentence says what exists there.

    Example:
        >>> get_value({"inputs": [1, {"audio": 2}]}, "batch.inputs.1.audio")
        2
    """
    value, rest = container, split_path(path)
    while rest:
        try:
            value, rest, _ = _step(value, rest, path)
        except _AbsentError:
            raise DataError(f"path '{path}': no '{rest[0]}' in {_contents(value)}") from None
    return value


def find_value(container: Any, path: str) -> Any | None:
    """Value at a path, or ``None`` where a key or attribute on the way is absent or ``None``.

    Raises:
        DataError: If the path cannot mean anything here: it goes into a tensor or past the end of a sequence.
    """
    value, rest = container, split_path(path)
    while rest:
        if value is None:
            return None
        try:
            value, rest, _ = _step(value, rest, path)
        except _AbsentError:
            return None
    return value


def with_values(container: Any, values: Mapping[str, Any]) -> Any:
    """Copy of a container with the leaves at some paths replaced; the original stays as it is and the rest is shared.

    Args:
        container: As for :func:`get_value`.
        values: Path -> new value. The path ``batch`` replaces the container; a last key that a mapping lacks is added.

    Raises:
        DataError: If a path does not exist, or an object on the way cannot be copied with another value.

    Example:
        >>> with_values(([1, 2], {"y": 3}), {"0.1": 7})
        ([1, 7], {'y': 3})
    """
    for path, value in values.items():
        container = _replaced(container, split_path(path), value, path)
    return container


def tensor_paths(container: Any) -> dict[str, Tensor]:
    """All tensors of a container by their paths, in the order in which they are stored.

    Objects that are neither mappings, sequences nor dataclasses are looked into through their ``__dict__``.

    Example:
        >>> import torch
        >>> list(tensor_paths({"x": torch.zeros(2), "more": [torch.zeros(1), "text"]}))
        ['x', 'more.0']
    """
    found: dict[str, Tensor] = {}

    def visit(value: Any, segments: tuple[str, ...]) -> None:
        if isinstance(value, Tensor):
            prefix = (_ROOT,) if not segments or segments[0] == _ROOT else ()
            found[".".join(prefix + segments)] = value
        elif len(segments) < _DEEPEST:
            for key, item in _items(value):
                visit(item, (*segments, str(key)))

    visit(container, ())
    return found


def map_tensors(container: Any, function: Callable[[Tensor], Any]) -> Any:
    """Copy of a container with a function applied to every tensor; the container itself where nothing changes.

    Example:
        >>> import torch
        >>> map_tensors((torch.ones(1), "name"), lambda x: x + 1)
        (tensor([2.]), 'name')
    """
    return map_leaves(container, Tensor, function)


def leaf_values(container: Any) -> tuple[tuple[str, object], ...]:
    """Everything in a container that is no tensor, with its type, in a form that can be compared and hashed.

    Example:
        >>> leaf_values({"scale": 0.5, "names": ["a", "b"]})
        (('float', 0.5), ('str', 'a'), ('str', 'b'))
    """
    found: list[tuple[str, object]] = []

    def visit(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            found.append((f"array {leaf.dtype} {leaf.shape}", leaf.tobytes()))
        else:
            found.append((type(leaf).__name__, leaf))
        return leaf

    map_leaves(
        container, (str, bytes, int, float, complex, type(None), np.ndarray, np.generic), visit
    )
    return tuple(found)


def map_leaves(
    container: Any, kinds: type | tuple[type, ...], function: Callable[[Any], Any]
) -> Any:
    """Copy of a container with a function applied to every leaf of some types; shared where nothing changes."""

    def visit(value: Any, depth: int) -> Any:
        if isinstance(value, kinds):
            return function(value)
        if depth >= _DEEPEST:
            return value
        changed: dict[Any, Any] = {}
        for key, item in _items(value):
            new = visit(item, depth + 1)
            if new is not item:
                changed[key] = new
        return _copied(value, changed, "batch") if changed else value

    return visit(container, 0)


def _step(value: Any, rest: tuple[str, ...], path: str) -> tuple[Any, tuple[str, ...], Any]:
    """One step along a path: the value, the segments left, and the key that was used."""
    segment = rest[0]
    if isinstance(value, Mapping):
        for length in range(1, len(rest) + 1):
            name = ".".join(rest[:length])
            for key in (name, int(name)) if _is_index(name) else (name,):
                if key in value:
                    return value[key], rest[length:], key
        if not hasattr(type(value), segment) and segment in getattr(value, "__dict__", {}):
            return getattr(value, segment), rest[1:], segment
        raise _AbsentError
    if isinstance(value, Sequence) and not isinstance(value, _LEAVES):
        if _is_index(segment):
            if not -len(value) <= int(segment) < len(value):
                raise DataError(f"path '{path}': index {segment} is outside {_contents(value)}")
            return value[int(segment)], rest[1:], int(segment)
        if segment in getattr(value, "_fields", ()):
            return getattr(value, segment), rest[1:], segment
        raise DataError(
            f"path '{path}': expected an index instead of '{segment}' in {_contents(value)}"
        )
    if isinstance(value, _LEAVES):
        raise DataError(f"path '{path}': cannot go on to '{segment}', there is {_contents(value)}")
    try:
        return getattr(value, segment), rest[1:], segment
    except AttributeError:
        raise _AbsentError from None


def _replaced(container: Any, rest: tuple[str, ...], value: Any, path: str) -> Any:
    if not rest:
        return value
    try:
        inner, left, key = _step(container, rest, path)
    except _AbsentError:
        if len(rest) == 1 and isinstance(
            container, MutableMapping
        ):  # a modality that a batch leaves out
            return _added(container, rest[0], value)
        raise DataError(f"path '{path}': no '{rest[0]}' in {_contents(container)}") from None
    return _copied(container, {key: _replaced(inner, left, value, path)}, path)


def _added(container: MutableMapping[Any, Any], key: str, value: Any) -> Any:
    other = _copied(container, {}, key)
    other[key] = value
    return other


def _copied(container: Any, changed: Mapping[Any, Any], path: str) -> Any:
    """Shallow copy with some entries exchanged, of the container's own type."""
    try:
        if isinstance(container, tuple):
            fields = getattr(container, "_fields", ())
            at = {
                fields.index(key) if key in fields else key % len(container): new
                for key, new in changed.items()
            }
            entries = [at.get(i, item) for i, item in enumerate(container)]
            return type(container)._make(entries) if fields else type(container)(entries)  # type: ignore[attr-defined]
        if dataclasses.is_dataclass(container) and not isinstance(container, type | Mapping):
            initial = {field.name for field in dataclasses.fields(container) if field.init}
            if set(changed) <= initial and len(initial) == len(dataclasses.fields(container)):
                return dataclasses.replace(container, **changed)
        other = copy.copy(container)
        if isinstance(container, Mapping):
            _separate_store(container, other)
        for key, new in changed.items():
            _put(other, key, new)
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"path '{path}': a {type(container).__name__} cannot be copied with another value ({error});"
            " let the batch be made of dicts, lists, tuples or dataclasses"
        ) from error
    return other


def _put(container: Any, key: Any, value: Any) -> None:
    if isinstance(container, Sequence) or (isinstance(container, Mapping) and key in container):
        container[key] = value  # type: ignore[index]
    elif key in getattr(container, "__dict__", {}) and not isinstance(
        getattr(type(container), key, None), property
    ):
        # Past a __setattr__ of the object's own, which may put the value elsewhere than where it was found.
        container.__dict__[key] = value
    else:
        setattr(container, key, value)


def _separate_store(container: Any, other: Any) -> None:
    """Give a copied wrapper around a dict a dict of its own, which ``copy.copy`` may leave shared."""
    inner = getattr(other, "__dict__", {}).get("data")
    if isinstance(inner, dict) and inner is container.__dict__.get("data"):
        other.__dict__["data"] = dict(inner)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    """Entries of a container, nothing for a leaf."""
    if isinstance(value, _LEAVES):
        return
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, Sequence):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                yield field.name, getattr(value, field.name)
    elif not callable(value):
        yield from getattr(value, "__dict__", {}).items()


def _is_index(segment: str) -> bool:
    return segment.removeprefix("-").isdecimal()


def _contents(value: Any) -> str:
    """What is there, for an error."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        keys = ", ".join(str(key) for key in list(value)[:12])
        return (
            f"a {name} with {keys}{', ...' if len(value) > 12 else ''}"
            if keys
            else f"an empty {name}"
        )
    if isinstance(value, Tensor | np.ndarray):
        return f"a {name} of shape {tuple(value.shape)}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"a {name} of length {len(value)}"
    names = [key for key in getattr(value, "__dict__", {}) if not key.startswith("_")]
    return f"a {name} with {', '.join(names[:12])}" if names else f"a {name}"
