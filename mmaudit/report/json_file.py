"""Models of pydantic as JSON files: one sentence for whatever is wrong, and nothing but finite numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from mmaudit.exceptions import RecordError
from mmaudit.report.store import write_json_atomic

__all__ = ["read_model", "save_model"]

_Model = TypeVar("_Model", bound=BaseModel)


def read_model(file: Path, model: type[_Model], *, what: str, version: int) -> _Model:
    """Read a file that :func:`save_model` wrote.

    Args:
        file: Where it lies.
        model: What it holds; it has a field ``schema_version``.
        what: Its name in messages, such as ``comparison``.
        version: The version that is read.

    Raises:
        RecordError: If it cannot be read, is damaged or truncated, holds NaN or infinity, or has an unknown version.
    """
    try:
        value = json.loads(file.read_bytes(), parse_constant=_not_a_number, parse_float=_finite)
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror or error}") from error
    except RecordError as error:
        raise RecordError(f"{file} is no {what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{file} is damaged or truncated: not readable as JSON ({error})"
        ) from error
    if not isinstance(value, Mapping) or "schema_version" not in value:
        raise RecordError(
            f"{file} is no {what}: expected a mapping with 'schema_version', found {type(value).__name__}"
        )
    found = value["schema_version"]
    if found != version or isinstance(found, bool):
        raise RecordError(
            f"{file} has version {found!r:.40}; this mmaudit reads version {version}: use the mmaudit that wrote it"
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        where = ".".join(str(step) for step in faults[0]["loc"])
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise RecordError(
            f"{file} is no whole {what}: {where}: {faults[0]['msg']}{more}"
        ) from error


def save_model(file: Path, value: BaseModel, *, what: str) -> Path:
    """Write a model in one step: afterwards the file is there whole, or as it was before.

    Raises:
        RecordError: If it cannot be written.
    """
    try:
        content = value.model_dump(mode="json")
    except PydanticSerializationError as error:
        raise RecordError(f"the {what} cannot be written as JSON: {error}") from error
    write_json_atomic(file, content)
    return file


def _not_a_number(text: str) -> float:
    raise RecordError(f"it holds {text}, and only finite numbers may be in it")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RecordError(f"it holds {text}, which is too large for a number")
    return value
