from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmaudit.measures.paired import holm, mcnemar, paired_differences
from mmaudit.measures.resampling import bootstrap_weights

ONES = np.ones((60, 1))
WEIGHTS = bootstrap_weights(60, 2000, seed=0)


def two_columns(seed, shift=0.1):
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(60, 3))
    return before, before + shift + 0.5 * rng.normal(size=(60, 3))


def differences(before, after, *, counts=ONES, weights=WEIGHTS, reach=1.0, **others):
    return paired_differences(
        (before, counts),
        (after, counts),
        counts,
        weights,
        reach=np.full(before.shape[1], reach),
        **others,
    )


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (1, 9, 2 * 11 / 1024), (8, 2, 2 * 56 / 1024)],
)
def test_mcnemar_by_hand(gained, lost, p):
    assert mcnemar(gained, lost)[0] == pytest.approx(p)
    assert mcnemar(gained, lost)[1] == pytest.approx(min(1.0, 2 * 0.5 ** (gained + lost)))


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_sum_of_binomial_terms(gained, lost):
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(gained, lost)[0] == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


def test_holm_by_hand():
    # sorted .01, .03, .04 times 3, 2, 1 gives .03, .06, .04, which may not fall below .06
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.4, 0.9])) == pytest.approx([0.8, 0.9])
    assert holm(np.array([0.6, 0.7])).max() == 1.0
    assert holm(np.array([])).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis is rejected where every intersection it belongs to is, by its smallest p times its size."""
    corrected, k = holm(np.array(p)), len(p)
    for i in range(k):
        subsets = [s for s in range(1, 2**k) if s >> i & 1]
        worst = max(s.bit_count() * min(p[j] for j in range(k) if s >> j & 1) for s in subsets)
        assert corrected[i] == pytest.approx(min(1.0, worst))


def test_a_table_and_itself_differ_by_exactly_nothing():
    before, _ = two_columns(0)
    found = differences(before, before, reach=0.0)
    for array in (found.intervals.value, found.intervals.low, found.intervals.high):
        assert (array == 0).all()
    assert (found.p == 1).all()


@given(st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_exchanging_the_tables_changes_the_signs(seed):
    before, after = two_columns(seed)
    there, back = differences(before, after), differences(after, before)
    assert there.intervals.value == pytest.approx(-back.intervals.value, abs=1e-15)
    assert there.intervals.low == pytest.approx(-back.intervals.high, abs=1e-12)
    assert there.intervals.high == pytest.approx(-back.intervals.low, abs=1e-12)
    assert (there.p == back.p).all()


@given(st.integers(0, 200), st.floats(-0.3, 0.3))
@settings(max_examples=40, deadline=None)
def test_p_and_interval_say_the_same(seed, shift):
    found = differences(*two_columns(seed, shift))
    outside = (found.intervals.low > 0) | (found.intervals.high < 0)
    assert (outside == (found.p < 0.05)).all()


def brute_force(statistic, units, weights, *, studentised=True):
    """Half-width and p from loops: what a unit changes by differentiation, then every replicate on its own.

    ``statistic`` takes how often each unit counts.
    """
    even, step = np.ones(units), 1e-5
    changes = []
    for u in range(units):
        more, less = even.copy(), even.copy()
        more[u] += step
        less[u] -= step
        changes.append((statistic(more) - statistic(less)) / (2 * step))
    changes = np.array(changes) - np.mean(changes)
    error = np.std(changes, ddof=1) * math.sqrt(units)
    strays = []
    for drawn in weights:
        again = np.repeat(changes, drawn)
        own = np.std(again, ddof=1) * math.sqrt(units) if studentised else error
        strays.append(abs(again.sum()) / own)
    if not studentised:
        factor = (
            stats.t.ppf(0.975, units - 1) / stats.norm.ppf(0.975) * math.sqrt(units / (units - 1))
        )
        strays = [factor * stray for stray in strays]
    half = sorted(strays)[math.ceil(0.95 * (len(weights) - 1))] * error
    as_far = sum(stray >= abs(statistic(even)) / error for stray in strays)
    return half, (1 + as_far) / (len(weights) + 1)


@pytest.mark.parametrize("units", [60, 12])
def test_every_replicate_by_brute_force(units):
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 6, (units, 1)).astype(float)
    before, after = (
        rng.binomial(counts.astype(int), p, (units, 2)).astype(float) for p in (0.5, 0.6)
    )
    sizes = [rng.integers(1, 5, (units, 2)).astype(float) for _ in range(2)]
    weights = bootstrap_weights(units, 400, seed=1)
    found = paired_differences(
        (before, sizes[0]), (after, sizes[1]), counts, weights, reach=np.ones(2)
    )
    for column in range(2):

        def statistic(w):
            ratios = [
                (w * table[:, column]).sum() / (w * size[:, column]).sum()
                for table, size in ((after, sizes[1]), (before, sizes[0]))
            ]
            return ratios[0] - ratios[1]

        value = statistic(np.ones(units))
        half, p = brute_force(statistic, units, weights, studentised=units >= 20)
        assert found.intervals.value[column] == pytest.approx(value)
        assert found.intervals.high[column] - value == pytest.approx(half, rel=1e-6)
        assert value - found.intervals.low[column] == pytest.approx(half, rel=1e-6)
        assert found.p[column] == pytest.approx(p)


def test_replicates_of_the_ratios_themselves_stray_about_as_far():
    rng = np.random.default_rng(4)
    size = rng.integers(2, 5, (60, 1)).astype(float)
    before, after = rng.random((60, 1)) * size, rng.random((60, 1)) * size * 1.2
    found = paired_differences((before, size), (after, size), size, WEIGHTS, reach=np.ones(1))
    drawn = WEIGHTS.astype(float)
    again = ((drawn @ (after - before)) / (drawn @ size)).ravel()
    plain = np.quantile(again, [0.025, 0.975])
    assert (found.intervals.low[0], found.intervals.high[0]) == pytest.approx(
        tuple(plain), abs=0.02
    )


def test_for_plain_means_it_is_near_the_paired_t_test():
    before, after = two_columns(5, shift=0.15)
    found = differences(before, after, weights=bootstrap_weights(60, 20_000, seed=2))
    theirs = stats.ttest_rel(after, before)
    ends = theirs.confidence_interval()
    assert found.intervals.low == pytest.approx(ends.low, abs=0.012)
    assert found.intervals.high == pytest.approx(ends.high, abs=0.012)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.01)


def test_pairing_narrows_the_interval():
    before, after = two_columns(6)
    mixed = after[np.random.default_rng(0).permutation(60)]
    paired, unpaired = (differences(before, table).intervals for table in (after, mixed))
    assert (paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)).all()


def test_units_that_all_agree():
    zeros, ones = np.zeros((60, 1)), np.ones((60, 1))
    nothing = differences(zeros, zeros)
    # what no unit of 60 shows may still be in 1 - .025^(1/60) of those not seen
    unseen = 1 - 0.025 ** (1 / 60)
    assert (nothing.intervals.low[0], nothing.intervals.high[0]) == pytest.approx((-unseen, unseen))
    assert nothing.p[0] == 1
    always = differences(zeros, ones, bound=1.0)
    assert always.intervals.value[0] == always.intervals.high[0] == 1
    assert always.intervals.low[0] == pytest.approx(1 - unseen)
    assert always.p[0] == always.smallest[0] == pytest.approx(1 / 2001)


def test_few_units_cannot_have_a_small_p():
    three = np.ones((3, 1))
    after = np.array([[0.9], [1.0], [1.1]])
    found = differences(0 * three, after, counts=three, weights=bootstrap_weights(3, 2000, seed=0))
    assert found.smallest[0] == found.p[0] == 0.25
    one = np.ones((1, 1))
    alone = differences(0 * one, one, counts=one, weights=bootstrap_weights(1, 200, seed=0))
    assert np.isnan([alone.p[0], alone.intervals.low[0], alone.intervals.high[0]]).all()
    assert "fewer than two" in alone.intervals.estimate(0, n=1, groups=None).warning


def test_few_units_that_differ_fall_back_on_one_standard_error():
    after = np.zeros((60, 1))
    after[:2] = 1  # one replicate in seven has neither
    found = differences(np.zeros((60, 1)), after)
    error = after.std(ddof=1) / math.sqrt(60)
    assert found.intervals.high[0] == pytest.approx(1 / 30 + 2.05 * error, rel=0.2)
    assert found.p[0] > 0.05
    assert "about 2 of the samples" in found.intervals.estimate(0, n=60, groups=None).warning


def test_a_denominator_of_0_warns_of_nothing():
    """A share of nothing is undefined in its record; numpy must not complain about it here."""
    numerators, denominators = np.array([[1.0], [-1.0], [2.0]]), np.zeros((3, 1))
    found = paired_differences(
        (numerators, denominators),
        (numerators, denominators),
        np.ones((3, 1)),
        bootstrap_weights(3, 100, 0),
        reach=np.zeros(1),
    )
    assert not np.isfinite(found.intervals.value[0])
