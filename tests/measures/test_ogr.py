"""OGR and blend weights: the oracles by hand, and what must hold for any losses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.ogr import (
    best_checkpoints,
    blend_weights,
    first_overfitting,
    ogr_trajectory,
    smoothed,
    super_epoch_weights,
)

TRAIN = np.array([[2.0, 0.5], [2.0, 1.2], [2.0, 0.4]])
VALIDATION = np.array([[2.1, 1.5], [2.1, 1.4], [2.1, 1.3]])
curves = st.lists(st.floats(0.1, 5), min_size=3, max_size=8)


def test_heads_of_a_window():
    found = ogr_trajectory(TRAIN, VALIDATION)
    np.testing.assert_allclose(found.overfitted[:, 0], [0.9, 0.1, 0.8])
    np.testing.assert_allclose(found.generalized[:, 0], [0.6, 0.7, 0.8])
    np.testing.assert_allclose(found.ogr[:, 0], [1.5, 1 / 7, 1.0])
    weights = blend_weights(found.generalized[:, 0], found.overfitted[:, 0])
    np.testing.assert_allclose(weights.weights, [0.010289, 0.972347, 0.017363], atol=1e-6)
    assert weights.reason is None


def test_final_losses_in_place_of_improvements_are_another_thing():
    wrong = blend_weights(VALIDATION[:, 1], VALIDATION[:, 1] - TRAIN[:, 1]).weights
    np.testing.assert_allclose(wrong, [0.039365, 0.918516, 0.042119], atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("clip", [0, 0.6, 0.4]),
        ("abs", [0.161074, 0.503356, 0.335570]),
        ("signed", [-0.237624, 0.742574, 0.495050]),
    ],
)
def test_a_head_that_got_worse(policy, expected):
    found = blend_weights(np.array([-0.2, 0.4, 0.6]), np.array([0.5, 0.4, 0.6]), policy=policy)
    np.testing.assert_allclose(found.weights, expected, atol=1e-6)


def test_trajectory_by_hand():
    train, validation = np.array([2, 1.5, 1, 0.6]), np.array([2.1, 1.7, 1.5, 1.6])
    found = ogr_trajectory(train, validation)
    np.testing.assert_allclose(found.overfitting[0], [0.1, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(found.ogr[0], [0.25, 1.5, 5.0])
    assert found.generalized[0, -1] == pytest.approx(-0.1)
    cumulative = ogr_trajectory(train, validation, lag=None)
    np.testing.assert_allclose(cumulative.ogr[0], [0.25, 2 / 3, 1.8])
    two = ogr_trajectory(train, validation, lag=2)
    np.testing.assert_allclose(two.ogr[0], [0.4 / 0.6, 0.8 / 0.1])


@given(curves, st.floats(0.5, 3), st.floats(0, 2))
def test_scale_and_shift_change_nothing(values, factor, shift):
    validation = np.array(values)
    train = validation * 0.7 + 0.05 * np.arange(len(values))
    first = ogr_trajectory(train, validation, no_change=1e-9)
    scaled = ogr_trajectory(factor * train, factor * validation, no_change=1e-9)
    moved = ogr_trajectory(train + shift, validation + shift, no_change=0)
    np.testing.assert_allclose(scaled.ogr, first.ogr, rtol=1e-6, atol=1e-9)
    both = np.isfinite(first.ogr) & np.isfinite(moved.ogr)
    np.testing.assert_allclose(moved.ogr[both], first.ogr[both], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(first.overfitted + first.generalized, first.train_gain, atol=1e-12)


@given(curves)
def test_equal_curves_do_not_overfit(values):
    found = ogr_trajectory(np.array(values), np.array(values))
    assert (found.overfitting == 0).all()
    assert (found.ogr[np.isfinite(found.ogr)] == 0).all()


def test_no_change_is_undefined():
    found = ogr_trajectory(np.array([1.0, 0.5]), np.array([1.0, 1.00005]))
    assert np.isnan(found.ogr).all()
    assert found.generalized[0, 0] == pytest.approx(-5e-5)


def test_a_head_that_did_not_overfit_does_not_take_everything():
    G, over = np.array([0.5, 0.5]), np.array([0.0, 0.5])
    with pytest.raises(UndefinedMeasureError, match="infinite"):
        blend_weights(G, over)
    found = blend_weights(G, over, scale=np.array([2.0, 2.0]))
    np.testing.assert_allclose(found.weights, [625 / 626, 1 / 626], rtol=1e-6)


def test_no_head_improves():
    worse = np.array([-0.1, -0.2])
    equal = blend_weights(worse, np.ones(2))
    assert equal.weights.tolist() == [0.5, 0.5] and "equal" in equal.reason
    kept = blend_weights(worse, np.ones(2), previous=np.array([0.9, 0.1]))
    assert kept.weights.tolist() == [0.9, 0.1] and "previous" in kept.reason


def test_super_epochs_are_windows():
    train = np.array([[2.0, 1.5, 1.0, 0.6], [2.0, 1.8, 1.6, 1.5]])
    validation = np.array([[2.1, 1.7, 1.5, 1.6], [2.1, 1.9, 1.75, 1.7]])
    (whole,) = super_epoch_weights(train, validation)
    G, over = np.array([0.5, 0.4]), np.array([0.9, 0.1])
    np.testing.assert_allclose(whole[2].weights, (G / over**2) / (G / over**2).sum())
    windows = super_epoch_weights(train, validation, length=2)
    assert [(first, last) for first, last, _ in windows] == [(0, 2), (2, 3)]
    assert windows[1][2].weights.tolist() == [0.0, 1.0]
    assert all(weights.weights.sum() == pytest.approx(1) for _, _, weights in windows)


def test_where_overfitting_begins():
    validation = np.array([[3, 2, 1, 1.2, 1.5], [3, 2, 1.5, 1.6, 1.2], [3, 2, 1, 1.001, 1.002]])
    train = np.array([[3, 2, 1, 0.8, 0.5]] * 3)
    assert best_checkpoints(validation).tolist() == [2, 4, 2]
    assert first_overfitting(train, validation) == [3, None, None]
    # a validation loss that rises together with the train loss is a divergence, no overfitting
    assert first_overfitting(np.array([[3, 2, 1, 2, 3.0]]), np.array([[3, 2, 1, 2, 3.0]])) == [None]


def test_smoothing():
    losses = np.array([[1.0, 2.0, 4.0]])
    assert smoothed(losses, 0).tolist() == losses.tolist()
    np.testing.assert_allclose(smoothed(losses, 0.5), [[1, 5 / 3, 3]])
    with pytest.raises(UndefinedMeasureError):
        smoothed(losses, 1)


@pytest.mark.parametrize(
    ("train", "validation", "lag"),
    [(np.ones(3), np.ones(4), 1), (np.ones(1), np.ones(1), 1), (np.ones(3), np.ones(3), 3)],
)
def test_too_little(train, validation, lag):
    with pytest.raises(UndefinedMeasureError):
        ogr_trajectory(train, validation, lag=lag)
