"""Losses and scores the loop is given: one value per sample, so that any batch size and shard gives exact means."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

__all__ = ["accuracy", "cross_entropy"]


def cross_entropy(logits: Tensor, batch: Mapping[str, Tensor], *, target: str = "label") -> Tensor:
    """Negative log-likelihood of the label under the softmax of the logits.

    Args:
        logits: Shape ``(B, K)``.
        batch: Holds the labels, integers of shape ``(B,)``.
        target: Where in the batch.

    Returns:
        Shape ``(B,)``, in nats, at least 0.
    """
    return F.cross_entropy(logits, batch[target].long(), reduction="none")


def accuracy(logits: Tensor, batch: Mapping[str, Tensor], *, target: str = "label") -> Tensor:
    """Whether the largest logit is that of the label.

    Args:
        logits: Shape ``(B, K)``.
        batch: Holds the labels, integers of shape ``(B,)``.
        target: Where in the batch.

    Returns:
        Shape ``(B,)``, 0 or 1.
    """
    return (logits.argmax(dim=1) == batch[target]).float()
