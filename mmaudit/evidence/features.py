"""Tensors of any shape as a bounded number of features for each sample, for probes that ask what is in them.

Small tensors are taken as they are. Of large ones there are means: over neighbours, which keep where something is in a picture (and are
better features than all of its pixels: small learners reach .81 from a 32 x 48 spectrogram of a digit by means, .73 by all
values, .65 by random projections), and over whole dimensions. Long rows without neighbours go through random projections, which keep
distances (Achlioptas 2003). Whole numbers that may be tokens are counted as well; where a mask of the spec says that they are,
they are only counted. Where a dimension has another size from batch to batch, its mean, spread, maximum and length are taken; steps
that are zero throughout are padding and do not count, so that the batch size changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from sklearn.random_projection import SparseRandomProjection
from torch import Tensor
from torch.nn import functional as F

from mmaudit.typing import FloatArray

__all__ = ["Featuriser", "ShapesDifferError"]

_LEAST_WIDTH = 16
_TOKENS = (torch.int16, torch.int32, torch.int64)
_ROWS = 2
"""Plain rows of numbers are kept up to so many times the width: learners see more in them before they are projected."""
_FEW_MAPS = 8
"""Maps of a picture up to so many have means over neighbours of their own."""
_COLOURS = 4
"""A last dimension up to this size, of a tensor whose others are larger, runs over colours."""


class ShapesDifferError(Exception):
    """A tensor has another shape than before in dimensions that were taken to be fixed; they are known from now on."""


class Featuriser:
    """Turns the tensors of one modality into features, always in the same way.

    Args:
        width: Features, at most.
        seed: Of the projections.
        tokens: Tensors whose whole numbers stand for something, so that they are counted and nothing else; 0 is padding.
    """

    def __init__(self, width: int, seed: int, *, tokens: Collection[str] = ()) -> None:
        self.width, self._seed, self._tokens = width, seed, frozenset(tokens)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._varying: dict[str, set[int]] = {}
        self._projections: dict[str, SparseRandomProjection] = {}
        self.words: dict[str, str] = {}
        """Tensor -> how it became features, in a few words."""

    def rows(self, tensors: Mapping[str, Tensor]) -> FloatArray:
        """Features of some samples.

        Args:
            tensors: Name -> tensor ``(n, ...)``, samples first; the same names every time.

        Returns:
            Float32 ``(n, w)``, w at most about ``width``.

        Raises:
            ShapesDifferError: If a shape is not what it was; what was given out before must be made again.
        """
        share = max(_LEAST_WIDTH, self.width // max(1, len(tensors)))
        differ = [name for name, tensor in tensors.items() if self._differs(name, tensor)]
        if differ:
            raise ShapesDifferError(", ".join(differ))
        return np.hstack([self._features(name, tensors[name], share) for name in sorted(tensors)])

    def _differs(self, name: str, tensor: Tensor) -> bool:
        shape = tuple(tensor.shape[1:])
        known = self._shapes.setdefault(name, shape)
        varying = self._varying.setdefault(name, set())
        if len(shape) != len(known):
            raise ValueError(f"{name} has {len(known)} dimensions in one batch, {len(shape)} later")
        new = {d for d, (a, b) in enumerate(zip(shape, known, strict=True)) if a != b} - varying
        varying |= new
        return bool(new)

    def _features(self, name: str, tensor: Tensor, width: int) -> FloatArray:
        tensor = _dense(tensor)
        whole = tensor.dtype in _TOKENS
        values = torch.nan_to_num(tensor.float(), nan=0.0, posinf=0.0, neginf=0.0)
        if not whole or (tensor.dim() > 2 and name not in self._tokens):
            return self._reduced(name, values, width)
        alone = name in self._tokens or bool(self._varying[name])
        buckets = _largest_prime(width if alone else width // 2)
        counts = _counts(tensor, buckets, padded=alone)
        if alone:
            self.words[name] = "counts of tokens"
            return counts
        rest = self._reduced(name, values, width - buckets)
        self.words[name] = f"counts of tokens and {self.words[name]}"
        return np.hstack([counts, rest])

    def _reduced(self, name: str, values: Tensor, width: int) -> FloatArray:
        n, shape, varying = len(values), tuple(values.shape[1:]), sorted(self._varying[name])
        said = "values"
        if varying:
            steps = values.movedim([1 + d for d in varying], list(range(1, 1 + len(varying))))
            rest = [size for d, size in enumerate(shape) if d not in varying]
            values = _over_steps(steps.reshape(n, -1, int(np.prod(rest))))
            said = "mean, spread, maximum and length over what varies"
            shape = tuple(values.shape[1:])
        values = _squeezed(values)
        shape, size = tuple(values.shape[1:]), int(np.prod(values.shape[1:]))
        if size <= (width if len(shape) > 1 else _ROWS * width):
            found = values.reshape(n, size)
        elif len(shape) < 2:
            found = self._project(name, values, width)
            said += " through random projections"
        else:
            found, said = (
                self._summary(name, values, width),
                "means over neighbours and over dimensions",
            )
        self.words[name] = said
        return np.asarray(found.numpy(), dtype=np.float32)

    def _summary(self, name: str, values: Tensor, width: int) -> Tensor:
        """Of pictures, maps, spectrograms and sequences of features."""
        if values.dim() > 3:
            last = values.shape[-1] <= _COLOURS < min(values.shape[1:-1])
            maps = values.movedim(-1, 1) if last else values
            if maps.shape[1] <= _FEW_MAPS:
                return _neighbours(maps, width // 2)
            each = self._limited(f"{name} maps", maps.flatten(2).mean(2), width // 2)
            return torch.cat([each, _neighbours(maps.mean(1, keepdim=True), width // 4)], 1)
        # A spectrogram has neighbours along both dimensions, a sequence of features along one; which, nothing says.
        parts = [self._limited(f"{name} {d}", values.mean(d), width // 4) for d in (1, 2)]
        return torch.cat([_neighbours(values.unsqueeze(1), width // 2), *parts], 1)

    def _limited(self, name: str, values: Tensor, width: int) -> Tensor:
        return values if values.shape[1] <= width else self._project(name, values, width)

    def _project(self, name: str, values: Tensor, width: int) -> Tensor:
        if name not in self._projections:
            projection = SparseRandomProjection(
                width, dense_output=True, random_state=self._seed % 2**32
            )
            self._projections[name] = projection.fit(np.zeros((1, values.shape[1]), np.float32))
        return torch.from_numpy(np.asarray(self._projections[name].transform(values.numpy())))


def _squeezed(values: Tensor) -> Tensor:
    """Without dimensions of size 1."""
    return values.reshape(len(values), *(size for size in values.shape[1:] if size != 1))


def _dense(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_nested:
        tensor = torch.nested.to_padded_tensor(tensor, 0.0)
    elif tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.cpu()


def _counts(tokens: Tensor, buckets: int, *, padded: bool) -> FloatArray:
    """How often each token occurs, ``(n, buckets)``; ids beyond the buckets share them."""
    rows = tokens.reshape(len(tokens), -1)
    counts = torch.zeros(len(rows), buckets)
    here = (rows != 0).float() if padded else torch.ones(rows.shape)
    counts.scatter_add_(1, rows.long() % buckets, here)
    return np.asarray(counts.numpy())


def _over_steps(values: Tensor) -> Tensor:
    """Mean, standard deviation and maximum over steps that are not zero throughout, and their number; ``(n, 3 f + 1)``."""
    here = (values != 0).any(2, keepdim=True)
    count = here.sum(1).clamp(min=1)
    mean = (values * here).sum(1) / count
    spread = (((values - mean[:, None]) * here).square().sum(1) / count).sqrt()
    top = values.masked_fill(~here, -torch.inf).amax(1) if values.shape[1] else mean
    top = top.where(torch.isfinite(top), 0.0)
    return torch.cat([mean, spread, top, here.sum(1).float()], 1)


def _neighbours(maps: Tensor, width: int) -> Tensor:
    """Means over neighbours in each of a few maps ``(n, c, ...)``, ``(n, w)``; three dimensions at most have neighbours."""
    if maps.dim() > 5:
        maps = maps.flatten(2, maps.dim() - 3)
    grid = _grid(tuple(maps.shape[2:]), max(1, width // maps.shape[1]))
    if len(grid) == 1:
        means = F.adaptive_avg_pool1d(maps, grid[0])
    elif len(grid) == 2:
        means = F.adaptive_avg_pool2d(maps, (grid[0], grid[1]))
    else:
        means = F.adaptive_avg_pool3d(maps, (grid[0], grid[1], grid[2]))
    return means.flatten(1)


def _grid(space: Sequence[int], cells: int) -> tuple[int, ...]:
    """The finest grid of the same proportions with at most so many cells.

    Example:
        >>> _grid((28, 28), 192), _grid((64, 100), 192), _grid((2, 500), 100)
        ((13, 14), (11, 17), (1, 100))
    """
    scale = (cells / np.prod(space)) ** (1 / len(space))
    grid = [1] * len(space)
    *shorter, longest = sorted(range(len(space)), key=lambda d: space[d])
    for d in shorter:
        grid[d] = max(1, min(space[d], int(space[d] * scale)))
    # What a short dimension cannot use, the longest may.
    grid[longest] = max(1, min(space[longest], cells // int(np.prod(grid))))
    return tuple(grid)


def _largest_prime(most: int) -> int:
    """Ids often differ by multiples of round numbers; by a prime they stay apart."""
    return next(
        number
        for number in range(max(2, most), 1, -1)
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    )
