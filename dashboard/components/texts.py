"""Small parts: headings, folded parts, sentences in a box, copied command lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from dashboard.components.browser import aria

__all__ = ["card", "command", "folded", "heading", "link", "notice", "sentences"]


def heading(text: str, *below: Any) -> html.Header:
    """The page's own heading, and what is said under it."""
    return html.Header([html.H1(text), *below], className="page-head")


def card(title: str, id: str, parts: Sequence[Any], *, long: bool = False) -> list[Any]:
    """A part of a page with its heading.

    Args:
        title: Its heading.
        id: Of the heading.
        parts: What is in it.
        long: It may be broken when printed.
    """
    style = "card long" if long else "card"
    return [
        html.H2(title, id=id),
        html.Section(list(parts), className=style, **aria(labelledby=id)),
    ]


def folded(summary: Any, parts: Sequence[Any]) -> html.Details:
    """A part that is unfolded by a click or a key.

    Args:
        summary: What is seen of it while folded: a text, or components.
        parts: What is in it.
    """
    return html.Details([html.Summary(summary), *parts], className="block")


def sentences(texts: Sequence[str], *, style: str = "") -> html.Ul:
    """A list of sentences."""
    return html.Ul([html.Li(text) for text in texts], className=style)


def notice(text: Any, *, title: str | None = None, colour: str = "gray") -> dmc.Alert:
    """A sentence in a box.

    Args:
        text: The sentence, or components.
        title: In bold above it.
        colour: ``gray``, ``yellow``, ``red`` or ``green``; never the only carrier of what it says.
    """
    return dmc.Alert(text, title=title, color=colour, variant="light", className="notice")


def command(line: str) -> html.Div:
    """A command line to be copied into a terminal."""
    return html.Div(
        [html.Code(line), dcc.Clipboard(content=line, title="Copy", className="copy")],
        className="command",
    )


def link(text: str, href: str, **more: Any) -> dcc.Link:
    """A link within the app."""
    return dcc.Link(text, href=href, **more)
