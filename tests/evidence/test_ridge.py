import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from mmaudit.evidence.ridge import PENALTIES, StreamingRidge
from mmaudit.measures.competition import competition_strength

Z, C = np.array([[0.0], [1], [2], [3]]), np.array([[0.0], [1], [1], [2]])


def _collected(z, c, *, batch=37, folds=1, which=None, block=256):
    ridge = StreamingRidge(folds=folds, block=block)
    for at in range(0, len(z), batch):
        rows = slice(at, at + batch)
        ridge.add(
            torch.as_tensor(z[rows]),
            torch.as_tensor(c[rows]),
            None if which is None else which[rows],
        )
    return ridge


def _data(n=700, d=20, q=5, seed=0, *, mean=0.0, scale=None, dtype=np.float64):
    rng = np.random.default_rng(seed)
    spread = np.logspace(0, -3, d) if scale is None else scale
    z = rng.standard_normal((n, d)) * spread + mean * rng.standard_normal(d)
    z = z.astype(dtype)
    c = z.astype(np.float64) @ rng.standard_normal((d, q)) + rng.standard_normal((n, q)) + mean
    return z, c


@pytest.mark.parametrize(
    ("penalty", "weight", "bias", "predicted", "strength"),
    [
        (0.0, 0.6, 0.1, [0.1, 0.7, 1.3, 1.9], 0.1),
        (5.0, 0.3, 0.55, [0.55, 0.85, 1.15, 1.45], 0.325),
    ],
)
def test_the_case_computed_by_hand(penalty, weight, bias, predicted, strength):
    fit = _collected(Z, C, batch=2).fit(penalty)
    assert fit.weights.item() == pytest.approx(weight)
    assert fit.bias.item() == pytest.approx(bias)
    found = fit.predict(torch.from_numpy(Z)).numpy()
    assert found[:, 0] == pytest.approx(predicted)
    assert competition_strength(C, found) == pytest.approx(strength)


@pytest.mark.parametrize(("penalty", "strength"), [(0.0, 6.8), (5.0, 2.6)])
def test_the_same_fit_on_samples_that_it_was_not_fitted_on(penalty, strength):
    found = _collected(Z, C).fit(penalty).predict(torch.tensor([[0.0], [2.0]])).numpy()
    assert competition_strength(np.array([[1.0], [1.5]]), found) == pytest.approx(strength)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 120.0, 1e5])
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_equals_scikit_learns_ridge(penalty, mean, dtype):
    # Latents of single precision with a mean of 1e4 have a spread of some thousandths left.
    scale = None if dtype is np.float64 else np.full(20, 30.0)
    z, c = _data(mean=mean, dtype=dtype, scale=scale)
    fit = _collected(z, c).fit(penalty)
    other = Ridge(alpha=penalty, solver="svd").fit(z.astype(np.float64), c)
    predicted = other.predict(z.astype(np.float64))
    largest = np.abs(other.coef_).max()
    assert np.abs(fit.weights.numpy().T - other.coef_).max() <= 1e-6 * largest
    found = fit.predict(torch.from_numpy(z)).numpy()
    assert np.abs(found - predicted).max() <= 1e-6 * np.abs(predicted - predicted.mean(0)).max()


def test_sums_without_a_shift_would_not():
    # The control of the case above: what a naive accumulation in the data's own precision gives.
    z, c = _data(mean=1e4, dtype=np.float32, scale=np.full(20, 30.0))
    mean = z.mean(0)
    scatter = z.T @ z - len(z) * np.outer(mean, mean)
    naive = np.linalg.solve(scatter + np.eye(20), z.T @ (c - c.mean(0)).astype(np.float32))
    other = Ridge(alpha=1.0, solver="svd").fit(z.astype(np.float64), c).coef_
    assert np.abs(naive.T - other).max() > 1e-3 * np.abs(other).max()


def test_the_batch_size_changes_no_digit():
    z, c = _data(dtype=np.float32)
    which = np.arange(len(z)) % 3
    fits = [
        _collected(z, c, batch=size, folds=3, which=which).fit("cross-validated")
        for size in (1, 64, 700)
    ]
    for other in fits[1:]:
        assert torch.equal(fits[0].weights, other.weights)
        assert torch.equal(fits[0].bias, other.bias)
        assert fits[0].errors == other.errors


def test_the_penalty_is_cross_validated():
    z, c = _data(n=120, d=40, q=3, scale=np.full(40, 1.0))
    c = c + 20 * np.random.default_rng(1).standard_normal(c.shape)
    which = np.arange(len(z)) % 4
    found = _collected(z, c, folds=4, which=which).fit()
    expected = {}
    for penalty in PENALTIES:
        errors = [
            ((Ridge(alpha=penalty).fit(z[which != f], c[which != f]).predict(z[which == f]) - c[which == f]) ** 2).sum()
            for f in range(4)
        ]  # fmt: skip
        expected[penalty] = sum(errors)
    assert found.errors == pytest.approx(expected, rel=1e-9)
    assert found.penalty == min(expected, key=expected.get)
    assert 10 < found.penalty < 1e5  # neither end of the grid
    assert found.n == 120


