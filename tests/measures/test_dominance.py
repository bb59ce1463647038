from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmaudit.measures.dominance import Dominance, sample_dominance
from mmaudit.measures.shapley import shapley_values
from tests.measures.evidence_tables import NAMES, evidence_of, find, regression_of


def measured(evidence):
    return Dominance().of(evidence)


def table(folder, loglik, **others):
    return evidence_of(folder, np.zeros(np.shape(loglik)), loglik=np.asarray(loglik), **others)


def additive(values, offset=-5.0):
    """Log-likelihoods of a game whose Shapley values are these, (n, 2**M)."""
    values = np.asarray(values, np.float64)
    M = values.shape[1]
    present = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(float)
    return offset + values @ present.T


def test_five_samples_by_hand(tmp_path):
    values = [[2.0, 1.0], [3.0, 0.5], [1.0, 1.0], [-1.0, 2.0], [-1.0, -0.5]]
    result = measured(table(tmp_path, np.tile(additive(values), (12, 1))))
    wanted = {
        # first: largest twice and half a tie; alone with .5 of 3.5 only beside it; against it twice
        ("a", "share"): 2.5 / 5,
        ("b", "share"): 2.5 / 5,
        ("a", "alone"): 1 / 5,
        ("b", "alone"): 1 / 5,
        ("a", "against"): 2 / 5,
        ("b", "against"): 1 / 5,
    }
    assert {tuple(r.labels.values()): r.estimate.value for r in result.rows} == pytest.approx(
        wanted
    )
    for row in result.rows:
        assert row.estimate.n == 60
        assert row.estimate.low < row.estimate.value < row.estimate.high


def test_three_quarters_are_not_yet_alone():
    both = np.ones((2, 2), bool)
    found = sample_dominance(additive([[3.0, 1.0], [3.01, 1.0]], 0.0), both)
    assert found.alone.tolist() == [[0, 0], [1, 0]]


def test_it_agrees_with_a_loop(tmp_path):
    rng = np.random.default_rng(0)
    loglik = -rng.exponential(size=(300, 8)).astype(np.float32)
    groups = np.arange(300) // 6
    result = measured(table(tmp_path, loglik, groups=groups))
    share, alone, against = np.zeros(3), np.zeros(3), np.zeros(3)
    for game in loglik:
        values = shapley_values(game)
        share[np.argmax(values)] += 1
        positive = values.clip(0)
        alone += positive > 0.75 * positive.sum()
        against += values < 0
    for m, name in enumerate("abc"):
        for quantity, counted in (("share", share), ("alone", alone), ("against", against)):
            found = find(result, modality=name, quantity=quantity)
            assert found.value == pytest.approx(counted[m] / 300)
            assert found.groups == 50


def test_shares_sum_to_one_and_names_do_not_matter():
    rng = np.random.default_rng(1)
    loglik, present = -rng.exponential(size=(200, 16)), np.ones((200, 4), bool)
    found = sample_dominance(loglik, present)
    assert found.share.sum(axis=1) == pytest.approx(np.ones(200))
    assert (found.alone.sum(axis=1) <= 1).all()
    swapped = [c >> 1 & 1 | (c & 1) << 1 | c & 12 for c in range(16)]
    other = sample_dominance(loglik[:, swapped], present)
    for one, two in zip(found, other):
        assert np.array_equal(one[:, [1, 0, 2, 3]], two)


def test_a_model_that_reads_nothing_is_shared_equally(tmp_path):
    result = measured(table(tmp_path, np.full((80, 8), -0.7), response_size=np.zeros((80, 3))))
    for row in result.rows:
        e = row.estimate
        if row.labels["quantity"] == "share":
            assert e.value == pytest.approx(1 / 3)
        else:
            assert (e.low, e.value, e.high, e.warning) == (0, 0, 0, None)


def test_rounding_does_not_pull_away_from_the_truth():
    loglik = np.array([[-3.0, -1.0, -3.0 - 2e-7, -1.0 - 2e-7]])
    found = sample_dominance(loglik, np.array([[True, True]]))
    assert found.against.tolist() == [[0, 0]]
    assert found.alone.tolist() == [[1, 0]]


def test_modalities_are_compared_where_samples_have_them(tmp_path):
    rng = np.random.default_rng(0)
    values = np.tile([[1.0, 2.0, 0.5]], (200, 1)) + 0.1 * rng.random((200, 3))
    bits = np.where(rng.random(200) < 0.3, 5, 7)
    has = (bits[:, None] >> np.arange(3) & 1).astype(bool)
    result = measured(table(tmp_path, additive(values * has), present=bits))
    missing = (bits == 5).sum()
    assert find(result, modality="b", quantity="share").n == 200 - missing
    assert find(result, modality="b", quantity="share").value == 1
    found = find(result, modality="a", quantity="share")
    assert (found.n, found.value) == (200, pytest.approx(missing / 200))


def test_a_modality_that_nobody_has(tmp_path):
    result = measured(table(tmp_path, additive([[1.0, 0.0]] * 60), present=np.full(60, 1)))
    for row in result.rows:
        if row.labels["modality"] == "b":
            assert row.estimate.undefined == "no sample here has this modality"
        else:
            assert row.estimate.value is not None


def test_one_modality_has_nobody_to_dominate(tmp_path):
    result = measured(table(tmp_path, additive([[1.0], [-1.0]] * 40)))
    for quantity in ("share", "alone"):
        assert "no other modality" in find(result, modality="a", quantity=quantity).undefined
    assert find(result, modality="a", quantity="against").value == 0.5


def test_twelve_modalities(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 12))
    result = measured(table(tmp_path, additive(values)))
    assert len(result.rows) == 36
    for m, name in enumerate(NAMES):
        found = find(result, modality=name, quantity="share").value
        assert found == pytest.approx((values.argmax(axis=1) == m).mean())


def test_a_regression_by_its_squared_errors(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100)
    # the first says it all, the second is noise on top
    predictions = np.stack([0 * truth, truth, 0.1 + 0 * truth, truth + 0.1], axis=1)
    result = measured(regression_of(tmp_path, truth, predictions))
    off = -((predictions - truth[:, None]) ** 2)
    values = np.array([shapley_values(game) for game in off])
    for m, name in enumerate("ab"):
        found = find(result, modality=name, quantity="against").value
        assert found == pytest.approx((values[:, m] < 0).mean())


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover(tmp_path, grouped):
    rng, covered = np.random.default_rng(0), []
    for run in range(600):
        groups = np.arange(320) // 8 if grouped else None
        shift = rng.normal(size=(40, 1))[groups] if grouped else 0.0
        values = (
            rng.normal(size=(320, 2))
            + [[0.5, 0.0]]
            + np.hstack([shift, -shift] if grouped else [np.zeros((320, 1))] * 2)
        )
        found = find(
            measured(table(tmp_path / str(run), additive(values, -20.0), groups=groups)),
            modality="a",
            quantity="share",
        )
        # a is larger where N(.5, 2) or, with groups, N(.5, 6) is above 0
        truth = stats.norm.cdf(0.5 / np.sqrt(6 if grouped else 2))
        covered.append(found.low <= truth <= found.high)
    assert 0.92 < np.mean(covered) < 0.98
