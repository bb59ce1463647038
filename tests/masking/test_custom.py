import pytest
import torch

from mmaudit.exceptions import SpecError
from mmaudit.masking.custom import CustomMasker


def make(function):
    return CustomMasker("m", "x", function=function, seed=0, name="masks:own")


def test_the_function_gets_a_copy_ids_and_a_seeded_generator():
    seen = []

    def own(values, ids, generator):
        seen.append(ids)
        return values.zero_() + torch.rand(values.shape, generator=generator)

    values = torch.ones(2, 3)
    first, second = make(own)(values, ["a", "b"]), make(own)(values, ["a", "b"])
    assert torch.equal(first, second) and not torch.equal(first, make(own)(values, ["a", "c"]))
    assert seen[0] == ["a", "b"] and (values == 1).all()
    assert make(own).describe() == "custom masks:own"


@pytest.mark.parametrize(
    "function, words",
    [
        (lambda v, i, g: None, "NoneType"),
        (lambda v, i, g: v[:1], r"shape \(1, 3\)"),
        (lambda v, i, g: v.double(), "float64"),
        (lambda v, i, g: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_it_returns_is_checked(function, words):
    with pytest.raises(SpecError, match=words) as error:
        make(function)(torch.ones(2, 3), ["a", "b"])
    assert "custom masks:own" in str(error.value)
