from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.shapley import (
    interaction_matrix,
    modality_pairs,
    shapley_interactions,
    shapley_matrix,
    shapley_values,
    shapley_weights,
)
from tests import toys
from tests.measures.axioms import broken_axioms

worths = st.floats(-10, 10, allow_nan=False, width=32)
games = st.integers(3, 5).flatmap(lambda M: arrays(np.float64, 2**M, elements=worths))


def by_orders(values):
    """Mean marginal contribution over all orders of arrival: the definition, without weights."""
    M = len(values).bit_length() - 1
    total = np.zeros(M)
    orders = list(permutations(range(M)))
    for order in orders:
        coalition = 0
        for m in order:
            total[m] += values[coalition | 1 << m] - values[coalition]
            coalition |= 1 << m
    return total / len(orders)


@pytest.mark.parametrize(
    "game",
    [
        toys.THREE_PLAYERS,
        toys.THREE_PLAYERS_OFFSET,
        toys.ACCURACIES,
        toys.AND_GAME,
        toys.OR_GAME,
        toys.MAJORITY_GAME,
        toys.GLOVE_GAME,
    ],
)
def test_games_by_hand(game):
    assert shapley_values(game.values) == pytest.approx(game.shapley, abs=1e-6)


def test_interactions_by_hand():
    table = shapley_interactions(toys.THREE_PLAYERS.values)
    for (i, j), value in toys.THREE_PLAYERS_INTERACTIONS.items():
        assert table[i, j] == pytest.approx(value)
        assert table[j, i] == pytest.approx(value)
    assert np.diag(table) == pytest.approx(0)


def test_weights():
    assert shapley_weights(2) == pytest.approx([1 / 2, 1 / 2])
    assert shapley_weights(3) == pytest.approx([1 / 3, 1 / 6, 1 / 3])
    assert shapley_weights(4) == pytest.approx([1 / 4, 1 / 12, 1 / 12, 1 / 4])
    for M in range(1, 13):
        counts = [math.comb(M - 1, s) for s in range(M)]
        assert shapley_weights(M) @ counts == pytest.approx(1)


def test_the_first_column_is_the_empty_coalition():
    assert shapley_matrix(4)[:, 0] == pytest.approx(-1 / 4)
    assert shapley_matrix(4).sum(axis=1) == pytest.approx(0)
    assert interaction_matrix(1).shape == (0, 2)


@given(games)
@settings(max_examples=60, deadline=None)
def test_equals_the_mean_over_orders(values):
    assert shapley_values(values) == pytest.approx(by_orders(values), abs=1e-9)


@given(games)
@settings(max_examples=60, deadline=None)
def test_interaction_is_the_change_of_a_value(values):
    """I_ij = phi_i of the game where j is always there, minus phi_i where it never is."""
    M = len(values).bit_length() - 1
    table = shapley_interactions(values)
    index = np.arange(2**M)
    for i, j in modality_pairs(M):
        with_j = values[index[index >> j & 1 == 1]]
        without_j = values[index[index >> j & 1 == 0]]
        place = i if i < j else i - 1
        difference = shapley_values(with_j)[place] - shapley_values(without_j)[place]
        assert table[i, j] == pytest.approx(difference, abs=1e-9)


def test_leading_axes_are_kept():
    values = np.random.default_rng(0).normal(size=(2, 5, 16))
    assert shapley_values(values).shape == (2, 5, 4)
    assert shapley_interactions(values).shape == (2, 5, 4, 4)
    assert shapley_values(values)[1, 3] == pytest.approx(shapley_values(values[1, 3]))
    assert shapley_values(values.astype(np.float32)).dtype == np.float64


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(1), np.zeros((4, 0)), np.array(1.0)])
def test_what_is_no_game_is_refused(values):
    with pytest.raises(UndefinedMeasureError, match=r"2\*\*M"):
        shapley_values(values)


# the gate: the checker passes the right code and flags every wrong variant -----------------------


