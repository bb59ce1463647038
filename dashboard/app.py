"""The app as a whole: Dash with everything switched off that is not needed, behind the check of every request."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from dash import Dash, html, no_update, set_props
from dash.dependencies import Input, Output
from dash.exceptions import DependencyException, InvalidResourceError, PreventUpdate
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException

from dashboard import ids
from dashboard.components import graph
from dashboard.components.browser import in_browser
from dashboard.components.shell import INDEX, make_shell, not_found
from dashboard.components.texts import heading, notice
from dashboard.pages import PAGES
from dashboard.security import LARGEST_BODY, Access, Guard, policy
from dashboard.site import Site
from dashboard.values import check_body, text

__all__ = ["create_app"]

_log = logging.getLogger("mmaudit.app")
_CALLBACKS = "/_dash-update-component"


def create_app(site: Site, access: Access) -> Dash:
    """Make the app for one workspace.

    Args:
        site: What it shows.
        access: What every request must bring.

    Returns:
        The app; ``app.server.wsgi_app`` is what a web server serves.
    """
    server = Flask("dashboard", static_folder=None)
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    with _undisturbed():
        app = Dash(
            "dashboard",
            server=server,  # type: ignore[arg-type]
            title="mmaudit",
            update_title=None,  # type: ignore[arg-type]
            index_string=INDEX,
            use_pages=False,
            serve_locally=True,
            suppress_callback_exceptions=True,
            enable_mcp=False,
            add_log_handler=False,
            include_pages_meta=False,
            on_error=_report,
        )
    app.layout = make_shell(PAGES, read_only=site.read_only)
    _register_routing(app, site)
    graph.register(app)
    for page in PAGES.values():
        page.register(app, site)
    _check_requests(app, server)
    # Dash registers its files at the first request, and of two at a time the second would not find them.
    with server.test_request_context():
        server.preprocess_request()
    hashes: list[str] = []

    def content_policy() -> str:
        if not hashes:
            hashes.extend(app.csp_hashes())
        return policy(hashes)

    # mypy takes the method that is wrapped here for one that cannot be replaced.
    server.wsgi_app = Guard(server.wsgi_app, access, content_policy)  # type: ignore[method-assign]
    return app


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Without what the environment has to say to Dash: other prefixes, assets from elsewhere, an MCP server."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("DASH_")}
    try:
        yield
    finally:
        os.environ.update(taken)


def _register_routing(app: Dash, site: Site) -> None:
    @app.callback(
        Output(ids.CONTENT, "children"),
        Output(ids.PAGE_TITLE, "data"),
        Output(ids.NOTICE, "children"),
        Input(ids.LOCATION, "pathname"),
    )
    def go(pathname: Any) -> tuple[Any, dict[str, str], None]:
        found = ids.split_address(text(pathname, most=200))
        page = PAGES.get(found[0]) if found is not None else None
        if found is None or page is None:
            return not_found(), {"title": "No such page · mmaudit", "place": ""}, None
        try:
            content = page.layout(site, found[1])
        except Exception as error:
            content = [heading("This page failed"), notice(_said(_logged(error)), colour="red")]
        return content, {"title": page.title, "place": found[0] or "audits"}, None

    in_browser(
        app,
        "arrive",
        Output("spoken", "children"),
        Input(ids.PAGE_TITLE, "data"),
        prevent_initial_call=True,
    )
    in_browser(
        app,
        "theme",
        Output(ids.COLOUR_SCHEME, "aria-pressed"),
        Input(ids.COLOUR_SCHEME, "computedColorScheme"),
    )


def _check_requests(app: Dash, server: Flask) -> None:
    """Refuse what the app's own pages never send, and say no more than an id about what went wrong."""

    @server.before_request
    def check() -> None:
        if request.path == _CALLBACKS and request.method == "POST":
            try:
                body = request.get_json()
            except RecursionError:
                raise BadRequest from None
            check_body(body, app.callback_map)

    def gone(error: Exception) -> Response:
        del error
        return _plain("There is nothing under this address.", 404)

    def halted(error: Exception) -> Response:
        del error
        return Response(status=204)

    def failed(error: Exception) -> Response:
        if isinstance(error, HTTPException):
            # The page of werkzeug repeats what was asked for.
            return _plain(error.name, error.code or 500)
        return _plain(_said(_logged(error)), 500)

    handlers: dict[type[Exception], Callable[[Exception], Response]] = {
        InvalidResourceError: gone,
        DependencyException: gone,
        PreventUpdate: halted,
        Exception: failed,
    }
    for kind, handler in handlers.items():
        server.register_error_handler(kind, handler)


def _report(error: Exception) -> Any:
    """Tell the reader of the page that a callback failed, in place of leaving it silent."""
    if isinstance(error, HTTPException):
        raise error
    said = _said(_logged(error))
    set_props(
        ids.NOTICE, {"children": notice(html.P(said), title="Something failed", colour="red")}
    )
    return no_update


def _logged(error: Exception) -> str:
    number = secrets.token_hex(4)
    _log.error("error %s in the app", number, exc_info=error)
    return number


def _said(number: str) -> str:
    return f"The app failed at this; the terminal that serves it has the details under the id {number}."


def _plain(sentence: str, status: int) -> Response:
    return Response(f"{sentence}\n", status=status, mimetype="text/plain")
