import pytest
import torch

from mmaudit.exceptions import DataError
from mmaudit.masking.mean import MeanMasker
from mmaudit.masking.reference import Moments


def moments(mean):
    mean = torch.as_tensor(mean, dtype=torch.float64)
    return Moments(10, mean, torch.ones_like(mean), -1.0, 3.0)


def test_every_sample_becomes_the_mean():
    masked = MeanMasker("m", "x", moments([0.25, 2.5]))(torch.randn(3, 2), ["a", "b", "c"])
    assert masked.tolist() == [[0.25, 2.5]] * 3 and masked.dtype == torch.float32
    masked[0] = 9
    assert masked[1].tolist() == [0.25, 2.5], "rows share memory"


def test_integers_are_rounded_and_booleans_become_the_majority():
    masker = MeanMasker("m", "x", moments([0.25, 2.6]))
    assert masker(torch.zeros(1, 2, dtype=torch.int64), ["a"]).tolist() == [[0, 3]]
    assert MeanMasker("m", "x", moments([0.2, 0.7]))(
        torch.zeros(1, 2, dtype=torch.bool), ["a"]
    ).tolist() == [[False, True]]


def test_another_shape_is_refused():
    with pytest.raises(DataError, match=r"\(2,\) per sample, this batch \(3,\)"):
        MeanMasker("m", "x", moments([0.0, 0.0]))(torch.zeros(1, 3), ["a"])


def test_the_record_says_where_the_mean_is_from():
    assert MeanMasker("m", "x", moments([0.0])).describe() == "mean of the training data (n = 10)"
    assert (
        MeanMasker("m", "x", moments([0.0]), "audited data").describe()
        == "mean of the audited data (n = 10)"
    )
