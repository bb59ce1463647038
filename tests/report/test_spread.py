"""The spread of numbers, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.report.spread import Spread

NUMBERS = st.lists(st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6)), min_size=1, max_size=60)


@given(NUMBERS, st.integers(1, 60))
def test_in_chunks_as_at_once(pairs, size):
    cells = np.array([cell for cell, _ in pairs])
    values = np.array([value for _, value in pairs])
    spread = Spread(3)
    for start in range(0, len(values), size):
        spread.add(values[start : start + size], cells[start : start + size])
    for cell in range(3):
        own = values[cells == cell]
        assert spread.count[cell] == len(own)
        if len(own):
            assert spread.mean[cell] == pytest.approx(own.mean(), abs=1e-6)
            assert spread.squares[cell] == pytest.approx(
                ((own - own.mean()) ** 2).sum(), rel=1e-9, abs=1e-3
            )


def test_numbers_far_from_zero_lose_nothing():
    values = 1e6 + np.random.default_rng(0).normal(size=10_000)
    spread = Spread(1)
    for part in np.array_split(values.astype(np.float32).astype(np.float64), 37):
        spread.add(part, np.zeros(len(part), int))
    exact = values.astype(np.float32).astype(np.float64)
    assert spread.squares[0] == pytest.approx(((exact - exact.mean()) ** 2).sum(), rel=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 - 0.3, 1e-8])
def test_equal_numbers_do_not_vary(value):
    spread = Spread(2)
    for _ in range(3):
        spread.add(np.full(1000, value), np.zeros(1000, int))
    assert spread.varies.tolist() == [False, False]
    spread.add(np.array([value + max(abs(value), 1e-6) * 1e-6]), np.zeros(1, int))
    assert spread.varies[0]
