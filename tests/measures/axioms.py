"""What only the Shapley value satisfies, as one checker that right and wrong implementations go through."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TOLERANCE = 1e-9


def broken_axioms(solution: Callable[[np.ndarray], np.ndarray], games: int, seed: int) -> set[str]:
    """Names of the axioms that a solution breaks on random games of 3 to 6 players.

    ``solution`` maps worths (2**M,) to values (M,).
    """
    rng = np.random.default_rng(seed)
    broken: set[str] = set()
    for number in range(games):
        M = 3 + number % 4
        values = rng.normal(size=2**M)
        broken |= _of_one_game(solution, values, rng)
    return broken


def _of_one_game(solution, values, rng) -> set[str]:
    M = len(values).bit_length() - 1
    index = np.arange(2**M)
    found = solution(values)
    broken = set()
    if abs(found.sum() - (values[-1] - values[0])) > TOLERANCE:
        broken.add("efficiency")

    other = rng.normal(size=2**M)
    factor = rng.normal()
    if not np.allclose(
        solution(values + factor * other), found + factor * solution(other), atol=TOLERANCE, rtol=0
    ):
        broken.add("linearity")

    i, j = rng.choice(M, 2, replace=False)
    swapped = _relabel(index, _swap(M, i, j))
    alike = solution((values + values[swapped]) / 2)
    if abs(alike[i] - alike[j]) > TOLERANCE:
        broken.add("symmetry")

    m = rng.integers(M)
    worth = rng.normal()
    without = index & ~(1 << m)
    dummy = solution(values[without] + worth * (index >> m & 1))
    if abs(dummy[m] - worth) > TOLERANCE:
        broken.add("dummy")

    order = rng.permutation(M)
    renamed = solution(values[_relabel(index, order)])
    if not np.allclose(renamed, found[order], atol=TOLERANCE, rtol=0):
        broken.add("relabelling")
    return broken


def _swap(M: int, i: int, j: int) -> np.ndarray:
    order = np.arange(M)
    order[[i, j]] = order[[j, i]]
    return order


def _relabel(index: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Coalition in old names for each coalition in new names; new player k is old player order[k]."""
    return sum((index >> new & 1) << old for new, old in enumerate(order))
