"""The one place where graphs are made: no upload button, no logo, the colours of the reader's theme.

The server sends the drawing without colours of a theme; the browser adds the template that fits (``assets/app.js``), so that
switching between light and dark draws nothing anew on the server.
"""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
from dash import Dash, dcc, html
from dash.dependencies import MATCH, Input, Output, State

from dashboard import ids
from dashboard.components.browser import aria, in_browser
from dashboard.components.tables import data_table
from mmaudit.figures import CONFIG
from mmaudit.figures.base import Table
from mmaudit.figures.theme import Words
from mmaudit.report.labels import shorten

__all__ = ["drawing", "figure_card", "graph", "register"]

_TOP = 30


def drawing(figure: go.Figure) -> dict[str, Any]:
    """Make what is sent to the browser out of a figure: its title stands in a heading above it, its colours come later.

    Args:
        figure: As ``mmaudit.figures`` draws it.

    Returns:
        ``data``, ``layout``, ``height`` (pixels) and ``least_width`` (pixels).
    """
    found: dict[str, Any] = json.loads(figure.to_json())
    layout = found["layout"]
    height = layout["height"] - layout["margin"]["t"] + _TOP
    least_width = layout.get("meta", {}).get("least_width", 240)
    for name in ("title", "template", "meta"):
        layout.pop(name, None)
    layout["margin"]["t"] = _TOP
    layout["height"] = height
    return {"data": found["data"], "layout": layout, "height": height, "least_width": least_width}


def graph(key: str, shown: dict[str, Any]) -> list[Any]:
    """A graph and its drawing.

    Args:
        key: Of ours, one of a kind on the page.
        shown: What :func:`drawing` made.
    """
    return [
        dcc.Store(id={"type": "drawing", "key": key}, data=shown),
        dcc.Graph(
            id={"type": "graph", "key": key},
            config=CONFIG,  # type: ignore[arg-type]
            responsive=True,
            style={"height": f"{shown['height']}px", "minWidth": f"{shown['least_width']}px"},
        ),
    ]


def figure_card(
    key: str, words: Words, shown: dict[str, Any] | None, table: Table, undefined: str | None = None
) -> html.Section:
    """A figure with what to take from it as its heading, in words, and as a table.

    Args:
        key: Of ours, one of a kind on the page.
        words: What the figure says.
        shown: What :func:`drawing` made; ``None`` where there is nothing to draw.
        table: Its numbers.
        undefined: Why there is nothing to draw.
    """
    title, subtitle, takeaway = (shorten(text, 1500) for text in words)
    parts: list[Any] = [
        html.H3(title, id=f"{key}-title"),
        html.P(subtitle, className="subtitle"),
    ]
    if shown is None:
        parts.append(html.P(shorten(undefined or "There is nothing to draw.", 400)))
    else:
        parts.append(
            html.Figure(
                [
                    html.Div(graph(key, shown), role="img", **aria(label=takeaway)),
                    html.Figcaption(takeaway, className="unseen"),
                ],
                className="scroll",
            )
        )
    if table.rows:
        parts.append(
            html.Details(
                [
                    html.Summary("The numbers as a table"),
                    data_table(title, table.headers, table.rows),
                ]
            )
        )
    return html.Section(parts, className="card", **aria(labelledby=f"{key}-title"))


def register(app: Dash) -> None:
    """Let the browser draw every graph in the colours of its theme."""
    in_browser(
        app,
        "draw",
        Output({"type": "graph", "key": MATCH}, "figure"),
        Input({"type": "drawing", "key": MATCH}, "data"),
        Input(ids.COLOUR_SCHEME, "computedColorScheme"),
        State(ids.PLOT_TEMPLATES, "data"),
    )
