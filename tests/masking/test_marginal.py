import pytest
import torch

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.marginal import MarginalMasker, donor_positions
from mmaudit.masking.reference import Donors


def pool(ids, shape=(3,), dtype=torch.float32):
    rows = [torch.full(shape, i + 1).to(dtype) for i in range(len(ids))]
    return Donors(tuple(ids), {"x": rows, "y": [row * 10 for row in rows]})


def test_never_its_own():
    ids = [str(i) for i in range(40)]
    for size in (2, 3, 40):
        chosen = donor_positions(ids, ids[:size], seed=1)
        assert all(ids[:size][at] != sample for at, sample in zip(chosen, ids, strict=True))
    assert len(set(donor_positions(ids, ids, seed=1))) > 20


def test_values_come_from_the_pool_whatever_the_batches():
    ids = [str(i) for i in range(30)]
    masker = MarginalMasker("m", "x", donors=pool(ids), seed=0)
    values = torch.zeros(30, 3)
    whole = masker(values, ids)
    assert set(whole[:, 0].tolist()) <= set(range(1, 31))
    assert all(whole[i, 0] != i + 1 for i in range(30)), "a sample got its own values"
    parts = torch.cat([masker(values[i : i + 7], ids[i : i + 7]) for i in range(0, 30, 7)])
    assert torch.equal(whole, parts)
    assert torch.equal(whole.flip(0), masker(values, ids[::-1]))
    assert not torch.equal(whole, MarginalMasker("m", "x", donors=pool(ids), seed=1)(values, ids))


def test_all_inputs_of_a_modality_take_the_same_donor():
    donors, ids = pool(["a", "b", "c", "d"]), ["a", "b", "z"]
    x = MarginalMasker("m", "x", donors=donors, seed=0)(torch.zeros(3, 3), ids)
    y = MarginalMasker("m", "y", donors=donors, seed=0)(torch.zeros(3, 3), ids)
    assert torch.equal(x * 10, y)


@pytest.mark.parametrize("length", [2, 5, 9])
def test_sequences_are_cropped_or_padded_with_zeros(length):
    donors = Donors(("a", "b"), {"x": [torch.full((5, 2), 1.0), torch.full((3, 2), 2.0)]})
    masked = MarginalMasker("m", "x", donors=donors, seed=0)(torch.zeros(2, length, 2), ["a", "b"])
    for row, (value, own) in zip(masked, [(2.0, 3), (1.0, 5)], strict=True):
        known = min(own, length)
        assert (row[:known] == value).all() and (row[known:] == 0).all()


def test_dtype_follows_the_input_and_the_pool_stays():
    donors = pool(["a", "b"])
    masked = MarginalMasker("m", "x", donors=donors, seed=0)(
        torch.zeros(2, 3, dtype=torch.float16), ["a", "b"]
    )
    assert masked.dtype == torch.float16
    masked.zero_()
    assert MarginalMasker("m", "x", donors=donors, seed=0)(torch.zeros(2, 3), ["a", "b"]).min() == 1


def test_what_cannot_be_donated():
    with pytest.raises(SpecError, match="at least 2"):
        MarginalMasker("m", "x", donors=pool(["a"]), seed=0)
    masker = MarginalMasker("m", "x", donors=pool(["a", "b"], (3, 2)), seed=0)
    with pytest.raises(DataError, match=r"\(3, 2\).*\(3, 4\)"):
        masker(torch.zeros(2, 3, 4), ["a", "b"])
    with pytest.raises(DataError, match="one row per sample"):
        masker(torch.zeros(5, 3, 2), ["a", "b"])
