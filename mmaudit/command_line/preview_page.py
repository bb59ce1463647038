"""A preview on a terminal: every input whole and masked side by side, then what the model says."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from mmaudit.command_line.inspecting import COLOURS
from mmaudit.command_line.pictures import pictures, plane, statistics
from mmaudit.command_line.previewing import InputPreview, Prediction, Preview, SamplePreview
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count, number

__all__ = ["print_preview"]

_COLUMN = 37


def print_preview(preview: Preview, console: Console) -> None:
    """Print a preview in 80 columns.

    Args:
        preview: What to print.
        console: Where to; decides colour.
    """
    console.print(Text(shorten(preview.title, 160), style="bold"))
    several = len(preview.samples) > 1
    first = f"the first {count(len(preview.samples))} samples" if several else "the first sample"
    console.print(Text(f"{first} of {shorten(preview.source, 60)}"), soft_wrap=True)
    for sample in preview.samples:
        console.print()
        _print_sample(sample, console)
    if preview.scores:
        console.print()
        names = max(preview.scores, key=len)
        scores = [
            f"{_masked(masked, names)} {number(share)}" for masked, share in preview.scores.items()
        ]
        name = preview.score[:1].upper() + preview.score[1:]
        head = f"{name} on {count(preview.seen)} samples: "
        _print_wrapped(head, scores, console)


def _print_sample(sample: SamplePreview, console: Console) -> None:
    label = "" if sample.label is None else f"   label {shorten(sample.label)}"
    console.print(Text(f"Sample {shorten(sample.id, 40)}{label}", style="bold"))
    colours: dict[str, str] = {}
    for shown in sample.inputs:
        colour = colours.setdefault(shown.modality, COLOURS[len(colours) % len(COLOURS)])
        _print_input(shown, colour, console)
    names = tuple(dict.fromkeys(shown.modality for shown in sample.inputs))
    _print_predictions(sample.predictions, names, console)


def _print_input(shown: InputPreview, colour: str, console: Console) -> None:
    head = Text("  ").append(shorten(shown.modality, 30), style=f"bold {colour}")
    if shown.name != shown.modality:
        head.append(f" · {shorten(shown.name, 30)}")
    if shown.whole is None:
        console.print(head.append("   not a tensor" if shown.present else "   not in this sample"))
        return
    part = plane(shown.whole)[1] if shown.whole.ndim > 2 else ""
    shape = ", ".join(map(str, shown.whole.shape)) + ("," if shown.whole.ndim == 1 else "")
    head.append(f"   ({shape}) {shown.dtype}{f', shown: {part}' if part else ''}", style="dim")
    if not shown.present:
        head.append("   not in this sample: the mask stands in for it", style="bold yellow")
    console.print(head, soft_wrap=True)
    drawn = pictures(*(values for values in (shown.whole, shown.masked) if values is not None))
    left = ["whole", statistics(shown.whole), *drawn[0]]
    right = [f"masked: {shorten(shown.mask, 30)}"]
    right += (
        ["left out of the call"] if shown.masked is None else [statistics(shown.masked), *drawn[1]]
    )
    for row in range(max(len(left), len(right))):
        first, second = (column[row] if row < len(column) else "" for column in (left, right))
        line = Text(f"    {first:<{_COLUMN}} {second}".rstrip())
        console.print(line, soft_wrap=True, style="dim" if row == 1 else "")


def _print_predictions(
    predictions: tuple[Prediction, ...], names: tuple[str, ...], console: Console
) -> None:
    head, width = "Model says", max(len(_masked(p.masked, names)) for p in predictions)
    for prediction in predictions:
        verdict = {True: "right", False: "wrong", None: ""}[prediction.right]
        sure = prediction.confidence
        said = shorten(prediction.label) + ("" if sure is None else f" ({number(sure)})")
        line = f"  {head:<11} {_masked(prediction.masked, names):<{width}}   {said:<10} {verdict}"
        console.print(Text(line.rstrip()), soft_wrap=True)
        head = ""


def _masked(masked: tuple[str, ...], names: tuple[str, ...]) -> str:
    if not masked:
        return "whole"
    if len(masked) == len(names) and len(names) > 1:
        return "without both" if len(names) == 2 else "without all"
    return f"without {', '.join(shorten(name) for name in masked)}"


def _print_wrapped(head: str, parts: list[str], console: Console) -> None:
    """Print parts in lines that end between parts."""
    line = head
    for part in parts:
        gap = "" if not line.strip() or line == head else "   "
        if gap and len(line + gap + part) > max(console.width, 40):
            console.print(Text(line), soft_wrap=True)
            line, gap = " " * len(head), ""
        line += gap + part
    console.print(Text(line), soft_wrap=True)
