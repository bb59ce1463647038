"""What is trained, as the audit file says it: how the model is called, what its outputs are, how modalities are masked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.evidence.masks import Masks
from mmaudit.evidence.scoring import class_scores
from mmaudit.exceptions import DataError
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
        targets: Classes, int64 ``(n,)``.
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
    """Classification on a spec's batches.

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
        targets = torch.as_tensor(batch.targets, dtype=torch.long)
        return Labelled(masked, masked.whole, targets.to(device), present.to(device))

    def forward(self, model: nn.Module, batch: Labelled) -> Tensor:
        """Class scores in logit space, ``(n, K)``, differentiable."""
        return self.scores(Caller(model, self.spec)(batch.data))

    def scores(self, output: Tensor) -> Tensor:
        """Class scores of what the model gives."""
        return class_scores(output, self.spec.outputs.kind)

    def loss(self, scores: Tensor, batch: Labelled) -> Tensor:
        """Negative log-likelihood of the label, nats, shape ``(n,)``.

        Raises:
            DataError: If a label is no class.
        """
        return F.cross_entropy(scores, batch.targets, reduction="none")

    def accuracy(self, scores: Tensor, batch: Labelled) -> Tensor:
        """Whether the largest score is that of the label, 0 or 1, shape ``(n,)``."""
        return (scores.argmax(1) == batch.targets).float()
