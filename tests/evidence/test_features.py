import numpy as np
import pytest
import torch

from mmaudit.evidence.features import Featuriser, ShapesDifferError


def _made(*batches, width=64, seed=0):
    """Rows of all batches, made again as long as something new is found."""
    maker = Featuriser(width, seed)
    while True:
        try:
            return np.concatenate([maker.rows(batch) for batch in batches]), maker
        except ShapesDifferError:
            continue


def test_small_tensors_are_taken_as_they_are():
    a, b = torch.randn(5, 3, 2), torch.randn(5)
    found, maker = _made({"x": a, "y": b})
    assert np.array_equal(found, np.hstack([a.reshape(5, 6).numpy(), b[:, None].numpy()]))
    assert maker.words["x"] == "values"


@pytest.mark.parametrize(
    "shape", [(28, 28), (3, 40, 40), (40, 40, 3), (2, 5, 12, 12), (1, 2, 3, 8, 8, 8), (500, 7, 7), (600,), (300, 4), (40, 768)]
)  # fmt: skip
def test_large_tensors_have_about_the_width(shape):
    x = torch.randn(4, *shape)
    found, maker = _made({"x": x})
    assert found.shape[0] == 4 and 24 <= found.shape[1] <= 64
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert ("random projections" in maker.words["x"]) == (len(shape) == 1)
    again, _ = _made({"x": x[:1]}, {"x": x[1:]})
    assert np.allclose(found, again, atol=1e-6)


def test_projections_are_drawn_from_the_seed():
    x = torch.randn(4, 600)
    assert np.array_equal(_made({"x": x})[0], _made({"x": x})[0])
    assert not np.array_equal(_made({"x": x}, seed=1)[0], _made({"x": x})[0])


def test_projections_keep_distances():
    x = torch.randn(40, 5000)
    found, _ = _made({"x": x}, width=384)
    distances = torch.pdist(x).numpy()
    ratio = torch.pdist(torch.from_numpy(found)).numpy() / distances
    assert ratio.min() > 0.85 and ratio.max() < 1.15


@pytest.mark.parametrize("last", [False, True])
def test_means_of_neighbours_say_where_something_is(last):
    x = torch.zeros(2, 3, 32, 32)
    x[0, 0, :8, :8], x[1, 2, 24:, 24:] = 1, 1
    found, maker = _made({"x": x.movedim(1, -1) if last else x}, width=128)
    assert found[0, 0] == pytest.approx(1) and found[1, 0] == 0
    assert found[1, -1] == pytest.approx(1) and found[0, -1] == 0
    assert maker.words["x"] == "means over neighbours and over dimensions"


def test_of_many_maps_each_has_its_mean():
    x = torch.randn(3, 30, 7, 7)
    found, _ = _made({"x": x}, width=128)
    assert np.allclose(found[:, :30], x.mean((2, 3)).numpy(), atol=1e-6)
    steps = torch.randn(3, 50, 12)  # features of a sequence, or the other way round
    found, _ = _made({"x": steps}, width=64)
    assert np.allclose(found[:, -28:-16], steps.mean(1).numpy(), atol=1e-6)


def test_tokens_are_counted():
    x = torch.tensor([[1, 2, 2, 3], [3, 3, 3, 3]])
    found, maker = _made({"x": x}, width=40)
    assert found[0, 1:4].tolist() == [1, 2, 1] and found[1, 1:4].tolist() == [0, 0, 4]
    assert maker.words["x"] == "counts of tokens and values"
    assert np.array_equal(found[:, -4:], x.float().numpy())  # whole numbers may be quantities, too


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_padding_changes_nothing(dtype):
    rng = torch.Generator().manual_seed(0)
    lengths = [3, 5, 2, 7, 4, 6]
    rows = [torch.randint(1, 9, (n,), generator=rng).to(dtype) for n in lengths]
    if dtype is torch.float32:
        rows = [torch.stack([row, -row], 1) for row in rows]

    def batches(size):
        return [
            {"x": torch.nn.utils.rnn.pad_sequence(rows[at : at + size], batch_first=True)}
            for at in range(0, 6, size)
        ]

    found = [_made(*batches(size))[0] for size in (1, 2, 3)]
    for other in found[1:]:
        assert np.allclose(found[0], other, atol=1e-6)
    assert len({row.tobytes() for row in found[0]}) == 6
    if dtype is torch.float32:
        assert found[0][:, -1].tolist() == lengths
        assert found[0][:, 0] == pytest.approx([float(row[:, 0].mean()) for row in rows])


def test_unusual_tensors():
    x = torch.randn(3, 4)
    x[0, 0], x[1, 1] = torch.nan, torch.inf
    assert np.isfinite(_made({"x": x})[0]).all()
    assert _made({"x": torch.ones(3, 4, dtype=torch.bool)})[0].sum() == 12
    assert _made({"x": torch.ones(3, 4, dtype=torch.uint8)})[0].shape == (3, 4)
    assert _made({"x": torch.ones(3, 4, dtype=torch.bfloat16)})[0].sum() == 12
    assert _made({"x": torch.ones(3, 2, dtype=torch.complex64)})[0].shape == (3, 4)
    assert _made({"x": torch.eye(3).to_sparse()})[0].tolist() == torch.eye(3).tolist()
    assert _made({"x": torch.ones(3, 0)})[0].shape == (3, 0)
    images = [{"x": torch.randn(2, 3, 8, 8)}, {"x": torch.randn(2, 3, 6, 9)}]
    assert _made(*images)[0].shape == (4, 10)


def test_tensors_that_never_fit_are_refused():
    maker = Featuriser(64, 0)
    maker.rows({"x": torch.ones(2, 3)})
    with pytest.raises(ValueError, match="2 later"):
        maker.rows({"x": torch.ones(2, 3, 4)})
