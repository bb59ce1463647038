"""Where the command line puts records: a folder of its own for every audit, and never into somebody else's."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from datetime import date
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from mmaudit.exceptions import RecordError, SpecError
from mmaudit.report.record_file import RECORD_NAME, RUNNING_STATE

__all__ = [
    "DEMO_AUDIT",
    "DEMO_RETRAINED",
    "DemoSubject",
    "demo_folder",
    "find_demo",
    "new_folder",
    "new_retraining_folder",
    "resumable",
    "resume_command",
]

_RUNS = Path("runs")
_SUBJECTS = "mmaudit.subjects"
DEMO_AUDIT, DEMO_RETRAINED = "audit", "retrained"
"""Folders of a demo: the audit of the shipped model, and its retraining."""
_REQUEST, _RETRAINED = "retrain.json", "comparison.json"
"""In the folder of a retraining: the first and the last file that are written."""
_WORD = r"\w+"
_OF_A_DEMO = {
    DEMO_AUDIT,
    DEMO_RETRAINED,
    "report.html",
    "registered.json",
    "jobs",
    "retrainings",
}


class DemoSubject(Protocol):
    """What an entry point of the group ``mmaudit.subjects`` returns."""

    audit_file: Path
    title: str
    planted: str
    remedy: str
    recipe: dict[str, Any]


def resumable(folder: Path) -> bool:
    """Whether a folder holds an audit that can go on."""
    return (folder / RUNNING_STATE).is_file()


def new_retraining_folder(audit_file: Path, remedy: str, *, resume: bool = False) -> Path:
    """Folder for a retraining whose user named none: ``runs/<title>-<remedy>-<date>``, with a number if that is taken.

    Args:
        audit_file: Its title, or where it lies, gives the name.
        remedy: Key of the remedy.
        resume: Find the retraining of this title with this remedy that was begun last and did not end.

    Raises:
        SpecError: If the audit file cannot be read.
        RecordError: If there is no interrupted retraining to resume.
    """
    stem = _RUNS / f"{_slug(audit_file)}-{'-'.join(re.findall(_WORD, remedy)) or 'remedy'}"
    if not resume:
        return _free(_dated(stem))
    begun = [
        path
        for path in _of_title(stem)
        if (path / _REQUEST).is_file() and not (path / _RETRAINED).exists()
    ]
    if not begun:
        raise RecordError(
            f"there is no interrupted retraining in {stem}-*; name its folder with --out, or start without --resume"
        )
    return max(begun, key=lambda path: (path / _REQUEST).stat().st_mtime)


def new_folder(audit_file: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Folder for an audit whose user named none: ``runs/<title>-<date>``, with a number if that is taken.

    Args:
        audit_file: Its title, or where it lies, gives the name.
        resume: Find the interrupted audit of this title that was written to last.
        overwrite: Take the folder without a number even if it is taken.

    Raises:
        SpecError: If the audit file cannot be read.
        RecordError: If there is no interrupted audit to resume.
    """
    stem = _RUNS / _slug(audit_file)
    if resume:
        interrupted = [path for path in _of_title(stem) if resumable(path)]
        if not interrupted:
            raise RecordError(
                f"there is no interrupted audit in {stem}-*; name its folder with --out, or start without --resume"
            )
        return max(interrupted, key=lambda path: (path / RUNNING_STATE).stat().st_mtime)
    first = _dated(stem)
    return first if overwrite else _free(first)


def resume_command(context: Any, folder: Path) -> str:
    """The command line that goes on with an interrupted command; what decides its numbers is repeated.

    Args:
        context: Of the command that was interrupted.
        folder: Where it wrote.
    """
    arguments: list[str] = []
    options = ["--out", str(folder)]
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        if parameter.name in ("out", "resume", "overwrite"):
            continue
        # Compared by identity: 0 is a seed, and equal to False.
        if value is None or value is False or (value == parameter.default and value is not True):
            continue
        values = [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
        if parameter.param_type_name == "argument":
            arguments += values
        elif value is True:
            options.append(parameter.opts[0])
        else:
            options += [word for text in values for word in (parameter.opts[0], text)]
    return shlex.join(["mmaudit", context.command.name, *arguments, *options, "--resume"])


def find_demo() -> DemoSubject:
    """The sample subject that is audited by ``mmaudit demo``.

    Raises:
        SpecError: If no package brings one along.
    """
    for entry in entry_points(group=_SUBJECTS):
        found: DemoSubject = entry.load()()
        return found
    raise SpecError(
        "no installed package brings a sample model along; install mmaudit with its sample_models (pip install -e .)"
    )


def demo_folder(folder: Path, subject: DemoSubject) -> None:
    """Make sure that a demo replaces nothing but a demo, and clear the one that is there away.

    Args:
        folder: Where the demo wants to write; what the app keeps there (jobs and their results) stays.
        subject: Of the demo.

    Raises:
        RecordError: If the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"{folder} is a file; choose a folder with --out")
    if not folder.exists():
        return
    for path in sorted(folder.iterdir()):
        known = path.name in _OF_A_DEMO or path.name.startswith(".")
        if not known or not _of_demo(path, subject):
            raise RecordError(
                f"{folder} holds {path.name}, which is not of this demo; choose another folder with --out"
            )
    for name in (DEMO_AUDIT, DEMO_RETRAINED):
        shutil.rmtree(folder / name, ignore_errors=True)


def _of_demo(path: Path, subject: DemoSubject) -> bool:
    """Whether a folder that a demo would remove was written by one."""
    from mmaudit.report import AuditReport

    try:
        if path.name == DEMO_AUDIT and (path / RECORD_NAME).exists():
            return AuditReport.load(path).title == subject.title
        if path.name == DEMO_RETRAINED and (path / _REQUEST).exists():
            request = json.loads((path / _REQUEST).read_text(encoding="utf-8"))
            return bool(request["audit_file"] == str(subject.audit_file.resolve()))
    except (RecordError, OSError, ValueError, KeyError, TypeError):
        return False
    return path.name not in (DEMO_AUDIT, DEMO_RETRAINED) or resumable(path)


def _dated(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}-{date.today().isoformat()}")


def _free(first: Path) -> Path:
    names = (
        first if number == 1 else first.with_name(f"{first.name}-{number}")
        for number in range(1, 10_000)
    )
    return next(path for path in names if not path.exists())


def _slug(audit_file: Path) -> str:
    from mmaudit.masking.spec import AuditSpec, read_spec

    spec = read_spec(audit_file, AuditSpec)
    title = spec.title if isinstance(spec, AuditSpec) else None
    if title is None:
        title = audit_file.stem if audit_file.stem != "audit" else audit_file.resolve().parent.name
    words = re.findall(_WORD, title.lower().replace("_", " "))
    name = ""
    for word in words:
        if name and len(name) + len(word) >= 40:
            break
        name += f"-{word[:40]}" if name else word[:40]
    return name or "audit"


def _of_title(stem: Path) -> Iterator[Path]:
    pattern = re.compile(rf"{re.escape(stem.name)}-\d{{4}}-\d\d-\d\d(-\d+)?")
    if stem.parent.is_dir():
        yield from (path for path in stem.parent.iterdir() if pattern.fullmatch(path.name))
