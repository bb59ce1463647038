"""Figures of a report: one file each, data first, then plotly. Importable without torch and dash.

``FIGURES`` lists them in the order of the pages; ``draw`` makes one by its key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import plotly.graph_objects as go

from mmaudit.exceptions import RecordError
from mmaudit.figures.base import Table
from mmaudit.figures.classes import classes_info, classes_table, plot_classes
from mmaudit.figures.coalitions import coalitions_info, coalitions_table, plot_coalitions
from mmaudit.figures.contributions import (
    contributions_info,
    contributions_table,
    plot_contributions,
)
from mmaudit.figures.responses import plot_responses, responses_info, responses_table
from mmaudit.figures.theme import CONFIG, TEMPLATES
from mmaudit.figures.utilization import plot_utilization, utilization_info, utilization_table
from mmaudit.report import AuditReport

__all__ = ["CONFIG", "FIGURES", "TEMPLATES", "Drawing", "draw", "draw_all"]


class Drawing(NamedTuple):
    """One figure: what it collects from a report, how it draws that, and the table beside it."""

    info: Callable[[AuditReport], Any]
    plot: Callable[[Any], go.Figure]
    table: Callable[[Any], Table]


FIGURES: dict[str, Drawing] = {
    "contributions": Drawing(contributions_info, plot_contributions, contributions_table),
    "coalitions": Drawing(coalitions_info, plot_coalitions, coalitions_table),
    "utilization": Drawing(utilization_info, plot_utilization, utilization_table),
    "responses": Drawing(responses_info, plot_responses, responses_table),
    "classes": Drawing(classes_info, plot_classes, classes_table),
}


def draw(report: AuditReport, key: str) -> go.Figure:
    """Draw one figure of a report.

    Args:
        report: Any; without the numbers the figure says why there are none.
        key: One of ``FIGURES``.

    Raises:
        RecordError: If there is no such figure.
    """
    if key not in FIGURES:
        raise RecordError(f"expected one of the figures {', '.join(FIGURES)}, found '{key}'")
    drawing = FIGURES[key]
    return drawing.plot(drawing.info(report))


def draw_all(report: AuditReport) -> dict[str, go.Figure]:
    """Draw all figures that a report has numbers for, in the order of the pages."""
    infos = {key: drawing.info(report) for key, drawing in FIGURES.items()}
    return {key: FIGURES[key].plot(info) for key, info in infos.items() if info.undefined is None}
