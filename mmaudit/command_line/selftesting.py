"""``mmaudit selftest``: whether what this installation says about models with known answers is true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmaudit.command_line.ending import StoppedError, interrupt_status, say
from mmaudit.command_line.options import Quiet
from mmaudit.command_line.running import results_console

if TYPE_CHECKING:
    from rich.console import Console

    from mmaudit.selftest import SelftestResult

__all__ = ["print_selftest", "selftest"]


def selftest(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer models and data sets: some seconds.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep all figures as JSON.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Audit models with known answers: errors of estimators, coverage of intervals, verdicts. Exit status 1 if one is off."""
    from mmaudit.command_line.progress import show_progress
    from mmaudit.exceptions import RecordError

    if json is not None and json.is_dir():
        raise RecordError(
            f"{json} is a folder; name a file in it, for example {json / 'selftest.json'}"
        )
    say("Auditing models whose answers are known; it takes about a minute.")
    try:
        with show_progress(quiet=quiet) as progress:
            from mmaudit.selftest import run_selftest

            result = run_selftest(quick=quick, seed=seed, progress=progress)
    except KeyboardInterrupt as stop:
        raise StoppedError("interrupted: nothing was written.", interrupt_status(stop)) from stop
    print_selftest(result, results_console(tables=True))
    if json is not None:
        from mmaudit.report.store import write_text_atomic

        write_text_atomic(json, result.model_dump_json(indent=1) + "\n")
        say(f"wrote {json}")
    if result.off:
        raise typer.Exit(1)


def print_selftest(result: SelftestResult, console: Console) -> None:
    """Print what a self-test found: three tables and a sentence.

    Args:
        result: Of the self-test.
        console: Where to.
    """
    from rich.table import Table

    from mmaudit.report.numbers import duration, percent

    def table(title: str, *headers: str) -> Table:
        made = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 1))
        for place, header in enumerate(headers):
            made.add_column(header, justify="left" if place == 0 else "right", overflow="fold")
        return made

    shown = table(
        "Estimates against brute force",
        "estimator",
        "compared",
        "mean error",
        "largest",
        "in s.e.",
        "",
    )
    for error in result.errors:
        shown.add_row(
            error.estimator,
            str(error.estimates),
            f"{error.mean_error:.4f}",
            f"{error.largest_error:.4f}",
            f"{error.largest_deviation:.1f}",
            _mark(error.right),
        )
    console.print(shown)
    console.print()
    kinds = list(dict.fromkeys(row.interval for row in result.coverage))
    scenarios = list(dict.fromkeys(row.scenario for row in result.coverage))
    cells = {(row.interval, row.scenario): row for row in result.coverage}
    shown = table("Coverage of 95 % intervals", "interval", *scenarios, "")
    for kind in kinds:
        found = [cells.get((kind, scenario)) for scenario in scenarios]
        texts = [
            "" if row is None else f"{100 * row.coverage:.1f} %{'' if row.right else ' !'}"
            for row in found
        ]
        shown.add_row(kind, *texts, _mark(all(row is None or row.right for row in found)))
    console.print(shown)
    console.print()
    shown = table("Verdicts against what was planted", "case", "about", "planted", "found", "")
    for verdict in result.verdicts:
        shown.add_row(
            verdict.case, verdict.about, verdict.expected, verdict.found, _mark(verdict.right)
        )
    console.print(shown)
    console.print()
    verdicts = [row for row in result.verdicts if row.about != "model"]
    right = sum(row.right for row in verdicts)
    console.print(
        f"{sum(row.estimates for row in result.errors)} estimates, "
        f"{sum(row.intervals for row in result.coverage):,} intervals and {len(verdicts)} verdicts "
        f"({percent(right / max(len(verdicts), 1))} right) in {duration(result.seconds)}."
    )
    for line in result.off:
        console.print(f" ! {line}", markup=False)
    console.print("Something is off." if result.off else "All is as it should be.")


def _mark(right: bool) -> str:
    return "ok" if right else "OFF"
