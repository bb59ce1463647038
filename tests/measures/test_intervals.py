from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmaudit.measures.intervals import (
    difference_intervals,
    loss_intervals,
    mean_intervals,
    proportion_intervals,
    wilson,
)
from mmaudit.measures.resampling import bootstrap_weights


def weights(units):
    return bootstrap_weights(units, 2000, seed=0)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_wilson_is_scipys(case):
    k, n = case
    low, high = wilson(np.array([k / n]), np.array([n]))
    theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_student_is_scipys():
    x = np.random.default_rng(0).normal(size=(60, 3))
    found = mean_intervals(x, np.ones((60, 1)))
    theirs = stats.ttest_1samp(x, 0).confidence_interval()
    assert found.low == pytest.approx(theirs.low)
    assert found.high == pytest.approx(theirs.high)


def test_the_closed_standard_error_is_the_bootstraps():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 9, 150)
    numerators = sizes * (rng.normal(size=150) + 1)
    found = mean_intervals(numerators[:, None], sizes[:, None])
    drawn = bootstrap_weights(150, 20_000, seed=1).astype(float)
    error = ((drawn @ numerators) / (drawn @ sizes)).std()
    half = (found.high - found.low)[0] / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 149) * error, rel=0.03)


def test_the_studentised_bootstrap_is_scipys_in_the_large():
    x = -np.random.default_rng(2).exponential(size=200)
    found = mean_intervals(x[:, None], np.ones((200, 1)), weights=weights)
    rng = np.random.default_rng(3)
    drawn = x[rng.integers(0, 200, (4000, 200))]
    t = (drawn.mean(axis=1) - x.mean()) / (drawn.std(axis=1, ddof=1) / np.sqrt(200))
    error = x.std(ddof=1) / np.sqrt(200)
    expected = x.mean() - np.quantile(t, [0.975, 0.025]) * error
    assert (found.low[0], found.high[0]) == pytest.approx(expected, abs=0.012)
    assert found.method == "studentised bootstrap"
    # the long tail is on the left
    assert x.mean() - found.low[0] > found.high[0] - x.mean()


def test_all_right_and_all_wrong():
    counts = np.ones((100, 1))
    for value, column in ((1.0, np.ones((100, 1))), (0.0, np.zeros((100, 1)))):
        for grouped in (False, True):
            found = proportion_intervals(column, counts, grouped=grouped)
            estimate = found.estimate(0, n=100, groups=100 if grouped else None)
            assert estimate.value == value
            assert 0.03 < estimate.high - estimate.low < 0.05
            assert "fewer than 5 errors or 5 successes" in estimate.warning


def test_nothing_varies():
    zeros, counts = np.zeros((200, 1)), np.ones((200, 1))
    unseen = 1 - 0.025 ** (1 / 200)
    assert mean_intervals(zeros, counts, reach=2.0).high == pytest.approx(2 * unseen)
    assert mean_intervals(zeros, counts).high == pytest.approx(0)
    assert mean_intervals(zeros, counts, weights=weights).high == pytest.approx(0)
    half = np.tile([1.0, 0.0], 100)[:, None]
    same = loss_intervals(half, half, counts)
    assert (same.value[0], same.high[0]) == pytest.approx((0, unseen / 0.5))
    assert loss_intervals(half, half, counts, reach=0.0).high == pytest.approx(0)
    everything = loss_intervals(zeros, half, counts)
    assert (everything.value[0], everything.high[0]) == (1.0, 1.0)
    assert 0.9 < everything.low[0] < 1


def test_groups_that_agree_within_widen():
    rng = np.random.default_rng(4)
    of_group = rng.random(60) < 0.7
    counts = np.full((60, 1), 10.0)
    found = proportion_intervals(10.0 * of_group[:, None], counts, grouped=True)
    alone = proportion_intervals(10.0 * of_group[:, None], counts, grouped=False)
    ratio = (found.high - found.low) / (alone.high - alone.low)
    assert ratio[0] == pytest.approx(np.sqrt(10), rel=0.12)


def test_undefined_rates_have_no_ends():
    counts = np.ones((60, 1))
    found = loss_intervals(np.ones((60, 1)), np.zeros((60, 1)), counts)
    assert np.isnan(found.low[0])
    one = mean_intervals(np.ones((1, 2)), np.ones((1, 1)))
    estimate = one.estimate(0, n=1, groups=None)
    assert estimate.value == 1.0
    assert estimate.low is None
    assert "fewer than two" in estimate.warning


def test_blocks_do_not_change_the_events():
    rng = np.random.default_rng(5)
    rare = (rng.random((20_000, 1)) < 0.001).astype(float)
    counts = np.ones((20_000, 1))
    alone = mean_intervals(rare, counts)
    assert alone.events[0] == pytest.approx(rare.sum(), rel=0.02)
    block = rng.integers(0, 500, 20_000)
    sums = np.zeros((500, 1)), np.zeros((500, 1))
    np.add.at(sums[0], block, rare)
    np.add.at(sums[1], block, counts)
    assert mean_intervals(*sums).events[0] == pytest.approx(rare.sum(), rel=0.5)


@pytest.mark.parametrize("rare", [3, 40])
def test_few_events_warn(rare):
    x = np.zeros((1000, 1))
    x[:rare:2], x[1:rare:2] = 1, -1
    estimate = mean_intervals(x, np.ones((1000, 1))).estimate(0, n=1000, groups=None)
    assert (estimate.warning is not None) == (rare == 3)
    if rare == 3:
        assert "about 3 of the samples" in estimate.warning


@pytest.mark.parametrize(
    ("events", "said"), [(9.4, "about 9 of"), (9.6, "about 9.6 of"), (9.99, "about 9.9 of")]
)
def test_events_that_are_too_few_are_not_rounded_up_to_enough(events, said):
    x = np.random.default_rng(6).normal(size=(200, 1))
    found = replace(mean_intervals(x, np.ones((200, 1))), events=np.array([events]))
    warning = found.estimate(0, n=200, groups=None).warning
    assert said in warning and "fewer than 10" in warning


def test_few_samples_and_groups_warn():
    x = np.random.default_rng(6).normal(size=(200, 1))
    found = mean_intervals(x, np.ones((200, 1)))
    assert found.estimate(0, n=200, groups=None).warning is None
    assert "49 samples" in found.estimate(0, n=49, groups=None).warning
    assert "29 groups" in found.estimate(0, n=200, groups=29).warning
    assert found.estimate(0, n=200, groups=30).method.endswith("over 30 groups")


def test_a_difference_of_rates_knows_that_they_are_paired():
    rng = np.random.default_rng(7)
    shared = (rng.random(500) < 0.5).astype(float)
    with_ = np.ones((500, 2))
    without = np.stack([shared, shared], axis=1)
    without[:20, 0] = 0
    found = difference_intervals(without, with_, np.ones((500, 1)), (0, 1))
    assert found.value[0] == pytest.approx(shared[:20].sum() / 500)
    x = shared - without[:, 0]
    theirs = stats.ttest_1samp(x, 0).confidence_interval()
    assert (found.low[0], found.high[0]) == pytest.approx((theirs.low, theirs.high))
