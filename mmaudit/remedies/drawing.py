"""Gaussian noise for many tensors, from seeds alone: the same on every process and in a resumed training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

__all__ = ["standard_normals"]

_PIECE = 2**18
"""Entries that one generator of the CPU draws."""
_AT_ONCE = 2**25
"""Entries that are drawn before the first are used: as much memory is needed beside the largest tensor."""


def standard_normals(tensors: Sequence[Tensor], seeds: Sequence[int]) -> Iterator[Tensor]:
    """Independent standard normal numbers, one tensor like each of those given.

    A generator of the CPU runs on one core, and drawing is what takes the time: pieces have generators of their own, and as
    many run at once as torch has threads. What is drawn does not depend on their number.

    Args:
        tensors: Of any shape, floating, all on one device.
        seeds: One for each.

    Yields:
        Tensors of the same shape, dtype and device, in order.

    Example:
        >>> first, second = standard_normals([torch.zeros(2), torch.zeros(3)], [7, 8])
        >>> bool((first == torch.randn(2, generator=torch.Generator().manual_seed(7))).all()), second.shape
        (True, torch.Size([3]))
    """
    if tensors and tensors[0].device.type != "cpu":
        for tensor, seed in zip(tensors, seeds, strict=True):
            yield _fill(_empty(tensor), seed)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for group in _groups(tensors):
            drawn = [_empty(tensors[i]) for i in group]
            pieces = [
                (piece, seeds[i] + number)
                for i, noise in zip(group, drawn, strict=True)
                for number, piece in enumerate(noise.view(-1).split(_PIECE))
            ]
            # All of a group before any is used: what follows runs on all cores and would contend with the drawing.
            list(pool.map(lambda piece: _fill(*piece), pieces))
            yield from drawn


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    group: list[int] = []
    entries = 0
    for i, tensor in enumerate(tensors):
        if group and entries + tensor.numel() > _AT_ONCE:
            yield group
            group, entries = [], 0
        group.append(i)
        entries += tensor.numel()
    if group:
        yield group


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _fill(tensor: Tensor, seed: int) -> Tensor:
    return tensor.normal_(generator=torch.Generator(tensor.device).manual_seed(seed))
