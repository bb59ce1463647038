from types import SimpleNamespace

import numpy as np
import pytest
import torch

import mmaudit.masking.reference as reference_module
from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.reference import Reference, needs_reference
from mmaudit.masking.spec import MaskingSpec

N = 60
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 4, generator=GENERATOR) * 3 + 100
Y = torch.randint(0, 9, (N, 2), generator=GENERATOR)


def spec(mask, **more):
    return MaskingSpec(modalities={"m": {"inputs": {"x": "x", "y": "y"}, "mask": mask}, **more})


def batches(size, *, order=None, present=None, x=X, y=Y):
    order = torch.arange(N) if order is None else order
    present = np.ones(N, dtype=bool) if present is None else present
    for rows in order.split(size):
        yield SimpleNamespace(
            dims={},
            data={"x": x[rows], "y": y[rows]},
            ids=[f"id {i}" for i in rows.tolist()],
            present={"m": present[rows.numpy()]},
        )


@pytest.mark.parametrize("size", [1, 7, N])
def test_moments_equal_those_of_all_samples_at_once(size):
    moments = Reference.collect(batches(size), spec({"x": "mean", "y": "noise"})).moments["m"]
    for name, values in (("x", X), ("y", Y)):
        values = values.double()
        np.testing.assert_allclose(moments[name].mean, values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments[name].std, values.std(0, correction=0), rtol=1e-10)
        assert (moments[name].low, moments[name].high) == (values.min().item(), values.max().item())
        assert moments[name].n == N


def test_moments_leave_out_absent_samples_and_entries_that_are_not_finite():
    x = X.clone()
    x[3, 1], x[4, 1], x[5] = float("nan"), float("inf"), float("nan")
    present = np.arange(N) != 5
    moments = Reference.collect(
        batches(9, present=present, x=x), spec({"x": "mean", "y": "zero"})
    ).moments["m"]["x"]
    known = [i for i in range(N) if i not in (3, 4, 5)]
    assert moments.n == N - 1
    np.testing.assert_allclose(moments.mean[1], X[known, 1].double().mean(), rtol=1e-12)


def test_the_pool_depends_on_the_ids_alone():
    shuffled = torch.randperm(N, generator=GENERATOR)
    pools = [
        Reference.collect(parts, spec("marginal"), donors=10, seed=4).donors["m"]
        for parts in (batches(N), batches(1), batches(7, order=shuffled))
    ]
    assert len(pools[0].ids) == 10
    for other in pools[1:]:
        assert other.ids == pools[0].ids
        for name in ("x", "y"):
            assert all(
                torch.equal(a, b)
                for a, b in zip(pools[0].values[name], other.values[name], strict=True)
            )
    for sample, x, y in zip(pools[0].ids, pools[0].values["x"], pools[0].values["y"], strict=True):
        at = int(sample.split()[1])
        assert torch.equal(x, X[at]) and torch.equal(y, Y[at])
    assert (
        Reference.collect(batches(N), spec("marginal"), donors=10, seed=5).donors["m"].ids
        != pools[0].ids
    )


def test_donors_have_the_modality_and_keep_no_batch_alive():
    present = np.arange(N) % 2 == 0
    pool = Reference.collect(batches(20, present=present), spec("marginal"), donors=50).donors["m"]
    assert len(pool.ids) == N // 2
    assert all(int(sample.split()[1]) % 2 == 0 for sample in pool.ids)
    assert all(row.untyped_storage().nbytes() == row.nbytes for row in pool.values["x"])


def test_a_pool_that_would_be_too_large_shrinks_and_says_so(monkeypatch):
    monkeypatch.setattr(reference_module, "_LARGEST_POOL", 8 * (4 * 4 + 2 * 8))
    whole = [Reference.collect(batches(size), spec("marginal"), donors=20) for size in (1, 60)]
    assert len(whole[0].donors["m"].ids) == 8
    assert whole[0].donors["m"].ids == whole[1].donors["m"].ids
    assert "8 instead of 20" in whole[0].notes[0].text


def test_nothing_is_read_where_nothing_is_needed():
    def unread():
        raise AssertionError("read")
        yield

    assert not needs_reference(spec("zero"))
    assert Reference.collect(unread(), spec("zero")) == Reference()


@pytest.mark.parametrize(
    "mask, needed",
    [
        ("zero", False),
        ({"constant": 1}, False),
        ("drop", False),
        ({"noise": {"mean": 0, "std": 1}}, False),
        ({"noise": {"std": 1}}, True),
        ("noise", True),
        ("mean", True),
        ("marginal", True),
        ({"x": "zero", "y": "mean"}, True),
    ],
)
def test_which_masks_need_data(mask, needed):
    assert needs_reference(spec(mask)) is needed


def test_the_audited_data_in_place_of_training_data_is_noted():
    made = Reference.collect(batches(10), spec("mean"), source="audited data")
    assert [note.kind for note in made.notes] == ["warning"] and "no training data" in made.notes[
        0
    ].text
    assert not Reference.collect(batches(10), spec("mean")).notes


def test_shapes_that_vary_have_no_mean_but_may_be_donated():
    parts = [
        SimpleNamespace(
            dims={},
            data={"x": torch.ones(2, n), "y": Y[:2]},
            ids=[f"{n} a", f"{n} b"],
            present={"m": np.ones(2, bool)},
        )
        for n in (3, 5)
    ]
    with pytest.raises(SpecError, match=r"modality 'm', input 'x': mask 'mean'.*\(3,\) and \(5,\)"):
        Reference.collect(parts, spec({"x": "mean"}))
    pool = Reference.collect(parts, spec({"x": "marginal"})).donors["m"]
    assert {tuple(row.shape) for row in pool.values["x"]} == {(3,), (5,)}


def test_what_cannot_be_collected():
    absent = np.zeros(N, dtype=bool)
    with pytest.raises(SpecError, match="modality 'm'.*'mean'.*data.train"):
        Reference.collect(batches(9, present=absent), spec("mean"))
    with pytest.raises(SpecError, match="modality 'm'.*'marginal'.*data.train"):
        Reference.collect(batches(9, present=absent), spec("marginal"))
    with pytest.raises(DataError, match="one row per sample"):
        Reference.collect(
            [
                SimpleNamespace(
                    dims={},
                    data={"x": torch.ones(7, 2)},
                    ids=["a"],
                    present={"m": np.ones(1, bool)},
                )
            ],
            spec({"x": "mean"}),
        )
