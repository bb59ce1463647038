"""What the figures of a record of losses share: the look of heads, their estimates along the training, and the small print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.theme import NEUTRAL, Style, modality_styles
from mmaudit.report.labels import shorten
from mmaudit.report.loss_record import LossRecord
from mmaudit.report.numbers import count
from mmaudit.report.schema import Estimate

__all__ = [
    "MOST_HEADS",
    "Course",
    "axis_title",
    "courses",
    "head_styles",
    "legend_below",
    "loss_subtitle",
    "missing_losses",
    "shown_heads",
    "thinned",
    "translucent",
    "undefined_losses",
]

MOST_HEADS = 12
"""Heads that are drawn; the record has all."""

_MOST_ROWS = 60


class Course(NamedTuple):
    """One quantity of one head along the training."""

    at: tuple[float, ...]
    estimates: tuple[Estimate, ...]

    @property
    def values(self) -> list[float | None]:
        """Point values, ``None`` where undefined."""
        return [estimate.value for estimate in self.estimates]

    @property
    def banded(self) -> bool:
        """Whether most have an interval."""
        known = sum(e.low is not None for e in self.estimates)
        return 2 * known > len(self.estimates)


def courses(
    record: LossRecord, measure: str, *, by: str = "head", **labels: str
) -> dict[tuple[str, str], Course]:
    """Head and quantity -> estimates at all checkpoints, in their order.

    Args:
        record: The record.
        measure: One with checkpoints.
        by: Label that stands for the head.
        **labels: That the rows must have, such as ``lag="1"``.
    """
    found: dict[tuple[str, str], list[tuple[float, Estimate]]] = {}
    for row in record.rows(measure, **labels):
        key = row.labels[by], row.labels["quantity"]
        found.setdefault(key, []).append((float(row.labels["checkpoint"]), row.estimate))
    return {
        key: Course(tuple(at for at, _ in rows), tuple(e for _, e in rows))
        for key, rows in found.items()
    }


def head_styles(record: LossRecord, others: Sequence[str] = ()) -> dict[str, Style]:
    """Look of each head: that of its modality, and neutral for the joint one.

    Args:
        record: The record.
        others: Further names, such as those of branches that have no head.
    """
    singles = [head for head in record.heads if head != record.joint]
    styles = modality_styles(list(dict.fromkeys([*singles, *others])))
    if record.joint is not None:
        styles[record.joint] = Style(NEUTRAL, "", "diamond-wide")
    return styles


def shown_heads(record: LossRecord) -> tuple[str, ...]:
    """Heads that are drawn: the first ones, and the joint one."""
    if len(record.heads) <= MOST_HEADS:
        return record.heads
    others = MOST_HEADS - (record.joint is not None)
    first = [head for head in record.heads if head != record.joint][:others]
    return tuple(head for head in record.heads if head in first or head == record.joint)


def legend_below(figure: go.Figure, names: Sequence[str], *, gap: int = 58) -> None:
    """Put the legend at the lower edge, with room of its own: it takes none from the drawing, and runs into no axis title.

    Args:
        figure: Made by :func:`~mmaudit.figures.theme.make_figure`, which has given it a height; it becomes higher.
        names: Entries of the legend.
        gap: Pixels between drawing and legend, for tick labels and the title of the axis.
    """
    entry = 50 + 7 * max((len(name) for name in names), default=0)
    in_a_line = max(1, (figure.layout.meta["least_width"] - 60) // entry)
    below = 24 + 20 * -(-len(names) // in_a_line)
    figure.update_layout(
        legend={"yref": "container", "y": 0, "yanchor": "bottom", "tracegroupgap": 0},
        margin={"b": gap + below},
        height=figure.layout.height + below,
    )


def axis_title(record: LossRecord) -> str:
    """Title of the axis of checkpoints."""
    return {"epoch": "epoch", "step": "optimiser step", "point": "checkpoint"}[record.axis]


def loss_subtitle(record: LossRecord, extra: str = "") -> str:
    """Say of how many runs and checkpoints, how the train loss was taken, and whether it was smoothed."""
    longest = max((len(run.at) for run in record.runs), default=0)
    runs = len(record.runs)
    parts = [f"{count(runs)} run{'' if runs == 1 else 's'}, {count(longest)} checkpoints"]
    windows = dict.fromkeys(run.window for run in record.runs if run.window)
    parts += [shorten(text, 120) for text in list(windows)[:1]]
    smoothing = record.settings.get("smoothing")
    if smoothing:
        parts.append(f"smoothed with weight {smoothing:g}")
    if len(record.heads) > MOST_HEADS:
        parts.append(f"{MOST_HEADS} of {len(record.heads)} heads")
    return "; ".join([*parts, extra] if extra else parts)


def thinned(length: int) -> list[int]:
    """Places of the rows that a table shows, the first and the last among them.

    Example:
        >>> thinned(4), len(thinned(1000)), thinned(1000)[-1]
        ([0, 1, 2, 3], 60, 999)
    """
    if length <= _MOST_ROWS:
        return list(range(length))
    return [round(i * (length - 1) / (_MOST_ROWS - 1)) for i in range(_MOST_ROWS)]


def translucent(colour: str, opacity: float) -> str:
    """A colour that what lies behind shines through.

    Example:
        >>> translucent("#0072B2", 0.2)
        'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def undefined_losses(record: LossRecord, measure: str) -> str | None:
    """Why a measure has nothing to draw; ``None`` where it has."""
    result = record.measures.get(measure)
    if result is None:
        return "it was not measured"
    if result.undefined is not None:
        return result.undefined
    if all(row.estimate.value is None for row in result.rows):
        return missing_losses([row.estimate for row in result.rows])
    return None


def missing_losses(estimates: Sequence[Estimate]) -> str:
    """Why none of some estimates has a value."""
    return next((e.undefined for e in estimates if e.undefined), "it has no rows")
