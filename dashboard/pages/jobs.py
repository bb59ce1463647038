"""The jobs: a list, and for each one its progress, losses, coefficients and log, with cancel and resume."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Dash, ctx, dcc, html, no_update
from dash.dependencies import ALL, Input, Output, State

from dashboard import ids
from dashboard.components.browser import aria
from dashboard.components.graph import graph
from dashboard.components.tables import data_table
from dashboard.components.texts import card, folded, heading, link, notice
from dashboard.history import (
    CurvesInfo,
    coefficients_info,
    curves_table,
    losses_info,
    plot_curves,
    scores_info,
)
from dashboard.site import Page, Site
from dashboard.values import clicked, identity, text
from dashboard.work import JobView
from mmaudit.exceptions import RecordError
from mmaudit.figures.drawing import drawing
from mmaudit.report.labels import shorten

__all__ = ["PAGE"]

_LIST, _LIST_TICK = "jobs-list", "jobs-tick"
_KEY, _STATUS, _LOG, _TICK = "job-key", "job-status", "job-log", "job-tick"
_STAMP, _TABLES = "job-stamp", "job-tables"
_CANCEL, _CANCEL_DIALOG, _CANCEL_GO, _CANCEL_BACK = (
    "job-cancel",
    "job-cancel-dialog",
    "job-cancel-go",
    "job-cancel-back",
)
_RESUME, _RESULT = "job-resume", "job-result"
_CURVES = ("losses", "scores", "coefficients")
_EVERY = 1500


def _layout(site: Site, key: str) -> Any:
    return _one(site, key) if key else _all(site)


def _all(site: Site) -> list[Any]:
    rows, idle = _list(site)
    return [
        heading("Jobs", html.P("Retrainings in the background; they go on when this page, the tab or the app is closed.", className="soft")),
        html.Div(rows, id=_LIST),
        dcc.Interval(id=_LIST_TICK, interval=_EVERY, disabled=idle),
    ]  # fmt: skip


def _one(site: Site, key: str) -> list[Any]:
    job = site.desk.job(key)
    if job is None:
        return [
            heading("No such job"),
            notice(["There is no such job in this workspace. ", link("See all jobs", ids.address("jobs"))]),
        ]  # fmt: skip
    slots = _slots(site, key)
    return [
        heading(f"{job.remedy}: {job.title}", html.P(["Job ", job.id[:8], " of ", link("all jobs", ids.address("jobs"))], className="soft")),
        dcc.Store(id=_KEY, data=job.id),
        dcc.Store(id=_STAMP, data=site.desk.history_stamp(key)),
        dcc.Interval(id=_TICK, interval=_EVERY, disabled=not job.active),
        html.Div(_status(site, job), id=_STATUS),
        html.Div(id=_RESULT, role="alert"),
        _buttons(job, hidden=site.read_only),
        _cancel_dialog(),
        html.H2("Training"),
        *(_slot(name, info) for name, info in zip(_CURVES, slots, strict=True)),
        html.Div(_tables(slots), id=_TABLES, className="card"),
        *card(
            "Log",
            "log-title",
            [
                html.Div(
                    html.Pre(_log(site, key), id=_LOG, className="log"),
                    className="tail", tabIndex=0, role="log", **aria(label="End of the log"),
                )
            ],
        ),
        *card(
            "Settings",
            "settings-title",
            [data_table("Asked for", ("Setting", "Value"), job.settings), html.P(f"Results: {job.out}", className="soft")],
        ),
    ]  # fmt: skip


def _register(app: Dash, site: Site) -> None:
    @app.callback(
        Output(_LIST, "children"),
        Output(_LIST_TICK, "disabled"),
        Input(_LIST_TICK, "n_intervals"),
        prevent_initial_call=True,
    )
    def refresh(tick: Any) -> tuple[Any, bool]:
        clicked(tick)
        if not site.read_only:
            site.desk.tend()
        return _list(site)

    @app.callback(
        Output(_STATUS, "children"),
        Output(_LOG, "children"),
        Output(_TICK, "disabled"),
        Output(_CANCEL, "disabled"),
        Output(_RESUME, "disabled"),
        Output(_STAMP, "data"),
        Output(_TABLES, "children"),
        Output({"type": "curves", "key": ALL}, "className"),
        Output({"type": "curves-title", "key": ALL}, "children"),
        Output({"type": "drawing", "key": ALL}, "data"),
        Input(_TICK, "n_intervals"),
        State(_KEY, "data"),
        State(_STAMP, "data"),
        prevent_initial_call=True,
    )
    def live(tick: Any, key: Any, stamp: Any) -> tuple[Any, ...]:
        clicked(tick)
        key, before = identity(key), text(stamp)
        if not site.read_only:
            site.desk.tend()
        job = site.desk.job(key)
        many = len(ctx.outputs_list[-1])
        kept = [no_update] * many
        if job is None or many != len(_CURVES):
            said = notice("This job is gone.")
            return said, "", True, True, True, no_update, no_update, kept, kept, kept
        now = site.desk.history_stamp(key)
        first = (_status(site, job), _log(site, key), not job.active, *_switches(job))
        if now == before:
            return *first, no_update, no_update, kept, kept, kept
        slots = _slots(site, key)
        return (
            *first, now, _tables(slots),
            [_seen(info) for info in slots],
            [info.words.title for info in slots],
            [_drawn(info) for info in slots],
        )  # fmt: skip

    if not site.read_only:
        _register_actions(app, site)


def _register_actions(app: Dash, site: Site) -> None:
    @app.callback(
        Output(_CANCEL_DIALOG, "opened"),
        Output(_STATUS, "children", allow_duplicate=True),
        Output(_RESULT, "children"),
        Output(_TICK, "disabled", allow_duplicate=True),
        Output(_CANCEL, "disabled", allow_duplicate=True),
        Output(_RESUME, "disabled", allow_duplicate=True),
        Input(_CANCEL, "n_clicks"),
        Input(_CANCEL_BACK, "n_clicks"),
        Input(_CANCEL_GO, "n_clicks"),
        Input(_RESUME, "n_clicks"),
        State(_KEY, "data"),
        prevent_initial_call=True,
    )
    def act(ask: Any, back: Any, cancel: Any, resume: Any, key: Any) -> tuple[Any, ...]:
        pressed = {
            _CANCEL: clicked(ask),
            _CANCEL_BACK: clicked(back),
            _CANCEL_GO: clicked(cancel),
            _RESUME: clicked(resume),
        }
        what, key = str(ctx.triggered_id), identity(key)
        if not pressed.get(what):
            return (no_update,) * 6
        if what in (_CANCEL, _CANCEL_BACK):
            return what == _CANCEL, no_update, None, no_update, no_update, no_update
        failed = site.desk.cancel(key) if what == _CANCEL_GO else site.desk.resume(key)
        job = site.desk.job(key)
        said = notice(failed, title="Not done", colour="red") if failed else None
        if job is None:
            return False, no_update, said, True, True, True
        return False, _status(site, job), said, not job.active, *_switches(job)


def _switches(job: JobView) -> tuple[bool, bool]:
    """Whether the buttons for cancelling and resuming are off."""
    return not job.can_cancel, not job.can_resume


def _list(site: Site) -> tuple[Any, bool]:
    jobs = site.desk.jobs()
    if not jobs:
        return (
            notice(["No job yet. ", link("Ask for a retraining", ids.address("retrain"))]),
            True,
        )
    rows = [
        (
            link(f"{job.remedy}: {job.title}", ids.address("jobs", job.id)),
            _badge(job),
            html.Div([_bar(job), html.Span(job.stage or job.sentence, className="soft")]),
            f"{job.created.astimezone():%Y-%m-%d %H:%M}",
        )
        for job in jobs
    ]
    table = data_table("Jobs, the newest first", ("Job", "State", "How far", "Asked for"), rows)
    return html.Div(table, className="card jobs"), not any(job.active for job in jobs)


def _status(site: Site, job: JobView) -> Any:
    parts: list[Any] = [
        html.Div([_badge(job), html.Span(job.stage or job.sentence)], className="bar"),
        _bar(job),
    ]
    if job.stage and job.sentence:
        parts.append(html.P(job.sentence, className="soft"))
    parts.append(html.P(job.times, className="soft"))
    if job.state == "finished":
        parts.append(_results(site, job))
    return html.Section(parts, className="card", **aria(label="State of the job"))


def _results(site: Site, job: JobView) -> html.P:
    folder = site.library.folder / job.out
    links: list[Any] = []
    comparison = site.library.comparison_at(folder)
    if comparison is not None:
        links.append(link("Compare before and after", ids.address("compare", comparison)))
    for name, place in (("before", "before"), ("after", "after"), ("control", "control/after")):
        key = site.library.key_at(folder / place)
        if key is not None:
            links += [" · "] if links else []
            links += [link(f"Audit {name}" if name != "control" else "Audit of the control", ids.address("diagnosis", key))]  # fmt: skip
    return html.P(links)


def _badge(job: JobView) -> html.Span:
    # The state alone is announced when it changes; progress would be talked about every second.
    return html.Span(
        [html.Span(className=f"dot dot-{job.state}"), job.state], className="state", role="status"
    )


def _bar(job: JobView) -> Any:
    if job.state == "finished":
        share = 100.0
    elif job.share is None:
        return None
    else:
        share = 100 * job.share
    return dmc.Progress(
        value=round(share, 1), size="md", **aria(label=job.stage or f"Job {job.state}")
    )


def _buttons(job: JobView, *, hidden: bool) -> html.Div:
    """They stay where they are and are switched on and off: a button that is drawn anew counts its clicks anew."""
    return html.Div(
        [
            dmc.Button("Cancel …", id=_CANCEL, variant="default", disabled=not job.can_cancel),
            dmc.Button("Resume", id=_RESUME, variant="default", disabled=not job.can_resume),
        ],
        className="bar hidden" if hidden else "bar",
    )


def _cancel_dialog() -> dmc.Modal:
    return dmc.Modal(
        [
            html.P(
                "The training saves its state and stops; if it does not within a minute, it is ended by force and "
                "loses what it did since its last checkpoint. It can be resumed later."
            ),
            html.Div(
                [
                    dmc.Button("Cancel the job", id=_CANCEL_GO, color="red"),
                    dmc.Button("Back", id=_CANCEL_BACK, variant="default"),
                ],
                className="bar",
            ),
        ],
        id=_CANCEL_DIALOG,
        title="Cancel this job?",
        opened=False,
        closeButtonProps={"aria-label": "Close"},
    )


def _slots(site: Site, key: str) -> list[CurvesInfo]:
    curves = site.desk.curves(key)
    return [
        losses_info(curves),
        scores_info(curves),
        coefficients_info(curves, _modalities(site, key)),
    ]


def _modalities(site: Site, key: str) -> tuple[str, ...]:
    """Of the audited model, in the order that gives them their colours; its first audit is there before it trains."""
    out = site.desk.out(key)
    found = site.library.key_at(out / "before") if out is not None else None
    try:
        return site.library.report(found).modalities if found is not None else ()
    except RecordError:
        return ()


def _slot(name: str, info: CurvesInfo) -> html.Section:
    """A figure that stays where it is while its data come in."""
    return html.Section(
        [
            html.H3(info.words.title, id={"type": "curves-title", "key": name}),
            html.Figure(
                html.Div(
                    graph(name, _drawn(info)),
                    role="img",
                    # As Dash writes the id of the heading into the page.
                    **aria(labelledby=f'{{"key":"{name}","type":"curves-title"}}'),
                ),
                className="scroll",
            ),
        ],
        id={"type": "curves", "key": name},
        className=_seen(info),
        **aria(label=name.capitalize()),
    )


def _seen(info: CurvesInfo) -> str:
    return "card" if info.undefined is None else "card hidden"


def _drawn(info: CurvesInfo) -> dict[str, Any]:
    return drawing(plot_curves(info))


def _tables(slots: list[CurvesInfo]) -> list[Any]:
    shown = [info for info in slots if info.undefined is None]
    if not shown:
        return [
            html.P("Nothing is recorded yet: losses come after the first epoch.", className="soft")
        ]
    parts = []
    for info in shown:
        table = curves_table(info)
        parts.append(data_table(info.words.subtitle, table.headers, table.rows))
    return [folded("The numbers as tables", parts)]


def _log(site: Site, key: str) -> str:
    lines = site.desk.log(key).splitlines()
    return "\n".join(shorten(line, 400) for line in lines) or "Nothing was printed yet."


PAGE = Page("Jobs", "Jobs · mmaudit", _layout, _register)
