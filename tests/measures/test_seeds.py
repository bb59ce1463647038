from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.seeds import seed_level


def test_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of two degrees of freedom 4.3027
    found = seed_level([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    half = 4.302653 / np.sqrt(3)
    assert (found.before, found.after, found.difference.value) == (1.0, 3.0, 2.0)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (2 - half, 2 + half), rel=1e-6
    )
    assert found.p == pytest.approx(0.0741799, rel=1e-5)
    assert found.difference.n == 3
    assert "3 seeds, fewer than 5" in found.difference.warning


@given(st.integers(2, 12), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_it_is_scipys_paired_t_test(k, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, k))
    found, theirs = seed_level(a, b), stats.ttest_rel(b, a)
    ends = theirs.confidence_interval()
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx((ends.low, ends.high))
    back = seed_level(b, a)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.difference.low == pytest.approx(-found.difference.high)
    assert back.p == pytest.approx(found.p)


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ([0.9], [0.95], "one seed"),
        ([0.9] * 5, [0.95] * 5, "the same amount"),
        ([0.9, 0.8], [0.9, 0.8], "the same amount"),
    ],
)
def test_without_spread_there_is_a_value_but_no_test(a, b, why):
    found = seed_level(a, b)
    assert found.difference.value == pytest.approx(b[0] - a[0])
    assert found.difference.low is None
    assert found.p is None
    assert why in found.difference.warning


@pytest.mark.parametrize(
    ("a", "b"),
    [([], []), ([1.0, 2.0], [1.0]), ([[1.0, 2.0]], [[1.0, 2.0]]), ([1.0, np.nan], [1.0, 2.0])],
)
def test_what_is_no_pairs_of_numbers_is_refused(a, b):
    with pytest.raises(UndefinedMeasureError, match="expected"):
        seed_level(a, b)
