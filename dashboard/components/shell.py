"""What surrounds every page: skip link, name, navigation, light and dark, the place for messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from dashboard import ids
from dashboard.components.browser import aria
from dashboard.site import Page
from mmaudit.export.page import shared_css
from mmaudit.figures import TEMPLATES

__all__ = ["INDEX", "make_shell"]

INDEX = f"""<!DOCTYPE html>
<html lang="en">
<head>
{{%metas%}}
<meta name="color-scheme" content="light dark">
<title>{{%title%}}</title>
{{%favicon%}}
{{%css%}}
<style>{shared_css()}</style>
</head>
<body>
{{%app_entry%}}
<footer>
{{%config%}}
{{%scripts%}}
{{%renderer%}}
</footer>
</body>
</html>"""
"""The document around the app; without the script for a dead browser that Dash puts into its own."""


def make_shell(pages: Mapping[str, Page], *, read_only: bool) -> dmc.MantineProvider:
    """Lay out what surrounds the pages.

    Args:
        pages: By the first part of their address.
        read_only: Say that nothing can be started here.
    """
    places = [
        dcc.Link(
            page.label,
            href=ids.address(name),
            id={"type": "place", "key": name or "audits"},
            className="place",
        )
        for name, page in pages.items()
        if page.label
    ]
    toggle = dmc.ColorSchemeToggle(
        id=ids.COLOUR_SCHEME,
        lightIcon=html.Span(className="icon icon-moon"),
        darkIcon=html.Span(className="icon icon-sun"),
        variant="subtle",
        color="gray",
        size="lg",
        **aria(label="Switch between light and dark"),
    )
    top = html.Header(
        [
            html.Div(
                [
                    dcc.Link("mmaudit", href="/", className="brand"),
                    html.Nav(places, **aria(label="Pages")),
                    html.Span("read-only", className="soft") if read_only else None,
                    toggle,
                ],
                className="top-inner",
            )
        ],
        className="top",
    )
    return dmc.MantineProvider(
        [
            html.A("Skip to the content", href=f"#{ids.CONTENT}", className="skip"),
            dcc.Location(id=ids.LOCATION, refresh="callback-nav"),
            dcc.Store(id=ids.PLOT_TEMPLATES, data=TEMPLATES),
            dcc.Store(id=ids.PAGE_TITLE),
            top,
            html.Div(id=ids.NOTICE, role="status", className="page", **aria(live="polite")),
            html.Main(
                html.P("Loading …", className="soft", role="status"),
                id=ids.CONTENT,
                className="page",
                tabIndex=-1,
            ),
            html.Div(id="spoken", role="status", className="unseen", **aria(live="polite")),
        ],
        defaultColorScheme="auto",
        theme={"fontFamily": "system-ui, sans-serif", "primaryColor": "blue"},
    )


def not_found() -> list[Any]:
    """What an address without a page shows."""
    from dashboard.components.texts import heading, link

    return [
        heading("No such page"),
        html.P(["Nothing lies under this address. ", link("See the list of audits", "/")]),
    ]
