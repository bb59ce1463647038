"""Several logs at once: one that cannot be read is left out and named, and hides no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mmaudit.evidence.readers.base import Run, counted, listed, said
from mmaudit.exceptions import LogError

__all__ = ["read_each", "with_notes"]

_IN_FULL = 3


def read_each(
    paths: Iterable[Path], read: Callable[[Path], list[Run]], root: Path | None = None
) -> list[Run]:
    """Read logs one by one; those that cannot be read are named in a note of all runs.

    Args:
        paths: Of the logs.
        read: Reads one of them.
        root: Folder that the paths are told relative to.

    Raises:
        LogError: If none can be read.
    """
    runs: list[Run] = []
    faults: dict[str, str] = {}
    for path in paths:
        try:
            runs += read(path)
        except LogError as error:
            faults[_told(path, root)] = str(error)
        except OSError as error:
            faults[_told(path, root)] = (
                f"{said(path.name)} cannot be read: {error.strerror or error}."
            )
    if not faults:
        return runs
    first = next(iter(faults.values()))
    if not runs:
        more = f" So it is with {len(faults) - 1} more." if len(faults) > 1 else ""
        raise LogError(f"{first}{more}")
    reasons = "; ".join(
        f"'{said(name, 100)}' ({said(reason, 160)})"
        for name, reason in list(faults.items())[:_IN_FULL]
    )
    more = f"; {listed(list(faults)[_IN_FULL:])}" if len(faults) > _IN_FULL else ""
    cannot = f"{counted(len(faults), 'log')} that cannot be read left out: {reasons}{more}."
    return with_notes(runs, cannot)


def with_notes(runs: Sequence[Run], *notes: str) -> list[Run]:
    """The runs with more notes, each with all of them: a run that is left out later takes none away."""
    return [replace(run, notes=(*run.notes, *notes)) for run in runs] if notes else list(runs)


def _told(path: Path, root: Path | None) -> str:
    try:
        return path.relative_to(root).as_posix() if root is not None else str(path)
    except ValueError:
        return str(path)
