"""Games and class scores computed by hand, for every test that needs a known answer.

Coalitions are in bit order: bit m of the index is set where modality m is present.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Game(NamedTuple):
    """Worths of all coalitions and what follows from them."""

    values: np.ndarray
    shapley: np.ndarray


class Scores(NamedTuple):
    """Class scores of all coalitions (2**M, n, K) and the responses (M, n, K) under both rules."""

    logits: np.ndarray
    exact: np.ndarray
    zero: np.ndarray


TWO_MODALITIES = Scores(
    # empty, a, v, av
    logits=np.array([[[0.2, -0.2]], [[2.0, 0.0]], [[0.5, 0.5]], [[3.0, 1.0]]]),
    exact=np.array([[[2.15, 0.35]], [[0.65, 0.85]]]),
    zero=np.array([[[2.25, 0.25]], [[0.75, 0.75]]]),
)
"""a: 1/2 ([3, 1] - [.5, .5] + [2, 0] - [.2, -.2]); with a tie of v under ``zero``."""

TWO_MODALITIES_LOSS = {
    # (rule, target) -> s of a, s of v: log(1 + exp(-margin)) of the responses above
    ("exact", 0): (0.152978, 0.798139),
    ("zero", 0): (0.126928, 0.693147),
    ("exact", 1): (1.952978, 0.598139),
    ("zero", 1): (2.126928, 0.693147),
}

THREE_PLAYERS = Game(
    # empty, a, v, av, t, at, vt, avt
    values=np.array([0.0, 1.0, 2.0, 5.0, 0.0, 1.0, 2.0, 8.0]),
    shapley=np.array([3.0, 4.0, 1.0]),
)
THREE_PLAYERS_INTERACTIONS = {(0, 1): 3.5, (0, 2): 1.5, (1, 2): 1.5}

THREE_PLAYERS_OFFSET = Game(
    # the same with an empty coalition worth 3
    values=np.array([3.0, 1.0, 2.0, 5.0, 0.0, 1.0, 2.0, 8.0]),
    shapley=np.array([2.0, 3.0, 0.0]),
)

ACCURACIES = Game(
    values=np.array([1 / 6, 0.5, 0.25, 0.7]),
    shapley=np.array([0.391667, 0.141667]),
)

UTILIZATION_ACCURACIES = np.array([0.1, 0.5, 0.4, 0.9, 0.3, 0.85, 0.6, 0.9])
"""avt .9, vt .6, at .85, av .9; the others do not matter for u(m | rest)."""
UTILIZATION_RATES = np.array([0.333333, 0.055556, 0.0])

AND_GAME = Game(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), np.full(3, 1 / 3))
OR_GAME = Game(np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), np.full(3, 1 / 3))
MAJORITY_GAME = Game(np.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]), np.full(3, 1 / 3))
GLOVE_GAME = Game(
    # one left glove (a), two right gloves (v, t): worth 1 for a pair
    np.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
    np.array([2 / 3, 1 / 6, 1 / 6]),
)
