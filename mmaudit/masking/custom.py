"""A masking function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmaudit.exceptions import SpecError
from mmaudit.masking.base import Masker, stable_hash

__all__ = ["CustomMasker"]


class CustomMasker(Masker):
    """Calls ``function(values, ids, generator) -> values``.

    The function gets a copy of the values, so it may change them in place. The generator is seeded by seed, modality, input and
    all ids of the batch: what it draws is repeated with equal batches; a function whose draws must not depend on how samples are
    batched seeds a generator by each id itself.

    Args:
        modality: See :class:`Masker`.
        input_name: See :class:`Masker`.
        function: The function.
        seed: Of the whole audit.
        name: What to call it in the record.
    """

    key = "custom"

    def __init__(
        self,
        modality: str,
        input_name: str,
        *,
        function: Callable[..., Any],
        seed: int,
        name: str = "",
    ) -> None:
        super().__init__(modality, input_name)
        self.function = function
        self.seed = seed
        self.name = name or getattr(function, "__qualname__", type(function).__name__)

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """What the function returns, checked.

        Raises:
            SpecError: If the function raises or returns something of another type, shape, dtype or device.
        """
        generator = torch.Generator()
        generator.manual_seed(stable_hash(self.seed, self.modality, self.input_name, *ids))
        try:
            masked = self.function(values.clone(), list(ids), generator)
        except Exception as error:
            raise SpecError(
                f"{self.where}: mask '{self.describe()}' raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(masked, Tensor):
            raise SpecError(
                f"{self.where}: mask '{self.describe()}' returned {type(masked).__name__}, expected a tensor"
            )
        came = (tuple(masked.shape), masked.dtype, masked.device)
        expected = (tuple(values.shape), values.dtype, values.device)
        if came != expected:
            raise SpecError(
                f"{self.where}: mask '{self.describe()}' returned shape {came[0]}, {came[1]} on {came[2]};"
                f" expected {expected[0]}, {expected[1]} on {expected[2]}"
            )
        return masked

    def describe(self) -> str:
        """For example ``custom masks:blur``."""
        return f"{self.key} {self.name}"
