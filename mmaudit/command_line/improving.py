"""``mmaudit retrain``: train with a remedy, audit again, say what changed."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mmaudit.command_line.ending import rank, say
from mmaudit.command_line.options import (
    Device,
    Epochs,
    LearningRate,
    Quiet,
    TrainingFile,
    TrustCheckpoint,
    Workers,
    known_device,
    yaml_mapping,
)
from mmaudit.command_line.running import owners_code, results_console, resumable_in

__all__ = ["retrain", "unimodal"]


class Start(StrEnum):
    """Which weights a retraining begins with."""

    checkpoint = "checkpoint"
    scratch = "scratch"


class Optimizer(StrEnum):
    """Optimisers of the training loop."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


def retrain(
    context: typer.Context,
    audit_file: TrainingFile,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for weights, audits and comparison.  [default: runs/TITLE-REMEDY-DATE]",
            show_default=False,
        ),
    ] = None,
    remedy: Annotated[
        str, typer.Option(help="agm, ogm_ge, ogm, mla, modality_dropout or joint.")
    ] = "agm",
    options: Annotated[
        str, typer.Option(metavar="{K: V}", help="Settings of the remedy, as YAML.")
    ] = "{}",
    epochs: Epochs = None,
    lr: LearningRate = None,
    optimizer: Annotated[
        Optimizer | None, typer.Option(help="Optimiser.", show_default="adamw")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per step.", show_default="64")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Of the training.  [default: the audit file's]", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="{K: V}",
            help="More of the recipe: scheduler, momentum, weight_decay, clip, patience, ...",
        ),
    ] = "{}",
    start: Annotated[
        Start, typer.Option(help="Begin with the checkpoint, or as the factory builds the model.")
    ] = Start.checkpoint,
    control: Annotated[
        bool,
        typer.Option("--control", help="Also train plainly with the same budget, and compare."),
    ] = False,
    before: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A finished audit of this model, not done again.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted retraining.")
    ] = False,
    device: Device = None,
    workers: Workers = 0,
    trust_checkpoint: TrustCheckpoint = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON, and nothing else.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Retrain a model with a remedy, audit it again on the same test data, and compare."""
    from mmaudit.command_line.progress import show_progress

    settings: dict[str, Any] = yaml_mapping(recipe, "--recipe")
    named = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}
    settings |= {name: value for name, value in named.items() if value is not None}
    if optimizer is not None:
        settings["optimizer"] = optimizer.value
    chosen = yaml_mapping(options, "--options")
    device = known_device(device)
    quiet = quiet or rank() > 0
    if out is None:
        from mmaudit.command_line.places import new_retraining_folder

        out = new_retraining_folder(audit_file, remedy, resume=resume)
    folder = out
    if not quiet:
        say(f"Retraining {audit_file}\nFolder     {folder}")
    with resumable_in(context, folder), show_progress(quiet=quiet) as progress, owners_code():
        from mmaudit.retraining import retrain as run

        result = run(
            audit_file, remedy, out=folder, options=chosen, recipe=settings, start=start.value,
            control=control, before=before, resume=resume, device=device, workers=workers, trust=trust_checkpoint, progress=progress,
        )  # fmt: skip
    if rank() > 0:
        return
    if as_json:
        typer.echo(result.comparison.model_dump_json(indent=1))
        return
    from mmaudit.export.comparison import print_comparison

    console = results_console()
    print_comparison(result.comparison, console)
    if result.control_comparison is not None:
        typer.echo("\nAgainst plain training with the same budget:")
        print_comparison(result.control_comparison, console)
        from mmaudit.report.changes import conclusion

        joint = conclusion(result.comparison, result.control_comparison)
        console.print(f"\n{joint}", markup=False)
    for note in result.notes:
        say(f" ! {note}")
    again = shlex.quote(str(result.audit_file))
    typer.echo(f"\n Weights: {result.checkpoint}\n Again:   mmaudit audit {again}")


def unimodal(
    context: typer.Context,
    audit_file: TrainingFile,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the models.", show_default=False)
    ],
    modality: Annotated[
        list[str] | None,
        typer.Option(help="Only this one; may be given several times.", show_default=False),
    ] = None,
    without: Annotated[
        bool,
        typer.Option("--without", help="Also train the whole network without each modality."),
    ] = False,
    epochs: Epochs = None,
    lr: LearningRate = None,
    recipe: Annotated[
        str, typer.Option(metavar="{K: V}", help="More of the recipe, as YAML.")
    ] = "{}",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    device: Device = None,
    workers: Workers = 0,
    trust_checkpoint: TrustCheckpoint = False,
    quiet: Quiet = False,
) -> None:
    """Train what each modality could say alone, with the same encoder: the reference of an audit."""
    from mmaudit.command_line.progress import show_progress
    from mmaudit.report.numbers import with_interval

    settings: dict[str, Any] = yaml_mapping(recipe, "--recipe")
    settings |= {k: v for k, v in {"epochs": epochs, "lr": lr}.items() if v is not None}
    device = known_device(device)
    shown = show_progress(quiet=quiet or rank() > 0)
    with resumable_in(context, out), shown as progress, owners_code():
        from mmaudit.referencing import path_from, train_references

        found = train_references(
            audit_file, out=out, modalities=modality or None, without=without, recipe=settings,
            resume=resume, device=device, workers=workers, trust=trust_checkpoint, progress=progress,
        )  # fmt: skip
    if rank() > 0:
        return
    titles = {
        name: f"without {result.modality}" if result.without else f"{name} alone"
        for name, result in found.items()
    }
    width = max(map(len, titles.values()))
    for name, result in found.items():
        reached = with_interval(result.accuracy)
        typer.echo(f"{titles[name]:<{width}} reaches {reached}  {out / name}")
        for note in result.notes:
            say(f" ! {note}")
    place = path_from(audit_file, out)
    typer.echo(f"\n To audit beside them, add to {audit_file.name}:\n references: {place}")
