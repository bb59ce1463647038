"""Figures of a record of losses, in the order of the pages; those of an audit are in :mod:`mmaudit.figures`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table
from mmaudit.figures.blend_weights import (
    blend_weights_info,
    blend_weights_table,
    plot_blend_weights,
)
from mmaudit.figures.learning_speed import (
    learning_speed_info,
    learning_speed_table,
    plot_learning_speed,
)
from mmaudit.figures.loss_curves import loss_curves_info, loss_curves_table, plot_loss_curves
from mmaudit.figures.ogr import ogr_info, ogr_table, plot_ogr
from mmaudit.report.loss_record import LossRecord

__all__ = ["LOSS_FIGURES", "LossDrawing", "draw_losses", "loss_drawings"]


class LossDrawing(NamedTuple):
    """One figure: what it collects from a record of losses, how it draws that, and the table beside it."""

    title: str
    """Heading above it on a page."""
    info: Callable[[LossRecord], Any]
    plot: Callable[[Any], go.Figure]
    table: Callable[[Any], Table]
    only_with: str | None = None
    """Measure that not every record has; without it there is no place for the figure, rather than an empty one."""


LOSS_FIGURES: dict[str, LossDrawing] = {
    "loss_curves": LossDrawing("Losses", loss_curves_info, plot_loss_curves, loss_curves_table),
    "ogr": LossDrawing("Overfitting against generalization", ogr_info, plot_ogr, ogr_table),
    "blend_weights": LossDrawing(
        "What a blend would weight", blend_weights_info, plot_blend_weights, blend_weights_table
    ),
    "learning_speed": LossDrawing(
        "How fast the branches learn",
        learning_speed_info,
        plot_learning_speed,
        learning_speed_table,
        only_with="learning_speed",
    ),
}


def loss_drawings(record: LossRecord) -> dict[str, LossDrawing]:
    """The figures that a page of this record has a place for."""
    return {
        key: drawing
        for key, drawing in LOSS_FIGURES.items()
        if drawing.only_with is None or drawing.only_with in record.measures
    }


def draw_losses(record: LossRecord) -> dict[str, go.Figure]:
    """Draw all figures that a record has numbers for."""
    infos = {key: drawing.info(record) for key, drawing in LOSS_FIGURES.items()}
    return {
        key: LOSS_FIGURES[key].plot(info) for key, info in infos.items() if info.undefined is None
    }
