"""A report as one HTML file that opens offline, and its short form in a notebook.

The page runs two scripts, plotly.js and the one that draws; its Content-Security-Policy names them by hash, so nothing that
came in with a name, a path or an error message can run. Its size depends on modalities and classes, both bounded, and never
on the number of samples.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from mmaudit.export.opened import EVIDENCE_HEADERS, open_findings
from mmaudit.export.overview import make_overview
from mmaudit.export.page import ShownFigure, environment, page_parts, shown_figure
from mmaudit.export.provenance import make_provenance
from mmaudit.figures import FIGURES, figures_by_part
from mmaudit.report import AuditReport
from mmaudit.report.store import write_text_atomic

__all__ = ["notebook_html", "to_html", "write_html"]


def to_html(report: AuditReport) -> str:
    """Write a whole report as one HTML document.

    Args:
        report: The report; its per-sample tables are not read.

    Returns:
        The document: plotly.js inside, no request to any server, about 5 MB.
    """
    parts = [
        (title, [_shown(report, key) for key in keys])
        for title, keys in figures_by_part(report).items()
    ]
    page = page_parts([figure for _, of_part in parts for figure in of_part])
    return (
        environment()
        .get_template("report.html")
        .render(
            overview=make_overview(report),
            opened=open_findings(report.record),
            evidence_headers=EVIDENCE_HEADERS,
            parts_of_page=parts,
            **make_provenance(report),
            css=Markup(page.css),
            figure_data=Markup(page.figure_data),
            plotly_js=Markup(page.plotly_js),
            page_js=Markup(page.page_js),
            policy=page.policy,
        )
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
        environment()
        .get_template("notebook.html")
        .render(
            overview=make_overview(report),
            opened=open_findings(report.record),
            evidence_headers=EVIDENCE_HEADERS,
        )
    )


def _shown(report: AuditReport, key: str) -> ShownFigure:
    drawing = FIGURES[key]
    return shown_figure(key, drawing.info(report), drawing.plot, drawing.table)
