"""Feeds a model that takes batches of one size only: piece by piece, the last filled up with its last sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmaudit.exceptions import ModelError

__all__ = ["in_batches"]


def in_batches(
    call: Callable[[dict[str, Any]], Any],
    values: Mapping[str, Any],
    batched: Collection[str],
    size: int,
) -> Any:
    """Run a model on any number of samples through batches of a fixed size.

    Args:
        call: Runs the model on named inputs of which those in ``batched`` have ``size`` rows.
        values: Name -> input, any number of rows.
        batched: Names of the inputs with a row per sample; others are given whole every time.
        size: Rows the model takes.

    Returns:
        What the model returns, its tensors with a row per sample; of tensors without, the first batch's.

    Raises:
        ModelError: If the inputs differ in their number of rows.

    Example:
        >>> in_batches(lambda v: v["x"] + 1, {"x": torch.zeros(3)}, ["x"], 2)
        tensor([1., 1., 1.])
    """
    rows = {name: len(values[name]) for name in batched if values[name] is not None}
    if len(set(rows.values())) != 1:
        raise ModelError(
            f"the inputs have different numbers of rows ({', '.join(f'{k} {n}' for k, n in rows.items())}); a batch has a"
            " row per sample in each."
        )
    n = next(iter(rows.values()))
    pieces: list[list[Any]] = []
    structure = None
    for start in range(0, n, size):
        index = torch.arange(start, start + size).clamp(max=n - 1)
        piece = {
            name: _rows(value, index) if name in rows else value for name, value in values.items()
        }
        leaves, structure = tree_flatten(call(piece))
        pieces.append(leaves)
    joined = [_joined(list(parts), size, n) for parts in zip(*pieces, strict=True)]
    assert structure is not None
    return tree_unflatten(joined, structure)


def _rows(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value.index_select(0, index.to(value.device))
    if isinstance(value, np.ndarray):
        return value[index.numpy()]
    return [value[i] for i in index.tolist()]


def _joined(parts: list[Any], size: int, n: int) -> Any:
    if all(isinstance(p, Tensor) and p.dim() and p.shape[0] == size for p in parts):
        return torch.cat(parts)[:n]
    return parts[0]
