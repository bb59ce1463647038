"""The one place where figures are made: colours of modalities, light and dark, and what plotly may not do.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; each comes with a marker and a hatching, so that
colour is never the only carrier. Names come from models and data and are never markup.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from mmaudit.report.labels import shorten
from mmaudit.report.schema import Estimate

__all__ = [
    "CONFIG",
    "NEUTRAL",
    "TEMPLATES",
    "Style",
    "Words",
    "error_bars",
    "hatching",
    "make_figure",
    "modality_styles",
    "name_rows",
    "plain",
    "say_nothing",
]

CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "responsive": True,
}
"""plotly's settings on every page: by default it would offer to upload the chart."""

NEUTRAL = "#7f8793"
"""For what belongs to no single modality; readable on light and on dark."""

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B5A900", "#8C6BB1")
_PATTERNS = ("", "/", "x", ".", "\\", "+", "-", "|")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")


class Style(NamedTuple):
    """How one modality looks everywhere."""

    colour: str
    pattern: str
    """Hatching of its bars."""
    symbol: str
    """Its marker."""


class Words(NamedTuple):
    """What a figure says, for its heading and for those who do not see it."""

    title: str
    """What to take from it."""
    subtitle: str
    """n, mask and method."""
    takeaway: str
    """The figure in sentences."""


def modality_styles(modalities: Sequence[str]) -> dict[str, Style]:
    """Give each modality its look, by its place in the spec.

    Example:
        >>> modality_styles(["audio", "image"])["image"].colour
        '#E69F00'
    """
    styles = {}
    for index, name in enumerate(modalities):
        turn = index // len(_COLOURS)
        styles[name] = Style(
            _COLOURS[index % len(_COLOURS)],
            # Colours repeat after eight modalities; the hatching is then another one.
            _PATTERNS[(index + 3 * turn) % len(_PATTERNS)],
            _SYMBOLS[(index + 3 * turn) % len(_SYMBOLS)],
        )
    return styles


def hatching(shape: str) -> dict[str, Any]:
    """White strokes over a bar's colour."""
    return {
        "shape": shape,
        "fillmode": "overlay",
        "fgcolor": "#ffffff",
        "fgopacity": 0.7,
        "size": 7,
    }


def plain(text: str) -> str:
    """Make a name harmless for plotly, which reads some HTML in its texts.

    Example:
        >>> plain("<b>a</b> & b")
        '&lt;b&gt;a&lt;/b&gt; &amp; b'
    """
    return html.escape(text, quote=False)


def _template(
    text: str, grid: str, paper: str, ends: tuple[str, str], middle: str
) -> dict[str, Any]:
    axis = {
        "gridcolor": grid,
        "zerolinecolor": text,
        "linecolor": grid,
        "zerolinewidth": 1,
        "automargin": True,
        "title": {"standoff": 8},
    }
    errors = {"color": text}
    return {
        "data": {"bar": [{"error_x": errors, "error_y": errors}]},
        "layout": {
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": text},
            "xaxis": axis,
            "yaxis": axis,
            "coloraxis": {
                "colorscale": [[0, ends[0]], [0.5, middle], [1, ends[1]]],
                "colorbar": {"outlinewidth": 0},
            },
            "hoverlabel": {"font": {"family": "system-ui, sans-serif"}, "align": "left"},
            "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
            "colorway": list(_COLOURS),
        },
    }


TEMPLATES: dict[str, dict[str, Any]] = {
    "light": _template("#1b1f24", "#e3e6ea", "#ffffff", ("#b35806", "#2166ac"), "#f4f4f4"),
    "dark": _template("#e8eaed", "#3a3f47", "#16181c", ("#b8651b", "#2b76c4"), "#26292e"),
}
"""plotly templates by theme; a page swaps them."""

# Checked once: plotly takes twenty times as long for a dict as for a template that it knows.
_LIGHT = go.layout.Template(TEMPLATES["light"])


def make_figure(
    words: Words,
    *,
    height: int,
    figure: go.Figure | None = None,
    labels: Sequence[str] = (),
    columns: int = 0,
) -> go.Figure:
    """Give a figure its title, look and text alternative.

    Args:
        words: What it says; kept whole in ``layout.meta`` (``title``, ``subtitle``, ``takeaway``).
        height: Of the drawing, in pixels; the title comes on top.
        figure: With subplots; left out, an empty figure.
        labels: Names along the vertical axis.
        columns: Bars or cells side by side; with the labels they say how narrow the drawing may become,
            ``layout.meta["least_width"]`` in pixels.

    Returns:
        The figure, light, without traces.
    """
    figure = go.Figure() if figure is None else figure
    lines = textwrap.wrap(words.title, 76) or [""]
    longest = max((len(shorten(name)) for name in labels), default=0)
    below = textwrap.wrap(words.subtitle, 110)
    top = 26 + 20 * len(lines) + 17 * len(below)
    figure.update_layout(
        template=_LIGHT,
        title={
            "text": "<br>".join(plain(line) for line in lines),
            "subtitle": {"text": "<br>".join(plain(line) for line in below)},
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 12},
        },
        margin={"t": top, "l": 10, "r": 20, "b": 10},
        height=height + top,
        meta={
            "title": words.title,
            "subtitle": words.subtitle,
            "takeaway": words.takeaway,
            "least_width": max(240, 20 * columns) + 7 * longest,
        },
    )
    return figure


def name_rows(figure: go.Figure, names: Sequence[str], *, edge: float = 0.6, **where: int) -> None:
    """Name the rows of a drawing; row 0 is on top.

    Args:
        figure: Whose vertical axis is named.
        names: From top to bottom, as short as they are to be shown.
        edge: How far the drawing goes on beyond the middle of its first and last row, in rows.
        **where: ``row`` and ``col`` of one subplot; left out, all of them are named.
    """
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[plain(name) for name in names],
        range=[len(names) - (1 - edge), -edge],
        showgrid=False,
        zeroline=False,
        **where,
    )


def say_nothing(words: Words, reason: str) -> go.Figure:
    """Draw why there is nothing to draw."""
    figure = make_figure(words, height=120)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    text = "<br>".join(plain(line) for line in textwrap.wrap(reason, 70))
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Turn intervals into plotly's error bars; none where an estimate has no interval."""
    up, down = [], []
    for estimate in estimates:
        value, low, high = estimate.value, estimate.low, estimate.high
        known = value is not None and low is not None and high is not None
        up.append(max(0.0, high - value) if known else None)  # type: ignore[operator]
        down.append(max(0.0, value - low) if known else None)  # type: ignore[operator]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5}
