"""``mmaudit jobs`` and ``mmaudit register``: the queue of a workspace, and what it may run."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmaudit.command_line.ending import say
from mmaudit.command_line.options import TrainingFile
from mmaudit.command_line.running import results_console

if TYPE_CHECKING:
    from mmaudit.jobs.queue import Job, Queue

__all__ = ["jobs", "register"]

jobs = typer.Typer(
    help="List and control the jobs of a workspace.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Of the job; its first characters will do.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else on stdout.")]

_SHORT = 8


@jobs.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    workspace: Annotated[
        Path,
        typer.Argument(metavar="WORKSPACE", help="Folder of the workspace.", show_default=False),
    ],
) -> None:
    """List and control the jobs of a workspace."""
    from mmaudit.jobs.errors import JobError
    from mmaudit.jobs.queue import Queue

    if not workspace.is_dir():
        raise JobError(
            f"there is no workspace at {workspace}: 'mmaudit register' makes one and says what its jobs may run"
        )
    context.obj = Queue(workspace)
    if context.invoked_subcommand is None:
        list_jobs(context)


@jobs.command("list")
def list_jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """Print all jobs, the newest first."""
    found = _queue(context).jobs()
    if as_json:
        typer.echo(_json([_plain(job) for job in found]))
        return
    if not found:
        typer.echo("no jobs")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold")
    for name in ("Job", "State", "Remedy", "Subject", "Progress", "Last word"):
        table.add_column(name, no_wrap=name in ("Job", "State", "Remedy"), overflow="fold")
    for job in found:
        cells = [job.id[:_SHORT], job.state, job.remedy, job.title, _progress(job), job.sentence]
        table.add_row(*(Text(_printable(cell)) for cell in cells))
    results_console(tables=True).print(table)


@jobs.command()
def show(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Print everything about a job."""
    job = _one(_queue(context), job_id)
    if as_json:
        typer.echo(_json(_plain(job)))
        return
    rows = {
        "Job": job.id,
        "State": f"{job.state}{f', attempt {job.attempts} of 3' if job.attempts else ''}",
        "Last word": job.sentence,
        "Subject": job.title,
        "Remedy": job.remedy,
        "Settings": ", ".join(f"{name} {value}" for name, value in job.settings.items()),
        "Progress": _progress(job),
        "Device": job.device or "",
        "Submitted": _time(job.created),
        "Started": _time(job.started),
        "Ended": _time(job.ended),
        "Results": str(job.out) if job.out.exists() else "",
        "Log": str(job.folder / "log.txt"),
    }
    for name, value in rows.items():
        if value:
            typer.echo(f"{name:<10} {_printable(value)}")


@jobs.command()
def log(
    context: typer.Context,
    job_id: JobId,
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 200,
) -> None:
    """Print the end of what a job has printed."""
    queue = _queue(context)
    typer.echo(queue.log(_one(queue, job_id).id, lines))


@jobs.command()
def cancel(context: typer.Context, job_id: JobId) -> None:
    """Stop a job: it saves its state first; one that does not within a minute is killed."""
    queue = _queue(context)
    job = queue.cancel(_one(queue, job_id).id)
    if job.state == "running":
        # Somebody has to see to it that it stops.
        _start_worker(queue)
        typer.echo(f"{job.id[:_SHORT]} is being cancelled")
    else:
        typer.echo(f"{job.id[:_SHORT]} is {job.state}")


@jobs.command()
def resume(context: typer.Context, job_id: JobId) -> None:
    """Let a failed, crashed or cancelled job go on from its last checkpoint, in the background."""
    queue = _queue(context)
    job = queue.resume(_one(queue, job_id).id)
    _start_worker(queue)
    typer.echo(f"{job.id[:_SHORT]} {'runs' if job.state == 'running' else 'waits to go on'}")


@jobs.command()
def run(
    context: typer.Context,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait for more jobs when there are none.")
    ] = False,
) -> None:
    """Run what waits, here and now, until nothing does; Ctrl-C leaves the running jobs to themselves."""
    from mmaudit.jobs.errors import JobError
    from mmaudit.jobs.worker import Worker, work

    queue = _queue(context)
    where = shlex.quote(str(queue.workspace))
    say(f"Running the jobs of {where}; Ctrl-C leaves, and what runs goes on.")
    if not work(Worker(queue.workspace), idle=None if stay else 0.0):
        raise JobError(
            f"a worker is at work in this workspace already: mmaudit jobs {where} shows what it does"
        )
    list_jobs(context)


def register(
    workspace: Annotated[
        Path,
        typer.Argument(
            metavar="WORKSPACE",
            help="Folder of the workspace; made if missing.",
            show_default=False,
        ),
    ],
    audit_file: TrainingFile,
) -> None:
    """Allow the jobs of a workspace to run an audit file and the code behind it, as they are now."""
    from mmaudit.jobs.registry import register as add

    file = add(workspace, audit_file)
    typer.echo(f"registered {file.title} ({_printable(str(file.path))})")
    code = [path for path in file.files if path != str(file.path)]
    typer.echo("Jobs may run its code as long as none of these files changes:")
    for path in [str(file.path), *code]:
        typer.echo(f"  {_printable(path)}")
    say(f"\nNext: mmaudit serve {shlex.quote(str(workspace))}")


def _queue(context: typer.Context) -> Queue:
    queue: Queue = context.obj
    return queue


def _one(queue: Queue, start: str) -> Job:
    """The job whose id starts so."""
    from mmaudit.checkpoint.wording import shown
    from mmaudit.jobs.errors import JobError

    found = [folder.name for folder in queue.folders() if folder.name.startswith(start.lower())]
    if len(found) != 1 or not start:
        what = "no job's id starts" if not found else f"{len(found)} jobs' ids start"
        raise JobError(
            f"{what} with '{shown(start, 40)}': mmaudit jobs {shlex.quote(str(queue.workspace))} lists them"
        )
    return queue.job(found[0])


def _start_worker(queue: Queue) -> None:
    if queue.start_worker():
        say("started a worker in the background")


def _plain(job: Job) -> dict[str, object]:
    progress = job.progress
    return {
        "id": job.id, "kind": job.kind, "state": job.state, "attempts": job.attempts, "sentence": job.sentence,
        "title": job.title, "file_id": job.file_id, "remedy": job.remedy, "settings": dict(job.settings),
        "device": job.device, "created": job.created.isoformat(),
        "started": job.started.isoformat() if job.started else None,
        "ended": job.ended.isoformat() if job.ended else None,
        "progress": progress.model_dump(mode="json") if progress else None,
        "folder": str(job.folder), "out": str(job.out),
    }  # fmt: skip


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=1)


def _progress(job: Job) -> str:
    from mmaudit.report.numbers import count, duration

    progress = job.progress
    if progress is None or job.state in ("queued", "finished"):
        return ""
    text = f"{progress.stage} {count(progress.done)}" if progress.done else progress.stage
    if progress.total:
        text = f"{progress.stage} {count(progress.done)} of {count(progress.total)}"
    if job.state == "running" and progress.eta_seconds is not None:
        text += f", about {duration(progress.eta_seconds)} left"
    return text


def _time(at: datetime | None) -> str:
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
