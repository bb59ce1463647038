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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mmaudit.export.overview import HEADERS, MostShown, make_overview
from mmaudit.figures import CONFIG, FIGURES, TEMPLATES
from mmaudit.figures.base import Table, cell
from mmaudit.figures.theme import Words
from mmaudit.report import AuditReport
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count
from mmaudit.report.schema import Estimate
from mmaudit.report.store import write_text_atomic

__all__ = ["notebook_html", "to_html", "write_html"]

_LONGEST_SPEC = 100_000


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
    figures = [_shown(report, key) for key in FIGURES]
    plotly_js = _newlines(get_plotlyjs())
    page_js = _source("report.js")
    record = report.record
    classes, classes_caption = _class_table(report)
    modules = record.subject.structure.modules
    files = record.subject.files
    data = {
        "config": CONFIG,
        "templates": TEMPLATES,
        "figures": [f.drawing for f in figures if f.drawing is not None],
    }
    return templates.get_template("report.html").render(
        overview=make_overview(report),
        headers=HEADERS,
        record=_bounded_record(report),
        created=f"{record.created:%d %B %Y, %H:%M} {record.created.tzname() or ''}".strip(),
        figures=figures,
        classes=classes,
        classes_caption=classes_caption,
        measures=_measures(report),
        files=[
            (shorten(f.path, 200), shorten(f.role, 60), count(f.bytes), shorten(f.sha256, 64))
            for f in files[: MostShown.files]
        ],
        files_caption=_of("files", MostShown.files, len(files)),
        modules=[
            (
                shorten(m.name or "(the model)", 80),
                shorten(m.type, 60),
                shorten(", ".join(m.modalities) or "nothing", 100),
                m.role,
                str(m.calls),
                count(m.parameters),
            )
            for m in modules[: MostShown.modules]
        ],
        modules_caption=_of("modules", MostShown.modules, len(modules)),
        spec=_spec(record.spec),
        settings=_pairs(record.settings),
        environment=_pairs(record.environment),
        notes=[
            (shorten(n.topic, 40), n.kind, shorten(n.text, MostShown.text))
            for n in record.notes[: MostShown.files]
        ],
        failures=[
            (shorten(f.measure, 60), shorten(f.error, MostShown.text))
            for f in record.failures[: MostShown.files]
        ],
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
        .render(overview=make_overview(report), headers=HEADERS)
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


def _class_table(report: AuditReport) -> tuple[Table, str]:
    """Accuracy, contributions and utilization given the rest, class by class, in one pass over the rows."""
    names = report.modalities
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    everyone = coalition_name(names, names)
    wanted: list[tuple[str, str, dict[str, str]]] = [
        ("Accuracy", "coalitions", {"coalition": everyone, "score": "accuracy"})
    ]
    for name in names:
        labels = {"modality": name, "score": "accuracy", "quantity": "value"}
        wanted.append((f"Contribution of {shorten(name)}", "contributions", labels))
    for name in names:
        rest = coalition_name((other for other in names if other != name), names)
        wanted.append(
            (
                f"Utilization of {shorten(name)} given rest",
                "utilization",
                {"modality": name, "given": rest},
            )
        )
    for header, measure, labels in wanted:
        for row in report.rows(measure, **labels):
            found.setdefault((header, measure), {})[row.labels.get("class", "all")] = row.estimate
    columns = [
        (header, found[(header, measure)])
        for header, measure, _ in wanted
        if (header, measure) in found
    ]
    sizes = dict(zip(report.classes, report.data.class_counts, strict=False))
    classes = [name for name in report.classes if any(name in column for _, column in columns)]
    rows = tuple(
        (
            shorten(name, 60),
            count(sizes[name]) if name in sizes else "unknown",
            *(cell(column.get(name)) for _, column in columns),
        )
        for name in classes[: MostShown.classes]
    )
    headers = ("Class", "Samples", *(header for header, _ in columns))
    caption = (
        _of("classes", MostShown.classes, len(classes)) + "; ! marks an interval with a warning"
    )
    return Table(headers, rows), caption


def _measures(report: AuditReport) -> list[tuple[str, ...]]:
    return [
        (
            shorten(m.title, 60),
            shorten(m.unit, 60) if m.unit else "none",
            shorten(m.reference, 160) if m.reference else "none",
            shorten(
                ", ".join(f"{name} {value}" for name, value in m.settings.items()) or "none", 200
            ),
            shorten(m.undefined, 200) if m.undefined else "no",
        )
        for m in report.measures.values()
    ]


def _bounded_record(report: AuditReport) -> dict[str, Any]:
    record = report.record
    return {
        "subject": {"model": shorten(record.subject.model, 160)},
        "mmaudit_version": shorten(record.mmaudit_version, 40),
        "report_id": shorten(record.report_id, 60),
        "schema_version": record.schema_version,
        "data": {
            "source": shorten(record.data.source, 160),
            "fingerprint": shorten(record.data.fingerprint, 64) if record.data.fingerprint else "",
            "ids": record.data.ids,
        },
    }


def _spec(spec: Mapping[str, Any]) -> str:
    text = (
        yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True, width=100)
        if spec
        else "not recorded"
    )
    return (
        text
        if len(text) <= _LONGEST_SPEC
        else f"{text[:_LONGEST_SPEC]}\n... cut; the record has it whole"
    )


def _pairs(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (shorten(str(name), 80), shorten(str(value), 300))
        for name, value in list(mapping.items())[:200]
    ]


def _of(what: str, most: int, total: int) -> str:
    return f"{count(min(most, total))} of {count(total)} {what}"
