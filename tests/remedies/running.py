"""Running a remedy on a small model as a retraining does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import default_collate

from mmaudit.evidence.masks import Masks
from mmaudit.masking.batches import Batch, BatchParser
from mmaudit.masking.build import build_maskers
from mmaudit.masking.spec import MaskingSpec
from mmaudit.remedies import find_remedy
from mmaudit.remedies.base import Remedy
from mmaudit.training import Recipe, TrainingResult, train
from mmaudit.training.task import Task


def batch_of(samples: list[Any], spec: MaskingSpec) -> Batch:
    """Samples as the audit's data gives them."""
    return BatchParser(spec, lambda note: None).parse(default_collate(samples), 0, 0)


def remedy_for(
    key: str,
    model: nn.Module,
    spec: dict[str, Any] | MaskingSpec,
    samples: list[Any],
    **options: Any,
) -> Remedy:
    """A remedy with its task, not prepared yet."""
    read = MaskingSpec.model_validate(spec) if isinstance(spec, dict) else spec
    example = batch_of(samples[:8], read)
    task = Task(model, read, Masks(build_maskers(read), {}, ()), example.data)
    kind = find_remedy(key)
    return kind(task, kind.Options(**options), example)


def run(
    key: str | Remedy,
    model: nn.Module,
    spec: dict[str, Any],
    samples: list[Any],
    out: Path,
    *,
    validation: list[Any] | None = None,
    recipe: dict[str, Any] | None = None,
    resume: bool = False,
    progress: Any = None,
    **options: Any,
) -> TrainingResult:
    """Train a small model with a remedy on the CPU."""
    remedy = key if isinstance(key, Remedy) else remedy_for(key, model, spec, samples, **options)
    task = remedy.task
    settings = {
        "optimizer": "sgd",
        "lr": 0.05,
        "momentum": 0.0,
        "epochs": 2,
        "batch_size": 16,
        "seed": 3,
    }
    return train(
        model,
        samples,
        validation if validation is not None else samples[:16],
        Recipe(**{**settings, **(recipe or {})}),
        loss=task.loss,
        forward=task.forward,
        scores={"accuracy": task.accuracy},
        collate=lambda rows: batch_of(rows, task.spec),
        place=task.place,
        hooks=remedy,
        identity={"remedy": remedy.key, "options": remedy.options.model_dump(mode="json")},
        out=out,
        device="cpu",
        resume=resume,
        progress=progress,
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
