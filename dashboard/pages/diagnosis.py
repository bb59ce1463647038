"""One audit: the same figures, tables and order as its HTML report, and the samples behind it."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, dcc, html, no_update
from dash.dependencies import MATCH, Input, Output, State

from dashboard import ids
from dashboard.components.browser import aria
from dashboard.components.findings import modality_table, opened_finding, statement_list
from dashboard.components.graph import figure_card
from dashboard.components.tables import data_table, grid
from dashboard.components.texts import card, folded, heading, link, notice, sentences
from dashboard.samples import column_names, read_samples
from dashboard.site import Page, Site
from dashboard.values import choice, identity, mapping, whole
from mmaudit.exceptions import RecordError
from mmaudit.export.opened import open_findings
from mmaudit.export.overview import Overview, make_overview
from mmaudit.export.provenance import make_provenance
from mmaudit.figures import FIGURES, figures_by_part
from mmaudit.figures.drawing import drawing
from mmaudit.report import AuditReport
from mmaudit.report.numbers import count

__all__ = ["PAGE"]

_GRID, _PLACE = "samples-grid", "samples-place"
_SHOWN, _KEY, _COUNT = "samples-shown", "samples-key", "samples-count"
_FILTERS = {"all": "All samples", "wrong": "Only those it gets wrong"}
_FOLD_CLASSES = 30
_MOST_ROWS = 10**9


def _layout(site: Site, key: str) -> Any:
    try:
        report = site.library.report(key)
    except RecordError:
        return [
            heading("No such audit"),
            notice(
                [
                    "The workspace has no readable audit under this address. ",
                    link("See the list of audits", ids.address("")),
                ]
            ),
        ]
    overview, small_print = make_overview(report), make_provenance(report)
    record = small_print["record"]
    made = (
        f"Audit of {record['subject']['model']} on {small_print['created']}, "
        f"mmaudit {record['mmaudit_version']}"
    )
    return [
        heading(overview.title, html.P(made, className="soft")),
        *_how(overview),
        *card(overview.score, "scores", [_scores(overview)]),
        *_findings(site, report, overview),
        *(
            part
            for title, names in figures_by_part(report).items()
            for part in (html.H2(title), *(_figure(report, name) for name in names))
        ),
        *_classes(small_print),
        *_samples(report, key),
        *_methods(small_print),
        html.P(
            f"Report {record['report_id']}, schema {record['schema_version']}.", className="soft"
        ),
    ]


def _register(app: Dash, site: Site) -> None:
    @app.callback(
        Output(_PLACE, "children"),
        Output(_COUNT, "children"),
        Input(_SHOWN, "value"),
        State(_KEY, "data"),
        prevent_initial_call=True,
    )
    def choose(shown: Any, key: Any) -> tuple[Any, str]:
        wanted = choice(shown, _FILTERS)
        try:
            report = site.library.report(identity(key))
            page = read_samples(report, 0, 0, only_wrong=wanted == "wrong")
        except RecordError:
            return no_update, "The samples of this audit cannot be read."
        return _sample_grid(report, wanted), _counted(report, page.total, wanted)

    @app.callback(
        Output({"type": _GRID, "shown": MATCH}, "getRowsResponse"),
        Input({"type": _GRID, "shown": MATCH}, "getRowsRequest"),
        State({"type": _GRID, "shown": MATCH}, "id"),
        State(_KEY, "data"),
        prevent_initial_call=True,
    )
    def rows(request: Any, grid_id: Any, key: Any) -> dict[str, Any]:
        asked = mapping(request or {})
        start = whole(asked.get("startRow", 0), 0, _MOST_ROWS)
        stop = whole(asked.get("endRow", 100), 0, _MOST_ROWS)
        only_wrong = choice(mapping(grid_id).get("shown"), _FILTERS) == "wrong"
        try:
            report = site.library.report(identity(key))
            page = read_samples(report, start, stop, only_wrong=only_wrong)
        except RecordError:
            return {"rowData": [], "rowCount": 0}
        return {"rowData": list(page.rows), "rowCount": page.total}


def _findings(site: Site, report: AuditReport, overview: Overview) -> list[Any]:
    """What was found, modality by modality, and the way to do something about it where the model is registered for that."""
    opened = open_findings(report.record)
    parts: list[Any] = []
    if overview.model:
        parts.append(statement_list(overview.model, "The whole model"))
    parts.append(modality_table(overview))
    if overview.conditions:
        parts.append(html.P("; ".join(overview.conditions), className="soft calm"))
    if overview.advice:
        parts.append(statement_list(overview.advice, "What to do"))
    if overview.further:
        parts.append(html.P(overview.further, className="soft"))
    retrain: list[Any] = []
    file_id = None if site.read_only else site.desk.file_of(report)
    if file_id is not None:
        where = ids.address("retrain", file_id)
        retrain.append(html.P(link("Retrain this model with a remedy", where), className="calm"))
    if opened:
        behind = html.H3("What lies behind each finding", id="behind")
        parts += [*retrain, behind, *(opened_finding(found) for found in opened)]
        return card("Findings", "modalities", parts, long=True)
    told = [sentences(overview.sentences)] if overview.sentences else []
    below = card("What stands out", "findings", [*told, *retrain]) if told or retrain else []
    return [*card("Modalities", "modalities", parts), *below]


def _how(overview: Overview) -> list[Any]:
    steps = html.Dl(
        [
            part
            for label, texts in overview.steps
            for part in (html.Dt(label), html.Dd([html.Span(text) for text in texts]))
        ],
        className="steps",
    )
    trust = (
        html.Ul(
            [html.Li(text) for text in overview.warnings],
            className="warnings",
            **aria(label="Warnings"),
        )
        if overview.warnings
        else html.P(overview.calm, className="soft calm")
    )
    notes = [folded("Notes", [sentences(overview.notes)])] if overview.notes else []
    return card("How it was done, and whether it can be trusted", "how", [steps, trust, *notes])


def _scores(overview: Overview) -> html.Ul:
    return html.Ul(
        [
            html.Li([html.Span(who, className="soft"), html.Strong(score)])
            for who, score in overview.scores
        ],
        className="scores",
    )


def _figure(report: AuditReport, name: str) -> html.Section:
    figure = FIGURES[name]
    info = figure.info(report)
    if info.undefined is not None:
        return figure_card(
            name, info.words, None, figure.table(info)._replace(rows=()), info.undefined
        )
    return figure_card(name, info.words, drawing(figure.plot(info)), figure.table(info))


def _classes(small_print: dict[str, Any]) -> list[Any]:
    table = small_print["classes"]
    if not table.rows:
        return []
    shown: Any = data_table(small_print["classes_caption"], table.headers, table.rows)
    if len(table.rows) > _FOLD_CLASSES:
        shown = html.Details([html.Summary(small_print["classes_summary"]), shown])
    return card(small_print["classes_title"], "classes", [shown], long=True)


def _samples(report: AuditReport, key: str) -> list[Any]:
    try:
        report.table("coalitions")
    except RecordError:
        return []
    bar = html.Div(
        [
            dmc.SegmentedControl(
                id=_SHOWN,
                value="all",
                data=[{"value": k, "label": v} for k, v in _FILTERS.items()],
                size="xs",
                **aria(label="Which samples"),
            ),
            html.Span(
                _counted(report, report.data.samples, "all"),
                id=_COUNT,
                className="soft",
                role="status",
            ),
        ],
        className="bar",
    )
    said = "What the model says to each sample" + (
        ", whole, and from each modality alone with the others masked"
        if len(report.modalities) > 1
        else ""
    )
    return card(
        "Samples",
        "samples",
        [
            dcc.Store(id=_KEY, data=key),
            bar,
            html.Div(_sample_grid(report, "all"), id=_PLACE),
            html.P(
                f"{said}. Rows with a bar at their left are those it gets wrong.", className="soft"
            ),
        ],
    )


def _sample_grid(report: AuditReport, shown: str) -> Any:
    columns = [
        {"field": field, "headerName": name, "minWidth": 120, "flex": 1, "sortable": False}
        for field, name in column_names(report).items()
    ]
    # A new grid for each choice: one that has rows would keep them.
    return grid(
        {"type": _GRID, "shown": shown},
        columns,
        rowModelType="infinite",
        rowClassRules={"row-wrong": "params.data && params.data.right === false"},
        columnSize="responsiveSizeToFit",
        dashGridOptions={"rowHeight": 36, "cacheBlockSize": 100, "maxBlocksInCache": 10},
        style={"height": "420px"},
    )


def _counted(report: AuditReport, total: int, shown: str) -> str:
    if shown == "wrong":
        return f"{count(total)} of {count(report.data.samples)} samples"
    return f"{count(total)} sample{'s' if total != 1 else ''}"


def _methods(small: dict[str, Any]) -> list[Any]:
    record = small["record"]
    data = record["data"]
    parts = [
        folded(
            "Measures",
            [
                data_table(
                    "What was measured",
                    ("Measure", "Unit", "Source", "Settings", "Undefined"),
                    small["measures"],
                )
            ],
        ),
        folded(
            "Files and data",
            [
                data_table(
                    small["files_caption"], ("File", "Role", "Bytes", "SHA-256"), small["files"]
                ),
                html.P(
                    f"Data: {data['source']}; fingerprint of ids and targets {data['fingerprint'] or 'none'}; ids {data['ids']}."
                ),
            ],
        ),
        folded(
            "Structure of the model",
            [
                data_table(
                    small["modules_caption"],
                    ("Module", "Type", "Depends on", "Role", "Calls", "Parameters"),
                    small["modules"],
                )
            ],
        ),
        folded("The spec as it was used", [html.Pre(small["spec"], tabIndex=0)]),
        folded(
            "Settings and environment",
            [
                data_table("Settings", ("Setting", "Value"), small["settings"]),
                data_table("Environment", ("Part", "Version"), small["environment"]),
            ],
        ),
    ]
    if small["notes"]:
        parts.append(
            folded(
                "Notes and fallbacks",
                [data_table("Notes", ("Topic", "Kind", "Text"), small["notes"])],
            )
        )
    if small["failures"]:
        parts.append(
            folded(
                "Failures",
                [data_table("Measures that raised", ("Measure", "Error"), small["failures"])],
            )
        )
    return card("Methods and provenance", "methods", parts, long=True)


PAGE = Page("", "Diagnosis · mmaudit", _layout, _register)
