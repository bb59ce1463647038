"""The brute force of the self-test against hand-worked games and against the measures' own formulas."""

from __future__ import annotations

import numpy as np
import pytest

from mmaudit.measures.shapley import modality_pairs, shapley_interactions, shapley_values
from mmaudit.selftest.networks import Reading, trained, written
from mmaudit.selftest.truth import Truth, brute_force
from mmaudit.selftest.worlds import Carrier, Source, World


def game(names, values):
    sets = [frozenset(n for m, n in enumerate(names) if c >> m & 1) for c in range(2 ** len(names))]
    return Truth(tuple(names), dict(zip(sets, values, strict=True)), {}, {}, 0)


def test_a_game_by_hand():
    # v = 1/6, .5, .25, .7
    truth = game("av", [1 / 6, 0.5, 0.25, 0.7])
    assert truth.contributions == pytest.approx({"a": 0.391667, "v": 0.141667}, abs=1e-6)
    assert truth.drop("a") == pytest.approx(0.45)
    assert truth.utilization("a", frozenset("v")) == pytest.approx(0.45 / 0.7)
    assert truth.interaction("a", "v") == pytest.approx(0.7 - 0.5 - 0.25 + 1 / 6)


@pytest.mark.parametrize("M", [2, 3, 4])
def test_orderings_agree_with_the_matrices(M):
    values = np.random.default_rng(M).random(2**M)
    names = "abcd"[:M]
    truth = game(names, values)
    assert list(truth.contributions.values()) == pytest.approx(shapley_values(values).tolist())
    pairs = shapley_interactions(values)
    for i, j in modality_pairs(M):
        assert truth.interaction(names[i], names[j]) == pytest.approx(float(pairs[i, j]))


def test_written_networks_do_what_is_written():
    rng = np.random.default_rng(0)
    sources = {"s": Source("part", 0.9, 0), "t": Source("part", 0.8, 1)}
    world = World(sources, {"a": Carrier("s"), "b": Carrier("t")}, 4, digits=(2, 2))
    truth = brute_force(world, written(world, {"a": Reading(), "b": Reading()}), "zero", rng)
    found = [truth.accuracy[frozenset(c)] for c in ("", "a", "b", "ab")]
    assert found == pytest.approx([0.25, 0.45, 0.4, 0.72], abs=0.01)
    ignoring = written(world, {"a": Reading(), "b": Reading(0.0)})
    truth = brute_force(world, ignoring, "marginal", rng, samples=2000)
    assert truth.contributions["b"] == 0.0


def test_parity_is_said_by_nobody_alone():
    world = World(
        {n: Source("summand", 0.9) for n in "st"}, {"a": Carrier("s"), "b": Carrier("t")}, 2
    )
    net = written(world, {"a": Reading(), "b": Reading()})
    for mask in ("zero", "mean", "marginal"):
        truth = brute_force(world, net, mask, np.random.default_rng(1))
        found = [truth.accuracy[frozenset(c)] for c in ("", "a", "b", "ab")]
        assert found == pytest.approx([0.5, 0.5, 0.5, 0.82], abs=0.01)


def test_a_zero_far_from_the_data_shifts_a_written_network():
    world = World(
        {"s": Source(), "n": Source("noise")}, {"a": Carrier("s"), "b": Carrier("n", shift=3.0)}, 3
    )
    net = written(world, {"a": Reading(1.0), "b": Reading(0.5)})
    rng = np.random.default_rng(0)
    assert brute_force(world, net, "mean", rng, samples=5000).drop("b") == pytest.approx(
        0.0, abs=0.01
    )
    assert brute_force(world, net, "zero", rng, samples=5000).drop("b") > 0.2


def test_training_learns_and_leaves_the_generator_alone():
    import torch

    world = World({"s": Source(right=0.9)}, {"a": Carrier("s")}, 3)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    net = trained(world, ("a",), 0, samples=600, epochs=6)
    assert torch.equal(before, torch.random.get_rng_state())
    truth = brute_force(world, net, "zero", np.random.default_rng(0), samples=5000)
    assert truth.accuracy[frozenset("a")] == pytest.approx(0.9, abs=0.02)
