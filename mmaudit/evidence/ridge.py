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
    """Sums over the samples of one fold; a row of ones stands before the z, so that their products hold counts and sums as well."""

    def __init__(self, d: int, q: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.aa, self.ac, self.cc = zeros(1 + d, 1 + d), zeros(1 + d, q), zeros(q)

    @property
    def n(self) -> int:
        """Samples."""
        return round(float(self.aa[0, 0]))

    @property
    def z(self) -> Tensor:
        """Sum of z, ``(d,)``."""
        return self.aa[0, 1:]

    @property
    def c(self) -> Tensor:
        """Sum of c, ``(q,)``."""
        return self.ac[0]

    @property
    def zz(self) -> Tensor:
        """``z'z``, ``(d, d)``."""
        return self.aa[1:, 1:]

    @property
    def zc(self) -> Tensor:
        """``z'c``, ``(d, q)``."""
        return self.ac[1:]

    def add(self, a: Tensor, c: Tensor) -> None:
        """Add rows ``(1, z)`` and c."""
        if a.device.type != "cpu":
            self.aa += a.T @ a
            self.ac += a.T @ c
            self.cc += c.square().sum(0)
            return
        # numpy sees that both factors are one and calls the symmetric product, half of the work; torch has none. Nothing here is
        # torch's: its threads and those of numpy's products would wait for each other, actively.
        rows, targets = a.numpy(), c.numpy()
        for sums, more in (
            (self.aa, rows.T @ rows),
            (self.ac, rows.T @ targets),
            (self.cc, np.einsum("ij,ij->j", targets, targets)),
        ):
            np.add(sums.numpy(), more, out=sums.numpy())

    def plus(self, other: _Sums, sign: int = 1) -> _Sums:
        """These sums and others, or these less others."""
        new = object.__new__(_Sums)
        for name in ("aa", "ac", "cc"):
            setattr(new, name, torch.add(getattr(self, name), getattr(other, name), alpha=sign))
        return new

    def of_outputs(self, columns: slice) -> _Sums:
        """A copy for some of the outputs."""
        new = object.__new__(_Sums)
        new.aa = self.aa.clone()
        new.ac, new.cc = self.ac[:, columns].clone(), self.cc[columns].clone()
        return new


class _Block:
    """Rows that wait to be summed, float64: ``(1, z)`` and c, shifted as soon as it is known by how much."""

    def __init__(self, rows: int, d: int, q: int, device: torch.device) -> None:
        self.a = torch.ones(rows, 1 + d, dtype=torch.float64, device=device)
        self.c = torch.empty(rows, q, dtype=torch.float64, device=device)
        self.fold = np.zeros(rows, dtype=np.int64)
        self.filled = 0
        self.shift: tuple[Tensor, Tensor] | None = None

    def put(self, z: Tensor, c: Tensor, fold: IntArray) -> int:
        """Take as many rows as there is room for; returns how many."""
        taken = min(len(z), len(self.fold) - self.filled)
        rows = slice(self.filled, self.filled + taken)
        places = (self.a[rows, 1:], self.c[rows])
        shifts = self.shift or (None, None)
        for place, values, shift in zip(places, (z, c), shifts, strict=True):
            _write(place, values[:taken].detach(), shift)
        self.fold[rows] = fold[:taken]
        self.filled += taken
        return taken

    def find_shift(self) -> None:
        """Shift by the mean of these rows, from now on."""
        a, c = self.a[: self.filled, 1:], self.c[: self.filled]
        self.shift = (a.mean(0), c.mean(0))
        a -= self.shift[0]
        c -= self.shift[1]


def _write(place: Tensor, values: Tensor, shift: Tensor | None) -> None:
    """Write rows into a block, less the shift."""
    if place.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        place.copy_(values)
        if shift is not None:
            place -= shift
    elif shift is None:
        np.copyto(place.numpy(), values.cpu().numpy())
    else:
        np.subtract(values.cpu().numpy(), shift.numpy(), out=place.numpy())


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
        self._size = block
        self._sums: list[_Sums] = []
        self._block: _Block | None = None

    @property
    def n(self) -> int:
        """Samples so far."""
        waiting = 0 if self._block is None else self._block.filled
        return waiting + sum(sums.n for sums in self._sums)

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
        which = np.zeros(len(z), np.int64) if folds is None else np.asarray(folds, dtype=np.int64)
        if which.shape != (len(z),) or (
            len(z) and not 0 <= which.min() <= which.max() < self.folds
        ):
            raise ValueError(f"expected one fold in [0, {self.folds}) for each of {len(z)} samples")
        width = (z.shape[1], c.shape[1])
        if self._block is None:
            self._begin(*width, torch.device("cpu") if z.device.type == "mps" else z.device)
        block = self._block
        assert block is not None
        known = (block.a.shape[1] - 1, block.c.shape[1])
        if width != known:
            raise ValueError(f"expected d and q to stay {known}, found {width}")
        done = 0
        while done < len(z):
            done += block.put(z[done:], c[done:], which[done:])
            if block.filled == self._size:
                self._sum_up()

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
        assert self._block is not None and self._block.shift is not None
        at_z, at_c = self._block.shift
        return RidgeFit(weights, bias + at_c - at_z @ weights, value, total.n, errors)

    def of_outputs(self, columns: slice) -> StreamingRidge:
        """A collection of its own for some of the outputs, with all samples so far.

        Args:
            columns: Of c.
        """
        self._sum_up()
        new = StreamingRidge(folds=self.folds, block=self._size)
        if self._block is not None:
            new._begin(
                self._block.a.shape[1] - 1, len(self._block.c[0, columns]), self._block.a.device
            )
            assert new._block is not None
            new._sums = [sums.of_outputs(columns) for sums in self._sums]
            if self._block.shift is not None:
                new._block.shift = (self._block.shift[0], self._block.shift[1][columns].clone())
        return new

    def _begin(self, d: int, q: int, device: torch.device) -> None:
        self._block = _Block(self._size, d, q, device)
        self._sums = [_Sums(d, q, device) for _ in range(self.folds)]

    def _used(self, without: Collection[int]) -> list[_Sums]:
        self._sum_up()
        kept = [s for f, s in enumerate(self._sums) if f not in without and s.n]
        if not kept:
            raise ValueError("no samples to fit a ridge regression on")
        return kept

    def _sum_up(self) -> None:
        """Add the rows that wait to the sums of their folds."""
        block = self._block
        if block is None or not block.filled:
            return
        if block.shift is None:
            block.find_shift()
        a, c, fold = block.a[: block.filled], block.c[: block.filled], block.fold[: block.filled]
        for number, sums in enumerate(self._sums):
            here = np.flatnonzero(fold == number)
            if len(here) == len(fold):
                sums.add(a, c)
            elif len(here):
                rows = torch.from_numpy(here).to(a.device)
                sums.add(a[rows], c[rows])
        block.filled = 0


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
