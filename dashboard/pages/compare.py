"""Before and after: the verdict of a comparison, every number with its difference, and how to make another comparison."""

from __future__ import annotations

import shlex
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, html
from dash.dependencies import Input, Output

from dashboard import ids
from dashboard.changes import gained_and_lost, is_per_class, measure_table
from dashboard.components.browser import aria
from dashboard.components.graph import figure_card
from dashboard.components.tables import data_table
from dashboard.components.texts import card, command, folded, heading, link, notice, sentences
from dashboard.data import AuditRow, ComparisonRow, folder_name
from dashboard.site import Page, Site
from dashboard.values import identity
from mmaudit.exceptions import RecordError
from mmaudit.figures.comparison import comparison_info, comparison_table, plot_comparison
from mmaudit.figures.drawing import drawing
from mmaudit.report.changes import conclusion
from mmaudit.report.comparison import ComparedMeasure, Comparison
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count
from mmaudit.report.sides import Sides, model_name, sides_of

__all__ = ["PAGE"]

_BEFORE, _AFTER, _FOUND = "compare-before", "compare-after", "compare-found"
_MOST_CHOICES = 1000
_MOST_ROWS = 200


def _layout(site: Site, key: str) -> Any:
    return _one(site, key) if key else _all(site)


def _register(app: Dash, site: Site) -> None:
    @app.callback(
        Output(_FOUND, "children"),
        Input(_BEFORE, "value"),
        Input(_AFTER, "value"),
        prevent_initial_call=True,
    )
    def choose(before: Any, after: Any) -> Any:
        return _between(site, identity(before), identity(after))


def _all(site: Site) -> list[Any]:
    comparisons, audits = site.library.comparisons(), site.library.audits().rows
    said = (
        "Two audits of the same samples, number by number. Retraining makes a comparison by itself."
    )
    return [
        heading("Compare", html.P(said, className="soft")),
        *_list(comparisons),
        *(_chooser(audits) if len(audits) > 1 else []),
    ]


def _list(comparisons: tuple[ComparisonRow, ...]) -> list[Any]:
    if not comparisons:
        return [notice(["No comparison yet. ", link("Ask for a retraining", ids.address("retrain")), ", or choose two audits."])]  # fmt: skip
    rows = [
        (
            link(f"{row.before} → {row.after}", ids.address("compare", row.key)),
            row.headline,
            f"{row.created.astimezone():%Y-%m-%d %H:%M}",
            folder_name(row.place),
        )
        for row in comparisons[:_MOST_ROWS]
    ]
    headers = ("Compared", "Verdict", "When", "Folder")
    return [
        html.Div(data_table("Comparisons, the newest first", headers, rows), className="card")
    ]  # fmt: skip


def _chooser(audits: tuple[AuditRow, ...]) -> list[Any]:
    data = [
        {
            "value": row.key,
            "label": f"{row.title} · {row.created.astimezone():%Y-%m-%d %H:%M} · {folder_name(row.place)}",
        }
        for row in audits[:_MOST_CHOICES]
    ]
    selects = [
        dmc.Select(id=name, label=label, data=data, searchable=True, limit=50)
        for name, label in ((_BEFORE, "Before"), (_AFTER, "After"))
    ]
    return card(
        "Two audits",
        "two-audits",
        [html.Div(selects, className="form two"), html.Div(id=_FOUND, role="status")],
    )


def _between(site: Site, before: str, after: str) -> Any:
    """A link to the comparison of two audits, or how to make it: nothing is computed here."""
    rows = [site.library.row(key) if key else None for key in (before, after)]
    first, second = rows
    if first is None or second is None:
        return None
    if first.key == second.key:
        return html.P("Choose two different audits.")
    for known in site.library.comparisons():
        if (known.before_id, known.after_id) == (first.report_id, second.report_id):
            return html.P(
                [f"{known.headline}. ", link("Open the comparison", ids.address("compare", known.key))]
            )  # fmt: skip
    target = f"comparisons/{first.key[:8]}-{second.key[:8]}/comparison.json"
    words = ["mmaudit", "compare", first.place, second.place, "--out", target]
    return html.Div(
        [
            html.P(
                "These two have not been compared. In a terminal, in the folder of the workspace:"
            ),
            command(shlex.join(words)),
        ]
    )


