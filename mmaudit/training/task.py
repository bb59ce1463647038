"""What is trained, as the audit file says it: how the model is called, what its outputs are, how modalities are masked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.evidence.masks import Masks
from mmaudit.evidence.scoring import task_scores
from mmaudit.exceptions import DataError, ModelError
from mmaudit.masking.batches import Batch
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.spec import MaskingSpec

__all__ = ["Labelled", "Task"]


@dataclass(frozen=True)
class Labelled:
    """A batch on the device, with its masks and labels.

    Attributes:
        masked: The samples, and any set of modalities masked.
        data: What the model is given: ``masked.whole``, unless a remedy masked some of it.
        targets: Classes, int64 ``(n,)``; of segments ``(n, T)`` and of labels ``(n, L)``, -1 where there is none; of a regression
            numbers, float32 ``(n, D)``, NaN where one is unknown.
        present: Whether each sample has each modality, bool ``(n, M)``.
    """

    masked: MaskedBatch
    data: Any
    targets: Tensor
    present: Tensor

    def seeing(self, data: Any) -> Labelled:
        """The same samples with other inputs."""
        return replace(self, data=data)


class Task:
    """What is learnt from a spec's batches: losses and scores of its task.

    Args:
        model: Whose ``forward`` says how it is called where the spec does not.
        spec: Modalities, call, outputs, target.
        masks: Of the spec.
        example: A batch as the data gives it.
    """

    def __init__(self, model: nn.Module, spec: MaskingSpec, masks: Masks, example: Any) -> None:
        # Written out, so that a module around the model is called in the same way.
        call = Caller(model, spec).call_spec(example)
        self.spec = spec.model_copy(update={"call": call})
        self.masks = masks

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, M of them."""
        return self.spec.names

    def place(self, batch: Batch, device: torch.device) -> Labelled:
        """A batch on the device.

        Raises:
            DataError: If it has no labels, or not what the spec names.
        """
        if batch.targets is None:
            raise DataError("training needs labels: name their path under 'target'.")
        masked = MaskedBatch(
            batch.data,
            self.spec,
            self.masks.maskers,
            batch.ids,
            present=batch.present,
            device=device,
            templates=self.masks.templates,
            dims=batch.dims,
        )
        present = torch.stack(
            [torch.as_tensor(batch.present[name], dtype=torch.bool) for name in self.spec.names], 1
        )
        kind = torch.float32 if self.spec.task == "regression" else torch.long
        targets = torch.as_tensor(batch.targets, dtype=kind)
        return Labelled(masked, masked.whole, targets.to(device), present.to(device))

    def forward(self, model: nn.Module, batch: Labelled) -> Tensor:
        """Scores as :func:`~mmaudit.evidence.scoring.task_scores` gives them, differentiable: ``(n, K)`` class scores, ..."""
        return self.scores(Caller(model, self.spec)(batch.data))

    def scores(self, output: Tensor) -> Tensor:
        """Scores of what the model gives."""
        return task_scores(output, self.spec.outputs, self.spec.task)

    def loss(self, scores: Tensor, batch: Labelled) -> Tensor:
        """Negative log-likelihood of the label, nats; squared error of a regression; shape ``(n,)``.

        Of a sample with several labels or numbers the mean over those that are known, 0 where none is.

        Raises:
            DataError: If a label is no class.
            ModelError: If the model gives another number of outputs than there are targets.
        """
        targets, task = batch.targets, self.spec.task
        if task in ("multiclass", "binary"):
            return F.cross_entropy(scores, targets, reduction="none")
        known = self._known(scores, targets)
        if task == "segments":
            # Along the second axis, as cross-entropy has classes.
            each = F.cross_entropy(scores.transpose(1, 2), targets.clamp(min=0), reduction="none")
        elif task == "multilabel":
            yes = targets.clamp(min=0).to(scores.dtype)
            each = F.binary_cross_entropy_with_logits(scores, yes, reduction="none")
        else:
            each = (scores - torch.nan_to_num(targets).to(scores.dtype)) ** 2
        return _mean_of_known(each, known)

    def accuracy(self, scores: Tensor, batch: Labelled) -> Tensor:
        """Share of right decisions on each sample, in [0, 1], shape ``(n,)``; a sample without any label counts 0."""
        targets, task = batch.targets, self.spec.task
        if task in ("multiclass", "binary"):
            return (scores.argmax(1) == targets).float()
        if task == "regression":
            raise ModelError("a regression has no accuracy: take its loss.")
        said = scores.argmax(-1) if task == "segments" else scores > 0
        return _mean_of_known((said == targets).float(), self._known(scores, targets))

    def measured(self) -> dict[str, Callable[[Tensor, Labelled], Tensor]]:
        """What a training records beside the loss: the accuracy; nothing of a regression, whose loss says it all."""
        return {} if self.spec.task == "regression" else {"accuracy": self.accuracy}

    def _known(self, scores: Tensor, targets: Tensor) -> Tensor:
        if scores.shape[:2] != targets.shape:
            raise ModelError(
                f"the model gives {tuple(scores.shape[:2])} outputs for targets of shape {tuple(targets.shape)}: expected as many."
            )
        return ~targets.isnan() if self.spec.task == "regression" else targets >= 0


def _mean_of_known(values: Tensor, known: Tensor) -> Tensor:
    return values.where(known, 0.0).sum(1) / known.sum(1).clamp(min=1)
