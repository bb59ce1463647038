import pytest
import torch

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.noise import NoiseMasker
from mmaudit.masking.reference import Moments


def by_id(masker, values, ids, batch):
    masked = {}
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        masked |= dict(zip(part, masker(values[start : start + batch], part), strict=True))
    return masked


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_noise_depends_on_the_sample_alone(dtype):
    masker = NoiseMasker("m", "x", seed=3, mean=100, std=20)
    ids = [f"s{i}" for i in range(17)]
    values = torch.zeros(17, 4, 3, dtype=dtype)
    expected = by_id(masker, values, ids, 17)
    for batch in (1, 5):
        other = by_id(masker, values + 1, ids, batch)
        assert all(torch.equal(expected[i], other[i]) for i in ids)
    backwards = by_id(masker, values, ids[::-1], 6)
    assert all(torch.equal(expected[i], backwards[i]) for i in ids)
    assert expected["s0"].dtype == dtype
    assert not torch.equal(expected["s0"], expected["s1"])


def test_seed_modality_and_input_change_the_draw():
    values = torch.zeros(1, 8)
    drawn = [
        NoiseMasker(m, x, seed=seed, mean=0, std=1)(values, ["a"])
        for m, x, seed in [("m", "x", 0), ("m", "x", 1), ("n", "x", 0), ("m", "y", 0)]
    ]
    assert all(not torch.equal(drawn[0], other) for other in drawn[1:])


def test_moments_of_the_draw():
    drawn = NoiseMasker("m", "x", seed=0, mean=5, std=2)(
        torch.zeros(200, 100), [str(i) for i in range(200)]
    )
    # 20,000 draws: standard errors 0.014 and 0.010; five of them.
    assert abs(drawn.mean().item() - 5) < 0.07
    assert abs(drawn.std().item() - 2) < 0.05


def test_statistics_of_the_data_are_used_entry_by_entry():
    known = Moments(
        9, torch.tensor([0.0, 100.0]).double(), torch.tensor([1.0, 0.0]).double(), 0, 100
    )
    masker = NoiseMasker("m", "x", seed=0, moments=known)
    drawn = masker(torch.zeros(500, 2), [str(i) for i in range(500)])
    assert (drawn[:, 1] == 100).all() and abs(drawn[:, 0].std().item() - 1) < 0.15
    integers = masker(torch.zeros(500, 2, dtype=torch.int64), [str(i) for i in range(500)])
    assert integers.min() >= 0 and integers.max() <= 100
    with pytest.raises(DataError, match="std"):
        masker(torch.zeros(2, 3), ["a", "b"])


def test_one_setting_may_be_given():
    known = Moments(9, torch.tensor([50.0]).double(), torch.tensor([1.0]).double(), 0, 100)
    assert (
        NoiseMasker("m", "x", seed=0, std=0, moments=known)(torch.zeros(2, 1), ["a", "b"]) == 50
    ).all()


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    NoiseMasker("m", "x", seed=0, mean=0, std=1)(torch.zeros(3, 2), ["a", "b", "c"])
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_noise():
    masker = NoiseMasker("m", "x", seed=0, mean=0, std=1)
    with pytest.raises(SpecError, match="real numbers"):
        masker(torch.zeros(1, 2, dtype=torch.bool), ["a"])
    with pytest.raises(DataError, match="one row per sample"):
        masker(torch.zeros(3, 2), ["a"])
    with pytest.raises(SpecError, match="dense"):
        masker(torch.eye(1).to_sparse(), ["a"])
    with pytest.raises(SpecError, match="'mean' and 'std'"):
        NoiseMasker("m", "x", seed=0, mean=0)
