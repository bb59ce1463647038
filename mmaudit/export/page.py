"""What every HTML page with figures is made of: templates, the two scripts and the policy that names them, figures as data.

The page runs plotly.js and the script that draws; its Content-Security-Policy names them by hash, so nothing that came in with a
name, a path or an error message can run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from mmaudit.figures.base import Table
from mmaudit.figures.drawing import drawing
from mmaudit.figures.theme import CONFIG, TEMPLATES, Words
from mmaudit.report.labels import shorten

__all__ = ["Page", "ShownFigure", "environment", "page_parts", "shared_css", "shown_figure"]

_LONGEST_WORDS = 1500
_LONGEST_REASON = 400


class ShownFigure(NamedTuple):
    """A figure on a page; its id is a key of ours, never a name from outside."""

    id: str
    words: Words
    table: Table
    undefined: str | None
    height: int
    least_width: int
    drawing: dict[str, Any] | None


class Page(NamedTuple):
    """What a template needs beside its content; all of it is ours, or JSON in which nothing ends a script."""

    css: str
    figure_data: str
    plotly_js: str
    page_js: str
    policy: str


@functools.cache
def environment() -> Environment:
    """The templates; everything that is put into them is escaped."""
    return Environment(
        loader=PackageLoader("mmaudit.export"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def shown_figure(
    key: str, info: Any, plot: Callable[[Any], go.Figure], table: Callable[[Any], Table]
) -> ShownFigure:
    """Prepare a figure for a page, where its title is a heading that wraps and screen readers find.

    Args:
        key: Ours; becomes the id.
        info: What the figure collected: ``words`` and ``undefined``.
        plot: Draws it.
        table: Lays it out as a table.
    """
    figure_id = f"figure-{key}"
    words = Words(*(shorten(text, _LONGEST_WORDS) for text in info.words))
    if info.undefined is not None:
        reason = shorten(info.undefined, _LONGEST_REASON)
        return ShownFigure(figure_id, words, Table((), ()), reason, 0, 0, None)
    drawn = drawing(plot(info))
    numbers = table(info)
    numbers = Table(
        tuple(shorten(text, 60) for text in numbers.headers),
        tuple(tuple(shorten(text, 100) for text in row) for row in numbers.rows),
    )
    return ShownFigure(
        figure_id,
        words,
        numbers,
        None,
        drawn["height"],
        drawn["least_width"],
        {"id": figure_id, "data": drawn["data"], "layout": drawn["layout"]},
    )


def page_parts(figures: list[ShownFigure]) -> Page:
    """Scripts, style, data and policy of a page with these figures."""
    plotly_js, page_js = _newlines(get_plotlyjs()), _source("report.js")
    data = {
        "config": CONFIG,
        "templates": TEMPLATES,
        "figures": [figure.drawing for figure in figures if figure.drawing is not None],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Page(
        shared_css() + _source("report.css"), text, plotly_js, page_js, _policy(plotly_js, page_js)
    )


def shared_css() -> str:
    """The style of what pages and the app have in common: cards, tables, verdicts, findings."""
    return _source("shared.css")


def _source(name: str) -> str:
    loader = environment().loader
    assert loader is not None
    return _newlines(loader.get_source(environment(), name)[0])


def _newlines(text: str) -> str:
    """What a browser makes of line ends before it hashes a script."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    # plotly sets styles while it draws, and makes pictures for its download button.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
