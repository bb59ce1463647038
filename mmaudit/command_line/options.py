"""Values of options that are more than a number or a word: refused before anything is loaded."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = ["TrustCheckpoint", "known_device", "measure_keys", "yaml_mapping"]


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
