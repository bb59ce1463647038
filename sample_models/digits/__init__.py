"""Audio-visual digits, whose shipped late-fusion model hardly listens; see card.md.

Importing this package loads no torch, so that the command line can name the subject quickly.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sample_models.digits.data import batches
    from sample_models.digits.model import build

__all__ = ["Demo", "batches", "build", "demo"]

_HOME = {"batches": "sample_models.digits.data", "build": "sample_models.digits.model"}


@dataclass(frozen=True)
class Demo:
    """What ``mmaudit demo`` needs to know.

    Args:
        audit_file: The shipped ``audit.yaml``.
        title: What the subject is called.
        planted: The planted fault, in a few words.
        remedy: What to retrain it with.
        recipe: How.
    """

    audit_file: Path
    title: str
    planted: str
    remedy: str
    recipe: dict[str, Any]


def demo() -> Demo:
    """The subject of ``mmaudit demo``."""
    return Demo(
        audit_file=Path(__file__).with_name("audit.yaml"),
        title="Audio-visual digits, late fusion",
        planted="the picture drowns the sound",
        remedy="modality_dropout",
        recipe={"epochs": 5, "lr": 0.001, "optimizer": "adamw", "batch_size": 64},
    )


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sample_models.digits' has no attribute '{name}'")
