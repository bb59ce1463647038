"""What ``mmaudit init`` says: what a batch held, what was guessed from it and why, and what the model looks like."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.text import Text

from mmaudit.command_line.drafting import Draft
from mmaudit.report.labels import primary_score
from mmaudit.report.numbers import number

__all__ = ["print_draft"]


def print_draft(draft: Draft, out: Path, console: Console) -> None:
    """Print a draft's guesses.

    Args:
        draft: The draft.
        out: Where it was written.
        console: Where to.
    """
    guess, structure = draft.guess, draft.structure
    found = [entry.describe() for entry in guess.found]
    guessed = [
        f"{m.name} <- {', '.join(e.path for e in m.inputs.values())}: {m.reason}"
        for m in guess.modalities
    ]
    shape = ", ".join(["B", *map(str, draft.outputs.shape[1:])]) + (
        "," if len(draft.outputs.shape) == 1 else ""
    )
    where = f" at '{draft.outputs.path}'" if draft.outputs.path else ""
    guessed.append(f"outputs{where} ({shape}): {draft.outputs.kind}, {draft.outputs.reason}")
    if draft.outputs.task != "multiclass":
        guessed.append(f"task {draft.outputs.task}: {draft.outputs.task_reason}")
    guessed.append(
        f"target <- {guess.target.path}: {guess.target_reason}"
        if guess.target
        else "target: no labels found, name their path"
    )
    guessed += [
        f"{key} <- {entry.path}"
        for key, entry in (("ids", guess.ids), ("group", guess.group))
        if entry
    ]
    guessed += [f"left out {path}: {reason}" for path, reason in guess.left_out.items()]
    seen = [
        f"{name} <- {', '.join(encoders[:3])}"
        for name, encoders in structure.encoders.items()
        if encoders
    ]
    seen.append(f"fusion: {structure.fusion or 'not found'}")
    if draft.score is not None:
        name = primary_score(draft.outputs.task)
        seen.append(f"{name} on this batch {number(draft.score)} ({guess.n} samples)")
    console.print(Text(f"wrote {out}", style="bold"), soft_wrap=True)
    for head, lines in (
        ("Found", found),
        ("Guessed", guessed),
        ("Model", seen),
        ("", [f"! {t}" for t in structure.unknown]),
        ("", draft.notes),
    ):
        for line in lines:
            for piece in Text(line).wrap(console, max(console.width - 10, 30)):
                console.print(
                    Text(f" {head:<8} ", style="dim").append(piece.plain.rstrip(), style="not dim")
                )
                head = ""
    name = shlex.quote(str(out))
    console.print(Text(f"Check it, then: mmaudit preview {name}"), soft_wrap=True)
    console.print(Text(f"                mmaudit audit {name}"), soft_wrap=True)
