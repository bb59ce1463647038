"""Gaussian noise, drawn anew for each sample id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.base import Masker, cast_values, stable_hash
from mmaudit.masking.reference import Moments

__all__ = ["NoiseMasker"]


class NoiseMasker(Masker):
    """Independent draws of N(mean, std^2) for every entry, from a generator seeded by seed, modality, input and sample id.

    Integers are rounded and, where the statistics come from data, kept within the range seen there, so that a token id stays
    one that the model knows.

    Args:
        modality: See :class:`Masker`.
        input_name: See :class:`Masker`.
        seed: Of the whole audit.
        mean: In the input's unit; ``None``: the reference mean, entry by entry.
        std: In the input's unit; ``None``: the reference standard deviation, entry by entry.
        moments: Statistics of this input; needed where ``mean`` or ``std`` is ``None``.
        source: Where they are from, for the record.
    """

    key = "noise"

    def __init__(
        self,
        modality: str,
        input_name: str,
        *,
        seed: int,
        mean: float | None = None,
        std: float | None = None,
        moments: Moments | None = None,
        source: str = "training data",
    ) -> None:
        super().__init__(modality, input_name)
        if moments is None and (mean is None or std is None):
            raise SpecError(
                f"{self.where}: mask 'noise' needs 'mean' and 'std', or data to take them from"
            )
        self.seed = seed
        self.mean = mean
        self.std = std
        self.moments = moments if mean is None or std is None else None
        self.source = source

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """Noise of the input's shape, dtype and device."""
        self._check_rows(values, ids)
        if values.dtype == torch.bool or values.is_complex():
            raise SpecError(
                f"{self.where}: mask 'noise' is for real numbers, found {values.dtype}; use 'zero' or 'marginal'"
            )
        shape = values.shape[1:]
        if self.moments is not None and self.moments.mean.shape != shape:
            raise DataError(
                f"{self.where}: the {self.source} has shape {tuple(self.moments.mean.shape)} per sample, this batch"
                f" {tuple(shape)}; give the noise a 'mean' and a 'std' where shapes vary"
            )
        mean = torch.tensor(self.mean) if self.mean is not None else self._statistic("mean")
        std = torch.tensor(self.std) if self.std is not None else self._statistic("std")
        drawn = torch.empty(values.shape, dtype=torch.float32)
        generator = torch.Generator()
        for row, sample in zip(drawn, ids, strict=True):
            generator.manual_seed(stable_hash(self.seed, self.modality, self.input_name, sample))
            row.normal_(generator=generator)
        drawn = drawn.mul_(std).add_(mean)
        if self.moments is not None and not values.is_floating_point():
            drawn = drawn.clamp(self.moments.low, self.moments.high)
        return cast_values(drawn, values.dtype).to(values.device)

    def _statistic(self, name: str) -> Tensor:
        statistic: Tensor = getattr(self.moments, name)
        return statistic.float()

    def describe(self) -> str:
        """For example ``noise (mean 0, sd 1)``."""
        mean = f"mean {self.mean:g}" if self.mean is not None else f"mean of the {self.source}"
        std = f"sd {self.std:g}" if self.std is not None else f"sd of the {self.source}"
        return f"noise ({mean}, {std})"
