"""Rows of estimates in panels side by side, which several figures share: one row for each modality or set of modalities."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import hover
from mmaudit.figures.estimates import defined, reach
from mmaudit.figures.marks import mark, write
from mmaudit.figures.theme import (
    NEUTRAL,
    Style,
    Words,
    error_bars,
    make_figure,
    modality_styles,
    name_rows,
    plain,
)
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import Estimate

__all__ = ["Panel", "draw_modality_panels", "draw_panels"]

_FEW_ROWS = 12


class Panel(NamedTuple):
    """One quantity of all rows."""

    title: str
    """Of the axis, in few words: there is room for some twenty letters."""
    unit: str
    estimates: tuple[Estimate | None, ...]
    bounds: tuple[float | None, float | None] = (None, None)
    """Where the axis has to end; ``None``: where the intervals do."""


def draw_modality_panels(
    words: Words, modalities: tuple[str, ...], panels: tuple[Panel, ...]
) -> go.Figure:
    """Draw panels with one row for each modality, in its look; as :func:`draw_panels`."""
    styles = modality_styles(modalities)
    return draw_panels(words, modalities, tuple(styles[name] for name in modalities), panels)


def draw_panels(
    words: Words, rows: tuple[str, ...], styles: tuple[Style | None, ...], panels: tuple[Panel, ...]
) -> go.Figure:
    """Draw a mark with its interval for each row and panel.

    Args:
        words: What the figure says.
        rows: Names of the rows, from top to bottom.
        styles: How the marks of each row look; ``None`` for rows that belong to no single modality.
        panels: From left to right.
    """
    figure = make_subplots(
        rows=1, cols=len(panels), shared_yaxes=True, horizontal_spacing=0.12 / len(panels)
    )
    height = 34 if len(rows) <= _FEW_ROWS else 22
    make_figure(
        words,
        height=80 + height * len(rows),
        figure=figure,
        labels=tuple(shorten(name, 24) for name in rows),
        columns=9 * len(panels),
    )
    for place, panel in enumerate(panels, start=1):
        _add_marks(figure, rows, styles, panel, place)
        low, high = _ends(panel)
        figure.update_xaxes(
            title={"text": f"{panel.title}<br>({panel.unit})", "font": {"size": 12}},
            range=[low, high],
            zeroline=low < 0,
            row=1,
            col=place,
        )
    name_rows(figure, [shorten(name, 24) for name in rows])
    return figure


def _add_marks(
    figure: go.Figure,
    rows: tuple[str, ...],
    styles: tuple[Style | None, ...],
    panel: Panel,
    place: int,
) -> None:
    for y, (name, style, estimate) in enumerate(zip(rows, styles, panel.estimates, strict=True)):
        said = f"{shorten(name, 60)}: {hover(estimate)}"
        where = {"row": 1, "col": place}
        if estimate is None or estimate.value is None:
            text = "not measured" if estimate is None else with_interval(estimate)
            write(figure, max(0.0, _ends(panel)[0]), y, text, hovertext=plain(said), **where)
            continue
        marker = {
            "color": style.colour if style else NEUTRAL,
            "symbol": style.symbol if style else "circle",
            "size": 9,
        }
        drawn = mark(estimate.value, y, marker, said)
        figure.add_scatter(**drawn, error_x=error_bars([estimate]), **where)


def _ends(panel: Panel) -> tuple[float, float]:
    known = defined(panel.estimates)
    low, high = reach(known) if known else (0.0, 1.0)
    room = 0.05 * max(high - low, 0.01)
    least, most = panel.bounds
    # A mark on the very edge would be cut in half.
    low = low - room if least is None or low > least else least - room
    high = high + room if most is None or high < most else most + room
    return low, high
