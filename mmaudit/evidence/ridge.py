"""Ridge regression in one pass over batches, in memory that does not grow with the number of samples.

What the solution depends on are sums over samples: counts, means, ``Z'Z`` and ``Z'C``. They are kept in float64, one set for each
fold, so that the penalty can be cross-validated without reading the data again. scikit-learn's ``Ridge`` needs all samples
in memory at once; the numbers are the same (its tests compare to 1e-6).

Values are shifted by the mean of the first block of rows before they are summed: latents with a mean of 1e4 and a spread of 1 would
otherwise lose eight digits when the mean is subtracted from the sums. Rows are put together into blocks of one size first,
so that the batch size changes no digit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmaudit.typing import IntArray

__all__ = ["PENALTIES", "RidgeFit", "StreamingRidge"]

PENALTIES: tuple[float, ...] = tuple(10.0 ** (power / 2) for power in range(-6, 11))
"""Grid of penalties that are cross-validated, 1e-3 to 1e5, for the sum of squares."""

_BLOCK = 1024
_EQUAL = 1e-9
"""Cross-validated errors within this share of each other are one; the larger penalty is taken."""


@dataclass(frozen=True)
class RidgeFit:
    """A fitted ridge regression.

    Attributes:
        weights: Float64 ``(d, q)``.
        bias: Float64 ``(q,)``, not penalised.
        penalty: Lambda, for the sum of squares.
        n: Samples that it was fitted on.
        errors: Penalty -> cross-validated sum of squared errors over all outputs; empty where the penalty was given.
    """

    weights: Tensor
    bias: Tensor
    penalty: float
    n: int
    errors: dict[float, float]

    def predict(self, z: Tensor) -> Tensor:
        """``z W + b``, float64 ``(n, q)``.

        Args:
            z: Shape ``(n, d)``.
        """
        return z.to(self.weights.device, torch.float64) @ self.weights + self.bias


class _Sums:
    """Sums over the samples of one fold."""

    def __init__(self, d: int, q: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.n = 0
        self.z, self.c = zeros(d), zeros(q)
        self.zz, self.zc, self.cc = zeros(d, d), zeros(d, q), zeros(q)

    def add(self, z: Tensor, c: Tensor) -> None:
        self.n += len(z)
        self.z += z.sum(0)
        self.c += c.sum(0)
        self.zz += _gram(z)
        self.zc += z.T @ c
        self.cc += c.square().sum(0)

    def plus(self, other: _Sums, sign: int = 1) -> _Sums:
        """These sums and others, or these less others."""
        new = object.__new__(_Sums)
        new.n = self.n + sign * other.n
        for name in ("z", "c", "zz", "zc", "cc"):
            setattr(new, name, torch.add(getattr(self, name), getattr(other, name), alpha=sign))
        return new

    def of_outputs(self, columns: slice) -> _Sums:
        """A copy for some of the outputs."""
        new = object.__new__(_Sums)
        new.n, new.z, new.zz = self.n, self.z.clone(), self.zz.clone()
        new.c, new.zc, new.cc = (t[..., columns].clone() for t in (self.c, self.zc, self.cc))
        return new


class StreamingRidge:
    """Collects ``(z, c)`` batch by batch and solves for the linear map from z to c.

        (W, b) = argmin  sum_i || c_i - W' z_i - b ||^2 + lambda ||W||^2        (Li et al. 2023, eq 12; bias unpenalised)

    Sums lie where the first batch does, in float64, on the CPU where the device has no such numbers. Memory:
    ``8 folds (d^2 + d q)`` bytes and one block of rows.

    Args:
        folds: Sets of sums that are kept; cross-validation needs at least two.
        block: Rows that are summed at a time.

    Example:
        >>> ridge = StreamingRidge()
        >>> ridge.add(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[0.0], [1.0], [1.0], [2.0]]))
        >>> found = ridge.fit(5.0)
        >>> found.weights.item(), found.bias.item()
        (0.3, 0.55)
    """

    def __init__(self, *, folds: int = 1, block: int = _BLOCK) -> None:
        if folds < 1 or block < 1:
            raise ValueError(f"expected folds and block of at least 1, found {folds} and {block}")
        self.folds = folds
        self._block = block
        self._sums: list[_Sums] | None = None
        self._shift: tuple[Tensor, Tensor] | None = None
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._rows = 0
        self._width: tuple[int, int] | None = None

    @property
    def n(self) -> int:
        """Samples so far."""
        return self._rows + sum(sums.n for sums in self._sums or ())

    def add(self, z: Tensor, c: Tensor, folds: IntArray | Sequence[int] | None = None) -> None:
        """Take a batch.

        Args:
            z: Shape ``(n, d)``, any floating type, any device.
            c: Shape ``(n, q)``.
            folds: Fold of each sample, ``(n,)`` in ``[0, folds)``; left out, all are in the first.

        Raises:
            ValueError: If the shapes do not fit each other or those of earlier batches.
        """
        if z.dim() != 2 or c.dim() != 2 or len(z) != len(c):
            raise ValueError(
                f"expected z (n, d) and c (n, q), found {tuple(z.shape)} and {tuple(c.shape)}"
            )
        width = (z.shape[1], c.shape[1])
        if self._width is not None and width != self._width:
            raise ValueError(f"expected d and q to stay {self._width}, found {width}")
        self._width = width
        which = torch.as_tensor(np.zeros(len(z)) if folds is None else np.asarray(folds)).long()
        if which.shape != (len(z),) or (
            len(z) and not 0 <= which.min() <= which.max() < self.folds
        ):
            raise ValueError(f"expected one fold in [0, {self.folds}) for each of {len(z)} samples")
        device = torch.device("cpu") if z.device.type == "mps" else z.device
        # A copy: whoever gave the rows may write to them before the block is full.
        batch = (z.detach().to(device, copy=True), c.detach().to(device, copy=True), which)
        self._waiting.append(batch)
        self._rows += len(z)
        while self._rows >= self._block:
            self._take(self._block)

    def fit(
        self,
        penalty: float | Literal["cross-validated"] = "cross-validated",
        *,
        without: Collection[int] = (),
        grid: Sequence[float] = PENALTIES,
    ) -> RidgeFit:
        """Solve.

        Args:
            penalty: Lambda of at least 0, or the one of the grid with the smallest cross-validated error.
            without: Folds that are left out altogether.
            grid: Penalties to choose from.

        Raises:
            ValueError: If there are no samples, or fewer than two folds to cross-validate with.
        """
        used = self._used(without)
        total = used[0]
        for sums in used[1:]:
            total = total.plus(sums)
        errors: dict[float, float] = {}
        if penalty == "cross-validated":
            if len(used) < 2:
                raise ValueError("cross-validation needs samples in at least two folds")
            errors = dict.fromkeys(grid, 0.0)
            for held_out in used:
                rest = total.plus(held_out, -1)
                for value, weights, bias in _solutions(rest, grid):
                    errors[value] += _squared_error(held_out, weights, bias)
            least = min(errors.values())
            floor = _EQUAL * float(total.cc.sum())
            penalty = max(value for value, error in errors.items() if error <= least + floor)
        value, weights, bias = next(_solutions(total, (float(penalty),)))
        assert self._shift is not None
        at_z, at_c = self._shift
        return RidgeFit(weights, bias + at_c - at_z @ weights, value, total.n, errors)

    def of_outputs(self, columns: slice) -> StreamingRidge:
        """A collection of its own for some of the outputs, with all samples so far.

        Args:
            columns: Of c.
        """
        if self._rows:
            self._take(self._rows)
        new = StreamingRidge(folds=self.folds, block=self._block)
        if self._sums is not None and self._shift is not None and self._width is not None:
            new._sums = [sums.of_outputs(columns) for sums in self._sums]
            new._shift = (self._shift[0], self._shift[1][columns])
            new._width = (self._width[0], len(new._shift[1]))
        return new

    def _used(self, without: Collection[int]) -> list[_Sums]:
        if self._rows:
            self._take(self._rows)
        kept = [s for f, s in enumerate(self._sums or ()) if f not in without and s.n]
        if not kept:
            raise ValueError("no samples to fit a ridge regression on")
        return kept

    def _take(self, rows: int) -> None:
        """Sum the first rows that wait."""
        z, c, folds = (
            parts[0] if len(parts) == 1 else torch.cat(parts)
            for parts in (list(column) for column in zip(*self._waiting, strict=True))
        )
        rest = (z[rows:], c[rows:], folds[rows:])
        z, c, folds = z[:rows].double(), c[:rows].double(), folds[:rows]
        self._waiting, self._rows = ([rest], len(rest[0])) if len(rest[0]) else ([], 0)
        if self._shift is None or self._sums is None:
            self._shift = (z.mean(0), c.mean(0))
            sizes = (z.shape[1], c.shape[1])
            self._sums = [_Sums(*sizes, z.device) for _ in range(self.folds)]
        z, c = z.sub_(self._shift[0]), c.sub_(self._shift[1])  # both are this object's own copies
        for fold in folds.unique().tolist():
            if self.folds == 1:
                self._sums[0].add(z, c)
                continue
            here = torch.nonzero(folds == fold)[:, 0].to(z.device)
            self._sums[fold].add(z[here], c[here])


def _gram(z: Tensor) -> Tensor:
    """``z'z``, float64 ``(d, d)``."""
    if z.device.type != "cpu":
        return z.T @ z
    # numpy sees that both factors are one and calls the symmetric product, half of the work; torch has none.
    values = z.contiguous().numpy()
    return torch.from_numpy(values.T @ values)


