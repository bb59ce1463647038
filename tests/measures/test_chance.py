"""Better than the best constant prediction: by hand, and against what is known of simulated classes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from mmaudit.measures.chance import BestConstant, above_chance
from mmaudit.measures.paired import paired_differences
from mmaudit.measures.resampling import bootstrap_weights

LOWEST, HIGHEST = 0.92, 0.98
WEIGHTS: dict[int, np.ndarray] = {}


def found_above(right, y, classes, unit, units):
    """Accuracy above chance of predictions that are right or not, for classes y."""
    if units not in WEIGHTS:
        WEIGHTS[units] = bootstrap_weights(units, 1000, 0)
    total = lambda x: np.bincount(unit, x, units)[:, None]  # noqa: E731
    best = BestConstant(np.bincount(y, minlength=classes)[None])
    cell = np.zeros(len(y), int)
    rivals = np.hstack([total(column) for column in best.rows(cell, y).astype(float).T])
    counts = total(np.ones(len(y)))
    constant = total(best.right(cell, y).astype(float))
    found = above_chance(total(right.astype(float)), constant, counts, rivals, best, WEIGHTS[units])
    return found, (constant, counts)


def test_by_hand() -> None:
    y = np.array([0] * 60 + [1] * 40)
    right = np.arange(100) % 10 < 9
    found, _ = found_above(right, y, 2, np.arange(100), 100)
    assert found.value[0] == pytest.approx(0.9 - 0.6)
    assert found.low[0] < 0.3 < found.high[0]


def test_each_label_has_its_own_best_answer() -> None:
    best = BestConstant(np.array([[10, 90], [80, 20], [50, 50]]))
    assert best.answer.tolist() == [1, 0, 0]
    cell, truth = np.array([0, 0, 1, 2]), np.array([1, 0, 0, 1])
    assert best.right(cell, truth).tolist() == [True, False, True, False]
    rows = best.rows(cell, truth)
    assert rows.sum(axis=1).tolist() == [1, 1, 1, 1]


def test_of_many_answers_the_closest_are_rivals() -> None:
    counts = np.arange(1000)[None, :]
    assert sorted(BestConstant(counts).rivals[:, 1]) == list(range(936, 1000))
    many = BestConstant(np.stack([np.arange(200) + 300, np.full(200, 400)], axis=1))
    cells = many.rivals[:, 0]
    assert len(many.rivals) == 64 and cells.min() > 80 and cells.max() < 120
    assert (np.diff(cells) >= 0).all()  # those of one cell stand together


def test_where_one_class_is_far_ahead_it_is_the_plain_paired_interval() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(400) < 0.2).astype(int)
    right = rng.random(400) < 0.9
    found, (constant, counts) = found_above(right, y, 2, np.arange(400), 400)
    plain = paired_differences(
        (constant, counts),
        (right.astype(float)[:, None], counts),
        counts,
        WEIGHTS[400],
        reach=np.ones(1),
        bound=1.0,
    ).intervals
    assert (found.low, found.high) == (
        pytest.approx(plain.low, abs=1e-4),
        pytest.approx(plain.high, abs=1e-4),
    )


def covered(rng, p, accuracy, n, sims, groups=0):
    hits = 0
    for _ in range(sims):
        if groups:
            unit = np.repeat(np.arange(groups), rng.integers(4, 17, groups))
            own = rng.standard_normal((groups, 2))[unit]
            latent = np.sqrt(0.7) * rng.standard_normal((len(unit), 2)) + np.sqrt(0.3) * own
        else:
            unit, latent = np.arange(n), rng.standard_normal((n, 2))
        uniform = ndtr(latent)
        y = np.searchsorted(np.cumsum(p)[:-1], uniform[:, 0])
        found, _ = found_above(uniform[:, 1] < accuracy, y, len(p), unit, unit.max() + 1)
        hits += found.low[0] <= accuracy - max(p) <= found.high[0]
    return hits / sims


def test_equally_frequent_classes_are_covered() -> None:
    # Seven Monte Carlo standard errors above what the plain interval covers (.89), four below what is claimed.
    assert covered(np.random.default_rng(1), [0.1] * 10, 0.6, 200, 400) > 0.915


@pytest.mark.slow
@pytest.mark.parametrize(("n", "groups"), [(50, 0), (200, 0), (1000, 0), (0, 30), (0, 100)])
def test_coverage(n: int, groups: int) -> None:
    rng = np.random.default_rng(n + groups)
    failures = []
    for accuracy in (0.3, 0.6, 0.9):
        for p in ([0.1] * 10, [0.52, 0.48], [0.5, 0.3, 0.2]):
            share = covered(rng, p, accuracy, n, 600, groups)
            if not LOWEST <= share <= HIGHEST:
                failures.append(f"{p}, accuracy {accuracy}: {share:.3f}")
    assert not failures, "\n".join(failures)


def test_classes_that_were_drawn_equal_are_no_accident() -> None:
    y = np.arange(600) % 10
    right = np.random.default_rng(0).random(600) < 0.8
    found, (constant, counts) = found_above(right, y, 10, np.arange(600), 600)
    correct = right.astype(float)[:, None]
    plain = paired_differences(
        (constant, counts), (correct, counts), counts, WEIGHTS[600], reach=np.ones(1), bound=1.0
    ).intervals
    assert (found.low[0], found.high[0]) == (plain.low[0], plain.high[0])
