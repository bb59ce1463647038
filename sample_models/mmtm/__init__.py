"""Two branches that exchange information through MMTMs, one of them carried by the other; see card.md."""

from sample_models.digits.data import batches
from sample_models.mmtm.model import build

__all__ = ["batches", "build"]
