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

_MOST_BYTES = 2**26
_ENTRY_BYTES = 1024
"""What a remembered row costs beside its values: keys, tensor objects, the dictionary."""
_TOGETHER = 8
"""Rows are evaluated so many at a time, always: other numbers of rows round otherwise, and a resumed audit would differ."""


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
        self._outside: Hashable = None
        self._keyed: tuple[MaskedBatch, dict[CallKey, list[Hashable]]] | None = None

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self._empty.clear()
        self._keyed, self._bytes = None, 0

    def begin(self, batch: MaskedBatch, outside: Hashable) -> None:
        """Say what the model gets beside tensors; what was learnt under other values is forgotten."""
        if self._bytes > _MOST_BYTES or outside != self._outside:
            self.clear()
        self._outside = outside

    def missing(self, batch: MaskedBatch, outside: Hashable) -> list[Tensor]:
        """Rows of a batch to evaluate, in parts, so that every masked encoder row of it is known.

        Args:
            batch: The batch.
            outside: Everything that is no tensor in what the model gets.
        """
        self.begin(batch, outside)
        wanted: set[int] = set()
        several = False
        for call in self._calls:
            keys = self._keys(batch)[call.key]
            several = several or bool(call.context)
            first = {key: row for row, key in reversed(list(enumerate(keys)))}
            wanted.update(row for key, row in first.items() if (call.key, key) not in self._rows)
        rows = sorted(wanted)
        if not rows or not several:
            return [torch.tensor(rows[:1])] if rows else []
        parts = [rows[at : at + _TOGETHER] for at in range(0, len(rows), _TOGETHER)]
        return [torch.tensor((part * _TOGETHER)[:_TOGETHER]) for part in parts]

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
                self._bytes += sum(t.numel() * t.element_size() for t in kept) + _ENTRY_BYTES

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
        return self._empty.get(_shapes(batch))

    def keep_empty(self, batch: MaskedBatch, row: Tensor) -> None:
        """Remember that row."""
        self._empty[_shapes(batch)] = row

    def _keys(self, batch: MaskedBatch) -> dict[CallKey, list[Hashable]]:
        if self._keyed is None or self._keyed[0] is not batch:
            tensors = tensor_paths(batch.whole)
            known: dict[Any, list[Hashable]] = {}
            keys = {}
            for call in self._calls:
                if call.context not in known:
                    known[call.context] = _row_keys(batch, tensors, call)
                keys[call.key] = known[call.context]
            self._keyed = (batch, keys)
        return self._keyed[1]


def _row_keys(
    batch: MaskedBatch, tensors: Mapping[str, Tensor], call: EncoderCall
) -> list[Hashable]:
    """Per row: everything a masked encoder call can depend on."""
    common: list[Hashable] = [_shapes(batch)]
    columns: list[np.ndarray] = []
    for path in call.context:
        tensor, dim = tensors[path].detach().cpu(), batch.dims[path]
        if tensor.dtype is torch.bfloat16:
            tensor = tensor.float()
        tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
        if dim is None:
            common.append((path, tensor.contiguous().numpy().tobytes(), tuple(tensor.shape)))
        else:
            rows = tensor.movedim(dim, 0).reshape(batch.n, -1).contiguous().numpy()
            columns.append(rows)
    shared = tuple(common)
    if not columns:
        return [shared] * batch.n
    return [(shared, *(column[row].tobytes() for column in columns)) for row in range(batch.n)]


def _shapes(batch: MaskedBatch) -> Hashable:
    """Shapes of one sample of every tensor, those of other modalities too: forward may pass a shape on as a number."""
    return tuple(
        (path, tuple(size for d, size in enumerate(tensor.shape) if d != batch.dims.get(path)))
        for path, tensor in tensor_paths(batch.whole).items()
    )


def _spread(rows: list[Tensor], dim: int | None, places: Tensor, n: int) -> Tensor:
    """Put the distinct rows where they belong."""
    if dim is None:
        return rows[0]
    if len(rows) == 1:
        return rows[0].expand([n if d == dim else size for d, size in enumerate(rows[0].shape)])
    return torch.cat(rows, dim).index_select(dim, places.to(rows[0].device))
