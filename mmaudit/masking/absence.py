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
from torch import Tensor

from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch, take_rows
from mmaudit.masking.paths import find_value, tensor_paths

__all__ = ["Fill", "absent_samples", "find_fills"]


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


def find_fills(caller: Caller, batch: MaskedBatch) -> tuple[dict[str, list[Fill]], list[Tensor]]:
    """How each modality looks when it is absent.

    Args:
        caller: Knows the arguments of the call.
        batch: At least one sample.

    Returns:
        Modality -> its inputs that reach the model and are masked, empty where it never looks absent; and the tensors of
        those fills that have a ``shape``, in order.
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
    for path, modality in batch.masked_paths.items():
        masker = batch.maskers[modality][_input_name(batch, path, modality)]
        value, dim = batch.values[path], batch.dims.get(path)
        if not isinstance(value, Tensor) or id(value) not in places:
            continue
        argument, inner = places[id(value)]
        if not masker.constant or dim is None:
            drawn.add(modality)
            continue
        fill = Fill(argument=argument, path=inner, samples=dim)
        if not masker.changes_call:
            stand_in = batch.masked(path)
            assert stand_in is not None
            row = _dense(take_rows(stand_in, dim, torch.zeros(1, dtype=torch.long))).select(dim, 0)
            first = row.reshape(-1)[0] if row.numel() else row.new_zeros(())
            if bool((row == first).all()) and bool(torch.isfinite(first)):
                fill = fill.model_copy(update={"value": first.item()})
            else:
                fill = fill.model_copy(update={"shape": tuple(row.shape)})
                tensors[modality].append(row.detach().cpu().clone())
        found[modality].append(fill)
    for modality in drawn:
        found[modality], tensors[modality] = [], []
    return found, [tensor for name in batch.spec.names for tensor in tensors[name]]


def absent_samples(
    fills: Sequence[Fill],
    tensors: Sequence[Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Tensor | None:
    """In which samples a modality is absent: all its inputs hold what its mask gives.

    Args:
        fills: Of the modality.
        tensors: Of those that have a shape, in order.
        args: Of the call.
        kwargs: Of the call.

    Returns:
        Bool ``(n,)``, computed without looking at values in Python; ``None`` where nothing tells: no fills, or every input
        left out of the call.
    """
    absent: Tensor | None = None
    rest = iter(tensors)
    for fill in fills:
        reference: Tensor | float | None = fill.value if fill.shape is None else next(rest)
        value = _argument(fill, args, kwargs)
        if value is None:
            continue
        same = _holds(value, reference, fill.samples)
        absent = same if absent is None else absent & same
    return absent


def _argument(fill: Fill, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if isinstance(fill.argument, str):
        value = kwargs.get(fill.argument)
    else:
        value = args[fill.argument] if fill.argument < len(args) else None
    return value if value is None else find_value(value, fill.path)


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


def _input_name(batch: MaskedBatch, path: str, modality: str) -> str:
    return batch._replaced[path][1]
