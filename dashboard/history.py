"""How a training goes: losses, scores and the coefficients of the remedy, read from its record and drawn. Imports no Dash.

The record (one JSON object a line) is read without the module that writes it, because that one loads torch. It may be written
to at this moment: a torn last line is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmaudit.figures.base import Table
from mmaudit.figures.theme import NEUTRAL, Words, make_figure, modality_styles, plain
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import number

__all__ = [
    "HISTORY_NAME",
    "Curve",
    "CurvesInfo",
    "coefficients_info",
    "curves_table",
    "losses_info",
    "plot_curves",
    "read_curves",
    "scores_info",
]

HISTORY_NAME = "history.jsonl"

_MOST_BYTES = 16_000_000
_MOST_CURVES = 96
_MOST_POINTS = 400
_MOST_PANELS = 4
_LOW, _HIGH = " (min)", " (max)"
_SPLITS = {
    "train": "Training",
    "validation": "Validation",
    "control train": "Control training",
    "control validation": "Control validation",
}
_DASHES = {"train": "dot", "control train": "dashdot", "control validation": "dash"}


class Curve(NamedTuple):
    """One recorded quantity."""

    split: str
    """``train``, ``validation`` or ``remedy``; of a control with ``control `` before it."""
    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    """Smallest value within each epoch, where it was recorded."""
    high: tuple[float, ...] = ()


class CurvesInfo(NamedTuple):
    """Some curves over the epochs."""

    words: Words
    curves: tuple[Curve, ...]
    axis: str
    modalities: tuple[str, ...] = ()
    """Names of modalities; a coefficient that ends with one has its colour."""
    panels: tuple[str, ...] = ()
    """Quantities that are drawn one above the other, because their sizes differ; empty where all share an axis."""
    undefined: str | None = None


def read_curves(path: Path, *, control: bool = False) -> tuple[Curve, ...]:
    """Read the record of a training.

    Args:
        path: ``history.jsonl``; a missing one is empty.
        control: It is the training of a control.

    Returns:
        Curves in the order in which they first appear; of a very long record its end.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _MOST_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    lines = text.split("\n")
    if size > _MOST_BYTES:
        del lines[0]
    points: dict[tuple[str, str], dict[int, float]] = {}
    for line in lines:
        found = _point(line)
        if found is None:
            continue
        split, name, epoch, value = found
        if (split, name) in points or len(points) < _MOST_CURVES:
            # What a resumed training measured again replaces what it had measured before.
            points.setdefault((split, name), {})[epoch] = value
    before = "control " if control else ""
    return tuple(_curve(before + split, name, values) for (split, name), values in points.items())


def losses_info(curves: Sequence[Curve]) -> CurvesInfo:
    """Collect the losses of both splits, and those of a control beside them."""
    shown = tuple(c for c in curves if _is_measured(c) and "loss" in c.name.lower())
    main = next((c for c in shown if c.split == "validation"), None)
    if main is None:
        title = "No loss was measured on validation data yet"
    else:
        best = min(range(len(main.values)), key=main.values.__getitem__)
        title = (
            f"{_label(main)} is {number(main.values[-1], 3)} after {_epochs(main.epochs[-1])}, "
            f"at best {number(main.values[best], 3)} after {_epochs(main.epochs[best])}"
        )
    return _info(shown, title, "loss", "No loss was recorded yet.")


def scores_info(curves: Sequence[Curve]) -> CurvesInfo:
    """Collect what else was measured on both splits, such as the accuracy."""
    shown = tuple(c for c in curves if _is_measured(c) and "loss" not in c.name.lower())
    main = next((c for c in shown if c.split == "validation"), None)
    title = (
        "Nothing but losses was measured yet"
        if main is None
        else f"{_label(main)} is {number(main.values[-1], 3)} after {_epochs(main.epochs[-1])}"
    )
    return _info(shown, title, "score", "Nothing but losses was recorded.")


def coefficients_info(curves: Sequence[Curve], modalities: Sequence[str] = ()) -> CurvesInfo:
    """Collect the coefficients that the remedy applied, each with how far it went within its epochs."""
    found = {c.name: c for c in curves if c.split == "remedy"}
    shown = tuple(
        _with_range(curve, found.get(f"{name}{_LOW}"), found.get(f"{name}{_HIGH}"))
        for name, curve in found.items()
        if not name.endswith((_LOW, _HIGH))
    )
    names = tuple(modalities)
    panels = tuple(dict.fromkeys(_quantity(c.name, names) for c in shown))[:_MOST_PANELS]
    shown = tuple(c for c in shown if _quantity(c.name, names) in panels)
    latest = ", ".join(f"{shorten(c.name, 30)} {number(c.values[-1])}" for c in shown[:3])
    title = f"Latest coefficients: {latest}" if shown else "No coefficient was applied yet"
    info = _info(shown, title, "coefficient", "This remedy has recorded no coefficient yet.")
    return info._replace(modalities=names, panels=panels)


