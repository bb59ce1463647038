"""A figure as data for a page that writes its title as a heading and chooses the colours."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go

__all__ = ["drawing"]

_TOP = 30


def drawing(figure: go.Figure) -> dict[str, Any]:
    """Take from a figure what the page around it says or chooses: its title, its template.

    Args:
        figure: As this package draws it.

    Returns:
        ``data``, ``layout``, ``height`` (pixels) and ``least_width`` (pixels).
    """
    found: dict[str, Any] = json.loads(figure.to_json())
    layout = found["layout"]
    height = layout["height"] - layout["margin"]["t"] + _TOP
    least_width = layout["meta"]["least_width"]
    for name in ("title", "template", "meta"):
        layout.pop(name, None)
    layout["margin"]["t"] = _TOP
    layout["height"] = height
    return {"data": found["data"], "layout": layout, "height": height, "least_width": least_width}
