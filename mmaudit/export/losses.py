"""A record of losses on a terminal and as Markdown: what was read, what makes it doubtful, a row for each head, what it means."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmaudit.export.joined_flags import join_flags, join_texts
from mmaudit.export.markdown import escaped, statement_lines, table_lines
from mmaudit.export.opened import Opened
from mmaudit.figures.base import cell
from mmaudit.figures.learning_speed import updates_cell
from mmaudit.findings.overfitting import FEWEST_FOR_A_TURN
from mmaudit.report.labels import clean, shorten
from mmaudit.report.last_speeds import LastSpeeds, last_speeds
from mmaudit.report.loss_outcomes import numbers_apart
from mmaudit.report.loss_record import ALL_RUNS, WHOLE, LossRecord
from mmaudit.report.numbers import count, short_count, with_interval
from mmaudit.report.schema import Estimate, Finding, LabelledEstimate
from mmaudit.report.statements import MARKS, Statement, about_labels

__all__ = [
    "LOSS_EVIDENCE",
    "UNSEEN",
    "LossOverview",
    "loss_overview",
    "losses_markdown",
    "opened_losses",
    "print_losses",
]

LOSS_EVIDENCE = ("Measure", "About", "Estimate", "Interval from", "Says")
"""Headers of the estimates behind a finding."""

_SHORT_HEADERS = ("Best at", "Loss there", "Overfits from", "Rise", "OGR", "Weight")
_SHOWN = (
    "best checkpoint",
    "validation at best",
    "first overfitting",
    "rise after best",
    "OGR",
    "weight",
)
_MOST_FINDINGS = 12
_MOST_WARNINGS = 8
_MOST_NOTES = 12
_MOST_CONDITIONS = 4
_MOST_HEADS = 40
_MOST_EVIDENCE = 50
_MOST_DIGITS = 4
_BETWEEN = 3
_LEAST_NAME = 8
_TEXT = 400
_LEVELS = {
    "problem": "bold red",
    "attention": "bold yellow",
    "information": "bold",
    "good": "bold green",
}


_CHECKED = (
    "Nothing was found against comparing the losses; looked for were sums of the logged losses, unlike scales, values that are not finite, "
    "gaps, restarts, order and too few checkpoints."
)
UNSEEN = (
    "What the numbers cannot show: a train loss that is a weighted average of several losses, or one measured on augmented data or with "
    "dropout."
)
"""Said where there are no warnings: a check that found nothing is no proof."""


class SpeedOverview(NamedTuple):
    """Learning speeds at the end of the training."""

    text: str
    """All of them in one line."""
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """One for each branch; empty where there is no speed at all."""


class LossOverview(NamedTuple):
    """What all renderers lay out; foreign texts are on one line and bounded, but not escaped."""

    title: str
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    """How it was done: ``Logs``, ``Heads``, ``Losses``, ``Measures``, each with its parts."""
    findings: tuple[Statement, ...]
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """One for each head."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """How heads were guessed, and what was left out."""
    speeds: SpeedOverview | None = None
    """Where the learning speeds end, where norms were recorded."""
    calm: str = UNSEEN
    """Said where there are no warnings: what was looked for, and what no look at the numbers finds."""


def loss_overview(record: LossRecord) -> LossOverview:
    """Collect the first screen of a record of losses."""
    ratios, weights = _ratios(record), _weights(record)
    rows = [_row(record, head, ratios, weights) for head in record.heads[:_MOST_HEADS]]
    if len(record.heads) > _MOST_HEADS:
        rest = len(record.heads) - _MOST_HEADS
        rows.append((f"and {rest} more, all in the record", *("–" for _ in rows[0][1:])))
    warnings = [
        *(
            flag.text
            for flag in join_flags(
                f for f in record.flags if not f.unusable and f.kind != "diverged"
            )
        ),
        *_warned(record),
    ]
    return LossOverview(
        title=shorten(record.title, 160),
        steps=_steps(record),
        findings=_statements(record),
        headers=(
            "Head",
            f"Best {_place_word(record)}",
            "Validation loss there",
            f"Overfits from {_place_word(record)}",
            "Rise after best",
            "OGR, whole training",
            "Blend weight",
        ),
        rows=tuple(rows),
        warnings=_bounded(warnings, _MOST_WARNINGS),
        notes=_bounded([*record.guessed, *join_texts(record.notes)], _MOST_NOTES),
        speeds=_speeds(record),
        # Flags that make a head unusable are findings rather than warnings, and speak against comparing it.
        calm=UNSEEN if record.flags else f"{_CHECKED} {UNSEEN}",
    )


def opened_losses(record: LossRecord) -> tuple[Opened, ...]:
    """What lies behind each finding."""
    return tuple(_opened(finding) for finding in record.findings[:_MOST_FINDINGS])


def print_losses(record: LossRecord, console: Console) -> None:
    """Print what was read, what it means, one row for each head, and what to know before trusting it.

    Args:
        record: The record.
        console: Where to; decides width and colour.
    """
    overview = loss_overview(record)
    # Everything goes through Text: names come from logs and must not be read as markup.
    console.print(Text(overview.title, style="bold"))
    console.print()
    for label, parts in overview.steps:
        _print_labelled(console, f"{label:<9}", "; ".join(parts), "dim")
    console.print()
    for found in overview.findings:
        _print_labelled(console, f"{found.mark:<2}", found.text, _LEVELS[found.level])
        for text in found.below:
            _print_labelled(console, "  ", text, "dim")
    if overview.findings:
        console.print()
    table = _heads_table(overview, console.width)
    console.print(table)
    console.print()
    if overview.speeds is not None:
        _print_labelled(console, "= ", overview.speeds.text, "dim")
        console.print()
    for text in overview.warnings:
        _print_labelled(console, "! ", text, "bold yellow")
    if not overview.warnings:
        _print_labelled(console, "i ", overview.calm, "dim")
    for text in overview.notes:
        _print_labelled(console, "i ", text, "dim")


def losses_markdown(record: LossRecord) -> str:
    """Write a record of losses as Markdown; names come from logs and are escaped."""
    overview = loss_overview(record)
    lines = [f"# Overfitting along the training: {escaped(overview.title)}", ""]
    lines += [f"- **{label}**: {escaped('; '.join(parts))}" for label, parts in overview.steps]
    if overview.findings:
        lines += ["", "## Findings", "", *statement_lines(overview.findings)]
    lines += ["", "## Heads", "", *table_lines(overview.headers, overview.rows)]
    if overview.speeds is not None:
        lines += ["", "## Learning speed", "", escaped(overview.speeds.text)]
        if overview.speeds.rows:
            lines += ["", *table_lines(overview.speeds.headers, overview.speeds.rows)]
    doubts = overview.warnings or (overview.calm,)
    for heading, texts in (("Doubts", doubts), ("Notes", overview.notes)):
        if texts:
            lines += ["", f"## {heading}", "", *(f"- {escaped(text)}" for text in texts)]
    opened = opened_losses(record)
    if opened:
        lines += ["", "## What lies behind each finding", ""]
    for found in opened:
        lines += [f"### {escaped(found.name)}", "", escaped(found.text), ""]
        lines += [f"- Rule: {escaped(found.rule)}"] if found.rule else []
        lines += [f"- Beside it: {escaped(text)}" for text in found.conditions]
        lines += [f"- Missing: {escaped(text)}" for text in found.missing]
        if found.evidence:
            lines += ["", *table_lines(LOSS_EVIDENCE, found.evidence), ""]
    return "\n".join(lines).rstrip() + "\n"


def _steps(record: LossRecord) -> tuple[tuple[str, tuple[str, ...]], ...]:
    runs = record.runs
    formats = list(dict.fromkeys(run.format for run in runs if run.format))
    files = len({file.path for run in runs for file in run.files})
    logs = [f"{', '.join(map(clean, formats)) or 'losses'}, {_counted(files, 'file')}"]
    logs += [f"{_counted(len(runs), 'run')}", f"{short_count(sum(r.points for r in runs))} points"]
    heads = [
        f"{shorten(head, 40)} ({shorten(of['train'], 40)} | {shorten(of['validation'], 40)})"
        for head, of in list(record.series.items())[:8]
    ]
    if len(record.series) > 8:
        heads.append(f"and {len(record.series) - 8} more")
    lengths = sorted({len(run.at) for run in runs})
    shown = (
        count(lengths[0]) if len(lengths) == 1 else f"{count(lengths[0])} to {count(lengths[-1])}"
    )
    windows = list(dict.fromkeys(run.window for run in runs if run.window))
    losses = [
        f"{shown} checkpoint{'' if lengths == [1] else 's'}, counted in {record.axis}s",
        *(clean(text) for text in windows[:2]),
    ]
    settings = record.settings
    measured = [
        f"lag {settings.get('lag', 1)}",
        f"policy '{clean(str(settings.get('policy', '')))}'",
    ]
    measured.append(
        f"smoothing {settings['smoothing']:g}" if settings.get("smoothing") else "not smoothed"
    )
    return (
        ("Logs", tuple(logs)),
        ("Heads", tuple(heads)),
        ("Losses", tuple(losses)),
        ("Measures", tuple(measured)),
    )


def _heads_table(overview: LossOverview, width: int) -> Table:
    """Point values of all heads; the intervals are in the findings and the files, so that it fits into 80 columns."""
    cells = [[text if i == 0 else _short(text) for i, text in enumerate(r)] for r in overview.rows]
    # Other columns give way as far as their longest word, so that names need not.
    least = [
        max(cell_len(word) for text in column for word in (text.split() or [""]))
        for column in zip(_SHORT_HEADERS, *(row[1:] for row in cells), strict=True)
    ]
    room = width - sum(least) - _BETWEEN * (1 + len(least))
    names = [row[0] for row in cells]
    widest = max([cell_len("Head"), *(cell_len(text) for text in names[:_MOST_HEADS])])
    wanted = max(min(widest, room), _LEAST_NAME)
    cut = [shorten(text, wanted) if cell_len(text) > wanted else text for text in names]
    if len(set(cut)) == len(set(names)):
        names = [*cut[:_MOST_HEADS], *names[_MOST_HEADS:]]
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold", pad_edge=True)
    table.add_column("Head", overflow="fold", width=wanted)
    for header, smallest in zip(_SHORT_HEADERS, least, strict=True):
        table.add_column(header, overflow="fold", min_width=min(smallest, 6))
    for name, row in zip(names, cells, strict=True):
        table.add_row(Text(name), *(Text(text) for text in row[1:]))
    return table


def _row(
    record: LossRecord, head: str, ratios: dict[str, str], weights: dict[str, str]
) -> tuple[str, ...]:
    found = {
        row.labels["quantity"]: row.estimate
        for row in record.rows("overfitting", head=head, run=ALL_RUNS)
    }
    onset = found.get("first overfitting")
    return (
        shorten(head, 40),
        _placed(found.get("best checkpoint")),
        cell(found.get("validation at best"), 3),
        _onset(record, head, onset),
        cell(found.get("rise after best")),
        ratios.get(head, "–") if head not in record.unusable else "not comparable",
        weights.get(head, "–"),
    )


def _ratios(record: LossRecord) -> dict[str, str]:
    """Head -> its OGR, with the digits that set the heads apart; those that cannot be compared need none."""
    found = record.rows("overfitting", run=ALL_RUNS, quantity="OGR")
    return _column([row for row in found if row.labels["head"] not in record.unusable])


def _weights(record: LossRecord) -> dict[str, str]:
    return _column(record.rows("blend_weights", run=ALL_RUNS, window=WHOLE, quantity="weight"))


def _column(rows: list[LabelledEstimate]) -> dict[str, str]:
    written = numbers_apart([row.estimate for row in rows], most=_MOST_DIGITS)
    return {
        row.labels["head"]: text + (" !" if row.estimate.warning else "")
        for row, text in zip(rows, written, strict=True)
    }


def _speeds(record: LossRecord) -> SpeedOverview | None:
    result = record.measures.get("learning_speed")
    if result is None:
        return None
    last = last_speeds(record)
    if last is None:
        return SpeedOverview(f"No learning speed: {result.undefined or 'it has no rows'}.", (), ())
    shown = list(last.branches.items())[:_MOST_HEADS]
    own = last.quantity == "own"
    told = [f"{shorten(name, 40)} {updates_cell(e) if own else cell(e)}" for name, e in shown]
    if len(last.branches) > len(shown):
        told.append(f"and {len(last.branches) - len(shown)} more, all in the record")
    step = count(int(last.checkpoint))
    text = f"{_speed_words(last)} at step {step}: {', '.join(told)}"
    apart = last.difference
    if not last.known:
        reasons = [e.undefined for _, e in shown if e.undefined]
        text += f" ({reasons[0]})" if reasons else ""
    elif apart is not None:
        text += f"; {shorten(apart.labels['branch'], 90)} {cell(apart.estimate)}"
    return SpeedOverview(
        f"{text}.",
        ("Branch", f"{_speed_words(last)} at step {step}"),
        tuple((shorten(name, 40), updates_cell(e) if own else cell(e, 3)) for name, e in shown),
    )


def _speed_words(last: LastSpeeds) -> str:
    if last.quantity == "speed":
        return "Conditional learning speed (log10)"
    return "Own updates (late fusion, no conditional speed)"


def _onset(record: LossRecord, head: str, onset: Estimate | None) -> str:
    """Where a head begins to overfit; nothing of one whose losses say nothing of it."""
    checkpoints = max(len(run.of_head(head)[0]) for run in record.runs)
    if head in record.unusable or checkpoints < FEWEST_FOR_A_TURN:
        return "–"
    return _placed(onset) if onset is not None and onset.value is not None else "not found"


def _warned(record: LossRecord) -> list[str]:
    """Why cells of the table are marked, as far as no flag says it."""
    told = {flag.text for flag in record.flags}
    found: dict[str, dict[str, list[str]]] = {}
    for head in record.heads[:_MOST_HEADS]:
        rows = [
            *record.rows("overfitting", head=head, run=ALL_RUNS),
            *record.rows("blend_weights", head=head, run=ALL_RUNS, window=WHOLE, quantity="weight"),
        ]
        for row in rows:
            quantity, warning = row.labels["quantity"], row.estimate.warning or ""
            for flag in told:
                warning = warning.replace(flag, "")
            for text in warning.split("; "):
                if text and quantity in _SHOWN:
                    found.setdefault(text, {}).setdefault(quantity, []).append(head)
    sentences = []
    for text, of in found.items():
        marked = list(dict.fromkeys(head for heads in of.values() for head in heads))
        shown = ", ".join(shorten(head, 30) for head in marked[:6])
        more = f" and {len(marked) - 6} more" if len(marked) > 6 else ""
        sentences.append(f"{', '.join(of)} of {shown}{more}: {text.removesuffix('.')}.")
    return sentences


def _placed(estimate: Estimate | None) -> str:
    """A checkpoint's place; whole where it is."""
    if estimate is None or estimate.value is None:
        return "–"
    mark = " !" if estimate.warning else ""
    if estimate.low is None and estimate.value.is_integer():
        return f"{estimate.value:,.0f}{mark}"
    return with_interval(estimate, 1) + mark


