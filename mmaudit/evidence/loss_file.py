"""The log of clean losses that recorders write: one JSON object a line, which readers of logs take.

The first line says what was measured and on which samples; every other is ``{"step", "epoch", "split", "name", "value"}``. Beside
the log lies the map of its heads, for modalities whose names alone would not say what they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmaudit.evidence.loss_map import JOINT, HeadMap, LossMap
from mmaudit.exceptions import RecordError
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.store import write_text_atomic
from mmaudit.typing import EmptyRule

__all__ = [
    "ABOUT",
    "NONFINITE",
    "LossFile",
    "described_heads",
    "map_path",
    "recorded_map",
    "row_lines",
    "series_names",
    "written",
]

ABOUT = "about"
"""Key that only the first line has."""

NONFINITE = "nonfinite_samples"
"""Name of the number of samples of a split that are left out; there only where it is not 0."""


def series_names(heads: Iterable[str]) -> dict[str, str]:
    """Head -> name of its loss in the log.

    Example:
        >>> series_names(["joint", "audio"])
        {'joint': 'joint_loss', 'audio': 'audio_loss'}
    """
    return {head: f"{head}_loss" for head in heads}


def recorded_map(modalities: Iterable[str], validation: str = "validation") -> LossMap:
    """The map of a log that a recorder wrote.

    Args:
        modalities: Their names.
        validation: Name of the split that stands for held-out data.
    """
    heads = [*modalities, JOINT]
    return LossMap(
        heads={
            head: HeadMap(train=f"train/{name}", validation=f"{validation}/{name}")
            for head, name in series_names(heads).items()
        },
        joint=JOINT,
    )


def map_path(log: Path) -> Path:
    """Where the map of a log lies.

    Example:
        >>> map_path(Path("run/losses.jsonl")).name
        'losses.map.yaml'
    """
    return log.with_name(f"{log.stem}.map.yaml")


def described_heads(spec: MaskingSpec, own: Mapping[str, str], empty: EmptyRule) -> str:
    """What each head is, in one sentence a modality."""
    at = "the model's own output" if spec.outputs.path is None else f"'{spec.outputs.path}'"
    said = [f"{JOINT}: {at}"]
    for name in spec.names:
        if name in own:
            said.append(f"{name}: its own head, '{own[name]}' in what the model returns")
        else:
            masks = ", ".join(sorted({str(mask) for mask in spec.modalities[name].mask.values()}))
            said.append(
                f"{name}: its mono-modal Shapley response (empty coalition: {empty}; masked by {masks})"
            )
    return "; ".join(said)


def row_lines(
    *, step: int | None, epoch: float | None, split: str, values: Mapping[str, float]
) -> str:
    """Lines of some values; one that is not finite is written as a word: that a loss is no number is worth knowing.

    Example:
        >>> print(row_lines(step=3, epoch=1, split="train", values={"loss": 0.5}), end="")
        {"step": 3, "epoch": 1, "split": "train", "name": "loss", "value": 0.5}
    """
    rows = (
        {"step": step, "epoch": epoch, "split": split, "name": name, "value": written(value)}
        for name, value in values.items()
    )
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def written(value: float) -> float | str:
    """A number as JSON has it, which knows finite ones only.

    Example:
        >>> written(0.5), written(float("nan")), float(written(float("-inf")))
        (0.5, 'NaN', -inf)
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


class LossFile:
    """A log that is appended to while a training runs.

    Args:
        path: The ``.jsonl`` file.
        about: Its first line.
        modalities: Whose losses it holds beside the joint one; for the map.
        resume: Go on with what is there, and where the training goes back to an earlier step.

    Raises:
        RecordError: If there is a log already and ``resume`` is false, or its first line is another.
    """

    def __init__(
        self, path: Path, about: Mapping[str, str], modalities: Iterable[str], *, resume: bool
    ) -> None:
        self._path, self._about, self._map = path, dict(about), recorded_map(modalities)
        self._resume, self._started = resume, False
        self._last: dict[str, int] = {}
        self._goes_on = path.exists() and path.stat().st_size > 0
        if not self._goes_on:
            return
        if not resume:
            raise RecordError(
                f"{path} is there already: say resume=True to go on with it, or name another file."
            )
        rows = _rows(path)
        for key, value in about.items():
            if rows and rows[0].get(key) != value:
                raise RecordError(
                    f"{path} was begun with another '{key}' ({rows[0].get(key)}; now {value}): go on with the same, or name another file."
                )

    def append(self, lines: str, *, step: int, kind: str) -> None:
        """Append lines of an optimiser step.

        The first time in a process, what the file holds from this step on is cut off: an interrupted run had written it beyond
        the checkpoint that the training goes on from. The same where a training that may resume goes back within a process.

        Args:
            lines: From :func:`row_lines`.
            step: Their step.
            kind: ``losses`` or ``norms``: each goes forward by itself.

        Raises:
            RecordError: If the step lies before the last one, and the log is not one to go on with; or it cannot be written.
        """
        last = self._last.get(kind, step)
        if step < last:
            if not self._resume:
                raise RecordError(
                    f"step {step} lies before step {last}, which {self._path} holds already: every training needs a recorder and a file of"
                    " its own, and one that goes back to an earlier checkpoint needs resume=True."
                )
            self._started, self._goes_on = False, True
        if not self._started:
            kept = _rows(self._path)[1:] if self._goes_on else []
            rows = [row for row in kept if (row.get("step") or 0) < step]
            text = "".join(json.dumps(row) + "\n" for row in [self._about, *rows])
            write_text_atomic(self._path, text)
            write_text_atomic(map_path(self._path), self._map.text())
            self._started, self._last = True, {}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            raise RecordError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._last[kind] = step


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a log as they were written, the first one included; a torn last line is left out.

    Raises:
        RecordError: If it is no log of a recorder, or a line before the last is damaged.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or (ABOUT not in row and "value" not in row):
                raise ValueError
        except ValueError:
            if number == len(lines) - 1:
                break
            raise RecordError(
                f"{path}: line {number + 1} is none of a log of losses: name another file."
            ) from None
        rows.append(row)
    if rows and ABOUT not in rows[0]:
        raise RecordError(
            f"{path} is no log that a recorder wrote (its first line says nothing about it): name another file."
        )
    return rows
