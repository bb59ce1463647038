import numpy as np
import pytest

from mmaudit.evidence.strength import strength_terms
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.competition import competition_strength

C = np.array([[1.0, 0], [0, 2], [-1, 0], [0, -2]])
CHAT = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])


def _random(n=60, q=4, seed=0):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((n, q)) @ rng.standard_normal((q, q))
    return c, c + 0.5 * rng.standard_normal((n, q))


def test_the_case_computed_by_hand():
    assert competition_strength(C, CHAT) == pytest.approx(0.2)
    assert competition_strength(C, CHAT, whitened=True) == pytest.approx(0.09375)
    assert strength_terms(C, CHAT).rank == 2


def test_the_mean_as_prediction():
    mean = np.zeros((4, 2))
    assert competition_strength(C, mean) == pytest.approx(1.0)
    assert competition_strength(C, mean, whitened=True) == pytest.approx(0.75)


def test_null_directions_are_dropped():
    """Softmax-like concepts have rank q - 1: a mean predictor scores (n - 1) / n (q - 1) / q."""
    c, _ = _random(n=670, q=6)
    c -= c.mean(1, keepdims=True)
    terms = strength_terms(c, np.tile(c.mean(0), (670, 1)) + 1e-9)
    assert terms.rank == 5
    assert terms.whitened.sum() == pytest.approx(669 / 670 * 5 / 6, rel=1e-6)


def test_the_released_formula():
    c, p = _random()
    e, scatter = p - c, len(c) * np.cov(c.T)
    expected = np.trace(e @ np.linalg.pinv(scatter, hermitian=True) @ e.T) / 4
    assert competition_strength(c, p, whitened=True) == pytest.approx(expected)
    pooled = (e**2).sum() / ((c - c.mean(0)) ** 2).sum()
    assert competition_strength(c, p) == pytest.approx(pooled)


def test_the_whitened_strength_does_not_hang_on_how_the_concept_is_written():
    c, p = _random()
    mixed = np.random.default_rng(1).standard_normal((4, 4))
    assert competition_strength(c @ mixed, p @ mixed, whitened=True) == pytest.approx(
        competition_strength(c, p, whitened=True)
    )
    assert competition_strength(c @ mixed, p @ mixed) != pytest.approx(competition_strength(c, p))
    turned = np.linalg.qr(mixed)[0]
    assert competition_strength(3 * c @ turned, 3 * p @ turned) == pytest.approx(
        competition_strength(c, p)
    )


def test_terms_say_how_far_a_sample_moves_the_strength():
    """``whitened - d weight`` against what leaving one sample out does, to first order."""
    c, p = _random(n=400)
    terms = strength_terms(c, p)
    d = terms.whitened.sum()
    assert terms.weight.sum() == pytest.approx(1.0)
    moved = terms.whitened - d * terms.weight
    without = np.array(
        [
            competition_strength(np.delete(c, i, 0), np.delete(p, i, 0), whitened=True)
            for i in range(0, 400, 8)
        ]
    )
    left_out = d - without
    assert np.corrcoef(left_out - left_out.mean(), moved[::8])[0, 1] > 0.995
    assert np.std(left_out) == pytest.approx(np.std(moved[::8]), rel=0.05)


@pytest.mark.parametrize("size", [1, 5])
def test_the_bias_is_what_the_jackknife_finds(size):
    c, p = _random(n=200, seed=3)
    units = np.arange(200) // size
    terms = strength_terms(c, p, units)
    d, groups = terms.whitened.sum(), 200 // size
    without = [
        competition_strength(c[units != u], p[units != u], whitened=True) for u in range(groups)
    ]
    jackknife = (groups - 1) * (np.mean(without) - d)
    assert terms.bias.sum() == pytest.approx(jackknife, rel=0.15)
    # In some order of the rows, the units are as they were.
    order = np.random.default_rng(0).permutation(200)
    again = strength_terms(c[order], p[order], units[order])
    assert again.bias.sum() == pytest.approx(terms.bias.sum())


def test_a_perfect_prediction_leaves_nothing():
    c, _ = _random()
    terms = strength_terms(c, c)
    assert terms.whitened.sum() == terms.error.sum() == terms.bias.sum() == 0
    assert terms.weight == pytest.approx(np.full(60, 1 / 60))


@pytest.mark.parametrize(
    ("concept", "reason"),
    [(np.full((5, 2), 3.7), "the same for all"), (np.zeros((5, 2)), "the same for all"), (np.ones((1, 2)), "at least 2")],
)  # fmt: skip
def test_what_does_not_vary_has_no_strength(concept, reason):
    with pytest.raises(UndefinedMeasureError, match=reason):
        strength_terms(concept, concept + 1)


def test_a_large_mean_is_no_lack_of_variation():
    c, p = _random()
    assert competition_strength(c + 1e5, p + 1e5) == pytest.approx(competition_strength(c, p))
