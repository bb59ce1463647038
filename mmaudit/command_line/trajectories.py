"""``mmaudit ogr``: overfitting against generalization along a training, from the logs it has left."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmaudit.command_line.ending import say
from mmaudit.command_line.running import results_console

__all__ = ["ogr"]


class Policy(StrEnum):
    """What a head counts in the blend whose validation loss rose."""

    clip = "clip"
    signed = "signed"
    abs = "abs"


def ogr(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOGS...",
            help="Files or folders of logs; several runs count as repeats of one training, one that begins where another ended as its "
            "continuation.",
            show_default=False,
        ),
    ],
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="Which series are whose, as YAML (below).  [default: guessed by their names, and shown]",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME",
            help="Which column of a table is the step, epoch, run, name, value or split, as in split=phase; may be repeated.  "
            "[default: what the map says, else found by names and content]",
            show_default=False,
        ),
    ] = None,
    save_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the map that was used.", show_default=False),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="csv, jsonl, json, lightning, tensorboard, huggingface, mlflow or wandb.  [default: found by content]",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="TITLE", help="Only this run; may be repeated.", show_default=False),
    ] = None,
    lag: Annotated[int, typer.Option(min=1, help="Checkpoints between the two compared.")] = 1,
    smoothing: Annotated[
        float, typer.Option(min=0, max=0.999, help="Of the losses; 0 for none.")
    ] = 0.0,
    policy: Annotated[
        Policy, typer.Option(help="What a head counts whose validation loss rose.")
    ] = Policy.clip,
    super_epoch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Checkpoints of a super-epoch.  [default: a fifth of the training]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the record there.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as a page.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write it as Markdown; - for stdout.", show_default=False
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON, and nothing else on stdout.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Say which head of a model overfits first, from the losses its training logged.

    A map says which series are the losses of which head, and where a table needs it, which of its columns are what:

    \b
      heads:
        audio: {train: train/audio_loss, validation: val/audio_loss}
        joint: {train: train/loss, validation: val/loss}
      columns: {epoch: ep, split: phase}
    """  # noqa: D301  the mark must reach click, which then keeps the lines
    from mmaudit.evidence.readers.base import said
    from mmaudit.exceptions import RecordError
    from mmaudit.report.loss_record import LOSS_RECORD_NAME
    from mmaudit.report.store import write_text_atomic
    from mmaudit.trajectories import ogr as measure
    from mmaudit.trajectories import read_losses

    to_stdout = markdown is not None and str(markdown) == "-"
    if as_json and to_stdout:
        raise typer.BadParameter("--json and --markdown - both print on stdout; give one of them")
    kept = out / LOSS_RECORD_NAME if out is not None else None
    written = [path for path in (save_map, html, markdown, kept) if path and str(path) != "-"]
    for path in written:
        if path.is_dir():
            raise RecordError(f"{said(str(path), 200)} is a folder; name a file in it")
        if path.exists() and not force:
            raise RecordError(
                f"{said(str(path), 200)} exists already; choose another name, or say --force to replace it"
            )
    found = read_losses(
        logs, map=map_file, form=form, columns=_named_columns(columns) if columns else None
    )
    if run:
        found = found.select(*run)
    report = measure(
        found, lag=lag, smoothing=smoothing, policy=policy.value, super_epoch=super_epoch
    )
    if save_map is not None:
        found.save_map(save_map)
    if out is not None:
        report.save(out, overwrite=force)
    if html is not None:
        report.html(html)
    if markdown is not None:
        text = report.markdown()
        if to_stdout:
            typer.echo(text, nl=False)
        else:
            write_text_atomic(markdown, text)
    if as_json:
        typer.echo(report.record.model_dump_json(indent=1))
    elif not to_stdout:
        from mmaudit.export.losses import print_losses

        print_losses(report.record, results_console())
    for path in written:
        say(f"wrote {' '.join(str(path).splitlines())}")
    if found.guessed and map_file is None and save_map is None and not as_json:
        places = " ".join(shlex.quote(str(path)) for path in logs[:3])
        more = " ..." if len(logs) > 3 else ""
        if not places.isprintable():  # nothing to copy from a terminal
            places, more = "LOGS", " ..."
        say(
            f"\nThe heads were guessed by the names of the series. To correct that: mmaudit ogr {places}{more} --save-map heads.yaml"
        )


def _named_columns(given: list[str]) -> dict[str, str]:
    """Columns from ``split=phase``."""
    found = {}
    for text in given:
        key, sign, name = text.partition("=")
        if not (sign and key and name) or key in found:
            raise typer.BadParameter(
                f"--columns {text}: expected KEY=NAME, each key once, as in --columns split=phase"
            )
        found[key] = name
    return found
