"""``mmaudit trajectory``: the losses of all heads at every checkpoint of a training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmaudit.command_line.ending import rank, say
from mmaudit.command_line.options import (
    BatchSize,
    Device,
    Quiet,
    Seed,
    Timeout,
    TrustCheckpoint,
    audit_file_only,
    known_device,
    measure_keys,
)
from mmaudit.command_line.running import owners_code, results_console, resumable_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["trajectory"]

_LONGEST_NAME = 24
_NUMBER = 8
_BETWEEN = 2


def trajectory(
    context: typer.Context,
    audit_file: Annotated[
        Path,
        typer.Argument(
            metavar="AUDIT.yaml",
            help="The audit file; it names training and validation data.",
            show_default=False,
            callback=audit_file_only,
        ),
    ],
    checkpoints: Annotated[
        list[str],
        typer.Option(
            metavar="'PATTERN'",
            help="Files, folders or a pattern in quotes; may be given several times.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the losses.", show_default=False)
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Further checkpoints: what a shell makes of a pattern without quotes.",
            show_default=False,
        ),
    ] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODALITY=PATH",
            help="Its own head in what the model returns; may be given several times.",
            show_default=False,
        ),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Measures at every checkpoint.  [default: responses,contributions,utilization,competition]",
            show_default=False,
        ),
    ] = None,
    train_samples: Annotated[
        int | None, typer.Option(min=1, help="At most so many.  [default: all]", show_default=False)
    ] = None,
    validation_samples: Annotated[
        int | None, typer.Option(min=1, help="At most so many.  [default: all]", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on; checkpoints that are new are evaluated.")
    ] = False,
    device: Device = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    replicates: Annotated[
        int, typer.Option(min=100, help="Bootstrap replicates behind the intervals.")
    ] = 1000,
    timeout: Timeout = 120,
    trust_checkpoint: TrustCheckpoint = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a series of checkpoints: train and held-out losses of every head, for 'mmaudit ogr'."""
    from mmaudit.command_line.progress import show_progress

    named = _heads(heads or [])
    keys = measure_keys(measures)
    device = known_device(device)
    shown = show_progress(quiet=quiet or rank() > 0, series=True)
    with resumable_in(context, out), shown as progress, owners_code():
        from mmaudit.following import trajectory as run

        chosen: dict[str, Any] = {} if keys is None else {"measures": keys}
        found = run(
            audit_file, [*checkpoints, *(more or [])], out=out, heads=named, train_samples=train_samples,
            validation_samples=validation_samples, resume=resume, device=device, batch_size=batch_size, seed=seed,
            replicates=replicates, timeout=timeout, trust=trust_checkpoint, progress=progress, **chosen,
        )  # fmt: skip
    if rank() > 0:
        return
    _print_losses(found.losses)
    for note in found.notes:
        say(f" ! {note}")
    log, heads_map = (shlex.quote(str(path)) for path in (found.log, found.map))
    typer.echo(
        f"\n Losses:   {found.log}\n Measures: {found.folder / 'measures.parquet'}"
        f"\n Next:     mmaudit ogr {log} --map {heads_map}"
    )


def _heads(given: list[str]) -> dict[str, str]:
    """``audio=audio_logits`` -> modality and path."""
    found = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not (sign and name.strip() and path.strip()):
            raise typer.BadParameter(
                f"expected MODALITY=PATH, such as audio=audio_logits, found '{text}'",
                param_hint="--heads",
            )
        found[name.strip()] = path.strip()
    return found


def _print_losses(losses: pd.DataFrame) -> None:
    """Train and held-out loss of every head: a line for each checkpoint, or for each head of it where that does not fit."""
    from rich.markup import escape
    from rich.table import Table

    from mmaudit.report.labels import shorten

    heads, splits = list(dict.fromkeys(losses["head"])), list(dict.fromkeys(losses["split"]))
    names = {head: escape(shorten(str(head), _LONGEST_NAME)) for head in heads}
    console = results_console(tables=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    # A header wraps between its words; within one it would break.
    columns = [max([_NUMBER, *map(len, (names[h], s))]) + _BETWEEN for h in heads for s in splits]
    wide = _LONGEST_NAME + sum(columns) <= console.width
    if not wide:
        table.add_column("head", overflow="fold")
    for text in [f"{names[h]} {s}" for h in heads for s in splits] if wide else splits:
        table.add_column(text, justify="right")
    for name, rows in losses.groupby("checkpoint", sort=False):
        held = rows.set_index(["head", "split"])["loss"]
        shown = escape(str(name))
        if wide:
            table.add_row(shown, *(f"{held[h, s]:.4g}" for h in heads for s in splits))
            continue
        for place, head in enumerate(heads):
            values = (f"{held[head, split]:.4g}" for split in splits)
            table.add_row("" if place else shown, names[head], *values)
    console.print(table)
