"""What stands for one estimate in a drawing with a row for each name: a mark, a bar, or a word where there is no value."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from mmaudit.figures.theme import NEUTRAL, Style, error_bars, hatching, plain
from mmaudit.report.schema import Estimate

__all__ = ["bar", "filling", "mark", "told", "write"]


def mark(x: float, y: float, marker: dict[str, Any], said: str) -> dict[str, Any]:
    """A marker at one place, as ``add_scatter`` takes it.

    Args:
        x: The value.
        y: The row.
        marker: Its look, in plotly's words.
        said: Of it, under the pointer.

    Example:
        >>> mark(0.5, 0, {"size": 9}, "audio: 0.5")["customdata"]
        [['audio: 0.5']]
    """
    return {"x": [x], "y": [y], "mode": "markers", "marker": marker, **told(said)}


def bar(
    estimate: Estimate, y: float, style: Style | None, *said: str, width: float
) -> dict[str, Any]:
    """A horizontal bar with its interval, as ``add_bar`` takes it.

    Args:
        estimate: With a value.
        y: The row.
        style: Look of its modality; ``None`` for what belongs to no single one.
        *said: Of it, under the pointer; several texts are joined by a colon.
        width: In rows.
    """
    return {
        "x": [estimate.value],
        "y": [y],
        "orientation": "h",
        "width": width,
        "marker": filling(style),
        "error_x": error_bars([estimate]),
        **told(*said),
    }


def filling(style: Style | None) -> dict[str, Any]:
    """Colour and hatching of a bar; neutral and plain without a style.

    Example:
        >>> filling(None)["color"] == NEUTRAL
        True
    """
    return {
        "color": style.colour if style else NEUTRAL,
        "pattern": hatching(style.pattern if style else ""),
    }


def told(*said: str) -> dict[str, Any]:
    """What is said of a single mark under the pointer, which is then no entry of the legend.

    Example:
        >>> told("audio", "0.5")["hovertemplate"]
        '%{customdata[0]}: %{customdata[1]}<extra></extra>'
    """
    places = ": ".join(f"%{{customdata[{place}]}}" for place in range(len(said)))
    return {
        "customdata": [[plain(text) for text in said]],
        "hovertemplate": f"{places}<extra></extra>",
        "showlegend": False,
    }


def write(figure: go.Figure, x: float, y: float, text: str, **more: Any) -> None:
    """Write a text that begins at a place.

    Args:
        figure: To write in.
        x: Where the text begins.
        y: The row.
        text: Names in it are no markup.
        **more: Other words of plotly's annotations.
    """
    figure.add_annotation(x=x, y=y, text=plain(text), showarrow=False, xanchor="left", **more)
