"""Everything a training starts from, out of an audit file: model, splits, task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.model import seeded, unwrapped
from mmaudit.checkpoint.subject import Subject, open_subject
from mmaudit.evidence.data import open_source
from mmaudit.evidence.masks import gather_masks
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.spec import AuditSpec, read_spec
from mmaudit.training.samples import Samples, open_samples, split_off
from mmaudit.training.task import Task

__all__ = ["Opened", "Start", "home_of", "open_training", "trainable_spec"]

Start = Literal["checkpoint", "scratch"]

_HELD_OUT = 0.1


@dataclass(frozen=True)
class Opened:
    """A model and the data it is to be trained on.

    Attributes:
        subject: The model and where it came from.
        model: The module of the subject.
        train: Samples to train on.
        validation: Samples that select the model.
        task: How it is called and masked.
        example: A few training samples.
        notes: What was done otherwise than asked.
    """

    subject: Subject
    model: nn.Module
    train: Samples
    validation: Samples
    task: Task
    example: Batch
    notes: tuple[str, ...]


def trainable_spec(audit_file: Path) -> AuditSpec:
    """The spec of an audit file that names training data and a factory.

    Raises:
        SpecError: If it cannot be read, or names none.
    """
    spec = read_spec(audit_file, AuditSpec)
    assert isinstance(spec, AuditSpec)
    if spec.data.train is None:
        raise SpecError(
            f"{audit_file.name} names no training data: add data.train (and data.validation)."
        )
    if spec.model is None:
        raise SpecError(
            f"{audit_file.name} names no factory under 'model', and a training has to build the model anew;"
            " 'mmaudit convert CHECKPOINT --out DIR' drafts one."
        )
    return spec


def home_of(audit_file: Path, spec: AuditSpec) -> Path:
    """Where the imports and data paths of an audit file begin."""
    own = audit_file.resolve().parent
    return own if spec.directory is None else (own / spec.directory).resolve()


def open_training(
    audit_file: Path,
    spec: AuditSpec,
    *,
    seed: int,
    start: Start = "checkpoint",
    trust: bool = False,
) -> Opened:
    """Load the model, open its data and gather its masks.

    Args:
        audit_file: Where the spec was read.
        spec: From :func:`trainable_spec`.
        seed: Of the model's initialisation, and of the samples held out where there is no validation data.
        start: The ``checkpoint``'s weights, or from ``scratch``: as the factory builds the model.
        trust: Load a checkpoint that runs code when it is loaded.

    Raises:
        ModelError: If the model is no torch module.
        DataError: If the data cannot be read.
    """
    subject = open_subject(audit_file, trust=trust)
    if start == "scratch":
        with seeded(seed):
            built = load_checkpoint(
                None, spec.factory.factory, args=spec.factory.args, directory=subject.directory
            )
        subject.model = unwrapped(built.model)
    if not isinstance(subject.model, nn.Module):
        raise ModelError(f"{subject.name} is no torch module: it cannot be trained.")
    data, directory, notes = spec.data, subject.directory, []
    train = open_samples(data.train, spec, directory=directory)
    if data.validation is not None:
        validation = open_samples(data.validation, spec, directory=directory)
    else:
        everything = len(train)
        train, validation = split_off(train, _HELD_OUT, seed=seed)
        notes.append(
            f"No validation data is named: {len(validation)} of {everything} training samples were held out to select the model."
        )
    masks = gather_masks(
        subject, open_source(data.test, subject.spec, directory=directory), seed=spec.seed
    )
    example = train.batch(range(min(8, len(train))))
    task = Task(subject.model, subject.spec, masks, example.data)
    return Opened(subject, subject.model, train, validation, task, example, tuple(notes))
