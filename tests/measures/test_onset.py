"""Where a validation loss turns: by hand, and on planted turns with noise, in logs of every length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.measures.onset import find_onset, noise_level


def test_noise_is_what_a_smooth_course_does_not_have():
    rng = np.random.default_rng(0)
    course = np.exp(-np.arange(400) / 80)
    assert noise_level(course) < 1e-6
    assert noise_level(course + 0.03 * rng.normal(size=400)) == pytest.approx(0.03, rel=0.15)


@pytest.mark.parametrize("T", [9, 12, 16, 40])
def test_a_steep_first_fall_is_no_noise(T):
    fall = 0.3 + 2 * np.exp(-np.arange(T) / 1.5)
    assert noise_level(fall) < 0.02 * fall.min()


def test_four_checkpoints_say_nothing_of_noise():
    assert noise_level(np.array([1.0, 3.0, 1.0, 3.0])) == 0
    assert noise_level(np.array([1.0, 3.0, 1.0, 3.0, 1.0])) > 0


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


SHAPES = {
    "straight": lambda x: x,
    "speeding up": lambda x: x**2,
    "saturating": lambda x: 1 - np.exp(-4 * x),
}


def simulated(T, rise, shape, noise, rng):
    """A steep fall to about a tenth and a rise of a share of it: train, validation, first checkpoint of the rise."""
    at, turn = np.arange(T), min(round(T * rng.uniform(0.4, 0.75)), T - 4)
    level, start = rng.uniform(0.2, 0.5), rng.uniform(2, 5)
    fall = level + (start - level) * np.exp(-at / max(0.8, T * rng.uniform(0.03, 0.2)))
    along = np.clip(at - turn, 0, None) / (T - 1 - turn)
    held_out = np.where(at > turn, fall[turn] * (1 + rise * SHAPES[shape](along)), fall)
    train = 0.7 * fall - 0.1 * level * at / T
    noisy = (1 + noise * rng.normal(size=T) for _ in range(2))
    return train * next(noisy), held_out * next(noisy), turn + 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("T", [6, 8, 9, 10, 12, 15, 16, 17, 24])
def test_no_length_of_a_log_hides_a_clear_rise(T, shape):
    rng = np.random.default_rng(T)
    for noise, apart in ((0.0, 1), (0.003, 2)):
        right = 0
        for _ in range(40):
            train, held_out, truth = simulated(T, rng.uniform(0.25, 0.5), shape, noise, rng)
            found = find_onset(train, held_out, margin=0.01)
            right += found is not None and abs(found - truth) <= apart
        assert right == 40


def test_a_steep_fall_and_three_checkpoints_of_rise():
    held_out = np.array([2.3, 1.22, 0.72, 0.49, 0.40, 0.45, 0.50, 0.55])
    train = np.array([2.1, 1.02, 0.52, 0.29, 0.20, 0.15, 0.13, 0.12])
    assert find_onset(train, held_out, margin=0.01) == 5
    assert find_onset(train[:-1], held_out[:-1], margin=0.01) == 5
    assert find_onset(train[:-2], held_out[:-2], margin=0.01) == 5


@pytest.mark.parametrize("dropped", [3, 4, 5, 6])
def test_checkpoints_left_out_change_no_conclusion(dropped):
    rng = np.random.default_rng(dropped)
    for _ in range(60):
        train, held_out, truth = simulated(20, rng.uniform(0.2, 0.4), "straight", 0.0, rng)
        # the rise itself stays, so that it can be seen
        gone = rng.choice(np.arange(1, 14), dropped, replace=False)
        kept = np.setdiff1d(np.arange(20), gone)
        found = find_onset(train[kept], held_out[kept], margin=0.01)
        assert found is not None
        assert abs(found - int(np.searchsorted(kept, truth))) <= 1


def test_many_small_steps_up_are_a_rise():
    # each is less than the noise of 3 %, all together are 5 to 9 times their standard error
    rng = np.random.default_rng(3)
    at, found = np.arange(50), 0
    for _ in range(60):
        tau = 50 * rng.uniform(0.1, 0.3)
        fall = 0.4 + 1.9 * np.exp(-at / tau)
        held_out = np.where(at > 25, fall[25] + 0.005 * (at - 25), fall)
        train = 0.2 + 2.1 * np.exp(-at / (1.5 * tau))
        noisy = held_out * (1 + 0.03 * rng.normal(size=50))
        found += (
            find_onset(train * (1 + 0.01 * rng.normal(size=50)), noisy, margin=0.01) is not None
        )
    assert found >= 56


def without_a_rise(kind, T, rng):
    at = np.arange(T)
    fall = 0.4 + 2.5 * np.exp(-at / max(0.8, T * rng.uniform(0.03, 0.2)))
    if kind == "noise":
        return fall * (1 + 0.03 * rng.normal(size=T))
    if kind == "waves":
        height, length = rng.uniform(0.03, 0.1), max(4, T // 8)
        return fall * (1 + height * (0.5 - 0.5 * np.cos(2 * np.pi * at / length)))
    if kind == "spikes":
        return fall * (1 + (rng.random(T) < 0.1) * rng.exponential(0.15, T))
    if kind == "made good":
        bump = rng.uniform(0.1, 0.4) * np.exp(-(((at - 0.45 * T) / (0.12 * T)) ** 2))
        return fall + bump - 0.1 * np.clip(at - 0.5 * T, 0, None) / T
    wander = np.zeros(T)
    for i in range(1, T):
        wander[i] = 0.7 * wander[i - 1] + 0.007 * rng.normal()
    return fall * (1 + wander)


@pytest.mark.parametrize(
    ("kind", "most"), [("noise", 6), ("waves", 0), ("spikes", 8), ("made good", 0), ("wander", 16)]
)
def test_what_ends_high_by_chance_is_no_overfitting(kind, most):
    rng = np.random.default_rng(0)
    false = 0
    for T in (10, 16, 17, 25, 40, 100) if kind != "waves" else (24, 40, 64, 100, 160):
        at = np.arange(T)
        train = 0.3 + 2 * np.exp(-at / (0.2 * T)) - 0.03 * at / T
        curves = (without_a_rise(kind, T, rng) for _ in range(40))
        false += sum(find_onset(train, curve, margin=0.01) is not None for curve in curves)
    assert false <= most


@given(
    st.lists(st.floats(0.01, 5), min_size=1, max_size=20).map(np.array),
    st.sampled_from([0.25, 8.0]),
)
def test_the_unit_of_a_loss_does_not_matter(held_out, factor):
    train = np.linspace(2, 1, len(held_out))
    one = find_onset(train, held_out, margin=0.01)
    assert find_onset(factor * train, factor * held_out, margin=0.01) == one


@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 30])
def test_losses_that_are_all_the_same_do_not_overfit(T):
    for level in (0.0, 0.7, -2.0):
        same = np.full(T, level)
        assert find_onset(same, same, margin=0.01) is None
