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
from mmaudit.figures.loss_curves import loss_curves_info, loss_curves_table, plot_loss_curves
from mmaudit.figures.ogr import ogr_info, ogr_table, plot_ogr
from mmaudit.report.loss_record import LossRecord

__all__ = ["LOSS_FIGURES", "LossDrawing", "draw_losses"]


class LossDrawing(NamedTuple):
    """One figure: what it collects from a record of losses, how it draws that, and the table beside it."""

    title: str
    """Heading above it on a page."""
    info: Callable[[LossRecord], Any]
    plot: Callable[[Any], go.Figure]
    table: Callable[[Any], Table]


LOSS_FIGURES: dict[str, LossDrawing] = {
    "loss_curves": LossDrawing("Losses", loss_curves_info, plot_loss_curves, loss_curves_table),
    "ogr": LossDrawing("Overfitting against generalization", ogr_info, plot_ogr, ogr_table),
    "blend_weights": LossDrawing(
        "What a blend would weight", blend_weights_info, plot_blend_weights, blend_weights_table
    ),
}


def draw_losses(record: LossRecord) -> dict[str, go.Figure]:
    """Draw all figures that a record has numbers for."""
    infos = {key: drawing.info(record) for key, drawing in LOSS_FIGURES.items()}
    return {
        key: LOSS_FIGURES[key].plot(info) for key, info in infos.items() if info.undefined is None
    }
