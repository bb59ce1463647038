"""Requests as a browser sends them to Dash's callbacks."""

from __future__ import annotations

import json
from typing import Any

_WILD = {"ALL", "MATCH", "ALLSMALLER"}


def body(app, output: str, values: dict[str, Any], *, triggered: str | None = None) -> dict:
    """A well-formed request.

    Args:
        app: The app.
        output: Part of the callback's id.
        values: ``component.property`` -> value; of a wildcard with ALL, a list of (id, value).
        triggered: ``component.property`` that changed; left out, the first input.
    """
    known = [key for key, spec in app.callback_map.items() if "callback" in spec]
    found = [key for key in known if key == output] or [key for key in known if output in key]
    assert len(found) == 1, found
    spec = app.callback_map[found[0]]
    wanted = spec["output"] if isinstance(spec["output"], list | tuple) else spec["output"]
    outputs = [_output(o) for o in wanted] if isinstance(wanted, list | tuple) else _output(wanted)
    inputs = [_part(part, values) for part in spec["inputs"]]
    return {
        "output": found[0],
        "outputs": outputs,
        "inputs": inputs,
        "state": [_part(part, values) for part in spec["state"]],
        "changedPropIds": [triggered or _name(inputs[0])],
    }


def send(served, content, **options):
    """Send it; returns the answer."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return served.client.post(
        "/_dash-update-component", data=data, content_type="application/json", base_url=served.base, **options
    )  # fmt: skip


def _name(part) -> str:
    first = part[0] if isinstance(part, list) else part
    key = first["id"]
    if isinstance(key, dict):
        key = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return f"{key}.{first['property']}"


def _output(output) -> Any:
    spec = output.to_dict()
    if not spec["id"].startswith("{"):
        return {"id": spec["id"], "property": spec["property"]}
    keys = json.loads(spec["id"])
    wild = {key for key, value in keys.items() if isinstance(value, list) and value[0] in _WILD}
    many = any(keys[key] == ["ALL"] for key in wild)
    names = ("losses", "scores", "coefficients") if many else ("all",)
    parts = [
        {
            "id": {k: (name if k in wild else v) for k, v in keys.items()},
            "property": spec["property"],
        }
        for name in names
    ]
    return parts if many else parts[0]


def _part(part, values) -> Any:
    name = f"{part['id']}.{part['property']}"
    if part["id"].startswith("{"):
        keys = json.loads(part["id"])
        wild = {key for key, value in keys.items() if isinstance(value, list)}
        if any(keys[key] == ["ALL"] for key in wild):
            return [
                {"id": {k: (one if k in wild else v) for k, v in keys.items()}, "property": part["property"], "value": value}
                for one, value in values.get(part["property"], [])
            ]  # fmt: skip
        full = {k: ("all" if k in wild else v) for k, v in keys.items()}
        return {"id": full, "property": part["property"], "value": values.get(part["property"])}
    return {"id": part["id"], "property": part["property"], "value": values.get(name)}
