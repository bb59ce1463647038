"""Weights that Gradient-Blend would give to the losses of the heads, over super-epochs and over the whole training."""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, cell, hover, join_names
from mmaudit.figures.loss_parts import (
    axis_title,
    head_styles,
    legend_below,
    loss_subtitle,
    shown_heads,
    undefined_losses,
)
from mmaudit.figures.theme import (
    Style,
    Words,
    error_bars,
    hatching,
    make_figure,
    plain,
    say_nothing,
)
from mmaudit.report.labels import shorten
from mmaudit.report.loss_outcomes import blend_outcome, numbers_apart
from mmaudit.report.loss_record import ALL_RUNS, WHOLE, LossRecord
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import Estimate

__all__ = ["BlendWeightsInfo", "blend_weights_info", "blend_weights_table", "plot_blend_weights"]

_MOST_WINDOWS = 40
_NAMED = 4


class BlendWeightsInfo(NamedTuple):
    """Weights by window and head."""

    words: Words
    heads: tuple[str, ...]
    styles: tuple[Style, ...]
    windows: tuple[str, ...]
    """Super-epochs in their order, then the whole training."""
    weights: tuple[tuple[Estimate | None, ...], ...]
    """A row for each head."""
    axis: str
    undefined: str | None = None


def blend_weights_info(record: LossRecord) -> BlendWeightsInfo:
    """Collect the weights of a record."""
    undefined = undefined_losses(record, "blend_weights")
    if undefined is not None:
        words = Words("There is no blend to draw", loss_subtitle(record), f"{undefined}.")
        return BlendWeightsInfo(words, (), (), (), (), axis_title(record), undefined)
    rows = record.rows("blend_weights", run=ALL_RUNS, quantity="weight")
    held = {(row.labels["head"], row.labels["window"]): row.estimate for row in rows}
    every = list(dict.fromkeys(window for _, window in held))
    windows = [window for window in every if window != WHOLE]
    shown = [*windows[:_MOST_WINDOWS], *([WHOLE] if WHOLE in every else [])]
    heads = tuple(h for h in shown_heads(record) if any(name == h for name, _ in held))
    styles = head_styles(record)
    told = _whole({head: held.get((head, WHOLE)) for head in heads})
    policy = record.settings.get("policy", "clip")
    extra = f"policy '{policy}'; estimated from this training, where the method trains copies"
    if len(windows) > _MOST_WINDOWS:
        extra += f"; the first {_MOST_WINDOWS} of {len(windows)} super-epochs"
    return BlendWeightsInfo(
        Words(
            _title(record),
            loss_subtitle(record, extra),
            f"Over the whole training: {', '.join(told)}.",
        ),
        heads,
        tuple(styles[head] for head in heads),
        tuple(shown),
        tuple(tuple(held.get((head, window)) for window in shown) for head in heads),
        axis_title(record),
    )


def plot_blend_weights(info: BlendWeightsInfo) -> go.Figure:
    """Draw a bar with its interval for each head and window."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    ticks = [plain(window).replace(" training", "<br>training") for window in info.windows]
    longest = max(len(line) for tick in ticks for line in tick.split("<br>"))
    # Room for every label lying flat: turned ones would run into the legend.
    wide = len(info.windows) * max(len(info.heads), -(-(8 * longest + 10) // 20))
    figure = make_figure(info.words, height=320, columns=max(8, wide))
    for head, style, weights in zip(info.heads, info.styles, info.weights, strict=True):
        known = [e if e is not None else Estimate(undefined="not measured") for e in weights]
        figure.add_bar(
            x=[plain(window) for window in info.windows],
            y=[e.value for e in known],
            name=plain(shorten(head, 30)),
            marker={"color": style.colour, "pattern": hatching(style.pattern)},
            error_y=error_bars(known) if any(e.low is not None for e in known) else None,
            customdata=[[plain(f"{shorten(head, 40)}: {hover(e)}")] for e in known],
            hovertemplate="%{x}: %{customdata[0]}<extra></extra>",
        )
    figure.update_layout(barmode="group")
    legend_below(figure, [shorten(head, 30) for head in info.heads], gap=70)
    figure.update_yaxes(title={"text": "weight (share of the total loss)"}, zeroline=True)
    figure.update_xaxes(
        title={"text": f"super-epoch ({info.axis}s)"},
        type="category",
        tickvals=[plain(window) for window in info.windows],
        ticktext=ticks,
        tickangle=0,
    )
    return figure


def blend_weights_table(info: BlendWeightsInfo) -> Table:
    """The same as a table."""
    rows = tuple(
        (window, *(cell(weights[i]) for weights in info.weights))
        for i, window in enumerate(info.windows)
    )
    return Table(("Window", *(shorten(head, 20) for head in info.heads)), rows)


def _title(record: LossRecord) -> str:
    """What to take from the weights; no head is named alone whose weight does not show to be the largest."""
    found = blend_outcome(record)
    if found is None:
        return "Gradient-Blend's weights"
    top = shorten(found.top, 40)
    if found.outcome == "favoured":
        shown = with_interval(found.weights[found.top])
        return f"Gradient-Blend would give most weight to {top}: {shown}"
    if found.outcome == "unsettled":
        return "Which head Gradient-Blend would give most weight to, the intervals leave open"
    together = [head for head in found.weights if head == found.top or head in found.beside]
    if len(together) > _NAMED:
        return f"Gradient-Blend would weight {len(together)} of {len(found.weights)} heads about evenly"
    return (
        f"Gradient-Blend would weight {join_names([shorten(h, 40) for h in together])} about evenly"
    )


def _whole(weights: dict[str, Estimate | None]) -> list[str]:
    known = {head: e for head, e in weights.items() if e is not None}
    written = dict(zip(known, numbers_apart(list(known.values()), most=3), strict=True))
    return [
        f"{shorten(head, 40)} {written.get(head, '–')}{' !' if e is not None and e.warning else ''}"
        for head, e in weights.items()
    ]