def _solutions(sums: _Sums, penalties: Sequence[float]) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Penalty, weights ``(d, q)`` and bias ``(q,)`` in shifted values, for each penalty."""
    mean_z, mean_c = sums.z / sums.n, sums.c / sums.n
    scatter = sums.zz - sums.n * torch.outer(mean_z, mean_z)
    cross = sums.zc - sums.n * torch.outer(mean_z, mean_c)
    for penalty in penalties:
        weights = _solve(scatter, cross, penalty)
        yield penalty, weights, mean_c - mean_z @ weights


def _solve(scatter: Tensor, cross: Tensor, penalty: float) -> Tensor:
    """``(scatter + penalty I)^-1 cross``; the shortest solution where that is singular."""
    if penalty > 0:
        system = scatter.clone()
        system.diagonal().add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not failed:
            solved: Tensor = torch.cholesky_solve(cross, factor)
            return solved
    values, vectors = torch.linalg.eigh(scatter)
    smallest = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    scale = torch.where(values > smallest, 1 / (values.clamp(min=0) + penalty), 0.0)
    shortest: Tensor = vectors @ (scale[:, None] * (vectors.T @ cross))
    return shortest


def _squared_error(sums: _Sums, weights: Tensor, bias: Tensor) -> float:
    """Sum of squared errors over the samples behind some sums and all outputs, at least 0."""
    error = (
        sums.cc.sum()
        + (weights * (sums.zz @ weights)).sum()
        + sums.n * bias.square().sum()
        - 2 * (weights * sums.zc).sum()
        - 2 * (bias * sums.c).sum()
        + 2 * (bias * (sums.z @ weights)).sum()
    )
    return max(0.0, float(error))
