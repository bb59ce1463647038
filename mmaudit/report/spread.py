"""How far numbers spread around their mean, summed chunk by chunk: what R2 measures squared errors by."""

from __future__ import annotations

import numpy as np

from mmaudit.typing import FloatArray, IntArray

__all__ = ["Spread"]

_ROUNDING = 1e-24
"""Squares below this share of the squared mean are what rounding leaves of equal numbers."""


class Spread:
    """Count, mean and sum of squared distances from the mean of each of several columns of numbers.

    Chunks are merged with their means (Chan et al. 1979), so that numbers far from 0 lose nothing.

    Args:
        cells: How many columns.

    Attributes:
        count: Numbers seen, shape ``(cells,)``.
        mean: Their mean, 0 where there are none, shape ``(cells,)``.
        squares: Sum of their squared distances from it, shape ``(cells,)``.

    Example:
        >>> spread = Spread(1)
        >>> for chunk in ([1e6, 1e6 + 1], [1e6 + 2]):
        ...     spread.add(np.array(chunk), np.zeros(len(chunk), int))
        >>> spread.mean.tolist(), spread.squares.tolist()
        ([1000001.0], [2.0])
    """

    def __init__(self, cells: int) -> None:
        self.count = np.zeros(cells)
        self.mean = np.zeros(cells)
        self.squares = np.zeros(cells)

    def add(self, values: FloatArray, cells: IntArray) -> None:
        """Add numbers ``(n,)``, each to its own column ``(n,)``."""
        size = len(self.count)
        count = np.bincount(cells, minlength=size).astype(np.float64)
        mean = np.bincount(cells, values, size) / np.maximum(count, 1)
        squares = np.bincount(cells, (values - mean[cells]) ** 2, size)
        total = np.maximum(self.count + count, 1)
        shift = np.where(count > 0, mean - self.mean, 0.0)
        self.squares += squares + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count += count

    @property
    def varies(self) -> np.ndarray:
        """Whether the numbers of each column differ from each other, shape ``(cells,)``, bool."""
        return np.asarray(self.squares > _ROUNDING * self.count * self.mean**2)
