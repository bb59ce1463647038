"""All commands. Each is a few lines around a function that Python has too.

Results go to stdout; progress and hints go to stderr. Heavy imports stay inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmaudit.command_line.checking import EPILOG, check
from mmaudit.command_line.comparing import compare
from mmaudit.command_line.converting import convert
from mmaudit.command_line.demonstrating import demo
from mmaudit.command_line.ending import (
    Commands,
    StoppedError,
    interrupt_status,
    rank,
    say,
)
from mmaudit.command_line.exporting import export
from mmaudit.command_line.following import trajectory
from mmaudit.command_line.improving import retrain, unimodal
from mmaudit.command_line.jobs import jobs, register
from mmaudit.command_line.options import (
    AuditFile,
    BatchSize,
    Device,
    Quiet,
    Seed,
    Timeout,
    TrustCheckpoint,
    known_device,
    measure_keys,
    yaml_mapping,
)
from mmaudit.command_line.running import owners_code, results_console
from mmaudit.command_line.selftesting import selftest
from mmaudit.command_line.serving import serve
from mmaudit.command_line.trajectories import ogr

if TYPE_CHECKING:
    from mmaudit.report import AuditReport

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    help="Audit a trained multimodal model: which modality it uses, which it ignores, and how sure one can be.",
    epilog="First steps: mmaudit demo. Your own model: mmaudit init CHECKPOINT --factory module:function --data module:function",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class Precision(StrEnum):
    """Numbers that the model computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


RecordFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of a finished audit.", show_default=False)
]


def _version(wanted: bool) -> None:
    if wanted:
        from mmaudit import __version__

        typer.echo(f"mmaudit {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, as MMAUDIT_DEBUG=1 does.")
    ] = False,
) -> None:
    """Set what holds for all commands."""
    if debug:
        os.environ["MMAUDIT_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def audit(
    context: typer.Context,
    audit_file: AuditFile,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the record.  [default: runs/TITLE-DATE]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted audit.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the audit that is in the folder.")
    ] = False,
    device: Device = None,
    precision: Annotated[
        Precision, typer.Option(help="bfloat16 and float16 run under autocast.")
    ] = Precision.float32,
    batch_size: BatchSize = None,
    seed: Seed = None,
    replicates: Annotated[
        int, typer.Option(min=100, help="Bootstrap replicates behind the intervals.")
    ] = 2000,
    measures: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Only these measures; verdicts need them all.", show_default=False
        ),
    ] = None,
    no_optimize: Annotated[
        bool, typer.Option("--no-optimize", help="Evaluate every coalition by a pass of its own.")
    ] = False,
    store_logits: Annotated[
        bool, typer.Option("--store-logits", help="Keep the class scores of every coalition.")
    ] = False,
    timeout: Timeout = 120,
    trust_checkpoint: TrustCheckpoint = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON, and nothing else on stdout.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Audit a model and write the record: evaluate it on every set of modalities, then measure."""
    if resume and overwrite:
        raise typer.BadParameter(
            "--resume goes on with what is there and --overwrite replaces it; give one of them",
            context,
        )
    from mmaudit.command_line.places import new_folder, resumable, resume_command

    keys = measure_keys(measures)
    device = known_device(device)
    quiet = quiet or rank() > 0
    folder = out if out is not None else new_folder(audit_file, resume=resume, overwrite=overwrite)
    if not quiet:
        say(f"Auditing {audit_file}\nRecord   {folder}")
    try:
        report = _run_audit(
            audit_file, quiet=quiet, out=folder, resume=resume, overwrite=overwrite, device=device,
            precision=precision.value, batch_size=batch_size, seed=seed, replicates=replicates, measures=keys,
            optimize=not no_optimize, store_logits=store_logits, timeout=timeout,
            trust=trust_checkpoint,
        )  # fmt: skip
    except KeyboardInterrupt as stop:
        text = "interrupted before anything was computed: nothing to resume."
        if resumable(folder):
            text = f"interrupted: go on with  {resume_command(context, folder)}"
        raise StoppedError(text, interrupt_status(stop)) from stop
    if rank() > 0:
        return
    if as_json:
        typer.echo((folder / "report.json").read_text(encoding="utf-8"), nl=False)
        if not quiet:
            say(_hints(folder, report))
    else:
        _print_report(report)
        typer.echo(_hints(folder, report))


@app.command()
def show(
    folder: RecordFolder,
    measure: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Print this measure's table.", show_default=False),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option(
            metavar="MODALITY",
            help="Print what lies behind its verdict; 'model' for what is about the whole model.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Print what an audit found."""
    from mmaudit.report import AuditReport

    if why is not None and (measure is not None or as_json):
        raise typer.BadParameter("--why stands alone; --json prints the whole record")
    report = AuditReport.load(folder)
    if why is not None:
        from mmaudit.export.terminal import print_finding

        print_finding(report, why, results_console())
    elif measure is None:
        if as_json:
            typer.echo(report.record.model_dump_json(indent=1))
        else:
            _print_report(report)
    else:
        from mmaudit.export.measure_table import print_measure

        found = report.measure(measure)
        if as_json:
            typer.echo(found.model_dump_json(indent=1))
        else:
            print_measure(report, measure, results_console(tables=True))


