"""``mmaudit convert``: a checkpoint as safetensors and a factory, once, so that auditing it needs no trust."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmaudit.command_line.ending import say
from mmaudit.command_line.options import TrustCheckpoint, yaml_mapping
from mmaudit.command_line.running import owners_code

__all__ = ["convert"]


class Weights(StrEnum):
    """Which weights of a checkpoint."""

    model = "model"
    ema = "ema"


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="File or folder with the weights.", show_default=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for weights and factory.", show_default=False),
    ],
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Builds the model, where known.", show_default=False
        ),
    ] = None,
    factory_args: Annotated[
        str, typer.Option(metavar="{K: V}", help="Arguments of that function, as YAML.")
    ] = "{}",
    weights: Annotated[
        Weights, typer.Option(help="The model's, or their moving average.")
    ] = Weights.model,
    strip_prefix: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Of the checkpoint's keys.", show_default=False),
    ] = None,
    trust_checkpoint: TrustCheckpoint = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Turn a checkpoint into safetensors and a factory, which load without running its code."""
    arguments = yaml_mapping(factory_args, "--factory-args")
    with owners_code():
        from mmaudit.checkpoint.converting import convert_checkpoint

        found = convert_checkpoint(
            checkpoint,
            out,
            factory=factory,
            args=arguments,
            trust=trust_checkpoint,
            weights=weights.value,
            strip_prefix=strip_prefix,
            force=force,
        )
    typer.echo(f" Was      {found.format}")
    typer.echo(f" Weights  {found.weights} ({found.tensors} tensors)")
    typer.echo(f" Factory  {found.factory}: build() {found.says}")
    for note in found.notes:
        say(f" ! {note}")
    place = shlex.quote(str(found.weights))
    first = "" if found.ready else "Fill in build(), then: "
    typer.echo(
        f" {first}mmaudit init {place} --factory factory:build --data MODULE:FUNCTION"
        f" --out {shlex.quote(str(out / 'audit.yaml'))}"
    )
