"""The fit that falls and then rises: against all others, and against scipy's isotonic regression."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from mmaudit.measures.valley import fit_fall, fit_valley, levels

losses = st.lists(st.floats(0.01, 5), min_size=1, max_size=9).map(np.array)


@given(losses)
def test_the_fit_is_the_best_of_all_valleys(values):
    found = fit_valley(values)
    squared = []
    for k in range(len(values) + 1):
        fall = isotonic_regression(values[:k], increasing=False).x if k else np.array([])
        rise = isotonic_regression(values[k:]).x if k < len(values) else np.array([])
        squared.append(float(((np.concatenate([fall, rise]) - values) ** 2).sum()))
    assert ((found.fit - values) ** 2).sum() == pytest.approx(min(squared), abs=1e-9)
    assert (np.diff(found.fit[: found.bottom + 1]) <= 1e-12).all()
    assert (np.diff(found.fit[found.bottom :]) >= -1e-12).all()


@given(losses, st.floats(0.1, 10), st.floats(-3, 3))
def test_scale_and_shift_move_the_fit_along(values, factor, shift):
    moved = fit_valley(factor * values + shift)
    np.testing.assert_allclose(moved.fit, factor * fit_valley(values).fit + shift, atol=1e-6)


@given(losses)
def test_the_best_fall_is_an_isotonic_regression(values):
    np.testing.assert_allclose(
        fit_fall(values), isotonic_regression(values, increasing=False).x, atol=1e-9
    )


def test_levels_are_counted_without_what_rounding_adds():
    assert levels(np.array([3.0, 2, 2, 1, 2])) == 4
    assert levels(np.array([3.0, 1, 1 + 1e-15, 1])) == 2
    assert levels(np.full(5, 0.1)) == 1 and levels(np.array([2.0])) == 1
