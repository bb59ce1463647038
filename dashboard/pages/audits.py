"""The list of audits: what was audited, when, how accurate, and how each modality is used."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html
from dash.dependencies import Input, Output, State

from dashboard import ids
from dashboard.components.browser import aria, in_browser
from dashboard.components.tables import grid
from dashboard.components.texts import command, heading, notice, sentences
from dashboard.data import AuditRow, Listing, folder_name
from dashboard.site import Page, Site
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count, with_interval
from mmaudit.report.schema import Estimate

__all__ = ["PAGE"]

_UNREADABLE_SHOWN = 5
_MODALITIES = 4
_GROWS = 8
"""Up to so many rows the grid is as high as its rows."""


def _layout(site: Site, key: str) -> Any:
    del key
    listing = site.library.audits()
    if not listing.rows:
        return [heading("Audits"), *_nothing(listing)]
    many = count(len(listing.rows))
    said = f"{many} audit{'s' if len(listing.rows) != 1 else ''} in this workspace, the newest first. Open one by its title."
    many_rows = len(listing.rows) > _GROWS
    return [
        heading("Audits", html.P(said, className="soft")),
        dmc.TextInput(
            id=ids.AUDITS_FILTER,
            placeholder="Search titles, modalities, folders",
            className="search",
            **aria(label="Search the list of audits"),
        ),
        html.Div(
            grid(
                ids.AUDITS_GRID,
                _columns(),
                rowData=[_cells(row) for row in listing.rows],
                defaultColDef={
                    "sortable": True,
                    "resizable": True,
                    "wrapText": True,
                    "autoHeight": True,
                    "cellClass": "cell",
                },
                columnSize="responsiveSizeToFit",
                getRowId="params.data.key",
                dashGridOptions={"domLayout": "normal" if many_rows else "autoHeight"},
                style={"height": "40rem"} if many_rows else {"height": None},
            ),
            role="region",
            **aria(label="List of audits"),
        ),
        *_remarks(listing),
    ]


def _register(app: Dash, site: Site) -> None:
    del site
    in_browser(
        app,
        "search",
        Output(ids.AUDITS_GRID, "dashGridOptions"),
        Input(ids.AUDITS_FILTER, "value"),
        State(ids.AUDITS_GRID, "dashGridOptions"),
        prevent_initial_call=True,
    )


def _columns() -> list[dict[str, Any]]:
    return [
        {"field": "title", "headerName": "Audit", "cellRenderer": "RecordLink", "flex": 3, "minWidth": 180},
        {"field": "score", "headerName": "Score", "flex": 1, "minWidth": 165},
        {"field": "verdicts", "headerName": "Verdicts", "flex": 3, "minWidth": 160},
        {"field": "contributions", "headerName": "Contributions", "flex": 3, "minWidth": 190},
        {"field": "when", "headerName": "When", "flex": 1, "minWidth": 155},
        {"field": "samples", "headerName": "Samples", "flex": 1, "minWidth": 95, "type": "rightAligned"},
        {"field": "place", "headerName": "Folder", "flex": 1, "minWidth": 130, "tooltipField": "whole_place"},
    ]  # fmt: skip


def _cells(row: AuditRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "href": ids.address("diagnosis", row.key),
        "title": row.title,
        "when": f"{row.created.astimezone():%Y-%m-%d %H:%M}",
        "score": _score(row),
        "verdicts": _joined([(name, shorten(verdict)) for name, verdict in row.verdicts]) or "none",
        "contributions": _joined([(name, with_interval(e)) for name, e in row.contributions])
        or "not measured",
        "samples": row.samples,
        "place": folder_name(row.place),
        "whole_place": row.place,
    }


def _joined(told: list[tuple[str, str]]) -> str:
    """What is said of each modality; the first four, and how many more there are."""
    parts = [f"{shorten(name)} {text}" for name, text in told[:_MODALITIES]]
    if len(told) > len(parts):
        parts.append(f"and {len(told) - len(parts)} more")
    return " · ".join(parts)


def _score(row: AuditRow) -> str:
    text = with_interval(row.score or Estimate(undefined="not measured"), 3)
    return text if row.score_name == "accuracy" else f"{row.score_name} {text}"


def _remarks(listing: Listing) -> list[Any]:
    parts: list[Any] = []
    if listing.unreadable:
        shown = [
            f"{'this folder' if place == '.' else place}: the record cannot be read; 'mmaudit show' says why"
            for place in listing.unreadable[:_UNREADABLE_SHOWN]
        ]
        if len(listing.unreadable) > len(shown):
            shown.append(f"and {len(listing.unreadable) - len(shown)} more")
        parts.append(notice(sentences(shown), title="Not in the list", colour="yellow"))
    if listing.more:
        parts.append(notice(f"{count(listing.more)} older audits are not in the list."))
    if listing.cut:
        parts.append(
            notice("The workspace has more folders than are looked through: serve a smaller one.")
        )
    return parts


def _nothing(listing: Listing) -> list[Any]:
    return [
        notice(
            [
                html.P("There is no audit in this workspace yet. Make one in a terminal:"),
                command("mmaudit audit audit.yaml --out WORKSPACE/first"),
                html.P("or try the model that comes along:"),
                command("mmaudit demo --out WORKSPACE/demo"),
            ],
            title="No audits",
        ),
        *_remarks(listing),
    ]


PAGE = Page("Audits", "Audits · mmaudit", _layout, _register)
