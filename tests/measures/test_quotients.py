"""Fieller's interval, and whether intervals of R2 cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from mmaudit.measures.contribution import score_intervals
from mmaudit.measures.intervals import FEWEST_EVENTS, mean_intervals
from mmaudit.measures.quotients import quotient_intervals
from mmaudit.measures.resampling import bootstrap_weights


def test_ends_are_quotients_that_a_t_test_just_does_not_reject():
    rng = np.random.default_rng(0)
    above, below = rng.normal(1, 1, 80), rng.normal(2, 1, 80)
    found = quotient_intervals(above[:, None], below[:, None], np.ones((80, 1)))
    assert found.value[0] == pytest.approx(above.sum() / below.sum())

    def p_less_5(q):
        return stats.ttest_1samp(above - q * below, 0).pvalue - 0.05

    low = optimize.brentq(p_less_5, found.value[0] - 1, found.value[0])
    high = optimize.brentq(p_less_5, found.value[0], found.value[0] + 1)
    assert (found.low[0], found.high[0]) == pytest.approx((low, high), abs=1e-9)


def test_exchanging_the_scale_changes_nothing():
    rng = np.random.default_rng(1)
    above, below = rng.normal(size=(60, 2)), rng.normal(3, 1, (60, 2))
    one = quotient_intervals(above, below, np.ones((60, 1)))
    other = quotient_intervals(1e-7 * above, 1e-7 * below, np.ones((60, 1)))
    for end in ("value", "low", "high", "events"):
        assert getattr(one, end) == pytest.approx(getattr(other, end))


@pytest.mark.parametrize("below", [0.1, 0.0, -5.0])
def test_no_value_where_the_denominator_may_be_0(below):
    rng = np.random.default_rng(2)
    found = quotient_intervals(
        rng.normal(size=(50, 1)), below + rng.normal(size=(50, 1)), np.ones((50, 1))
    )
    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()


def test_nothing_above_is_exactly_nothing():
    below = np.random.default_rng(3).normal(3, 1, (50, 1))
    found = quotient_intervals(np.zeros((50, 1)), below, np.ones((50, 1)))
    assert (found.value[0], found.low[0], found.high[0]) == (0, 0, 0)


def test_one_unit():
    found = quotient_intervals(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    assert np.isnan(found.value[0])


def draw(rng, n, kind, groups):
    """Target and errors of two models, all of variance 1."""

    def one(shape):
        if shape == "uniform":
            return rng.uniform(-1, 1, n) * np.sqrt(3)
        if shape == "t5":
            return rng.standard_t(5, n) / np.sqrt(5 / 3)
        if groups is None:
            return rng.normal(size=n)
        own = rng.normal(size=n) * np.sqrt(0.6)
        return own + rng.normal(size=groups.max() + 1)[groups] * np.sqrt(0.4)

    target, errors = kind.split("/")
    first, second = one(errors), one(errors)
    return one(target), first, 0.6 * first + 0.8 * second


@pytest.mark.slow
@pytest.mark.parametrize("r2", [(0.8, 0.5), (0.5, 0.1), (0.9, -2.0)])
@pytest.mark.parametrize(
    ("n", "kind", "groups"),
    [
        (50, "normal/normal", None),
        (50, "uniform/normal", None),
        (200, "normal/normal", None),
        (200, "uniform/t5", None),
        (1000, "normal/t5", None),
        (240, "normal/normal", 30),
        (800, "normal/normal", 100),
    ],
)
def test_r2_is_covered(n, kind, groups, r2):
    """R2, a difference of two, and the share lost: 93 to 97 % within Monte Carlo error, where most data sets do not warn."""
    rng = np.random.default_rng(n + len(kind))
    unit = np.arange(n) if groups is None else np.repeat(np.arange(groups), n // groups)
    weights = bootstrap_weights(int(unit.max()) + 1, 500, 0)
    names, hits, warned = ("R2", "difference", "share"), {}, {}
    runs = 1000
    for _ in range(runs):
        y, first, second = draw(rng, n, kind, None if groups is None else unit)
        square = (y - y.mean()) ** 2
        columns = (square, (1 - r2[0]) * first**2, (1 - r2[1]) * second**2, np.ones(n))
        q, off, more, counts = (np.bincount(unit, column)[:, None] for column in columns)
        found = (
            mean_intervals(q - off, q, weights=lambda units: weights, units=counts),
            score_intervals("R2", more - off, q, lambda units: weights, reach=1.0, units=counts),
            quotient_intervals(more - off, q - off, counts),
        )
        truths = (r2[0], r2[0] - r2[1], (r2[0] - r2[1]) / r2[0])
        for name, interval, true in zip(names, found, truths, strict=True):
            if np.isfinite(interval.value[0]):
                hits.setdefault(name, []).append(interval.low[0] <= true <= interval.high[0])
                warned.setdefault(name, []).append(interval.events[0] < FEWEST_EVENTS)
    assert len(hits["R2"]) == runs
    for name in names:
        if np.mean(warned[name]) < 0.3:
            assert 0.92 <= np.mean(hits[name]) <= 0.98, (name, np.mean(hits[name]))
