"""``mmaudit compare``: what changed between two audits of the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmaudit.command_line.ending import say
from mmaudit.command_line.running import results_console

__all__ = ["compare"]


def compare(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="Folder of an audit.", show_default=False)
    ],
    after: Annotated[
        Path,
        typer.Argument(
            metavar="AFTER", help="Folder of another audit of the same samples.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the comparison as JSON.", show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write it as Markdown; - for stdout.", show_default=False
        ),
    ] = None,
    common: Annotated[
        bool,
        typer.Option("--common", help="Where the data differ, compare the samples both have."),
    ] = False,
    replicates: Annotated[
        int, typer.Option(min=100, help="Bootstrap replicates behind intervals and tests.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON, and nothing else.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Compare two audits of the same samples: every measure before and after, tested."""
    from mmaudit.comparing import compare as run
    from mmaudit.exceptions import RecordError

    to_stdout = markdown is not None and str(markdown) == "-"
    if as_json and to_stdout:
        raise typer.BadParameter("--json and --markdown - both print on stdout; give one of them")
    files = [path for path in (out, markdown) if path is not None and str(path) != "-"]
    for path in files:
        if path.is_dir():
            raise RecordError(
                f"{path} is a folder; name a file in it, for example {path / 'comparison.json'}"
            )
        if path.exists() and not force:
            raise RecordError(
                f"{path} exists already; choose another name, or say --force to replace it"
            )
    found = run(before, after, replicates=replicates, seed=seed, common=common)
    if out is not None:
        found.save(out)
    if markdown is not None:
        from mmaudit.export.comparison import comparison_markdown
        from mmaudit.report.store import write_text_atomic

        text = comparison_markdown(found)
        if to_stdout:
            typer.echo(text, nl=False)
        else:
            write_text_atomic(markdown, text)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    elif not to_stdout:
        from mmaudit.export.comparison import print_comparison

        print_comparison(found, results_console())
    for path in files:
        say(f"wrote {path}")