@app.command()
def init(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="File or folder with the weights.", show_default=False
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION|FILE",
            help="Gives a DataLoader, or is an .npz or Parquet file.",
            show_default=False,
        ),
    ],
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Builds the model the weights go into; not needed for ONNX and Hugging Face folders.",
            show_default=False,
        ),
    ] = None,
    factory_args: Annotated[
        str, typer.Option(metavar="{K: V}", help="Arguments of the model's function, as YAML.")
    ] = "{}",
    data_args: Annotated[
        str, typer.Option(metavar="{K: V}", help="Arguments of the data's function, as YAML.")
    ] = "{}",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What holds the labels in a batch.  [default: guessed]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.")] = Path(
        "audit.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    trust_checkpoint: TrustCheckpoint = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Draft a commented audit file from a checkpoint and one batch of data."""
    from mmaudit.exceptions import SpecError

    if out.suffix not in (".yaml", ".yml"):
        raise SpecError(
            f"an audit file ends in .yaml, found {out}; say for example --out audit.yaml"
        )
    if out.exists() and not force:
        raise SpecError(
            f"{out} exists already; choose another name with --out, or say --force to replace it"
        )
    arguments = {
        name: yaml_mapping(text, name)
        for name, text in (("--factory-args", factory_args), ("--data-args", data_args))
    }
    asked = sys.stdin.isatty() and not yes
    with owners_code():
        from mmaudit.command_line.drafting import draft_audit_file
        from mmaudit.report.store import write_text_atomic

        draft = draft_audit_file(
            checkpoint,
            factory,
            data,
            directory=out.resolve().parent,
            factory_args=arguments["--factory-args"],
            data_args=arguments["--data-args"],
            target=target,
            ask=_ask if asked else None,
            trust=trust_checkpoint,
        )
    write_text_atomic(out, draft.text)
    from mmaudit.command_line.draft_page import print_draft

    print_draft(draft, out, results_console())


@app.command()
def inspect(
    audit_file: AuditFile,
    device: Device = None,
    trust_checkpoint: TrustCheckpoint = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Print which module sees which modality, and what could not be determined."""
    device = known_device(device)
    with owners_code():
        from mmaudit.command_line.inspecting import inspect_audit_file, print_structure

        title, modalities, record = inspect_audit_file(
            audit_file, device=device, trust=trust_checkpoint
        )
    if as_json:
        typer.echo(record.model_dump_json(indent=1))
    else:
        print_structure(title, modalities, record, results_console())


@app.command()
def preview(
    audit_file: AuditFile,
    samples: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 3,
    device: Device = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Show a few samples whole and masked, and what the model says to each."""
    device = known_device(device)
    with owners_code():
        from mmaudit.command_line.previewing import preview_audit_file

        found = preview_audit_file(
            audit_file, samples=samples, device=device, trust=trust_checkpoint
        )
    from mmaudit.command_line.preview_page import print_preview

    print_preview(found, results_console())
    say(
        f"\nIs this what the model was trained on? Then: mmaudit audit {shlex.quote(str(audit_file))}"
    )


app.command(epilog=EPILOG)(check)
for command in (
    convert,
    export,
    retrain,
    unimodal,
    trajectory,
    ogr,
    compare,
    demo,
    selftest,
    register,
    serve,
):
    app.command()(command)
app.add_typer(jobs, name="jobs")


def _ask(what: str, guess: str, reason: str) -> str:
    answer: str = typer.prompt(f"? {what} ({reason})", default=guess, err=True)
    return answer.strip()


def _run_audit(audit_file: Path, *, quiet: bool = False, **options: Any) -> AuditReport:
    from mmaudit.command_line.progress import show_progress

    with show_progress(quiet=quiet) as progress, owners_code():
        # torch takes seconds to import: the progress is on the screen before.
        from mmaudit.auditing import audit

        return audit(audit_file, progress=progress, **options)


def _print_report(report: AuditReport) -> None:
    from mmaudit.export.terminal import print_report

    console = results_console()
    if sys.stdout.isatty():
        console.print()
    print_report(report, console)


def _hints(folder: Path, report: AuditReport) -> str:
    place, html = shlex.quote(str(folder)), shlex.quote(str(folder / "report.html"))
    why = ""
    if report.record.findings:
        why = f"\n Why:    mmaudit show {place} --why MODALITY"
    return f"\n Record: {folder}{why}\n Report: mmaudit export {place} --html {html}"
