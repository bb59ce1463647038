"""Tables to be read, and grids to be searched and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
from dash import html

from dashboard.components.browser import aria
from mmaudit.report.labels import shorten

__all__ = ["data_table", "grid"]

_LONG = 40
_THEME = (
    "themeQuartz.withParams({fontFamily: 'inherit', backgroundColor: 'var(--paper)', foregroundColor: 'var(--text)', "
    "borderColor: 'var(--line)', headerBackgroundColor: 'var(--paper)'})"
)


def data_table(
    caption: str, headers: Sequence[str], rows: Sequence[Sequence[Any]], *, seen: bool = True
) -> html.Div:
    """A table whose first column names its rows.

    Args:
        caption: What it shows, for screen readers too.
        headers: Of the columns.
        rows: Texts, or components.
        seen: Print the caption above it.
    """
    head = html.Thead(html.Tr([html.Th(shorten(header, 80), scope="col") for header in headers]))
    body = html.Tbody(
        [
            html.Tr(
                [
                    html.Th(_text(row[0]), scope="row"),
                    *(html.Td(_text(cell), className=_width(cell)) for cell in row[1:]),
                ]
            )
            for row in rows
        ]
    )
    table = html.Table([head, body], **aria(label=caption))
    scrolled = html.Div(table, className="scroll", tabIndex=0, role="region", **aria(label=caption))
    return html.Div([html.P(caption, className="caption"), scrolled] if seen else [scrolled])


def grid(id: str | dict[str, str], columns: Sequence[dict[str, Any]], **options: Any) -> dag.AgGrid:
    """A grid of ag-grid Community in the colours of the reader's theme.

    Args:
        id: Of the component.
        columns: Column definitions; fields are ours, because ag-grid reads a dot in them as a path.
        **options: Of ``dash_ag_grid.AgGrid``.
    """
    settings = {
        "theme": {"function": _THEME},
        "animateRows": False,
        "suppressFieldDotNotation": True,
        "enableCellTextSelection": True,
        **options.pop("dashGridOptions", {}),
    }
    return dag.AgGrid(
        id=id,
        columnDefs=list(columns),
        enableEnterpriseModules=False,
        dangerously_allow_code=False,
        dashGridOptions=settings,
        **options,
    )


def _text(value: Any) -> Any:
    return shorten(value, 400) if isinstance(value, str) else value


def _width(value: Any) -> str:
    return "long" if isinstance(value, str) and len(value) > _LONG else ""
