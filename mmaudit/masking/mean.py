"""The training mean, entry by entry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.base import Masker, cast_values
from mmaudit.masking.reference import Moments

__all__ = ["MeanMasker"]


class MeanMasker(Masker):
    """Every sample becomes the mean over the reference data, entry by entry.

    Integers are rounded; a boolean becomes the majority.

    Args:
        modality: See :class:`Masker`.
        input_name: See :class:`Masker`.
        moments: Statistics of this input.
        source: Where they are from, for the record.
    """

    key = "mean"
    constant = True

    def __init__(
        self, modality: str, input_name: str, moments: Moments, source: str = "training data"
    ) -> None:
        super().__init__(modality, input_name)
        self.moments = moments
        self.source = source

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """The mean repeated B times, in the input's dtype and device."""
        if values.layout != torch.strided:
            raise SpecError(
                f"{self.where}: mask 'mean' needs a dense tensor, found {values.layout}; use 'zero'"
            )
        if values.shape[1:] != self.moments.mean.shape:
            raise DataError(
                f"{self.where}: the mean of the {self.source} has shape {tuple(self.moments.mean.shape)} per sample,"
                f" this batch {tuple(values.shape[1:])}; use 'zero' or 'marginal' where shapes vary"
            )
        mean = cast_values(self.moments.mean, values.dtype).to(values.device)
        return mean.expand(values.shape).clone()

    def describe(self) -> str:
        """For example ``mean of the training data (n = 1000)``."""
        return f"mean of the {self.source} (n = {self.moments.n})"
