"""How fast each branch learns through the others, beside by itself, along the training.

Where nothing carries one branch into another there is no such speed. What each branch's own parameters have been updated by is
drawn then, under that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from mmaudit.figures.base import Table, cell, hover
from mmaudit.figures.loss_parts import (
    MOST_HEADS,
    Course,
    courses,
    head_styles,
    legend_below,
    thinned,
    translucent,
    undefined_losses,
)
from mmaudit.figures.theme import NEUTRAL, Style, Words, make_figure, plain, say_nothing
from mmaudit.report.labels import shorten
from mmaudit.report.last_speeds import LastSpeeds, last_speeds
from mmaudit.report.loss_record import LossRecord
from mmaudit.report.numbers import count, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "LearningSpeedInfo",
    "learning_speed_info",
    "learning_speed_table",
    "plot_learning_speed",
    "updates_cell",
]

_MARKED = 40


class BranchSpeed(NamedTuple):
    """What is drawn of one branch."""

    branch: str
    style: Style
    drawn: Course
    """Its conditional speed; where there is none, the sum of its own updates."""


class LearningSpeedInfo(NamedTuple):
    """The learning speeds of all branches."""

    words: Words
    branches: tuple[BranchSpeed, ...]
    conditional: bool
    """Whether there are speeds; else own updates are drawn."""
    difference: Course
    """Of the conditional speeds; empty where there is none."""
    undefined: str | None = None


def updates_cell(estimate: Estimate | None) -> str:
    """Write a sum of updates, which may be tiny; an exclamation mark says that it comes with a warning.

    Example:
        >>> updates_cell(Estimate(value=0.0000123, low=1e-6, high=2e-5)), updates_cell(Estimate(value=0.5))
        ('1.23e-05 [1e-06, 2e-05]', '0.5')
    """
    if estimate is None or estimate.value is None:
        return cell(estimate)
    text = f"{estimate.value:.3g}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low:.3g}, {estimate.high:.3g}]"
    return text + (" !" if estimate.warning else "")


def learning_speed_info(record: LossRecord) -> LearningSpeedInfo:
    """Collect the learning speeds of a record."""
    undefined = undefined_losses(record, "learning_speed")
    last = last_speeds(record)
    nothing = Course((), ())
    if undefined is not None or last is None:
        reason = undefined or "it has no rows"
        words = Words(
            "There is no learning speed to draw",
            _subtitle(record, (), 0, conditional=False),
            f"{reason}.",
        )
        return LearningSpeedInfo(words, (), False, nothing, reason)
    found = courses(record, "learning_speed", by="branch")
    names = list(dict.fromkeys(name for name, quantity in found if quantity == "own"))
    styles = head_styles(record, names)
    conditional = bool(last.known) and last.quantity == "speed"
    branches = tuple(
        BranchSpeed(name, styles[name], found[name, "speed" if conditional else "own"])
        for name in names[:MOST_HEADS]
    )
    end = float(last.checkpoint)
    write = cell if conditional else updates_cell
    told = [
        f"{shorten(b.branch, 40)} {write(dict(zip(b.drawn.at, b.drawn.estimates, strict=True)).get(end))}"
        for b in branches
    ]
    what = "Conditional learning speeds (log10)" if conditional else "Sums of own updates"
    takeaway = f"{what} at step {count(int(end))}: {', '.join(told)}."
    difference = [course for (_, quantity), course in found.items() if quantity == "difference"]
    return LearningSpeedInfo(
        Words(
            _title(last, conditional),
            _subtitle(record, branches, len(names), conditional=conditional),
            takeaway,
        ),
        branches,
        conditional,
        difference[0] if conditional and difference else nothing,
    )


def plot_learning_speed(info: LearningSpeedInfo) -> go.Figure:
    """Draw a line for each branch, with a band where there are intervals."""
    if info.undefined is not None:
        return say_nothing(info.words, info.undefined)
    figure = make_figure(info.words, height=320, columns=12)
    for found in info.branches:
        _add_branch(figure, found, info.conditional)
    if info.conditional:
        figure.add_hline(y=0, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
        title = "conditional speed (log10)"
    else:
        title = "sum of own updates"
        figure.update_yaxes(rangemode="tozero", exponentformat="power")
    figure.update_yaxes(title={"text": title}, zeroline=False)
    figure.update_xaxes(title={"text": "optimiser step"}, zeroline=False)
    legend_below(figure, [shorten(found.branch, 30) for found in info.branches])
    return figure


def learning_speed_table(info: LearningSpeedInfo) -> Table:
    """The same as a table; of many steps every so many."""
    if not info.branches:
        return Table((), ())
    what = "speed" if info.conditional else "own updates"
    headers = ["Step", *(f"{shorten(found.branch, 20)}, {what}" for found in info.branches)]
    drawn = [found.drawn for found in info.branches]
    if info.difference.at:
        headers.append("Difference")
        drawn.append(info.difference)
    places = sorted({at for course in drawn for at in course.at})
    columns = [dict(zip(course.at, course.estimates, strict=True)) for course in drawn]
    rows = [
        (
            f"{places[i]:.0f}",
            *(
                cell(of.get(places[i]), 3) if info.conditional else updates_cell(of.get(places[i]))
                for of in columns
            ),
        )
        for i in thinned(len(places))
    ]
    return Table(tuple(headers), tuple(rows))


def _title(last: LastSpeeds, conditional: bool) -> str:
    if last.quantity == "own":
        return "Own updates of each branch: nothing carries one into another (late fusion), so there is no conditional speed"
    if not conditional or last.fastest is None:
        return "Own updates of each branch: none has a conditional speed at the end"
    if last.outcome == "alike":
        return "The branches learn about as fast through the others"
    if last.outcome == "unsettled":
        return "Which branch learns fastest through the others, the runs do not settle"
    shown = f"{with_interval(last.branches[last.fastest])} at the end"
    if last.outcome is None:
        return f"{shorten(last.fastest, 40)} has a conditional learning speed of {shown}"
    return f"{shorten(last.fastest, 40)} learns fastest through the others: {shown}"


def _subtitle(
    record: LossRecord, branches: Sequence[BranchSpeed], every: int, *, conditional: bool
) -> str:
    """Say of how many runs and steps, and what the numbers are."""
    result = record.measures.get("learning_speed")
    if result is None:
        return ""
    settings = result.settings
    runs, steps = int(settings.get("runs", 1)), int(settings.get("recorded_steps", 0))
    parts = [f"{_counted(runs, 'run')} with norms, {_counted(steps, 'step')}"]
    places = max((len(found.drawn.at) for found in branches), default=0)
    if 0 < places < steps:
        parts[0] += f", {count(places)} shown"
    if settings.get("left_out_steps"):
        parts.append(f"{_counted(int(settings['left_out_steps']), 'step')} left out")
    if conditional:
        parts.append(
            "log10 of the updates of what carries the others in, over own updates, each summed up to the step"
        )
    elif branches:
        parts.append("squared gradients over squared weights, summed over the recorded steps")
    if every > MOST_HEADS:
        parts.append(f"{MOST_HEADS} of {every} branches")
    return "; ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def _add_branch(figure: go.Figure, found: BranchSpeed, conditional: bool) -> None:
    name, drawn = plain(shorten(found.branch, 30)), found.drawn
    told = [hover(e) if conditional else updates_cell(e) for e in drawn.estimates]
    if drawn.banded:
        ends = [
            (at, e.low, e.high)
            for at, e in zip(drawn.at, drawn.estimates, strict=True)
            if e.low is not None
        ]
        figure.add_scatter(
            x=[*(at for at, _, _ in ends), *(at for at, _, _ in reversed(ends))],
            y=[*(high for _, _, high in ends), *(low for _, low, _ in reversed(ends))],
            mode="lines",
            fill="toself",
            fillcolor=translucent(found.style.colour, 0.15),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
    figure.add_scatter(
        x=drawn.at,
        y=drawn.values,
        mode="lines+markers" if len(drawn.at) <= _MARKED else "lines",
        name=name,
        legendgroup=name,
        showlegend=True,
        line={"color": found.style.colour, "width": 2},
        marker={"symbol": found.style.symbol, "size": 6},
        customdata=[[plain(f"{shorten(found.branch, 40)}: {text}")] for text in told],
        hovertemplate="step %{x}: %{customdata[0]}<extra></extra>",
    )
