"""What the browser does itself: the functions of ``assets/app.js``, and what screen readers are told."""

from __future__ import annotations

from typing import Any

from dash import Dash
from dash.dependencies import ClientsideFunction

__all__ = ["aria", "in_browser"]

_NAMESPACE = "mmaudit"


def aria(**names: str) -> dict[str, Any]:
    """Attributes for screen readers.

    Example:
        >>> aria(label="Pages", labelledby="title")
        {'aria-label': 'Pages', 'aria-labelledby': 'title'}
    """
    return {f"aria-{name}": value for name, value in names.items()}


def in_browser(app: Dash, function: str, *dependencies: Any, **options: Any) -> None:
    """Connect components by a function of ``assets/app.js``; inline scripts are refused by the page's policy.

    Args:
        app: The app.
        function: Its name.
        *dependencies: Outputs, inputs and states.
        **options: Of a Dash callback.
    """
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction(_NAMESPACE, function), *dependencies, **options
    )