def _short(text: str) -> str:
    """The point value of a cell, and its mark."""
    value, _, rest = text.partition(" [")
    return value.removesuffix(".0") + (" !" if rest.endswith("!") else "")


def _place_word(record: LossRecord) -> str:
    return {"epoch": "epoch", "step": "step", "point": "checkpoint"}[record.axis]


def _statements(record: LossRecord) -> tuple[Statement, ...]:
    told: set[str] = set()
    found = []
    for finding in record.findings[:_MOST_FINDINGS]:
        # What is missing for several findings is said once.
        below = tuple(shorten(text, _TEXT) for text in finding.missing[:1] if text not in told)
        told.update(finding.missing)
        text = shorten(finding.text, _TEXT)
        found.append(Statement(finding.level, MARKS[finding.level], text, below))
    return tuple(found)


def _opened(finding: Finding) -> Opened:
    shown = finding.evidence[:_MOST_EVIDENCE]
    about = "" if finding.modality is None else f"{shorten(finding.modality)}, "
    return Opened(
        name=shorten(f"{about}{finding.rule}", 90),
        modality=finding.modality,
        verdict="",
        level=finding.level,
        mark=MARKS[finding.level],
        text=shorten(finding.text, _TEXT),
        meaning="",
        rule=shorten(finding.because, 2 * _TEXT) if finding.because else "",
        evidence=tuple(
            (
                clean(row.measure),
                about_labels(row),
                cell(row.estimate, 3),
                shorten(row.estimate.method, 60) if row.estimate.method else "–",
                shorten(row.says, 80) if row.says else "–",
            )
            for row in shown
        ),
        more=len(finding.evidence) - len(shown),
        conditions=tuple(
            shorten(text, _TEXT) for text in join_texts(finding.conditions)[:_MOST_CONDITIONS]
        ),
        missing=tuple(shorten(text, _TEXT) for text in finding.missing),
        remedies=(),
    )


def _bounded(texts: list[str], most: int) -> tuple[str, ...]:
    shown = [shorten(text, _TEXT) for text in dict.fromkeys(texts)]
    if len(shown) > most:
        shown = [*shown[:most], f"and {len(shown) - most} more, all in the record"]
    return tuple(shown)


def _counted(number: int, what: str) -> str:
    return f"{count(number)} {what}{'' if number == 1 else 's'}"


def _print_labelled(console: Console, label: str, text: str, style: str) -> None:
    """Print a text behind its label; further lines stand under the first."""
    indent = cell_len(label) + 2
    head = label
    for piece in Text(text).wrap(console, max(console.width - indent, 20)):
        line = Text(f" {head:<{indent - 1}}", style=style)
        console.print(line.append(piece.plain.rstrip(), style="not dim not bold default"))
        head = ""
