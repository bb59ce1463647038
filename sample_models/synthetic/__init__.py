"""Closed-form subjects: data and weights are constructed, so that every answer is known; see card.md."""

from sample_models.synthetic.data import batches
from sample_models.synthetic.model import build

__all__ = ["batches", "build"]
