"""What encoders give for masked inputs, remembered row by row.

A constant mask gives every sample the same input, so a masked encoder has one answer per distinct shape and per distinct value
of what it reads unmasked (lengths, attention masks, common inputs). Those rows are evaluated once and gathered afterwards.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaudit.checkpoint.structure import EncoderCall
from mmaudit.checkpoint.tracing import CallKey
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import tensor_paths

__all__ = ["MaskedRows"]

_MOST_BYTES = 2**28


class MaskedRows:
    """The memory of one evaluator.

    Args:
        calls: Encoder calls, with the unmasked inputs each reads and the sample dimension of what it returns.
    """

    def __init__(self, calls: Iterable[EncoderCall]) -> None:
        self._calls = tuple(calls)
        self._rows: dict[tuple[CallKey, Hashable], list[Tensor]] = {}
        self._empty: dict[Hashable, Tensor] = {}
        self._bytes = 0
        self._keyed: tuple[MaskedBatch, dict[CallKey, list[Hashable]]] | None = None

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._empty.clear()
        self._keyed, self._bytes = None, 0

    def missing(self, batch: MaskedBatch) -> Tensor:
        """Rows of a batch to evaluate so that every masked encoder row of it is known."""
        if self._bytes > _MOST_BYTES:
            self.clear()
        wanted: set[int] = set()
        for call in self._calls:
            seen: set[Hashable] = set()
            for row, key in enumerate(self._keys(batch)[call.key]):
                if key not in seen and (call.key, key) not in self._rows:
                    wanted.add(row)
                seen.add(key)
        if not self._calls and self.empty_output(batch) is None:
            wanted.add(0)
        return torch.tensor(sorted(wanted), dtype=torch.long)

    def keep(self, part: MaskedBatch, tensors: Mapping[CallKey, list[Tensor]]) -> None:
        """Remember what the encoder calls gave for some rows with everything masked."""
        for call in self._calls:
            for row, key in enumerate(self._keys(part)[call.key]):
                if (call.key, key) in self._rows:
                    continue
                kept = [
                    tensor if dim is None else tensor.narrow(dim, row, 1).clone()
                    for tensor, dim in zip(tensors[call.key], call.dims, strict=True)
                ]
                self._rows[call.key, key] = kept
                self._bytes += sum(t.numel() * t.element_size() for t in kept)

    def gather(self, batch: MaskedBatch) -> dict[CallKey, list[Tensor]]:
        """Masked encoder outputs for every row of a batch, in the form the calls return them."""
        gathered = {}
        for call in self._calls:
            keys = self._keys(batch)[call.key]
            distinct = {key: place for place, key in enumerate(dict.fromkeys(keys))}
            places = torch.tensor([distinct[key] for key in keys])
            columns = zip(*(self._rows[call.key, key] for key in distinct), strict=True)
            gathered[call.key] = [
                _spread(list(column), dim, places, batch.n)
                for column, dim in zip(columns, call.dims, strict=True)
            ]
        return gathered

    def empty_output(self, batch: MaskedBatch) -> Tensor | None:
        """The one row that the empty coalition gives for inputs of these shapes, if it is known."""
        return self._empty.get(_shapes(batch, None))

    def keep_empty(self, batch: MaskedBatch, row: Tensor) -> None:
        """Remember that row."""
        self._empty[_shapes(batch, None)] = row

    def _keys(self, batch: MaskedBatch) -> dict[CallKey, list[Hashable]]:
        if self._keyed is None or self._keyed[0] is not batch:
            tensors = tensor_paths(batch.whole)
            known: dict[Any, list[Hashable]] = {}
            keys = {}
            for call in self._calls:
                reads = (call.modality, call.context)
                if reads not in known:
                    known[reads] = _row_keys(batch, tensors, call)
                keys[call.key] = known[reads]
            self._keyed = (batch, keys)
        return self._keyed[1]


def _row_keys(
    batch: MaskedBatch, tensors: Mapping[str, Tensor], call: EncoderCall
) -> list[Hashable]:
    """Per row: everything a masked encoder call can depend on."""
    common: list[Hashable] = [_shapes(batch, call.modality)]
    columns: list[np.ndarray] = []
    for path in call.context:
        tensor, dim = tensors[path].detach().cpu(), batch.dims[path]
        if tensor.dtype is torch.bfloat16:
            tensor = tensor.float()
        tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
        if dim is None:
            common.append((path, tensor.numpy().tobytes(), tuple(tensor.shape)))
        else:
            rows = tensor.movedim(dim, 0).reshape(batch.n, -1).contiguous().numpy()
            common.append((path, rows.shape[1:]))
            columns.append(rows)
    shared = tuple(common)
    if not columns:
        return [shared] * batch.n
    return [(shared, *(column[row].tobytes() for column in columns)) for row in range(batch.n)]


def _shapes(batch: MaskedBatch, modality: int | None) -> Hashable:
    """Shapes of one sample of the masked inputs, of one modality or of all."""
    wanted = None if modality is None else batch.spec.names[modality]
    found = []
    for path, owner in batch.masked_paths.items():
        value = batch.values[path]
        if (wanted is None or owner == wanted) and isinstance(value, Tensor):
            dim = batch.dims[path]
            found.append((path, tuple(size for d, size in enumerate(value.shape) if d != dim)))
    return tuple(found)


def _spread(rows: list[Tensor], dim: int | None, places: Tensor, n: int) -> Tensor:
    """Put the distinct rows where they belong."""
    if dim is None:
        return rows[0]
    if len(rows) == 1:
        return rows[0].expand([n if d == dim else size for d, size in enumerate(rows[0].shape)])
    return torch.cat(rows, dim).index_select(dim, places.to(rows[0].device))
