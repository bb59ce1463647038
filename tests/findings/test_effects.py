"""P-values from intervals, differences, and Holm's correction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmaudit.findings.effects import Effect, difference, effect_of, holm
from mmaudit.measures.paired import holm as other_holm
from mmaudit.report.schema import Estimate


@given(st.floats(-1, 1), st.floats(1e-6, 1), st.integers(2, 10**6))
def test_p_is_a_fortieth_where_the_interval_ends(value, half, n):
    effect = effect_of("m", {}, Estimate(value=value, low=value - half, high=value + half, n=n))
    assert effect.p_above(effect.low) == pytest.approx(0.025, abs=1e-6)
    assert effect.p_below(effect.high) == pytest.approx(0.025, abs=1e-6)
    assert effect.p_above(value) == pytest.approx(0.5)
    assert effect.p_above(0.3) + effect.p_below(0.3) == pytest.approx(1, abs=1e-9)


def test_p_of_a_mean_is_that_of_students_t():
    x = np.random.default_rng(0).normal(0.3, 1.0, 25)
    half = stats.t.ppf(0.975, 24) * x.std(ddof=1) / 5
    effect = effect_of(
        "m", {}, Estimate(value=x.mean(), low=x.mean() - half, high=x.mean() + half, n=25)
    )
    assert effect.p_above(0.0) == pytest.approx(
        stats.ttest_1samp(x, 0, alternative="greater").pvalue
    )


def test_an_interval_without_width_is_exact():
    exact = Effect(0.0, 0.0, 0.0)
    assert exact.p_above(0.0) == 1.0 and exact.p_above(-0.01) == 0.0
    assert exact.p_below(0.02) == 0.0 and exact.within(0.02) and exact.p_within(0.02) == 0.0


def test_without_an_interval_nothing_is_claimed():
    bare = Effect(0.9, None, None)
    assert bare.p_above(0) == bare.p_below(1) == 1.0
    assert not bare.within(1) and not bare.under(1) and math.isinf(bare.error)
    assert effect_of("m", {}, Estimate(undefined="no sample")) is None


def test_a_skewed_interval_has_two_sides():
    effect = Effect(0.1, 0.05, 0.3)
    assert effect.p_above(0.05) == pytest.approx(0.025)
    assert effect.p_below(0.3) == pytest.approx(0.025)


def test_difference_adds_variances():
    found = difference(Effect(0.5, 0.44, 0.56), Effect(0.2, 0.12, 0.28), 0.5)
    assert found.value == pytest.approx(0.4)
    assert found.high - found.value == pytest.approx(math.hypot(0.06, 0.04), rel=1e-6)
    assert difference(Effect(0.5, None, None), Effect(0.2, 0.1, 0.3)).low is None


def test_scaled_keeps_the_ends_in_order():
    turned = Effect(0.1, 0.0, 0.3).scaled(-2)
    assert (turned.value, turned.low, turned.high) == (-0.2, -0.6, 0.0)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_agrees_with_the_other_one(p):
    assert holm(p) == pytest.approx(other_holm(np.array(p)).tolist())


def test_holm_leaves_out_what_was_not_asked():
    assert holm([None, 0.02, None]) == [1.0, 0.02, 1.0]
