"""Seeing from a model's arguments which modalities are absent, by the values that masks put in their place.

A mask that gives every sample the same values (zero, a constant, a token, the mean) can be recognised; one that draws values
cannot, and a modality that has such an input never looks absent. What it takes is written down once, on a batch with its masks,
in a form that a model can be saved with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch, take_rows
from mmaudit.masking.paths import find_value, tensor_paths

__all__ = ["Absence", "Fill", "find_fills"]


class Fill(BaseModel):
    """One input of a modality, and what it holds where the modality is masked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    argument: int | str
    """Position or keyword in the call."""
    path: str = "batch"
    """Where in the argument; ``batch`` is the argument itself."""
    samples: int = 0
    """Dimension that runs over samples."""
    value: float | None = None
    """What every entry is; ``None`` where a tensor says it, or where the input is left out of the call (``None``)."""
    shape: tuple[int, ...] | None = None
    """Shape of that tensor."""


class Absence(nn.Module):
    """Says in which samples a modality is absent: all its inputs hold what its mask gives.

    A module, so that whoever watches a model's modules finds that this sees one modality.

    Args:
        fills: The modality's inputs, at least one.
    """

    def __init__(self, fills: Sequence[Fill]) -> None:
        super().__init__()
        self.fills = tuple(fills)
        for place, fill in enumerate(self.fills):
            if fill.shape is not None:
                # Exact for whatever type the input has.
                self.register_buffer(
                    f"values_{place}", torch.zeros(fill.shape, dtype=torch.float64)
                )

    def set_values(self, tensors: Sequence[Tensor]) -> None:
        """Take over the tensors of those fills that have a shape, in order."""
        for buffer, tensor in zip(self.buffers(), tensors, strict=True):
            buffer.copy_(tensor)

    def inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The modality's inputs in a call; ``None`` where one was left out."""
        found = []
        for fill in self.fills:
            if isinstance(fill.argument, str):
                value = kwargs.get(fill.argument)
            else:
                value = args[fill.argument] if fill.argument < len(args) else None
            found.append(value if value is None else find_value(value, fill.path))
        return found

    def forward(self, *values: Tensor | None) -> Tensor:
        """Which samples lack the modality, without looking at values in Python.

        Args:
            values: From :meth:`inputs`; not all ``None``.

        Returns:
            Bool ``(n,)``.
        """
        found = []
        for place, (fill, value) in enumerate(zip(self.fills, values, strict=True)):
            if value is not None:
                held = fill.value if fill.shape is None else self.get_buffer(f"values_{place}")
                found.append(_holds(value, held, fill.samples))
        return torch.stack(found).all(0)


def find_fills(
    caller: Caller, batch: MaskedBatch
) -> tuple[dict[str, list[Fill]], dict[str, list[Tensor]]]:
    """How each modality looks when it is absent.

    Args:
        caller: Knows the arguments of the call.
        batch: At least one sample.

    Returns:
        Modality -> its inputs that reach the model and are masked, empty where it never looks absent; and modality -> the
        tensors of those fills that have a ``shape``, in order.
    """
    args, kwargs = caller.arguments(batch.whole)
    places: dict[int, tuple[int | str, str]] = {}
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for argument, value in arguments:
        for path, tensor in tensor_paths(value).items():
            places.setdefault(id(tensor), (argument, path))
    found: dict[str, list[Fill]] = {name: [] for name in batch.spec.names}
    tensors: dict[str, list[Tensor]] = {name: [] for name in batch.spec.names}
    drawn: set[str] = set()
    for modality, part in batch.spec.modalities.items():
        for name, where in part.inputs.items():
            masker, value = batch.maskers[modality][name], find_value(batch.whole, where)
            if masker.keeps or not isinstance(value, Tensor) or id(value) not in places:
                continue
            path = next(path for path, other in batch.values.items() if other is value)
            dim = batch.dims[path]
            if not masker.constant or dim is None:
                drawn.add(modality)
                continue
            argument, inner = places[id(value)]
            fill = Fill(argument=argument, path=inner, samples=dim)
            if not masker.changes_call:
                fill, values = _filled(fill, batch.masked(path))
                tensors[modality].extend(() if values is None else (values,))
            found[modality].append(fill)
    for modality in drawn:
        found[modality], tensors[modality] = [], []
    return found, tensors


def _filled(fill: Fill, stand_in: Tensor | None) -> tuple[Fill, Tensor | None]:
    """The fill with what the mask puts in, as one number or as the values of one sample."""
    assert stand_in is not None
    row = take_rows(_dense(stand_in), fill.samples, torch.zeros(1, dtype=torch.long))
    row = row.select(fill.samples, 0)
    first = row.reshape(-1)[0] if row.numel() else row.new_zeros(())
    if bool((row == first).all()) and bool(torch.isfinite(first)):
        return fill.model_copy(update={"value": float(first)}), None
    return fill.model_copy(update={"shape": tuple(row.shape)}), row.detach().cpu().clone()


def _holds(value: Tensor, reference: Tensor | float | None, samples: int) -> Tensor:
    """Which samples hold the reference throughout."""
    value = _dense(value)
    nothing = value.new_zeros(value.shape[samples], dtype=torch.bool)
    if reference is None:
        return nothing
    if isinstance(reference, Tensor):
        reference = reference.to(value.device, value.dtype)
        moved = value.movedim(samples, 0)
        if moved.shape[1:] != reference.shape:
            return nothing
        same = (moved == reference) | (moved.isnan() & reference.isnan())
    else:
        same = (value == reference).movedim(samples, 0)
    return same.all(tuple(range(1, same.dim()))) if same.dim() > 1 else same


def _dense(value: Tensor) -> Tensor:
    return value if value.layout is torch.strided else value.to_dense()
