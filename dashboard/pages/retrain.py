"""Asking for a retraining: a registered audit file, a remedy, bounded settings, and a confirmation that says what will happen."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, dcc, html, no_update
from dash.dependencies import ALL, Input, Output, State
from werkzeug.exceptions import BadRequest

from dashboard import ids
from dashboard.components.browser import aria
from dashboard.components.texts import command, heading, link, notice, sentences
from dashboard.site import Page, Site
from dashboard.values import choice, clicked, identity
from dashboard.work import FileView, without_folders
from mmaudit.exceptions import MMAuditError
from mmaudit.jobs.offers import OFFERS, Setting, Settings, check_settings

__all__ = ["PAGE"]

_FILE, _REMEDY, _FORM = "retrain-file", "retrain-remedy", "retrain-form"
_FILE_NOTE, _BUSY, _ERROR = "retrain-file-note", "retrain-busy", "retrain-error"
_ASK, _DIALOG, _SUMMARY, _GO, _BACK = (
    "retrain-ask",
    "retrain-dialog",
    "retrain-summary",
    "retrain-go",
    "retrain-back",
)
_SUBMIT, _TICK = "retrain-submit", "retrain-tick"
_FIRST = next(iter(OFFERS))


def _layout(site: Site, key: str) -> Any:
    head = heading(
        "Retrain",
        html.P(
            "Trains a copy of a model with a remedy, audits it on the same test data and says what changed.",
            className="soft",
        ),
    )
    if site.read_only:
        return [head, notice("This app was started read-only: nothing can be trained from here.")]
    files = site.desk.files()
    if not files:
        return [head, _none_registered()]
    return [
        head,
        dcc.Store(id=_SUBMIT, data=secrets.token_hex(16)),
        dcc.Interval(id=_TICK, interval=2000, disabled=True),
        _file_part(files, key),
        _remedy_part(),
        html.Section(
            [
                html.H2("Settings", id="settings-title"),
                html.Div(_form(_FIRST), id=_FORM, className="form"),
            ],
            className="card",
            **aria(labelledby="settings-title"),
        ),
        html.Div(id=_ERROR, role="alert"),
        html.Div(id=_BUSY, role="status"),
        dmc.Button("Train …", id=_ASK, disabled=True),
        _dialog(),
    ]


def _register(app: Dash, site: Site) -> None:
    if site.read_only:
        return
    asked = [
        State(_FILE, "value"),
        State(_REMEDY, "value"),
        State({"type": "setting", "name": ALL}, "value"),
        State({"type": "setting", "name": ALL}, "checked"),
        State({"type": "setting", "name": ALL}, "id"),
    ]

    @app.callback(Output(_FORM, "children"), Input(_REMEDY, "value"), prevent_initial_call=True)
    def form(remedy: Any) -> Any:
        return _form(choice(remedy, OFFERS))

    @app.callback(
        Output(_ASK, "disabled"),
        Output(_FILE_NOTE, "children"),
        Output(_BUSY, "children"),
        Output(_TICK, "disabled"),
        Input(_FILE, "value"),
        Input(_REMEDY, "value"),
        Input(_TICK, "n_intervals"),
    )
    def stored(file_id: Any, remedy: Any, tick: Any) -> tuple[bool, Any, Any, bool]:
        del tick
        return _stored(site, identity(file_id), choice(remedy, OFFERS))

    @app.callback(
        Output(_DIALOG, "opened"),
        Output(_SUMMARY, "children"),
        Output(_ERROR, "children"),
        Input(_ASK, "n_clicks"),
        Input(_BACK, "n_clicks"),
        *asked,
        prevent_initial_call=True,
    )
    def ask(
        asks: Any, backs: Any, file_id: Any, remedy: Any, values: Any, checked: Any, names: Any
    ) -> tuple[bool, Any, Any]:
        if not clicked(asks) or _last_trigger() == _BACK:
            clicked(backs)
            return False, no_update, None
        try:
            settings = check_settings(choice(remedy, OFFERS), _given(names, values, checked))
        except MMAuditError as error:
            return (
                False,
                no_update,
                notice(
                    _about(error, choice(remedy, OFFERS)),
                    title="Look at the settings",
                    colour="red",
                ),
            )
        file = _find(site, identity(file_id))
        if file is None:
            return False, no_update, notice("Choose an audit file.", colour="red")
        return True, _summary(site, file, remedy, settings), None

    @app.callback(
        Output(ids.LOCATION, "pathname"),
        Output(_DIALOG, "opened", allow_duplicate=True),
        Output(_ERROR, "children", allow_duplicate=True),
        Input(_GO, "n_clicks"),
        State(_SUBMIT, "data"),
        *asked,
        prevent_initial_call=True,
    )
    def go(
        clicks: Any, submit: Any, file_id: Any, remedy: Any, values: Any, checked: Any, names: Any
    ) -> tuple[Any, bool, Any]:
        if not clicked(clicks):
            return no_update, False, None
        try:
            job = site.desk.submit(
                identity(file_id),
                choice(remedy, OFFERS),
                _given(names, values, checked),
                identity(submit),
            )
        except MMAuditError as error:
            said = notice(without_folders(str(error)), title="Not started", colour="red")
            return no_update, False, said
        return ids.address("jobs", job.id), False, None


def _last_trigger() -> str:
    from dash import ctx

    return str(ctx.triggered_id)


def _none_registered() -> Any:
    return notice(
        [
            html.P(
                "No audit file is registered in this workspace. The app trains only what its owner has registered, unchanged "
                "since; an audit file that names training data is registered in a terminal:"
            ),
            command("mmaudit register WORKSPACE audit.yaml"),
        ],
        title="Nothing to train yet",
    )


def _file_part(files: Sequence[FileView], wanted: str) -> html.Section:
    usable = next((file for file in files if file.problem is None), files[0])
    usable = next((file for file in files if file.id == wanted), usable)
    return html.Section(
        [
            html.H2("Model", id="model-title"),
            dmc.Select(
                id=_FILE,
                data=[{"value": f.id, "label": f"{f.title} ({f.name})"} for f in files],
                value=usable.id,
                allowDeselect=False,
                comboboxProps={"withinPortal": True},
                **aria(label="Registered audit file"),
            ),
            html.Div(id=_FILE_NOTE, role="status"),
        ],
        className="card",
        **aria(labelledby="model-title"),
    )


def _remedy_part() -> html.Section:
    return html.Section(
        [
            html.H2("Remedy", id="remedy-title"),
            dmc.RadioGroup(
                html.Div(
                    [
                        dmc.Radio(
                            value=offer.id,
                            label=offer.title,
                            description=offer.sentence,
                        )
                        for offer in OFFERS.values()
                    ],
                    className="choices",
                ),
                id=_REMEDY,
                value=_FIRST,
                **aria(labelledby="remedy-title"),
            ),
        ],
        className="card",
        **aria(labelledby="remedy-title"),
    )


def _form(remedy: str) -> list[Any]:
    return [_field(setting) for setting in OFFERS[remedy].form]


def _field(setting: Setting) -> Any:
    # Remedies share settings: the name is enough to keep what was typed from being lost to another field.
    key = {"type": "setting", "name": setting.name}
    if setting.kind == "switch":
        return dmc.Switch(
            id=key, label=setting.title, checked=bool(setting.default), className="switch"
        )
    if setting.kind == "choice":
        return dmc.Select(
            id=key,
            label=setting.title,
            data=list(setting.choices),
            value=str(setting.default),
            allowDeselect=False,
        )
    bounds = f"{setting.least:g} to {setting.most:.10g}" if setting.least is not None else ""
    return dmc.NumberInput(
        id=key,
        label=setting.title,
        description=bounds,
        value=setting.default,
        min=setting.least,
        max=setting.most,
        allowDecimal=setting.kind == "number",
        decimalScale=8,
        step=1 if setting.kind == "integer" else 0.1,
        hideControls=setting.kind == "number",
        clampBehavior="none",
    )


def _dialog() -> dmc.Modal:
    return dmc.Modal(
        [
            html.Div(id=_SUMMARY),
            html.Div(
                [
                    dmc.Button("Train", id=_GO),
                    dmc.Button("Back", id=_BACK, variant="default"),
                ],
                className="bar",
            ),
        ],
        id=_DIALOG,
        title="Start this retraining?",
        opened=False,
        size="lg",
        closeButtonProps={"aria-label": "Close"},
    )


def _stored(site: Site, file_id: str, remedy: str) -> tuple[bool, Any, Any, bool]:
    """Whether the button is off, why, and whether to look again soon: from what is stored, not from what was clicked."""
    file = _find(site, file_id)
    if file is None:
        return True, notice("This file is not registered any more.", colour="yellow"), None, True
    if file.problem is not None:
        return (
            True,
            notice(file.problem, title="Cannot be trained now", colour="yellow"),
            None,
            True,
        )
    busy = site.desk.busy(file_id, remedy)
    if busy is None:
        return False, None, None, True
    said = notice(
        [
            f"A retraining of this model with {busy.remedy} is {busy.state}. ",
            link("Look at it", ids.address("jobs", busy.id)),
        ]
    )
    return True, None, said, False


def _summary(site: Site, file: FileView, remedy: str, settings: Settings) -> list[Any]:
    offer = OFFERS[remedy]
    start = (
        "from the weights of its checkpoint"
        if settings.start == "checkpoint"
        else "from scratch, as its factory builds it"
    )
    own = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.options.items())  # fmt: skip
    trained = (
        f"Trains a copy of {file.title} ({file.name}) with {offer.title}{f' ({own})' if own else ''}, {start}: "
        f"{settings.epochs} epoch{'s' if settings.epochs != 1 else ''}, learning rate {settings.lr:g}, "
        f"batch size {settings.batch_size}, seed {settings.seed}."
    )
    texts = [trained]
    if settings.control and remedy != "joint":
        texts.append("Trains plainly with the same budget too, as a control: about twice the time.")
    texts += [
        "Audits the model before and after on the same test data, and compares.",
        f"Writes weights, records and the comparison into a new folder of {_place(site)}/retrainings; "
        "the audited checkpoint stays as it is.",
        "Runs in the background on a free GPU, else on the CPU; one job at a time on each.",
    ]
    took = site.desk.last_duration(file.id, remedy)
    texts.append(took or "How long it takes is shown as soon as it trains.")
    return [sentences(texts)]


def _place(site: Site) -> str:
    return site.library.folder.name or "the workspace"


def _find(site: Site, file_id: str) -> FileView | None:
    return next((file for file in site.desk.files() if file.id == file_id), None)


def _given(names: Any, values: Any, checked: Any) -> Mapping[str, Any]:
    """The form as a mapping; the offer decides what of it may be."""
    if not all(isinstance(part, list) for part in (names, values, checked)):
        raise BadRequest
    if not len(names) == len(values) == len(checked):
        raise BadRequest
    found: dict[str, Any] = {}
    for name, value, on in zip(names, values, checked, strict=True):
        if not isinstance(name, dict) or not isinstance(name.get("name"), str):
            raise BadRequest
        found[name["name"]] = on if isinstance(on, bool) else value
    return found


def _about(error: MMAuditError, remedy: str) -> str:
    """What is wrong with the settings, by the names that the form gives them."""
    said = without_folders(str(error)).removeprefix(f"settings of {remedy}: ")
    for setting in OFFERS[remedy].form:
        said = re.sub(rf"\b{setting.name} is ", f"{setting.title} is ", said)
    return f"{said}."


PAGE = Page("Retrain", "Retrain · mmaudit", _layout, _register)
