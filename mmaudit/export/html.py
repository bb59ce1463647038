"""A report as one HTML file that opens offline, and its short form in a notebook.

The page runs two scripts, plotly.js and the one that draws; its Content-Security-Policy names them by hash, so nothing that
came in with a name, a path or an error message can run. Its size depends on modalities and classes, both bounded, and never
on the number of samples.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mmaudit.export.opened import EVIDENCE_HEADERS, open_findings
from mmaudit.export.overview import MostShown, make_overview
from mmaudit.export.provenance import make_provenance
from mmaudit.figures import CONFIG, FIGURES, TEMPLATES, figures_by_part
from mmaudit.figures.base import Table
from mmaudit.figures.theme import Words
from mmaudit.report import AuditReport
from mmaudit.report.labels import shorten
from mmaudit.report.store import write_text_atomic

__all__ = ["notebook_html", "to_html", "write_html"]


class _Shown(NamedTuple):
    """A figure on the page; its id is a key of ours, never a name from outside."""

    id: str
    words: Words
    table: Table
    undefined: str | None
    height: int
    least_width: int
    drawing: dict[str, Any] | None


def to_html(report: AuditReport) -> str:
    """Write a whole report as one HTML document.

    Args:
        report: The report; its per-sample tables are not read.

    Returns:
        The document: plotly.js inside, no request to any server, about 5 MB.
    """
    templates = _environment()
    parts = [
        (title, [_shown(report, key) for key in keys])
        for title, keys in figures_by_part(report).items()
    ]
    figures = [figure for _, of_part in parts for figure in of_part]
    plotly_js = _newlines(get_plotlyjs())
    page_js = _source("report.js")
    data = {
        "config": CONFIG,
        "templates": TEMPLATES,
        "figures": [f.drawing for f in figures if f.drawing is not None],
    }
    return templates.get_template("report.html").render(
        overview=make_overview(report),
        opened=open_findings(report.record),
        evidence_headers=EVIDENCE_HEADERS,
        parts_of_page=parts,
        **make_provenance(report),
        css=Markup(_source("report.css")),
        figure_data=Markup(_json_for_script(data)),
        plotly_js=Markup(plotly_js),
        page_js=Markup(page_js),
        policy=_policy(plotly_js, page_js),
    )


def write_html(report: AuditReport, path: Path) -> None:
    """Write a whole report as one HTML file.

    Raises:
        RecordError: If the file cannot be written; an older one stays as it was.
    """
    write_text_atomic(path, to_html(report))


def notebook_html(report: AuditReport) -> str:
    """Write the first screen of a report as a fragment without scripts."""
    return (
        _environment()
        .get_template("notebook.html")
        .render(
            overview=make_overview(report),
            opened=open_findings(report.record),
            evidence_headers=EVIDENCE_HEADERS,
        )
    )


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mmaudit.export"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return _newlines(loader.get_source(_environment(), name)[0])


def _newlines(text: str) -> str:
    """What a browser makes of line ends before it hashes a script."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _policy(*scripts: str) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    # plotly sets styles while it draws, and makes pictures for its download button.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json_for_script(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(report: AuditReport, key: str) -> _Shown:
    figure_id = f"figure-{key}"
    info = FIGURES[key].info(report)
    words = Words(*(shorten(text, 1500) for text in info.words))
    if info.undefined is not None:
        reason = shorten(info.undefined, MostShown.text)
        return _Shown(figure_id, words, Table((), ()), reason, 0, 0, None)
    drawing = json.loads(FIGURES[key].plot(info).to_json())
    layout = drawing["layout"]
    # The page has the title in a heading, where it wraps and screen readers find it.
    height = layout["height"] - layout["margin"]["t"] + 30
    least_width = layout["meta"]["least_width"]
    for name in ("title", "template", "meta"):
        layout.pop(name, None)
    layout["margin"]["t"] = 30
    layout["height"] = height
    table = FIGURES[key].table(info)
    table = Table(
        tuple(shorten(text, 60) for text in table.headers),
        tuple(tuple(shorten(text, 100) for text in row) for row in table.rows),
    )
    drawing = {"id": figure_id, "data": drawing["data"], "layout": layout}
    return _Shown(figure_id, words, table, None, height, least_width, drawing)
