"""What a training needs to go on, in one file that is written whole or not at all.

Everything is stored in safe formats: tensors (weights, buffers, optimiser moments) as safetensors, the rest as JSON in the
header of the same file. One file, because two could disagree after a crash. The states of random generators are absent
on purpose: every epoch starts from streams seeded by (seed, epoch, process), and states are written between epochs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmaudit.exceptions import CheckpointError

__all__ = ["Standing", "load_state", "save_state", "save_weights", "write_atomically"]

_FORMAT = "mmaudit training state 1"


@dataclass
class Standing:
    """Where a run stands, between two epochs.

    Args:
        epoch: Epochs finished.
        step: Optimiser steps taken.
        best_epoch: Epoch whose weights did best on the validation data.
        best_value: The monitored validation value of that epoch.
        finished: Whether nothing is left to do.
        recipe: The recipe of the run, as JSON.
        samples: Sizes of the training and the validation data.
        remedy: What names the remedy and its settings, as JSON.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float | None = None
    finished: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)
    samples: tuple[int, int] = (0, 0)
    remedy: dict[str, Any] = field(default_factory=dict)


def write_atomically(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """Write a file so that a reader, or the next start after a crash, sees the old or the new one and nothing between.

    Args:
        path: Where to; its folder exists.
        content: The bytes, or a function that writes them to the path it is given.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's parameters and buffers as safetensors.

    The keys are those of its ``state_dict``; tensors that share memory are written out each.
    """
    tensors = _portable(model.state_dict())
    write_atomically(path, lambda temporary: save_file(tensors, temporary))


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    progress: Standing,
    remedy: Mapping[str, Tensor | float] | None = None,
) -> None:
    """Write everything a run needs to go on."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    numbers: dict[str, float] = {}
    for name, kept in (remedy or {}).items():
        if isinstance(kept, Tensor):
            tensors[f"remedy/{name}"] = kept
        else:
            numbers[name] = kept
    moments = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, state in moments["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    header = {
        "format": _FORMAT,
        "progress": asdict(progress),
        "optimizer": {"groups": moments["param_groups"], "scalars": scalars},
        "scheduler": scheduler.state_dict(),
        "remedy": numbers,
    }
    portable, text = _portable(tensors), {"state": json.dumps(header)}
    write_atomically(path, lambda temporary: save_file(portable, temporary, metadata=text))


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[Standing, dict[str, Tensor | float]]:
    """Put a stored state into model, optimiser and scheduler.

    Returns:
        Where the run stood, and what the remedy remembered.

    Raises:
        CheckpointError: If the file is damaged, is no training state, or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
        header = json.loads(metadata.get("state", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not readable as a training state ({error}); start again in an empty folder"
        ) from None
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: expected a file of format '{_FORMAT}', found another")
    weights = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path}: belongs to another model: {reason}") from None
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in header["optimizer"]["scalars"].items()
    }
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": header["optimizer"]["groups"]})
    scheduler.load_state_dict(header["scheduler"])
    progress = Standing(**header["progress"])
    progress.samples = (progress.samples[0], progress.samples[1])
    remedy: dict[str, Tensor | float] = dict(header.get("remedy", {}))
    remedy |= {k.removeprefix("remedy/"): v for k, v in tensors.items() if k.startswith("remedy/")}
    return progress, remedy


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
