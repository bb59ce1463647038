"""Figures of a report: one file each, data first, then plotly. Importable without torch and dash.

``FIGURES`` lists them in the order of the pages; ``draw`` makes one by its key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import plotly.graph_objects as go

from mmaudit.exceptions import RecordError
from mmaudit.figures.base import Table, cell_word
from mmaudit.figures.branch_utilization import (
    branch_utilization_info,
    branch_utilization_table,
    plot_branch_utilization,
)
from mmaudit.figures.calibration import (
    calibration_info,
    calibration_table,
    plot_calibration,
)
from mmaudit.figures.capacity_gap import (
    capacity_gap_info,
    capacity_gap_table,
    plot_capacity_gap,
)
from mmaudit.figures.classes import classes_info, classes_table, plot_classes
from mmaudit.figures.coalitions import coalitions_info, coalitions_table, plot_coalitions
from mmaudit.figures.competition import (
    competition_info,
    competition_table,
    plot_competition,
)
from mmaudit.figures.confidence_monotonicity import (
    confidence_monotonicity_info,
    confidence_monotonicity_table,
    plot_confidence_monotonicity,
)
from mmaudit.figures.contributions import (
    contributions_info,
    contributions_table,
    plot_contributions,
)
from mmaudit.figures.dominance import (
    dominance_info,
    dominance_table,
    plot_dominance,
)
from mmaudit.figures.information import (
    information_info,
    information_table,
    plot_information,
)
from mmaudit.figures.mask_sensitivity import (
    mask_sensitivity_info,
    mask_sensitivity_table,
    plot_mask_sensitivity,
)
from mmaudit.figures.missing_modality import (
    missing_modality_info,
    missing_modality_table,
    plot_missing_modality,
)
from mmaudit.figures.responses import plot_responses, responses_info, responses_table
from mmaudit.figures.theme import CONFIG, TEMPLATES
from mmaudit.figures.utilization import plot_utilization, utilization_info, utilization_table
from mmaudit.report import AuditReport

__all__ = [
    "CONFIG",
    "FIGURES",
    "PARTS",
    "TEMPLATES",
    "Drawing",
    "draw",
    "draw_all",
    "figures_by_part",
]


class Drawing(NamedTuple):
    """One figure: what it collects from a report, how it draws that, and the table beside it."""

    info: Callable[[AuditReport], Any]
    plot: Callable[[Any], go.Figure]
    table: Callable[[Any], Table]
    measures: tuple[str, ...]
    """What it draws; a report that has none of them is shown without the figure."""


FIGURES: dict[str, Drawing] = {
    "contributions": Drawing(
        contributions_info, plot_contributions, contributions_table, ("contributions",)
    ),
    "coalitions": Drawing(coalitions_info, plot_coalitions, coalitions_table, ("coalitions",)),
    "utilization": Drawing(utilization_info, plot_utilization, utilization_table, ("utilization",)),
    "branch_utilization": Drawing(
        branch_utilization_info,
        plot_branch_utilization,
        branch_utilization_table,
        ("branch_utilization",),
    ),
    "responses": Drawing(responses_info, plot_responses, responses_table, ("responses",)),
    "capacity_gap": Drawing(
        capacity_gap_info, plot_capacity_gap, capacity_gap_table, ("capacity_gap",)
    ),
    "information": Drawing(information_info, plot_information, information_table, ("information",)),
    "competition": Drawing(competition_info, plot_competition, competition_table, ("competition",)),
    "mask_sensitivity": Drawing(
        mask_sensitivity_info,
        plot_mask_sensitivity,
        mask_sensitivity_table,
        ("mask_sensitivity",),
    ),
    "missing_modality": Drawing(
        missing_modality_info, plot_missing_modality, missing_modality_table, ("missing_modality",)
    ),
    "calibration": Drawing(calibration_info, plot_calibration, calibration_table, ("calibration",)),
    "confidence_monotonicity": Drawing(
        confidence_monotonicity_info,
        plot_confidence_monotonicity,
        confidence_monotonicity_table,
        ("confidence_monotonicity",),
    ),
    "dominance": Drawing(dominance_info, plot_dominance, dominance_table, ("dominance",)),
    "classes": Drawing(classes_info, plot_classes, classes_table, ("contributions", "utilization")),
}

_BY_CLASS = "Class by class"
PARTS: dict[str, tuple[str, ...]] = {
    "Contributions": ("contributions", "coalitions"),
    "Utilization": ("utilization", "branch_utilization", "responses"),
    "What a model of one modality would know": ("capacity_gap", "information", "competition"),
    "How it moves with the mask": ("mask_sensitivity",),
    "Missing modalities": ("missing_modality",),
    "Calibration": ("calibration", "confidence_monotonicity"),
    "Dominance, sample by sample": ("dominance",),
    _BY_CLASS: ("classes",),
}
"""Heading on a page -> its figures, in the order of the pages. A class may be a label or a predicted number."""


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
    infos = {
        key: FIGURES[key].info(report) for keys in figures_by_part(report).values() for key in keys
    }
    return {key: FIGURES[key].plot(info) for key, info in infos.items() if info.undefined is None}


def figures_by_part(report: AuditReport) -> dict[str, tuple[str, ...]]:
    """Which figures a page of a report has, under which heading.

    A figure is left out where none of its measures was asked for; one whose measure is undefined or failed stays, and says why.
    """
    has = {*report.measures, *(failure.measure for failure in report.failures)}
    shown = {
        part: tuple(key for key in keys if not has.isdisjoint(FIGURES[key].measures))
        for part, keys in PARTS.items()
    }
    word = cell_word(report)
    titles = {_BY_CLASS: f"{word.capitalize()} by {word}"}
    return {titles.get(part, part): keys for part, keys in shown.items() if keys}
