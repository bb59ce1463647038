from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from mmaudit.exceptions import SpecError
from mmaudit.masking import spec as spec_module
from mmaudit.masking.build import MASKERS, build_maskers, describe_masks
from mmaudit.masking.reference import Reference
from mmaudit.masking.spec import MaskingSpec

IDS = [f"s{i}" for i in range(12)]
DATA = {"x": torch.randn(12, 3, generator=torch.Generator().manual_seed(1))}
MASKS = {
    "zero": "zero",
    "constant": {"constant": 0.5},
    "token": {"token": 3},
    "mean": "mean",
    "noise": "noise",
    "marginal": "marginal",
    "drop": "drop",
    "keep": "keep",
    "custom": {"custom": "own:mask"},
}


def make(mask, **options):
    spec = MaskingSpec(
        modalities={"m": {"inputs": {"x": "x", "other": "other"}, "mask": {"x": mask}}}
    )
    batch = SimpleNamespace(dims={}, data=DATA, ids=IDS, present={"m": np.ones(12, bool)})
    reference = Reference.collect([batch], spec, donors=6)
    functions = {"own:mask": lambda values, ids, generator: values * 0 + 2}
    return build_maskers(spec, reference, seed=1, functions=functions)["m"]["x"]


def test_the_table_has_every_mask_of_the_spec():
    kinds = {
        kind
        for model in get_args(get_args(spec_module.MaskSpec)[0])
        for kind in get_args(model.model_fields["kind"].annotation)
    }
    assert kinds == set(MASKERS) == set(MASKS)
    assert all(masker.key == key for key, masker in MASKERS.items())


@pytest.mark.parametrize("key", [key for key in MASKS if key != "drop"])
def test_masks_of_a_sample_do_not_depend_on_the_batch(key):
    masker = make(MASKS[key])
    assert type(masker) is MASKERS[key]
    values = torch.zeros(12, 3, dtype=torch.int64) if key == "token" else DATA["x"]
    whole = masker(values, IDS)
    assert whole.shape == values.shape and whole.dtype == values.dtype
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    for size in (1, 5, 12):
        for rows in order.split(size):
            assert torch.equal(whole[rows], masker(values[rows], [IDS[i] for i in rows]))


@pytest.mark.parametrize("key", [key for key in MASKS if MASKERS[key].constant and key != "drop"])
def test_constant_masks_ignore_the_values(key):
    masker = make(MASKS[key])
    values = torch.randint(0, 9, (3, 3)) if key == "token" else torch.randn(3, 3)
    assert torch.equal(masker(values, IDS[:3]), masker(values + 1, IDS[3:6]))


@pytest.mark.parametrize("mask", ["mean", "marginal", "noise", {"noise": {"std": 1}}])
def test_masks_without_their_data_name_what_to_add(mask):
    spec = MaskingSpec(modalities={"audio": {"inputs": "x", "mask": mask}})
    for reference in (None, Reference()):
        with pytest.raises(SpecError, match=r"modality 'audio': mask '.*data\.train") as error:
            build_maskers(spec, reference)
        assert "\n" not in str(error.value)


def test_a_custom_mask_without_its_function():
    spec = MaskingSpec(modalities={"audio": {"inputs": "x", "mask": {"custom": "own:mask"}}})
    with pytest.raises(SpecError, match="own:mask"):
        build_maskers(spec)


def test_words_for_the_record():
    spec = MaskingSpec(
        modalities={
            "text": {
                "inputs": {"ids": "a", "mask": "b"},
                "mask": {"ids": {"token": 0}, "mask": "keep"},
            },
            "image": {"inputs": ["c", "d"], "mask": {"constant": 0.5}},
        }
    )
    assert describe_masks(build_maskers(spec)) == {
        "text": "ids: token 0, mask: keep",
        "image": "constant 0.5",
    }
