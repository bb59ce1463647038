"""The real MNIST x FSDD task: its loader, and models trained on the degraded setting; see card.md."""

from sample_models.mnist_fsdd.data import batches
from sample_models.mnist_fsdd.model import build

__all__ = ["batches", "build"]
