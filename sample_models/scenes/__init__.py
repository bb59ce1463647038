"""Four yes-or-no labels of a scene from its sound, its picture and its caption, which is hardly read; see card.md."""

from sample_models.scenes.data import batches
from sample_models.scenes.model import build

__all__ = ["batches", "build"]
