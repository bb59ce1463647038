"""Where a validation loss turns: by hand, as a least-squares fit, and on planted turns with noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from mmaudit.measures.onset import find_onset, fit_valley, noise_level

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


def test_noise_is_what_a_smooth_course_does_not_have():
    rng = np.random.default_rng(0)
    course = np.exp(-np.arange(400) / 80)
    assert noise_level(course) < 1e-6
    assert noise_level(course + 0.03 * rng.normal(size=400)) == pytest.approx(0.03, rel=0.15)


def planted(turn, slope, T=40, tau=5.0, level=1.0):
    at = np.arange(T)
    fall = level + 1.5 * np.exp(-at / tau)
    held_out = np.where(at > turn, fall[turn] + slope * (at - turn), fall)
    return fall - 0.01 * at, held_out


@pytest.mark.parametrize("turn", [3, 8, 15, 25])
@pytest.mark.parametrize("slope", [0.004, 0.02, 0.1])
def test_a_turn_without_noise_is_found_exactly(turn, slope):
    assert find_onset(*planted(turn, slope), margin=0.01) == turn + 1


@pytest.mark.parametrize("turn", [5, 8, 12])
def test_a_turn_under_noise_is_found_within_a_checkpoint(turn):
    rng = np.random.default_rng(turn)
    train, held_out = planted(turn, 0.03)
    off = []
    for _ in range(40):
        one = find_onset(
            train + 0.005 * rng.normal(size=40), held_out + 0.01 * rng.normal(size=40), margin=0.01
        )
        off.append(99 if one is None else one - (turn + 1))
    assert np.mean(np.abs(off) <= 1) >= 0.95


@pytest.mark.parametrize("T", [10, 40, 200])
def test_a_plateau_with_noise_does_not_overfit(T):
    rng = np.random.default_rng(T)
    at = np.arange(T)
    found = [
        find_onset(
            np.exp(-at / 4), 1 + 1.5 * np.exp(-at / 3) + 0.03 * rng.normal(size=T), margin=0.01
        )
        for _ in range(100)
    ]
    assert sum(one is not None for one in found) <= 5


def test_a_large_rise_in_a_short_log_is_found():
    train = np.array([2.0, 1.3, 0.9, 0.62, 0.5, 0.4, 0.34, 0.29])
    held_out = np.array([2.1, 1.42, 1.0, 0.75, 0.635, 0.757, 0.816, 0.949])
    assert find_onset(train, held_out, margin=0.01) == 5


def test_what_is_no_overfitting():
    fall = np.array([3.0, 2, 1, 0.8, 0.7])
    assert find_onset(fall, np.array([3, 2, 1.5, 1.6, 1.2]), margin=0.01) is None
    assert find_onset(fall, np.array([3, 2, 1, 1.001, 1.002]), margin=0.01) is None
    divergence = np.array([3.0, 2, 1, 2, 3])
    assert find_onset(divergence, divergence, margin=0.01) is None
    assert find_onset(fall[:1], fall[:1], margin=0.01) is None


def test_a_train_loss_that_has_nothing_left_to_lose_still_overfits():
    train = np.array([2.0, 1, 0, 0, 0, 0])
    assert find_onset(train, np.array([2.0, 1.2, 1, 1.3, 1.6, 2]), margin=0.01) == 3


def test_a_creep_on_a_plateau_is_no_overfitting_yet():
    # of a training that is given nothing to memorise before epoch 10
    train = np.array([1.396, 0.721, 0.382, 0.415, 0.387, 0.382, 0.365, 0.361, 0.36, 0.364, 0.132, 0.037, 0.014, 0.008, 0.005, 0.004, 0.003])  # fmt: skip
    held_out = np.array([1.384, 0.75, 0.378, 0.381, 0.387, 0.389, 0.392, 0.385, 0.385, 0.4, 0.437, 0.502, 0.572, 0.6, 0.624, 0.64, 0.657])  # fmt: skip
    assert find_onset(train, held_out, margin=0.01) == 10


@pytest.mark.parametrize("creep", [0.0, 0.003])
@pytest.mark.parametrize("T", [16, 40, 100])
def test_memorising_after_a_plateau_is_found_where_it_begins(T, creep):
    rng = np.random.default_rng(T)
    at, turn, right = np.arange(T), T // 2, 0
    for _ in range(40):
        fall = 1.1 * np.exp(-at / 0.7)
        wander = 0.01 * rng.normal(size=T) * (at < turn)
        held_out = 0.37 + fall + creep * np.clip(at - 3, 0, turn - 4) + 0.5 * wander
        held_out += 0.06 * np.clip(at - turn + 1, 0, None) ** 0.8 + 0.005 * rng.normal(size=T)
        train = np.where(at < turn, 0.38 + fall + wander, 0.38 * np.exp(turn - 1.0 - at))
        one = find_onset(train, held_out, margin=0.01)
        right += one is not None and abs(one - turn) <= 1
    assert right >= 38


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_course_that_speeds_up_begins_at_its_beginning(power):
    at = np.arange(40)
    fall = 0.3 + 2 * np.exp(-at / 4)
    held_out = np.where(at < 16, fall, fall[15] + 0.01 * np.clip(at - 15, 0, None) ** power)
    assert find_onset(0.9 * fall - 0.003 * at, held_out, margin=0.01) == 16


def test_one_value_at_the_end_is_no_lasting_rise():
    at = np.arange(30)
    fall = 0.3 + 2 * np.exp(-at / 5)
    bump = fall.copy()
    bump[-1] += 0.2
    assert find_onset(0.9 * fall, bump, margin=0.01) is None
