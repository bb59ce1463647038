"""What a masker is: it makes one input of a modality absent, sample by sample.

Masked values never depend on the batch size, on the order of the samples or on the process that evaluates them: what is drawn
is drawn from a generator seeded by the sample's id. Maskers work on torch tensors and leave their arguments unchanged.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mmaudit.exceptions import DataError, SpecError

__all__ = ["DropMasker", "KeepMasker", "Masker", "cast_values", "stable_hash"]


class Masker(ABC):
    """Makes one input of one modality absent.

    Args:
        modality: Name of the modality, for messages and as part of the seed.
        input_name: Name of the input within the modality, for messages and as part of the seed.
    """

    key: ClassVar[str]
    """The mask's name in a spec."""
    constant: ClassVar[bool] = False
    """The masked value of a sample depends on nothing but the shape of the input."""
    changes_call: ClassVar[bool] = False
    """There is no masked value: the model is called with ``None`` in place of the input."""
    keeps: ClassVar[bool] = False
    """The input stays as it is."""

    def __init__(self, modality: str, input_name: str) -> None:
        self.modality = modality
        self.input_name = input_name

    @property
    def where(self) -> str:
        """Beginning of a sentence about this masker."""
        return f"modality '{self.modality}', input '{self.input_name}'"

    @abstractmethod
    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """Masked values.

        Args:
            values: The input, shape ``(B, ...)``, any dtype and device; not changed.
            ids: The B sample ids.

        Returns:
            A tensor of the same shape, dtype and device.

        Raises:
            SpecError: If this mask cannot be applied to such values.
            DataError: If the values do not fit the ids or the data the mask was made from.
        """

    def describe(self) -> str:
        """The mask in a few words, for the record."""
        return self.key

    def _check_rows(self, values: Tensor, ids: Sequence[str]) -> None:
        """Refuse values whose first axis is not the samples: such a mask draws sample by sample."""
        if values.layout != torch.strided:
            raise SpecError(
                f"{self.where}: mask '{self.key}' needs a dense tensor, found {values.layout}; use 'zero'"
            )
        if values.ndim == 0 or values.shape[0] != len(ids):
            raise DataError(
                f"{self.where}: mask '{self.key}' needs one row per sample, found shape {tuple(values.shape)}"
                f" for {len(ids)} samples; use 'zero', a constant or a custom mask"
            )


class KeepMasker(Masker):
    """Leaves the input as it is, for example a sampling rate that goes with a masked signal."""

    key = "keep"
    keeps = True

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """The values themselves."""
        return values


class DropMasker(Masker):
    """Leaves the input out: the model is called with ``None`` in its place."""

    key = "drop"
    constant = True
    changes_call = True

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """Always an error: what is dropped has no value; callers look at ``changes_call`` first."""
        raise SpecError(
            f"{self.where}: mask 'drop' has no masked values; call the model with None in place of the input"
        )


def stable_hash(*parts: object) -> int:
    """Hash that is equal on every machine and in every process: 63 bits of BLAKE2b over the parts' texts.

    Example:
        >>> stable_hash(0, "audio", "clip 1") == stable_hash(0, "audio", "clip 1")
        True
    """
    text = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def cast_values(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast real numbers to a dtype as a mask needs it.

    To integers: rounded and kept within the dtype's range. To booleans: true from 0.5 upwards.
    """
    if dtype == torch.bool:
        return values >= 0.5
    if dtype.is_floating_point or dtype.is_complex or not values.is_floating_point():
        return values.to(dtype)
    limits = torch.iinfo(dtype)
    if dtype == torch.int64:
        # The largest int64 has no float64 of its own; rounding up would overflow.
        return values.round().clamp(float(limits.min), 2.0**62).to(dtype)
    return values.round().clamp(limits.min, limits.max).to(dtype)
