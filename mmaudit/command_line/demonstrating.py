"""``mmaudit demo``: the whole way on a small model that comes along, offline."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mmaudit.command_line.ending import StoppedError, interrupt_status, say
from mmaudit.command_line.running import owners_code, results_console

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of everything it writes.")
    ] = Path("mmaudit-demo"),
    audit_only: Annotated[
        bool, typer.Option("--audit-only", help="Only audit: a few seconds.")
    ] = False,
) -> None:
    """Audit a small model that comes along, retrain it with a remedy, and compare; offline."""
    from mmaudit.command_line.places import (
        DEMO_AUDIT,
        DEMO_RETRAINED,
        demo_folder,
        find_demo,
    )
    from mmaudit.command_line.progress import show_progress

    subject = find_demo()
    demo_folder(out, subject)
    say(f"mmaudit demo · {subject.title}, shipped weights (planted fault: {subject.planted})")
    console = results_console()
    try:
        with show_progress() as progress, owners_code():
            # torch takes seconds to import: the progress is on the screen before.
            from mmaudit.auditing import audit

            report = audit(subject.audit_file, out=out / DEMO_AUDIT, progress=progress)
        report.html(out / "report.html")
        from mmaudit.export.terminal import print_advice, print_report

        print_report(report, console)
        if not audit_only:
            from mmaudit.report.sides import remedy_name

            remedy = remedy_name(subject.remedy)
            say(f"\nRetraining with {remedy}, and plainly as a control ...")
            with show_progress() as progress, owners_code():
                from mmaudit.retraining import retrain

                result = retrain(
                    subject.audit_file, subject.remedy, out=out / DEMO_RETRAINED, recipe=subject.recipe,
                    before=out / DEMO_AUDIT, control=True, progress=progress,
                )  # fmt: skip
            from mmaudit.export.comparison import print_comparison

            console.print(f"\nBefore, and after retraining with {remedy}:")
            print_comparison(result.comparison, console)
            if result.control_comparison is not None:
                from mmaudit.report.changes import conclusion

                console.print(f"\nPlain training with the same budget, and {remedy}:")
                print_comparison(result.control_comparison, console)
                joint = conclusion(result.comparison, result.control_comparison)
                console.print(f"\n{joint}", style="bold", markup=False)
            # The comparisons have scrolled them away.
            console.print("\nWhat the audit found before:")
            print_advice(report, console)
    except KeyboardInterrupt as stop:
        raise StoppedError(
            "interrupted: mmaudit demo starts again.", interrupt_status(stop)
        ) from stop
    from mmaudit.jobs.registry import register

    register(out, subject.audit_file)
    folder = shlex.quote(str(out))
    typer.echo(f"\n Report: {out / 'report.html'}")
    typer.echo(f" Tables: mmaudit show {folder}/{DEMO_AUDIT} --measure contributions")
    if report.record.findings:
        from mmaudit.report.statements import LEVELS, verdicts

        judged = verdicts(report.record)
        worst = min(judged, key=lambda name: LEVELS.index(judged[name].level), default="model")
        typer.echo(f" Why:    mmaudit show {folder}/{DEMO_AUDIT} --why {shlex.quote(worst)}")
    typer.echo(f" App:    mmaudit serve {folder}")
    typer.echo(" Yours:  mmaudit init CHECKPOINT --factory MODULE:FUNCTION --data MODULE:FUNCTION")
