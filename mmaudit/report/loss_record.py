"""What is known of a training from its losses: the versioned schema of ``losses.json``.

The losses themselves are in it, at common checkpoints, with what makes them doubtful; the measures and findings can be computed
again from it. Numbers that do not exist are ``undefined`` with a reason, never NaN or 0. Importable without torch.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mmaudit.report.json_file import read_model, save_model
from mmaudit.report.schema import FileRecord, Finding, LabelledEstimate, MeasureResult

__all__ = [
    "ALL_RUNS",
    "LOSS_LABELS",
    "LOSS_RECORD_NAME",
    "LOSS_RECORD_VERSION",
    "WHOLE",
    "LossFlag",
    "LossRecord",
    "RunLosses",
    "loss_labels",
]

LOSS_RECORD_NAME = "losses.json"
LOSS_RECORD_VERSION = 1

ALL_RUNS = "all"
"""Label of what holds for all runs together; of a single run it is that run."""

WHOLE = "whole training"
"""Label of the window from the first to the last checkpoint."""

LOSS_LABELS: dict[str, dict[str, str | None]] = {
    "losses": {"head": None, "checkpoint": None, "quantity": "validation"},
    "ogr": {"head": None, "checkpoint": None, "lag": None, "quantity": "OGR"},
    "overfitting": {"head": None, "run": ALL_RUNS, "quantity": "first overfitting"},
    "blend_weights": {"head": None, "run": ALL_RUNS, "window": WHOLE, "quantity": "weight"},
    "learning_speed": {"branch": None, "checkpoint": None, "quantity": "speed"},
}
"""Measure -> keys of its rows' labels, and what one means where it is not given."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    )


class LossFlag(_Frozen):
    """Why a comparison of train and validation losses is doubtful."""

    kind: str
    """``sum``, ``scale``, ``window``, ``training mode``, ``not finite``, ``few checkpoints``, ``gap``, ``restart``, ..."""
    head: str | None = None
    text: str
    unusable: bool = False
    """The overfitting of this head would be wrong, rather than rough."""
    runs: int = 1
    """Runs that it holds for."""


class RunLosses(_Frozen):
    """Losses of one run at common checkpoints, as they were compared (before smoothing)."""

    title: str
    format: str = ""
    files: tuple[FileRecord, ...] = ()
    points: int = 0
    """Logged points behind them."""
    at: tuple[float, ...]
    """Place of each checkpoint of any head, T of them, ascending."""
    train: dict[str, tuple[float | None, ...]]
    """Head -> T losses; ``None`` where it has no such checkpoint."""
    validation: dict[str, tuple[float | None, ...]]
    """The same, ``None`` at the same places."""
    window: str = ""
    """How the train loss was taken, in words."""
    notes: tuple[str, ...] = ()
    """What was left out of the log, and why."""

    def of_head(self, head: str) -> tuple[list[float], list[float], list[float]]:
        """The places that a head has, its train and its validation losses there."""
        rows = zip(self.at, self.train[head], self.validation[head], strict=True)
        own = [(at, t, v) for at, t, v in rows if t is not None and v is not None]
        return [at for at, _, _ in own], [t for _, t, _ in own], [v for _, _, v in own]

    @model_validator(mode="after")
    def _of_one_length(self) -> RunLosses:
        lengths = {len(row) for rows in (self.train, self.validation) for row in rows.values()}
        if lengths != {len(self.at)} or self.train.keys() != self.validation.keys():
            raise ValueError("every head has a train and a validation loss at every checkpoint")
        return self


class LossRecord(_Frozen):
    """``losses.json``, whole.

    Example:
        >>> record = LossRecord.load("runs/a/losses.json")                            # doctest: +SKIP
        >>> record.measures["overfitting"].rows[0].estimate                           # doctest: +SKIP
    """

    schema_version: int = LOSS_RECORD_VERSION
    mmaudit_version: str
    created: datetime
    title: str
    heads: tuple[str, ...]
    """Modalities first, the joint head last where it was guessed."""
    joint: str | None = None
    axis: Literal["epoch", "step", "point"]
    """What checkpoints are counted in."""
    series: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Head -> ``train`` and ``validation`` -> name of the series in the log."""
    guessed: tuple[str, ...] = ()
    """How the series were matched to heads, where no map was given."""
    evaluation_sets: bool = False
    """The heads are sets of data that share one train loss."""
    runs: tuple[RunLosses, ...]
    settings: dict[str, Any] = Field(default_factory=dict)
    """Lag, smoothing, policy and length of the super-epochs."""
    flags: tuple[LossFlag, ...] = ()
    measures: dict[str, MeasureResult] = Field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def unusable(self) -> frozenset[str]:
        """Heads whose overfitting would be wrong."""
        return frozenset(f.head for f in self.flags if f.unusable and f.head is not None)

    @property
    def diverged(self) -> dict[str, LossFlag]:
        """Head -> that its losses are not finite from some checkpoint on."""
        return {f.head: f for f in self.flags if f.kind == "diverged" and f.head is not None}

    @property
    def incomparable(self) -> frozenset[str]:
        """Heads that cannot be set against others: unusable ones, sums of losses, and those that diverged in most runs."""
        flags = [f for f in self.flags if f.kind in ("sum", "diverged") and f.head is not None]
        most = {f.head for f in flags if f.head and 2 * f.runs >= len(self.runs)}
        return self.unusable | most

    def rows(self, measure: str, **labels: str) -> list[LabelledEstimate]:
        """Rows of a measure that have these labels; none where the measure has no value."""
        found = self.measures.get(measure)
        wanted = labels.items()
        return [row for row in found.rows if wanted <= row.labels.items()] if found else []

    def save(self, path: Path | str) -> Path:
        """Write the record in one step; a folder gets a ``losses.json``.

        Raises:
            RecordError: If it cannot be written.
        """
        return save_model(_file(path), self, what="record of losses")

    @classmethod
    def load(cls, path: Path | str) -> LossRecord:
        """Read a record back.

        Raises:
            RecordError: If it is missing, damaged, or of an unknown version.
        """
        return read_model(_file(path), cls, what="record of losses", version=LOSS_RECORD_VERSION)


def loss_labels(measure: str, labels: dict[str, str]) -> dict[str, str]:
    """Fill in the labels that were not given.

    Example:
        >>> loss_labels("overfitting", {"head": "audio"})
        {'run': 'all', 'quantity': 'first overfitting', 'head': 'audio'}
    """
    known = {k: v for k, v in LOSS_LABELS.get(measure, {}).items() if v is not None}
    return {**known, **labels}


def _file(path: Path | str) -> Path:
    given = Path(path)
    return given / LOSS_RECORD_NAME if given.is_dir() else given
