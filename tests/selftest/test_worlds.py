"""Worlds hold what they promise: frequencies, copies, sums, and the exact accuracy of one modality."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaudit.selftest.worlds import Carrier, Source, World, sample, unimodal_accuracy


def test_sources_are_right_as_often_as_said():
    world = World({"s": Source(right=0.7)}, {"a": Carrier("s")}, classes=5)
    drawn = sample(world, 50_000, np.random.default_rng(0))
    assert np.mean(drawn.says["s"] == drawn.label) == pytest.approx(0.7, abs=0.01)
    assert np.bincount(drawn.label) / 50_000 == pytest.approx([0.2] * 5, abs=0.01)


def test_parts_are_digits_and_summands_add_up():
    world = World(
        {"lo": Source("part", 1.0, 0), "hi": Source("part", 1.0, 1)},
        {"a": Carrier("lo"), "b": Carrier("hi")},
        classes=6,
        digits=(2, 3),
    )
    drawn = sample(world, 500, np.random.default_rng(0))
    assert (drawn.says["lo"] + 2 * drawn.says["hi"] == drawn.label).all()
    sums = World({n: Source("summand") for n in "st"}, {"a": Carrier("s"), "b": Carrier("t")}, 3)
    drawn = sample(sums, 500, np.random.default_rng(0))
    assert ((drawn.says["s"] + drawn.says["t"]) % 3 == drawn.label).all()


def test_a_wrong_source_is_right_in_training():
    world = World({"w": Source("wrong")}, {"a": Carrier("w")}, classes=2)
    rng = np.random.default_rng(0)
    late, early = sample(world, 100, rng), sample(world, 100, rng, training=True)
    assert (late.says["w"] != late.label).all() and (early.says["w"] == early.label).all()


def test_codes_can_be_read_and_copies_carry_the_same():
    world = World({"s": Source(right=0.7)}, {"a": Carrier("s", shift=2.0), "b": Carrier("s")}, 4)
    drawn = sample(world, 1000, np.random.default_rng(0))
    mean = 2.0 * np.cos(np.arange(8))
    assert ((drawn.inputs["a"] - mean)[:, :4].argmax(1) == drawn.says["s"]).all()
    assert (drawn.inputs["b"][:, :4].argmax(1) == drawn.says["s"]).all()
    assert drawn.inputs["a"].dtype == np.float32


def test_groups_share_what_is_said():
    world = World({"s": Source(right=0.7)}, {"a": Carrier("s")}, group_size=4)
    drawn = sample(world, 10, np.random.default_rng(0))
    assert drawn.group.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert len(set(zip(drawn.group, drawn.label, drawn.says["s"], strict=True))) == 3


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 5),
    st.floats(0.4, 1.0),
    st.lists(st.floats(0.2, 1.0), min_size=5, max_size=5),
    st.sampled_from(["label", "wrong", "noise"]),
)
def test_the_best_accuracy_is_that_of_the_best_table(K, right, weights, kind):
    prior = tuple(np.array(weights[:K]) / sum(weights[:K]))
    world = World({"s": Source(kind, right)}, {"a": Carrier("s")}, K, prior=prior)
    drawn = sample(world, 40_000, np.random.default_rng(0))
    counts = np.zeros((K, K))
    np.add.at(counts, (drawn.says["s"], drawn.label), 1)
    assert unimodal_accuracy(world, "a") == pytest.approx(counts.max(1).sum() / 40_000, abs=0.015)


def test_the_best_accuracy_of_a_part_by_hand():
    # One digit of two values, right 90 %: half of the classes are left, one of them is guessed.
    world = World({"s": Source("part", 0.9, 0)}, {"a": Carrier("s")}, 4, digits=(2, 2))
    assert unimodal_accuracy(world, "a") == pytest.approx(0.45)
