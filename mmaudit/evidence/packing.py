"""Many coalitions in one batch: what encoders return and what the model is given, one block of samples per coalition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmaudit.checkpoint.structure import EncoderCall, Structure
from mmaudit.checkpoint.tracing import CallKey
from mmaudit.evidence.stand_in import Recorded, with_tensors
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import tensor_paths, with_values

__all__ = ["coalitions_at_once", "packed_inputs", "packed_outputs"]

_PACKED_BYTES = 2**27
_CACHED_BYTES = 2**20
"""Encoder outputs in one packed pass on a CPU where they are sequences or maps: larger ones fall out of the cache. A fusion
transformer over 64 tokens took twice as long per row with three coalitions of 64 samples packed as with one. Vectors are packed
as far as rows allow: a head's weights are then read once for many coalitions."""


def coalitions_at_once(calls: Sequence[EncoderCall], present: Recorded, most: int) -> int:
    """How many coalitions to pack into one pass, at least 1 and at most ``most``."""
    tensors = [tensor for call in calls for tensor in present.tensors[call.key]]
    on_cpu = bool(tensors) and tensors[0].device.type == "cpu"
    wide = on_cpu and any(tensor.dim() > 2 for tensor in tensors)
    bytes_of_one = sum(
        tensor.numel() * tensor.element_size()
        for call in calls
        for tensor, live in zip(present.tensors[call.key], call.live, strict=True)
        if live
    )
    return max(1, min(most, (_CACHED_BYTES if wide else _PACKED_BYTES) // max(1, bytes_of_one)))


def packed_outputs(
    call: EncoderCall,
    chunk: Sequence[int],
    present: Recorded,
    absent: Mapping[CallKey, Sequence[Tensor]],
    n: int,
) -> Any:
    """What an encoder call returns for the n samples of every coalition of a chunk, in its own container."""
    tensors = []
    for here, away, dim, live in zip(
        present.tensors[call.key], absent[call.key], call.dims, call.live, strict=True
    ):
        if dim is None:
            tensors.append(here)
        elif live:
            parts = [here if index >> call.modality & 1 else away for index in chunk]
            tensors.append(torch.cat(parts, dim))
        else:
            tensors.append(_blank(here, dim, len(chunk) * n))
    return with_tensors(present.values[call.key], tensors)


def packed_inputs(
    batch: MaskedBatch, chunk: Sequence[int], structure: Structure, *, real: bool
) -> Any:
    """The batch repeated once per coalition.

    Args:
        batch: The samples.
        chunk: Indices of coalitions.
        structure: Says which inputs are read outside encoders; the others are blank and take no memory.
        real: Repeat those, too.
    """
    masked, values = batch.masked_paths, {}
    for path, tensor in tensor_paths(batch.whole).items():
        dim = batch.dims[path]
        if dim is None:
            continue
        if path not in masked:
            if path in structure.context or real:
                values[path] = torch.cat([tensor] * len(chunk), dim)
            else:
                values[path] = _blank(tensor, dim, len(chunk) * batch.n)
        elif path in structure.live_inputs or real:
            bit = batch.spec.names.index(masked[path])
            stand_in = batch.masked(path)
            assert stand_in is not None
            values[path] = torch.cat(
                [tensor if index >> bit & 1 else stand_in for index in chunk], dim
            )
        else:
            values[path] = _blank(tensor, dim, len(chunk) * batch.n)
    return with_values(batch.whole, values)


def _blank(like: Tensor, dim: int, rows: int) -> Tensor:
    """Zeros of the right shape that take no memory."""
    shape = [rows if d == dim else size for d, size in enumerate(like.shape)]
    return like.new_zeros(1).expand(shape)
