"""The one place where graphs are made: no upload button, no logo, the colours of the reader's theme.

The server sends the drawing without colours of a theme; the browser adds the template that fits (``assets/app.js``), so that
switching between light and dark draws nothing anew on the server.
"""

from __future__ import annotations

from typing import Any

from dash import Dash, dcc, html
from dash.dependencies import MATCH, Input, Output, State

from dashboard import ids
from dashboard.components.browser import aria, in_browser
from dashboard.components.tables import data_table
from mmaudit.figures import CONFIG
from mmaudit.figures.base import Table
from mmaudit.figures.theme import Words
from mmaudit.report.labels import shorten

__all__ = ["figure_card", "graph", "register"]


def graph(key: str, shown: dict[str, Any]) -> list[Any]:
    """A graph and its drawing.

    Args:
        key: Of ours, one of a kind on the page.
        shown: What :func:`mmaudit.figures.drawing.drawing` made.
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
        shown: What :func:`mmaudit.figures.drawing.drawing` made; ``None`` where there is nothing to draw.
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
