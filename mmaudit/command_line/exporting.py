"""``mmaudit export``: a record as a page, as Markdown, as CSV, as a section of a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmaudit.command_line.ending import say

__all__ = ["export"]


def export(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a finished audit.", show_default=False)
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One file that opens offline.", show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The first screen and the findings as Markdown; - for stdout.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="One row per estimate: FILE.csv for all in one, a folder for a file per measure; - for stdout.",
            show_default=False,
        ),
    ] = None,
    model_card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A section for a model card, nothing machine-specific; - for stdout.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write a record as HTML, Markdown, CSV or a section of a model card."""
    from mmaudit.exceptions import RecordError
    from mmaudit.export.csv_tables import csv_files, is_one_file, to_csv, write_csv
    from mmaudit.export.markdown import to_markdown
    from mmaudit.export.model_card import to_model_card
    from mmaudit.report import AuditReport
    from mmaudit.report.store import write_text_atomic

    wanted = {"--html": html, "--markdown": markdown, "--csv": csv, "--model-card": model_card}
    given = {option: path for option, path in wanted.items() if path is not None}
    if not given:
        raise typer.BadParameter(
            "say what to write: --html FILE, --markdown FILE, --csv PATH or --model-card FILE, or several",
            context,
        )
    if str(html) == "-":
        raise typer.BadParameter(
            "--html needs a file name, only --markdown, --csv and --model-card can go to stdout",
            context,
        )
    printed = [option for option, path in given.items() if str(path) == "-"]
    if len(printed) > 1:
        raise typer.BadParameter(
            f"{' and '.join(printed)} cannot all go to stdout; give file names to all but one",
            context,
        )
    files = {option: path for option, path in given.items() if str(path) != "-"}
    if len({path.resolve() for path in files.values()}) < len(files):
        raise typer.BadParameter("two of the files are the same; give each a name of its own", context)  # fmt: skip
    for option, path in files.items():
        if option == "--csv" and not is_one_file(path):
            continue
        if path.is_dir():
            name = "report.html" if option == "--html" else "README.md"
            raise RecordError(f"{path} is a folder; name a file in it, for example {path / name}")
        _must_be_free(path, force)
    report = AuditReport.load(folder)
    if csv is not None and "--csv" in files and not is_one_file(csv):
        if csv.exists() and not csv.is_dir():
            raise RecordError(f"{csv} is a file; name a folder, or a file that ends in .csv")
        for name in csv_files(report):
            _must_be_free(csv / name, force)
    texts = {"--markdown": to_markdown, "--csv": to_csv, "--model-card": to_model_card}
    for option in printed:
        typer.echo(texts[option](report), nl=False)
    for option, path in files.items():
        if option == "--html":
            report.html(path)
        elif option == "--csv":
            write_csv(report, path)
        else:
            write_text_atomic(path, texts[option](report))
        say(f"wrote {path}")


def _must_be_free(path: Path, force: bool) -> None:
    from mmaudit.exceptions import RecordError

    if path.exists() and not force:
        raise RecordError(f"{path} exists already; choose another name, or say --force to replace it")  # fmt: skip
