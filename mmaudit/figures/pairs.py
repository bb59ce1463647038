"""Two estimates of each modality in its row, which two figures share: a filled mark, and an open one below it."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from mmaudit.figures.base import hover
from mmaudit.figures.estimates import defined
from mmaudit.figures.marks import mark, write
from mmaudit.figures.theme import error_bars, modality_styles
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import Estimate

__all__ = ["add_pairs"]


def add_pairs(
    figure: go.Figure,
    modalities: Sequence[str],
    pairs: Sequence[Sequence[Estimate | None]],
    sides: Sequence[str],
    *,
    apart: float,
    row: int,
) -> None:
    """Draw one or two estimates of each modality; where none has a value, the first one's reason in short.

    Args:
        figure: With subplots below one another.
        modalities: From top to bottom.
        pairs: Estimates of each modality; where there is a second, it is drawn open.
        sides: What the first and the second are, in words.
        apart: How far each lies from the middle of the row.
        row: Of the subplot, from 1.
    """
    styles, where = modality_styles(modalities), {"row": row, "col": 1}
    for y, (name, pair) in enumerate(zip(modalities, pairs, strict=True)):
        shown = [e for e in pair if e is not None]
        if not defined(shown):
            text = with_interval(shown[0]) if shown else "not measured"
            write(figure, 0, y, text, xshift=6, **where)
            continue
        shifts = (-apart, apart) if len(pair) > 1 else (0.0,)
        forms = ("", "-open")[: len(pair)]
        for e, side, shift, form in zip(pair, sides, shifts, forms, strict=True):
            if e is None or e.value is None:
                continue
            marker = {
                "symbol": styles[name].symbol + form,
                "color": styles[name].colour,
                "size": 10,
            }
            drawn = mark(e.value, y + shift, marker, f"{shorten(name, 60)}, {side}: {hover(e)}")
            figure.add_scatter(**drawn, error_x=error_bars([e]), **where)