def test_folds_can_be_left_out():
    z, c = _data(n=200)
    which = np.random.default_rng(0).integers(0, 5, 200)
    ridge = _collected(z, c, folds=5, which=which)
    kept = which != 2
    other = Ridge(alpha=1.0).fit(z[kept], c[kept])
    assert np.allclose(ridge.fit(1.0, without=(2,)).weights.numpy().T, other.coef_, atol=1e-9)
    assert ridge.fit(1.0, without=(2,)).n == kept.sum()
    assert ridge.n == 200


def test_some_outputs_go_on_by_themselves():
    z, c = _data(n=300)
    ridge = _collected(z[:200], c[:200], folds=2, which=np.arange(200) % 2)
    part = ridge.of_outputs(slice(1, 3))
    part.add(torch.from_numpy(z[200:]), torch.from_numpy(c[200:, 1:3]), np.arange(100) % 2)
    ridge.add(torch.from_numpy(z[200:]), torch.from_numpy(c[200:]), np.arange(100) % 2)
    # Blocks end elsewhere, so that sums are rounded otherwise.
    assert torch.allclose(part.fit(2.0).weights, ridge.fit(2.0).weights[:, 1:3], atol=1e-9)
    assert ridge.fit(2.0).weights.shape == (20, 5)


def test_a_singular_system_has_the_shortest_solution():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((30, 5))
    z = np.hstack([z, z[:, :1], np.zeros((30, 1))])
    c = rng.standard_normal((30, 2))
    fit = _collected(z, c).fit(0.0)
    centred = z - z.mean(0)
    expected = np.linalg.lstsq(centred, c - c.mean(0), rcond=1e-10)[0]
    assert np.allclose(fit.weights.numpy(), expected, atol=1e-9)


def test_rows_may_be_written_to_afterwards():
    z, c = torch.ones(4, 2), torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    z[:, 0] = c[:, 0]
    ridge = StreamingRidge()
    ridge.add(z, c)
    z.zero_()
    assert ridge.fit(0.0).weights[0].item() == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 6),
    st.floats(1e-3, 1e4),
    st.integers(0, 10**6),
)
def test_the_solution_is_where_the_gradient_is_0(n, d, penalty, seed):
    rng = np.random.default_rng(seed)
    z, c = rng.standard_normal((n, d)) * 10, rng.standard_normal((n, 2))
    fit = _collected(z, c, batch=3).fit(penalty)
    residual = c - fit.predict(torch.from_numpy(z)).numpy()
    assert np.allclose(residual.sum(0), 0, atol=1e-8)
    assert np.allclose(z.T @ residual, penalty * fit.weights.numpy(), atol=1e-6 * (1 + penalty))


def test_what_cannot_be_fitted_is_said():
    ridge = StreamingRidge(folds=2)
    with pytest.raises(ValueError, match="no samples"):
        ridge.fit(1.0)
    with pytest.raises(ValueError, match=r"expected z \(n, d\)"):
        ridge.add(torch.ones(3), torch.ones(3, 1))
    ridge.add(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ValueError, match="expected d and q to stay"):
        ridge.add(torch.ones(3, 1), torch.ones(3, 1))
    with pytest.raises(ValueError, match="one fold in"):
        ridge.add(torch.ones(3, 2), torch.ones(3, 1), [0, 1, 2])
    with pytest.raises(ValueError, match="at least two folds"):
        ridge.fit()
    with pytest.raises(ValueError, match="at least 1"):
        StreamingRidge(folds=0)


def test_the_released_protocol_is_that_of_scikit_learn():
    """Whole folds of scikit-learn's own splitter, the released penalty."""
    z, c = _data(n=400, d=8, q=6)
    for learnt, held_out in KFold(4).split(z):
        fit = _collected(z[learnt], c[learnt]).fit(120.0)
        found = fit.predict(torch.from_numpy(z[held_out])).numpy()
        expected = Ridge(alpha=120.0).fit(z[learnt], c[learnt]).predict(z[held_out])
        assert np.allclose(found, expected, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    z, c = _data(dtype=np.float32)
    here, there = StreamingRidge(folds=2), StreamingRidge(folds=2)
    which = np.arange(len(z)) % 2
    here.add(torch.from_numpy(z), torch.from_numpy(c), which)
    there.add(torch.from_numpy(z).cuda(), torch.from_numpy(c).cuda(), which)
    a, b = here.fit(), there.fit()
    assert a.penalty == b.penalty
    assert torch.allclose(a.weights, b.weights.cpu(), rtol=1e-9, atol=1e-12)
