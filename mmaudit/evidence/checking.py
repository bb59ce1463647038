"""Which outputs are compared with brute force, and how much rounding may make them differ."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import tensor_paths

__all__ = ["SpotChecks", "distance"]

_SHAPES = 16
_CHANCE = 1 / 16


class SpotChecks:
    """Draws batches, coalitions and samples to check.

    Args:
        grand: Index of the grand coalition, which is a plain pass and needs no check.
        seed: Of the draws.
    """

    def __init__(self, grand: int, seed: int) -> None:
        self._grand = grand
        self._chance = np.random.default_rng(seed)
        self._shapes: set[object] = set()

    def due(self, batch: MaskedBatch) -> bool:
        """Whether a batch is to be checked: one in sixteen, and the first ones of every new shape."""
        shapes = tuple((path, tuple(t.shape)) for path, t in tensor_paths(batch.whole).items())
        new = len(self._shapes) < _SHAPES and shapes not in self._shapes
        if new:
            self._shapes.add(shapes)
        return new or self._chance.random() <= _CHANCE

    def coalitions(self, *, first: bool, whole: bool) -> list[int]:
        """Coalitions to check: one later; on the first batch up to 16, or 4 where each costs a whole batch."""
        if not first:
            return [int(self._chance.integers(self._grand))]
        most = 4 if whole else 16
        if self._grand <= most:
            return list(range(self._grand))
        drawn = self._chance.choice(self._grand, size=most - 1, replace=False)
        return sorted({0, *drawn.tolist()})

    def part(self, batch: MaskedBatch) -> tuple[MaskedBatch, Tensor | None]:
        """Two samples of a batch and their places; the batch itself where it has no more."""
        if batch.n <= 2:
            return batch, None
        for path in batch.masked_paths:
            batch.masked(path)  # drawn for the whole batch, so that the part has the same
        rows = torch.as_tensor(np.sort(self._chance.choice(batch.n, size=2, replace=False)))
        return batch.rows(rows), rows


def distance(found: Tensor, expected: Tensor, precision: torch.dtype | None) -> tuple[float, float]:
    """Largest absolute difference, and what rounding at the outputs' precision allows."""
    if found.shape != expected.shape:
        return float("inf"), 0.0
    dtype = precision or (expected.dtype if expected.is_floating_point() else torch.float32)
    allowed = 1e-5 if torch.finfo(dtype).eps < 1e-5 else 4 * torch.finfo(dtype).eps
    a, b = found.double(), expected.double()
    if not bool((torch.isfinite(a) == torch.isfinite(b)).all()):
        return float("inf"), allowed
    finite = torch.isfinite(b)
    if not bool(finite.any()):
        return 0.0, allowed
    return float((a - b)[finite].abs().max()), allowed * max(1.0, float(b[finite].abs().max()))