def _one(site: Site, key: str) -> list[Any]:
    try:
        row, comparison = site.library.comparison(key)
    except RecordError:
        return [
            heading("No such comparison"),
            notice(["The workspace has no readable comparison under this address. ", link("See all comparisons", ids.address("compare"))]),
        ]  # fmt: skip
    info = comparison_info(comparison)
    drawn = None if info.undefined is not None else drawing(plot_comparison(info))
    table = comparison_table(info)
    caption = "The same samples in both; p for no change, corrected for how many were tested"
    moved, sides = gained_and_lost(comparison), sides_of(comparison.before, comparison.after)
    return [
        heading(f"{row.before} → {row.after}", _sides(site, row, comparison)),
        *_verdict(comparison, _together(site, row, comparison)),
        *card(
            sides.heading,
            "changes",
            [
                data_table(caption, table.headers, table.rows),
                html.P(moved, className="soft") if moved else None,
            ],
        ),
        figure_card("comparison", info.words, drawn, table._replace(rows=()), info.undefined),
        *card(
            "Every measure",
            "every-measure",
            [_measure(measure, sides) for measure in comparison.measures.values()],
            long=True,
        ),
        *_methods(comparison),
    ]


def _sides(site: Site, row: ComparisonRow, comparison: Comparison) -> html.P:
    keys = {audit.report_id: audit.key for audit in site.library.audits().rows}
    links: list[Any] = []
    sides = sides_of(comparison.before, comparison.after)
    called = ("before", "after")
    if sides.against:
        pair = (comparison.before, comparison.after)
        called = (f"of {model_name(*pair)}", f"of {model_name(*pair[::-1])}")
    for side, report_id in zip(called, (row.before_id, row.after_id), strict=True):
        if report_id in keys:
            links += [link(f"The audit {side}", ids.address("diagnosis", keys[report_id])), " · "]
    control = site.library.comparison_at(site.library.folder / row.place / "control")
    if control is not None:
        links += [link("Plain training with the same budget against this", ids.address("compare", control)), " · "]  # fmt: skip
    groups = "" if comparison.groups is None else f" in {count(comparison.groups)} groups"
    return html.P([*links, f"{count(comparison.samples)} samples{groups}"], className="soft")


def _together(site: Site, row: ComparisonRow, comparison: Comparison) -> str | None:
    """What this and the comparison with plain training come to, where the retraining made both."""
    control = site.library.comparison_at(site.library.folder / row.place / "control")
    if control is None:
        return None
    try:
        _, beside = site.library.comparison(control)
    except RecordError:
        return None
    if beside.after.report_id != comparison.after.report_id:
        return None
    return conclusion(comparison, beside)


def _verdict(comparison: Comparison, together: str | None) -> list[Any]:
    verdict = comparison.verdict
    parts: list[Any] = [
        html.P(html.Strong(verdict.headline), className="headline"),
        html.P(verdict.sentence),
    ]
    if together is not None:
        parts.append(html.P(together))
    if verdict.caveats:
        parts.append(sentences([shorten(text, 400) for text in verdict.caveats]))
    warnings = [note for note in comparison.notes if note.kind != "information"]
    if warnings:
        texts = [html.Li(shorten(f"{n.topic}: {n.text}", 400)) for n in warnings[:20]]
        parts.append(html.Ul(texts, className="warnings", **aria(label="Warnings")))
    return card("Verdict", "verdict", parts)


def _measure(measure: ComparedMeasure, sides: Sides) -> html.Details:
    title = f"{shorten(measure.title, 80)}, {shorten(measure.unit, 120)}"
    if measure.undefined is not None:
        return folded(title, [html.P(f"Undefined: {shorten(measure.undefined, 400)}")])
    parts: list[Any] = []
    for caption, per_class in (("All classes together", False), ("Class by class", True)):
        table = measure_table(measure, sides, per_class=per_class, most=_MOST_ROWS)
        if table.rows:
            of = sum(is_per_class(row) == per_class for row in measure.rows)
            more = f", {count(len(table.rows))} of {count(of)} rows" if of > len(table.rows) else ""
            parts.append(data_table(f"{caption}{more}", table.headers, table.rows))
    return folded(title, parts or [html.P("It has no rows.")])


def _methods(comparison: Comparison) -> list[Any]:
    pairs = [(name, shorten(str(value), 300)) for name, value in list(comparison.settings.items())[:50]]  # fmt: skip
    masks = [(shorten(name, 80), shorten(mask, 200)) for name, mask in comparison.masks.items()]
    parts = [
        folded("Masks", [data_table("How modalities were made absent", ("Modality", "Mask"), masks)]),
        folded("Settings", [data_table("Settings", ("Setting", "Value"), pairs)]),
    ]  # fmt: skip
    if comparison.notes:
        notes = [(n.topic, n.kind, shorten(n.text, 400)) for n in comparison.notes[:50]]
        parts.append(folded("Notes", [data_table("Notes", ("Topic", "Kind", "Text"), notes)]))
    return card("Methods", "methods", parts, long=True)


PAGE = Page("Compare", "Compare · mmaudit", _layout, _register)
