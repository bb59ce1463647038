"""Masks that give every entry one value: zero, a constant, a token id."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmaudit.exceptions import SpecError
from mmaudit.masking.base import Masker

__all__ = ["ConstantMasker", "TokenMasker", "ZeroMasker"]


class ZeroMasker(Masker):
    """Every entry 0 (false for booleans). A sparse tensor becomes an empty one of the same shape."""

    key = "zero"
    constant = True

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """Zeros of the same shape, dtype, layout and device."""
        return torch.zeros_like(values, requires_grad=False)


class ConstantMasker(Masker):
    """Every entry one value.

    Args:
        modality: See :class:`Masker`.
        input_name: See :class:`Masker`.
        value: The value; it must be one that the input's dtype can hold.
    """

    key = "constant"
    constant = True

    def __init__(self, modality: str, input_name: str, value: float) -> None:
        super().__init__(modality, input_name)
        self.value = value

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """The constant in the input's shape, dtype and device."""
        if values.layout != torch.strided:
            raise SpecError(
                f"{self.where}: mask '{self.describe()}' needs a dense tensor, found {values.layout}; use 'zero'"
            )
        if not _fits(self.value, values.dtype):
            raise SpecError(
                f"{self.where}: {self.value:g} does not fit values of type {_name(values.dtype)};"
                f" choose {_allowed(values.dtype)}"
            )
        whole = values.dtype == torch.bool or not (
            values.is_floating_point() or values.is_complex()
        )
        return torch.full_like(
            values, int(self.value) if whole else self.value, requires_grad=False
        )

    def describe(self) -> str:
        """For example ``constant 0.5``."""
        return f"{self.key} {self.value:g}"


class TokenMasker(ConstantMasker):
    """Every entry one token id; only for inputs of integers."""

    key = "token"

    def __call__(self, values: Tensor, ids: Sequence[str]) -> Tensor:
        """The token id in the input's shape, dtype and device."""
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise SpecError(
                f"{self.where}: mask '{self.describe()}' is for token ids, found values of type {_name(values.dtype)};"
                f" use 'constant: {self.value:g}'"
            )
        return super().__call__(values, ids)


def _fits(value: float, dtype: torch.dtype) -> bool:
    if dtype.is_complex:
        return True
    if dtype == torch.bool:
        return value in (0, 1)
    if dtype.is_floating_point:
        return value != value or abs(value) == float("inf") or abs(value) <= torch.finfo(dtype).max
    limits = torch.iinfo(dtype)
    return float(value).is_integer() and limits.min <= int(value) <= limits.max


def _allowed(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "0 or 1"
    if dtype.is_floating_point:
        return f"a value of at most {torch.finfo(dtype).max:g}"
    limits = torch.iinfo(dtype)
    return f"a whole number from {limits.min} to {limits.max}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
