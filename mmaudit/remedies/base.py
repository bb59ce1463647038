"""What all remedies share: the task they are applied to, what is known of the model's inside, and how they are named."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import Structure, find_structure
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.calling import Caller
from mmaudit.masking.spec import AuditSpec
from mmaudit.training.hooks import Hooks, Training
from mmaudit.training.task import Task
from mmaudit.typing import TaskName

__all__ = ["Remedy", "RemedyOptions"]


class RemedyOptions(BaseModel):
    """Settings of a remedy; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Remedy(Hooks):
    """A method that changes how a multimodal model is trained.

    A subclass is one file: pure formulas first, then the class with its card.

    Args:
        task: How the model is called and masked.
        options: Of the remedy.
        example: A batch of the training data, which the model's inside is found on.
    """

    key: ClassVar[str]
    """Name on the command line and in records."""
    title: ClassVar[str]
    """Name in print."""
    Options: ClassVar[type[RemedyOptions]] = RemedyOptions
    needs_structure: ClassVar[bool] = True
    tasks: ClassVar[tuple[TaskName, ...]] = ("multiclass", "binary")
    """What it can be applied to; most remedies read class scores of samples."""

    def __init__(self, task: Task, options: Any, example: Batch) -> None:
        self.task, self.options, self.example = task, options, example
        self.notes: list[str] = []
        """What was done otherwise than asked, for the record."""
        self.structure: Structure | None = None

    @classmethod
    def check_task(cls, task: TaskName) -> None:
        """Refuse a task that the remedy has no formulas for.

        Raises:
            SpecError: With what can be done instead.
        """
        if task not in cls.tasks:
            raise SpecError(
                f"{cls.title} balances modalities by their class scores and fits the tasks {', '.join(cls.tasks)}, not '{task}': "
                "take joint or modality_dropout, which fit all."
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, M of them."""
        return self.task.modalities

    def prepare(self, run: Training) -> nn.Module:
        """Look into the model, on the example, and leave it as it came."""
        if len(self.modalities) < 2:
            raise ModelError(
                f"{self.title} balances modalities, and the spec has one: nothing to balance."
            )
        if self.needs_structure:
            self.structure = self._structure_of(run.model, run.device)
        return run.model

    def audit_changes(self, spec: AuditSpec) -> dict[str, Any]:
        """What an audit file of the retrained model says otherwise than that of the model as it came: field -> value."""
        return {}

    def evaluator(
        self, run: Training, *, differentiable: bool, reuse: bool = True
    ) -> CoalitionEvaluator:
        """What evaluates coalitions within a training step, checked against brute force on the example first.

        Args:
            run: The training.
            differentiable: Whether gradients flow through the coalitions.
            reuse: Take what encoders returned in the step's own pass; else every coalition is a pass of its own.
        """
        evaluator = CoalitionEvaluator(
            run.model,
            self.task.spec,
            self.structure,
            differentiable=differentiable,
            optimize=reuse,
            reason="every coalition is a pass of its own, as asked",
            precision=torch.bfloat16 if run.recipe.precision == "bf16" else None,
            training=True,
        )
        evaluator.try_out(self.task.place(self.example, run.device).masked)
        self.notes.extend(evaluator.notes)
        if reuse and evaluator.method == "full passes":
            self.notes.append(f"Every coalition is a pass of its own: {evaluator.reason}.")
        return evaluator

    def _structure_of(self, model: nn.Module, device: torch.device) -> Structure:
        with left_as_it_came(model), torch.no_grad():
            return find_structure(
                model, Caller(model, self.task.spec), self.task.place(self.example, device).masked
            )
