import pytest
import torch

from mmaudit.exceptions import SpecError
from mmaudit.masking.base import DropMasker, KeepMasker, cast_values, stable_hash
from mmaudit.masking.fill import ConstantMasker, TokenMasker, ZeroMasker

IDS = ["a", "b", "c"]
DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "masker, value", [(ZeroMasker("m", "x"), 0), (ConstantMasker("m", "x", 1), 1)]
)
def test_every_entry_gets_the_value(masker, value, dtype):
    values = torch.ones(3, 2, 4).to(dtype)
    masked = masker(values, IDS)
    assert masked.shape == values.shape and masked.dtype == dtype
    assert (masked == value).all()
    assert (values == 1).all()
    assert masker.constant and not masker.changes_call


def test_gradients_do_not_flow_through_a_fill():
    values = torch.ones(3, 2, requires_grad=True)
    assert not ZeroMasker("m", "x")(values, IDS).requires_grad
    assert not ConstantMasker("m", "x", 0.5)(values, IDS).requires_grad


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_zero_of_a_sparse_tensor_is_an_empty_one(layout):
    dense = torch.eye(3)
    values = dense.to_sparse() if layout == "coo" else dense.to_sparse_csr()
    masked = ZeroMasker("m", "x")(values, IDS)
    assert masked.layout == values.layout and masked.shape == values.shape
    assert masked.to_dense().abs().sum() == 0
    assert values.to_dense().sum() == 3


def test_a_constant_for_a_sparse_tensor_is_refused():
    with pytest.raises(SpecError, match="dense"):
        ConstantMasker("m", "x", 0.5)(torch.eye(3).to_sparse(), IDS)


@pytest.mark.parametrize(
    "value, dtype, allowed",
    [
        (0.5, torch.int64, "whole number"),
        (256, torch.uint8, "0 to 255"),
        (-1, torch.uint8, "0 to 255"),
        (2, torch.bool, "0 or 1"),
        (1e6, torch.float16, "at most 65504"),
    ],
)
def test_a_constant_that_does_not_fit(value, dtype, allowed):
    with pytest.raises(SpecError, match=allowed) as error:
        ConstantMasker("text", "ids", value)(torch.ones(3, 2).to(dtype), IDS)
    assert "modality 'text'" in str(error.value)


def test_token_is_for_integers():
    assert TokenMasker("text", "ids", 103)(
        torch.zeros(3, 2, dtype=torch.int64), IDS
    ).unique().tolist() == [103]
    with pytest.raises(SpecError, match="constant: 103"):
        TokenMasker("text", "ids", 103)(torch.zeros(3, 2), IDS)


def test_keep_and_drop():
    values = torch.ones(3)
    keep, drop = KeepMasker("m", "x"), DropMasker("m", "x")
    assert keep(values, IDS) is values and keep.keeps and not keep.constant
    assert drop.changes_call and drop.constant
    with pytest.raises(SpecError, match="drop"):
        drop(values, IDS)


def test_casts():
    values = torch.tensor([-3.0, 0.5, 1.6, 300.0])
    assert cast_values(values, torch.uint8).tolist() == [0, 0, 2, 255]
    assert cast_values(values, torch.bool).tolist() == [False, True, True, True]
    assert cast_values(torch.tensor([1e30]), torch.int64).item() > 0
    assert cast_values(values, torch.float16).dtype == torch.float16


def test_the_hash_is_the_same_everywhere():
    # A change of these numbers changes every stored audit that draws values.
    assert stable_hash(0, "audio", "1") == 3190978680739351843
    assert stable_hash("ab", "c") != stable_hash("a", "bc")
    assert 0 <= stable_hash("x") < 2**63
