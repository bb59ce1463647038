"""Reading an audit file as YAML, and telling what is wrong with it in the words of those who wrote it."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mmaudit.exceptions import SpecError
from mmaudit.masking.mask_spec import MASK_KINDS
from mmaudit.masking.yaml_text import parse_yaml, yaml_fault

__all__ = ["checkpoint_paths", "fault_sentences", "load_yaml"]

_LARGEST_FILE = 1_000_000
_MOST_ALIASES = 100


def load_yaml(path: Path) -> Mapping[str, Any]:
    """Read the mapping that a YAML file holds; nothing in it is executed.

    Args:
        path: The file, at most 1 MB.

    Raises:
        SpecError: If there is no such file, it is too large, it is no YAML, or it holds something else than a mapping.
    """
    if not path.is_file():
        raise SpecError(f"{path}: no such file; 'mmaudit init' drafts one")
    if path.stat().st_size > _LARGEST_FILE:
        raise SpecError(f"{path.name}: larger than 1 MB, which no audit file is")
    try:
        text = path.read_text(encoding="utf-8")
        tokens = yaml.scan(text, Loader=yaml.SafeLoader)
        # Aliases of aliases grow without end when they are written out.
        if sum(isinstance(token, yaml.AliasToken) for token in tokens) > _MOST_ALIASES:
            raise SpecError(f"{path.name}: more than {_MOST_ALIASES} YAML aliases")
        value = parse_yaml(text)
    except SpecError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{path.name}: {yaml_fault(error)}") from None
    if not isinstance(value, Mapping):
        raise SpecError(
            f"{path.name}: expected a mapping with 'model', 'data', 'modalities', ..., found {type(value).__name__}"
        )
    return value


def checkpoint_paths(value: Any) -> Any:
    """What may stand under ``checkpoint``: a path, or sub-module -> path.

    Args:
        value: What stands there; ``None`` stays.

    Raises:
        ValueError: If it is something else; the sentence says what to write.

    Example:
        >>> checkpoint_paths({0: "audio.pt"})
        {'0': 'audio.pt'}
    """
    if value is None or (isinstance(value, (str, Path)) and str(value).strip()):
        return value
    expected = "expected a path, or {sub-module: path}"
    if not isinstance(value, Mapping):
        raise ValueError(f"{expected}, found {_cut(value)}; write the path of the weights")
    for part, path in value.items():
        if isinstance(path, Mapping) and path:
            inner = f"{part}.{next(iter(path))}"
            raise ValueError(
                f"{expected}, found a mapping under {_cut(part)}; name a part of a sub-module with a dot ({_cut(inner)})"
            )
        if not isinstance(path, (str, Path)) or not str(path).strip():
            raise ValueError(
                f"{expected}, found {_cut(path)} for {_cut(part)}; write the path of its weights, or take it out"
            )
    return {str(part): path for part, path in value.items()}


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fault_sentences(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    """Say each fault in a line: path, what came, what is allowed.

    Args:
        error: What pydantic found.
        kind: What was to be read, for the keys that it may have.

    Returns:
        Sentences, each once, in the order of the file.
    """
    seen: dict[str, None] = {}
    for fault in error.errors(include_url=False):
        location = [str(step) for step in fault["loc"]]
        # The union of masks puts the kind into the path; a reader of the YAML has never written it.
        if "mask" in location:
            at = location.index("mask")
            location = location[: at + 2] + [
                step for step in location[at + 2 :] if step not in MASK_KINDS
            ]
        path = ".".join(location) or "the file"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            allowed = _allowed(kind, location[:-1])
            near = difflib.get_close_matches(location[-1], allowed, 1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            message = (
                f"unknown key{hint} (allowed: {', '.join(allowed)})" if allowed else "unknown key"
            )
        elif fault["type"] == "missing":
            message = "is required"
        elif fault["type"] not in ("value_error",):
            message = f"{message[0].lower()}{message[1:]}, found {_cut(fault.get('input'))}"
        seen[f"{path}: {message}"] = None
    return list(seen)


def _allowed(kind: type[BaseModel], location: Iterable[str]) -> list[str]:
    """Field names at a place of the spec, for the message about a typo."""
    current: Any = kind
    for step in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(step)
            if field is None:
                return []
            current = field.annotation
        else:  # a mapping: its values
            current = get_args(current)[-1] if get_args(current) else None
        if get_origin(current) in (Union, types.UnionType):
            models = [
                a for a in get_args(current) if isinstance(a, type) and issubclass(a, BaseModel)
            ]
            mappings = [a for a in get_args(current) if get_origin(a) is dict]
            current = (models or mappings or [None])[0]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
