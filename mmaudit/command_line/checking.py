"""``mmaudit check``: does a record meet requirements? For CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmaudit.command_line.running import results_console

if TYPE_CHECKING:
    from mmaudit.checking import Outcome

__all__ = ["EPILOG", "check"]

EPILOG = (
    "A requirement is MEASURE[.MODALITY][.label=value ...] OP NUMBER, for example utilization.audio >= 0.05, accuracy >= 0.93, "
    "utilization.audio.given=image > 0, coalitions.coalition=audio+image.score=log-likelihood > -0.4; or a verdict: "
    "verdict.audio == 'well used', verdict.audio != harmful. Names with dots or spaces stand in quotes. >= and > need the lower "
    "end of the 95 % interval, <= and < the upper end. Status: 0 all hold, 1 one fails, 2 bad input."
)
"""What a requirement is, below the options in ``--help``."""


def check(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Folders of finished audits.", show_default=False),
    ],
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REQUIREMENT", help="What must hold; may be repeated.", show_default=False
        ),
    ] = None,
    point: Annotated[
        bool,
        typer.Option("--point", help="Where an estimate has no interval, compare its value."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Check records against requirements on interval ends; exit status 1 if one fails."""
    from mmaudit.checking import check as run
    from mmaudit.report import AuditReport

    if not require:
        raise typer.BadParameter(
            "say what must hold, for example --require 'utilization.audio >= 0.05'"
        )
    # Everything is read and understood before anything is printed: bad input prints one sentence alone.
    reports = [(folder, AuditReport.load(folder)) for folder in folders]
    found = [(folder, report, run(report, require, point=point)) for folder, report in reports]
    if as_json:
        shown = [_as_json(folder, report.title, outcomes) for folder, report, outcomes in found]
        typer.echo(json.dumps(shown, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        from mmaudit.export.outcomes import print_outcomes

        for folder, report, outcomes in found:
            # Audits of one model have one title.
            title = report.title if len(found) == 1 else f"{folder}: {report.title}"
            print_outcomes(title, outcomes, results_console(tables=True))
    if not all(outcome.holds for _, _, outcomes in found for outcome in outcomes):
        raise typer.Exit(1)


def _as_json(folder: Path, title: str, outcomes: tuple[Outcome, ...]) -> dict[str, Any]:
    return {
        "record": str(folder),
        "title": title,
        "holds": all(outcome.holds for outcome in outcomes),
        "requirements": [
            {
                "requirement": outcome.requirement,
                "holds": outcome.holds,
                "found": outcome.found,
                "compared": outcome.compared,
                "reason": outcome.reason,
                "estimate": None
                if outcome.estimate is None
                else outcome.estimate.model_dump(mode="json"),
            }
            for outcome in outcomes
        ],
    }
