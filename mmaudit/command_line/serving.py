"""``mmaudit serve``: finds the app among the installed packages and runs it; the engine itself knows no app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from mmaudit.command_line.ending import say
from mmaudit.exceptions import SpecError

__all__ = ["ServeApp", "find_app", "serve"]

_APPS = "mmaudit.app"


class ServeApp(Protocol):
    """What an entry point of the group ``mmaudit.app`` is: serves a workspace until Ctrl-C."""

    def __call__(
        self,
        workspace: Path,
        *,
        host: str,
        port: int | None,
        open_browser: bool,
        read_only: bool,
        trusted_hosts: Sequence[str],
        show: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        """Serve; ``show`` prints the address and ``say`` everything else."""


def serve(
    workspace: Annotated[
        Path,
        typer.Argument(
            metavar="WORKSPACE", help="Folder with audits, at any depth.", show_default=False
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 for any.  [default: the first free one from 8050]", show_default=False
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address of this machine to listen on.")
    ] = "127.0.0.1",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Nothing can be trained, cancelled or resumed.")
    ] = False,
    trusted_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Name under which other machines reach the app; needed with a --host that they can reach.", show_default=False
        ),
    ] = None,
) -> None:  # fmt: skip
    """Open the app on a folder of audits: read them, retrain, watch, compare."""
    find_app()(
        workspace,
        host=host,
        port=port,
        open_browser=not no_browser,
        read_only=read_only,
        trusted_hosts=tuple(trusted_host or ()),
        show=_show,
        say=say,
    )


def find_app() -> ServeApp:
    """The app.

    Raises:
        SpecError: If no package brings one along.
    """
    for entry in entry_points(group=_APPS):
        found: Any = entry.load()
        return found  # type: ignore[no-any-return]
    raise SpecError(
        "no installed package brings the app along; install mmaudit whole (pip install -e .)"
    )


def _show(address: str) -> None:
    # Whoever waits for the address at the other end of a pipe gets it now.
    print(address, flush=True)
