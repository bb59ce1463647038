"""Values of options that are more than a number or a word: refused before anything is loaded."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AuditFile",
    "BatchSize",
    "Device",
    "Epochs",
    "LearningRate",
    "Quiet",
    "Seed",
    "Timeout",
    "TrainingFile",
    "TrustCheckpoint",
    "Workers",
    "audit_file_only",
    "known_device",
    "measure_keys",
    "yaml_mapping",
]


def audit_file_only(path: Path) -> Path:
    """Refuse what is no audit file by its name: a folder, a checkpoint, a record.

    Raises:
        SpecError: If it is one of these.
    """
    from mmaudit.exceptions import SpecError

    if path.is_dir():
        record = (path / "report.json").is_file()
        raise SpecError(
            f"{path} is a folder with a finished audit, no audit file; 'mmaudit show {shlex.quote(str(path))}' prints it"
            if record
            else f"{path} is a folder, no such file as an audit file; 'mmaudit init CHECKPOINT' drafts one (audit.yaml)"
        )
    if path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        raise SpecError(
            f"{path} is no audit file, whose name ends in .yaml; for a checkpoint 'mmaudit init {shlex.quote(str(path))}' drafts one"
        )
    return path


AuditFile = Annotated[
    Path,
    typer.Argument(
        metavar="AUDIT.yaml",
        help="The audit file; 'mmaudit init' drafts one.",
        show_default=False,
        callback=audit_file_only,
    ),
]
TrainingFile = Annotated[
    Path,
    typer.Argument(
        metavar="AUDIT.yaml",
        help="The audit file; it names training data.",
        show_default=False,
        callback=audit_file_only,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to run: cpu, cuda, cuda:1, ...  [default: a GPU if there is one]",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Instead of the data's own.", show_default=False)
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Of everything drawn.  [default: the audit file's]", show_default=False
    ),
]
Timeout = Annotated[
    float, typer.Option(min=0.001, help="Seconds a DataLoader worker may take for a batch.")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Passes over the training data.", show_default="10")
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", min=0, help="Learning rate.", show_default="0.001")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load data.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
TrustCheckpoint = Annotated[
    bool,
    typer.Option(
        "--trust-checkpoint",
        help="Load a checkpoint that runs code (a pickled module, TorchScript, .pt2).",
    ),
]


def measure_keys(text: str | None) -> list[str] | None:
    """The keys in ``A,B``; none given, none chosen."""
    if text is None:
        return None
    from mmaudit.report.labels import LABELS

    keys = [key.strip() for key in text.split(",") if key.strip()]
    unknown = [key for key in keys if key not in LABELS]
    if unknown or not keys:
        raise typer.BadParameter(
            f"unknown measure {', '.join(map(repr, unknown or ['']))}; there are {', '.join(LABELS)}",
            param_hint="--measures",
        )
    return keys


def known_device(name: str | None) -> str | None:
    """Refuse a device that is not there before anything is loaded."""
    if name is not None:
        from mmaudit.evidence import processes

        processes.known_device(name)
    return name


def yaml_mapping(text: str, option: str) -> dict[str, Any]:
    """The arguments in ``{key: value}``."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise typer.BadParameter(
            f"expected a mapping such as '{{kind: late}}', found '{text}'", param_hint=option
        )
    return value
