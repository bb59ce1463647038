"""What a browser may send to a callback: small values of known kinds. Anything else ends the request with status 400."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from dash.dependencies import Input, Output
from werkzeug.exceptions import BadRequest

__all__ = ["check_body", "choice", "clicked", "identity", "mapping", "text", "whole"]

_MOST_PARTS = 200
_LONGEST_ID = 80
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WHAT = "The request is not one that this app sends."


def text(value: Any, *, most: int = 300) -> str:
    """A text of bounded length; nothing is an empty one.

    Raises:
        BadRequest: If it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise BadRequest(_WHAT)
    return value


def identity(value: Any) -> str:
    """An id: letters, digits, ``_``, ``.`` and ``-``, at most 64 of them; nothing is an empty one.

    Raises:
        BadRequest: If it is something else.
    """
    found = text(value, most=64)
    if found and not _ID.fullmatch(found):
        raise BadRequest(_WHAT)
    return found


def clicked(value: Any) -> bool:
    """Whether a button was pressed, by the number of its clicks.

    Raises:
        BadRequest: If it is no number of clicks.
    """
    return value is not None and whole(value, 0, 10**9) > 0


def whole(value: Any, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        BadRequest: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(_WHAT)
    if value != int(value) or not least <= value <= most:
        raise BadRequest(_WHAT)
    return int(value)


def choice(value: Any, allowed: Collection[str]) -> str:
    """One of some words.

    Raises:
        BadRequest: If it is something else.
    """
    if not isinstance(value, str) or value not in allowed:
        raise BadRequest(_WHAT)
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping with texts as keys.

    Raises:
        BadRequest: If it is something else.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise BadRequest(_WHAT)
    return value


def check_body(body: Any, callbacks: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare a callback's request with what the app has registered; Dash itself looks at none of it.

    Args:
        body: The request's JSON.
        callbacks: ``Dash.callback_map``.

    Raises:
        BadRequest: If it names an unknown callback, or brings other inputs than the callback has.
    """
    if not isinstance(body, dict) or not isinstance(body.get("output"), str):
        raise BadRequest(_WHAT)
    callback = callbacks.get(body["output"])
    # Callbacks that run in the browser are registered too, without a function.
    if callback is None or "callback" not in callback:
        raise BadRequest(_WHAT)
    sent: set[str] = set()
    for part in ("inputs", "state"):
        sent |= _check_parts(body.get(part, []), callback[part])
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or len(changed) > _MOST_PARTS:
        raise BadRequest(_WHAT)
    if not all(isinstance(name, str) and name in sent for name in changed):
        raise BadRequest(_WHAT)
    _check_outputs(body.get("outputs"), callback["output"])


def _check_parts(given: Any, wanted: list[dict[str, Any]]) -> set[str]:
    if not isinstance(given, list) or len(given) != len(wanted):
        raise BadRequest(_WHAT)
    names: set[str] = set()
    for part, spec in zip(given, wanted, strict=True):
        wild = spec["id"].startswith("{")
        many = wild and isinstance(part, list)
        if many and len(part) > _MOST_PARTS:
            raise BadRequest(_WHAT)
        for one in part if many else [part]:
            names.add(_check_part(one, spec["id"], spec["property"], wild=wild))
    return names


def _check_part(part: Any, id: str, prop: str, *, wild: bool) -> str:
    if not isinstance(part, dict) or part.get("property") != prop:
        raise BadRequest(_WHAT)
    given = part.get("id")
    if not wild:
        if given != id:
            raise BadRequest(_WHAT)
        return f"{id}.{prop}"
    if not isinstance(given, dict) or not _is_id(given):
        raise BadRequest(_WHAT)
    return f"{Input(given, prop).component_id_str()}.{prop}"


def _check_outputs(given: Any, wanted: Any) -> None:
    alone = isinstance(wanted, Output)
    specs = [wanted] if alone else list(wanted)
    # One output comes as itself, several as a list; one with wildcards is a list of its own.
    parts = [given] if alone else given
    if not isinstance(parts, list) or len(parts) != len(specs):
        raise BadRequest(_WHAT)
    for part, spec in zip(parts, specs, strict=True):
        # Only an output with wildcards can be several, or none.
        wild = isinstance(spec.component_id, dict)
        for one in part if wild and isinstance(part, list) else [part]:
            if not isinstance(one, dict) or not isinstance(one.get("property"), str):
                raise BadRequest(_WHAT)
            # An output that several callbacks have carries a hash behind its name.
            if one["property"].partition("@")[0] != spec.component_property:
                raise BadRequest(_WHAT)
            given_id = one.get("id")
            if not _is_id(given_id) if wild else given_id != spec.component_id:
                raise BadRequest(_WHAT)


def _is_id(value: Any) -> bool:
    """Whether it can be the id of a component with wildcards: a mapping of short texts."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(text, str) and len(text) <= _LONGEST_ID
        for key, text in value.items()
    )