def _weighted(weight):
    def solution(values):
        M = len(values).bit_length() - 1
        index = np.arange(2**M)
        out = np.zeros(M)
        for m in range(M):
            for S in index[index >> m & 1 == 0]:
                out[m] += weight(int(S).bit_count(), M) * (values[S | 1 << m] - values[S])
        return out

    return solution


def leave_one_out(values):
    M = len(values).bit_length() - 1
    return values[-1] - values[2**M - 1 - (1 << np.arange(M))]


def solo(values):
    M = len(values).bit_length() - 1
    return values[1 << np.arange(M)] - values[0]


def reversed_masking(values):
    return shapley_values(values[::-1])


def missing_empty(values):
    changed = values.copy()
    changed[0] = 0
    return shapley_values(changed)


def missing_grand(values):
    changed = values.copy()
    changed[-1] = 0
    return shapley_values(changed)


def wrong_labels(values):
    return np.roll(shapley_values(values), 1)


def one_order(values):
    M = len(values).bit_length() - 1
    chain = [2**k - 1 for k in range(M + 1)]
    return np.diff(values[chain])


def equal_shares(values):
    M = len(values).bit_length() - 1
    return np.full(M, (values[-1] - values[0]) / M)


def normalised_solo(values):
    alone = np.abs(solo(values))
    return alone / alone.sum() * (values[-1] - values[0])


def bits_from_the_left(values):
    M = len(values).bit_length() - 1
    mirror = [int(f"{c:0{M}b}"[::-1], 2) for c in range(2**M)]
    return shapley_values(values[mirror])


def clipped(values):
    return np.maximum(shapley_values(values), 0)


WRONG = {
    "leave-one-out": leave_one_out,
    "solo": solo,
    "Banzhaf": _weighted(lambda s, M: 1 / 2 ** (M - 1)),
    "reversed masking": reversed_masking,
    "uniform over sizes without binomials": _weighted(lambda s, M: 1 / M),
    "sizes off by one": _weighted(
        lambda s, M: (
            math.factorial(min(s + 1, M - 1)) * math.factorial(M - s - 1) / math.factorial(M)
        )
    ),
    "empty term missing": missing_empty,
    "grand term missing": missing_grand,
    "wrong labels": wrong_labels,
    "one order of arrival": one_order,
    "equal shares": equal_shares,
    "normalised solo": normalised_solo,
    "bits read from the left": bits_from_the_left,
    "negative values clipped": clipped,
}


def test_the_checker_passes_the_right_code():
    assert broken_axioms(shapley_values, games=200, seed=1) == set()
    by_weights = _weighted(lambda s, M: shapley_weights(M)[s])
    assert broken_axioms(by_weights, games=40, seed=2) == set()


@pytest.mark.parametrize("name", WRONG)
def test_the_checker_flags_wrong_code(name):
    assert broken_axioms(WRONG[name], games=12, seed=3)


def test_no_single_axiom_catches_all():
    found = {name: broken_axioms(wrong, games=40, seed=4) for name, wrong in WRONG.items()}
    assert not set.intersection(*found.values())


# independent implementations ---------------------------------------------------------------------


@pytest.mark.slow
def test_axioms_on_many_games():
    assert broken_axioms(shapley_values, games=5000, seed=5) == set()


def test_agrees_with_shapiq():
    exact = pytest.importorskip("shapiq.game_theory.exact")
    rng = np.random.default_rng(0)
    for M in (3, 4, 5, 6):
        values = rng.normal(size=2**M)

        def game(coalitions, values=values, M=M):
            return values[np.asarray(coalitions, int) @ (1 << np.arange(M))]

        computer = exact.ExactComputer(game=game, n_players=M)
        theirs = computer("SV", order=1)
        ours = shapley_values(values)
        for m in range(M):
            assert theirs[(m,)] == pytest.approx(ours[m], abs=1e-10)
        pairwise = exact.ExactComputer(game=game, n_players=M)("SII", order=2)
        table = shapley_interactions(values)
        for i, j in combinations(range(M), 2):
            assert pairwise[(i, j)] == pytest.approx(table[i, j], abs=1e-10)
