"""A heat map of estimates centred at zero, which two figures share. What has no value is said in the cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import hover
from mmaudit.figures.theme import Words, make_figure, name_rows, plain
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.schema import Estimate

__all__ = ["Heat", "draw_heat"]

_MOST_COLUMNS_NUMBERED = 8
_MOST_COLUMNS_WORDED = 5


class Heat(NamedTuple):
    """A matrix and its words."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Estimate | None, ...], ...]
    """``None``: there cannot be a value, the cell stays empty."""
    said: Callable[[str, str], str]
    """What a cell is, in words: from the names of its row and column."""
    rows_title: str
    columns_title: str
    bar_title: str
    row_height: int = 26


def draw_heat(words: Words, heat: Heat) -> go.Figure:
    """Draw a heat map: blue above zero, brown below, numbers in the cells while they fit."""
    figure = make_figure(
        words,
        height=130 + heat.row_height * len(heat.rows),
        labels=heat.rows,
        columns=2 * len(heat.columns),
    )
    told = [
        [
            plain(f"{heat.said(name, column)}: {hover(e)}")
            for column, e in zip(heat.columns, row, strict=True)
        ]
        for name, row in zip(heat.rows, heat.cells, strict=True)
    ]
    values = [[None if e is None else e.value for e in row] for row in heat.cells]
    numbered = len(heat.columns) <= _MOST_COLUMNS_NUMBERED
    largest = max((abs(v) for row in values for v in row if v is not None), default=0.0) or 1.0
    figure.add_heatmap(
        x=list(range(len(heat.columns))),
        y=list(range(len(heat.rows))),
        z=values,
        text=[["" if v is None or not numbered else number(v) for v in row] for row in values],
        texttemplate="%{text}",
        customdata=told,
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=2,
        ygap=2,
        coloraxis="coloraxis",
    )
    for y, row in enumerate(heat.cells):
        for x, estimate in enumerate(row):
            if estimate is not None and estimate.value is None:
                figure.add_annotation(
                    x=x,
                    y=y,
                    text=with_interval(estimate)
                    if len(heat.columns) <= _MOST_COLUMNS_WORDED
                    else "?",
                    hovertext=told[y][x],
                    showarrow=False,
                )
    figure.update_layout(
        coloraxis={
            "cmin": -largest,
            "cmax": largest,
            "colorbar": {"title": {"text": heat.bar_title}, "thickness": 12},
        }
    )
    figure.update_xaxes(
        tickvals=list(range(len(heat.columns))),
        ticktext=[plain(shorten(name, 18)) for name in heat.columns],
        title={"text": heat.columns_title},
        range=[-0.5, len(heat.columns) - 0.5],
        showgrid=False,
        zeroline=False,
    )
    name_rows(figure, [shorten(name, 22) for name in heat.rows], edge=0.5)
    figure.update_yaxes(title={"text": heat.rows_title})
    return figure