def plot_curves(info: CurvesInfo) -> go.Figure:
    """Draw one line a curve; those on training data are dotted, a modality has its colour and marker."""
    panels = info.panels or (info.axis,)
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(panels)
    )
    make_figure(info.words, height=110 + 180 * len(panels), figure=figure)
    styles = modality_styles(info.modalities)
    for curve in info.curves:
        modality = _modality(curve.name, info.modalities)
        style = styles.get(modality) if modality is not None else None
        colour = style.colour if style else NEUTRAL
        symbol = style.symbol if style else "circle"
        row = panels.index(_quantity(curve.name, info.modalities)) + 1 if info.panels else 1
        if curve.low and curve.high:
            _add_range(figure, curve, colour, row)
        figure.add_scatter(
            x=curve.epochs,
            y=curve.values,
            # Panels say the quantity at their side, and each modality is explained once.
            name=plain(shorten(modality if info.panels and modality else _label(curve), 40)),
            legendgroup=modality if info.panels else None,
            showlegend=not info.panels or modality is None or row == 1,
            mode="lines+markers",
            line={"color": colour, "dash": _DASHES.get(curve.split, "solid"), "width": 2},
            marker={
                "symbol": f"{symbol}-open" if curve.split.startswith("control") else symbol,
                "size": 5 if len(curve.epochs) > 30 else 7,
            },
            customdata=[[plain(shorten(_label(curve), 60))]] * len(curve.epochs),
            hovertemplate="%{customdata[0]}, epoch %{x}: %{y:.4g}<extra></extra>",
            row=row,
            col=1,
        )
    figure.update_layout(showlegend=True)
    last = max((curve.epochs[-1] for curve in info.curves), default=1)
    figure.update_xaxes(rangemode="tozero", tick0=0, dtick=max(1, math.ceil(last / 10)))
    figure.update_xaxes(title={"text": "epochs finished"}, row=len(panels), col=1)
    for row, quantity in enumerate(panels, 1):
        figure.update_yaxes(title={"text": plain(shorten(quantity, 24))}, row=row, col=1)
    return figure


def _add_range(figure: go.Figure, curve: Curve, colour: str, row: int) -> None:
    """Shade how far a coefficient went within each epoch."""
    figure.add_scatter(
        x=[*curve.epochs, *curve.epochs[::-1]],
        y=[*curve.high, *curve.low[::-1]],
        fill="toself",
        fillcolor=colour,
        opacity=0.15,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=1,
    )


def curves_table(info: CurvesInfo) -> Table:
    """The first, the best-known and the last value of each curve."""
    rows = [
        (
            _label(c),
            number(c.values[0], 3),
            number(min(c.low or c.values), 3),
            number(max(c.high or c.values), 3),
            number(c.values[-1], 3),
            str(c.epochs[-1]),
        )
        for c in info.curves
    ]
    return Table(("Curve", "First", "Smallest", "Largest", "Latest", "Epoch"), tuple(rows))


def _info(shown: tuple[Curve, ...], title: str, axis: str, why_not: str) -> CurvesInfo:
    if not shown:
        return CurvesInfo(Words(title, "", why_not), (), axis, undefined=why_not)
    latest = "; ".join(f"{_label(c)}: {number(c.values[-1], 3)}" for c in shown)
    points = max(len(c.values) for c in shown)
    subtitle = f"{points} measurement{'s' if points != 1 else ''} a curve; training data dotted"
    if any(c.split.startswith("control") for c in shown):
        subtitle += "; the control's marks are open"
    if axis == "coefficient":
        subtitle = f"means over {points} epoch{'s' if points != 1 else ''}"
        if any(c.low for c in shown):
            subtitle += "; shaded: smallest to largest within each epoch"
    return CurvesInfo(Words(title, subtitle, f"Latest values. {latest}."), shown, axis)


def _point(line: str) -> tuple[str, str, int, float] | None:
    """One line; ``None`` where it is torn or no point."""
    try:
        row = json.loads(line)
        split, name, epoch, value = (row[key] for key in ("split", "name", "epoch", "value"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(split, str) or not isinstance(name, str) or isinstance(epoch, bool):
        return None
    if not isinstance(epoch, int) or not isinstance(value, int | float):
        return None
    return (split, name, epoch, float(value)) if math.isfinite(value) else None


def _curve(split: str, name: str, values: Mapping[int, float]) -> Curve:
    epochs = sorted(values)
    step = max(1, math.ceil(len(epochs) / _MOST_POINTS))
    # The latest point stays when a long curve is thinned.
    kept = epochs[::-1][::step][::-1]
    return Curve(split, name, tuple(kept), tuple(values[epoch] for epoch in kept))


def _label(curve: Curve) -> str:
    return f"{_SPLITS[curve.split]} {curve.name}" if curve.split in _SPLITS else curve.name


def _is_measured(curve: Curve) -> bool:
    return curve.split in _SPLITS


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count != 1 else ''}"


def _with_range(curve: Curve, low: Curve | None, high: Curve | None) -> Curve:
    if low is None or high is None or not low.epochs == high.epochs == curve.epochs:
        return curve
    return curve._replace(low=low.values, high=high.values)


def _quantity(name: str, modalities: Sequence[str]) -> str:
    """What a coefficient is, without the modality that it belongs to."""
    modality = _modality(name, modalities)
    return name if modality is None else name[: -len(modality)].strip(" /") or name


def _modality(name: str, modalities: Sequence[str]) -> str | None:
    ends = [m for m in modalities if name == m or name.endswith((f" {m}", f"/{m}"))]
    return max(ends, key=len) if ends else None
