"""Brings modules that were saved in another floating-point type to float32, in which data comes and audits are run.

State dicts are converted when they are copied into a model; a module that was saved whole is converted here. Programs compute in
the type that was compiled into them, and get their inputs in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mmaudit.exceptions import CheckpointError

__all__ = ["as_taken", "as_wanted", "in_float32", "own_dtype", "spelled"]

_CONVERTED = (torch.float16, torch.bfloat16, torch.float64)


def own_dtype(tensors: Any) -> torch.dtype | None:
    """The one floating-point type of some tensors, where that is half, bfloat16 or double; else ``None``.

    Example:
        >>> own_dtype([torch.ones(1).half(), torch.arange(3)])
        torch.float16
    """
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    kind = next(iter(kinds)) if len(kinds) == 1 else None
    return kind if kind in _CONVERTED else None


def in_float32(model: nn.Module) -> tuple[str, ...]:
    """Convert a module whose parameters are all half, bfloat16 or double, in place.

    A module that mixes types converts between them itself, and is left as it is.

    Args:
        model: Any module; without parameters its buffers count.

    Returns:
        A sentence for the record, where something was converted.

    Raises:
        CheckpointError: If a finite value is too large for float32; the module is then unchanged.

    Example:
        >>> layer = nn.Linear(2, 1).half()
        >>> in_float32(layer), layer.weight.dtype
        (('Converted the module from float16 to float32.',), torch.float32)
    """
    parameters = list(model.parameters())
    kind = own_dtype(parameters or model.buffers())
    if kind is None:
        return ()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.dtype is torch.float64 and bool(
            (torch.isfinite(value) & ~torch.isfinite(value.float())).any()
        ):
            raise CheckpointError(
                f"{name} of the module does not survive the conversion from float64 to float32; scale it down before saving."
            )
    model.float()
    return (f"Converted the module from {spelled(kind)} to float32.",)


def as_taken(values: Any, dtype: torch.dtype) -> Any:
    """Inputs of a program in its own type: floating-point tensors converted, whatever containers they are in."""
    return tree_map(
        lambda v: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v, values
    )


def as_wanted(outputs: Any) -> Any:
    """Outputs of a program in float32, where they are half, bfloat16 or double."""
    return tree_map(
        lambda v: v.float() if isinstance(v, Tensor) and v.dtype in _CONVERTED else v, outputs
    )


def spelled(dtype: torch.dtype) -> str:
    """A type as the record names it: ``float16``."""
    return str(dtype).removeprefix("torch.")
