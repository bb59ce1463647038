"""Recognising masked inputs among a model's arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudit.exceptions import DataError
from mmaudit.masking.absence import Absence, Fill, find_fills
from mmaudit.masking.calling import Caller
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import MaskingSpec


def absent_samples(fills: list[Fill], tensors: list[Tensor], args: Any, kwargs: Any) -> Tensor:
    absence = Absence(fills)
    absence.set_values(tensors)
    again = Absence(fills)
    again.load_state_dict(absence.state_dict())
    return again(*again.inputs(args, kwargs))


def found(batch: dict[str, Any], modalities: dict[str, Any], call: dict[str, Any]) -> Any:
    spec = MaskingSpec.model_validate({"modalities": modalities, "call": call})
    prepared = in_memory_batch(batch, spec, torch.device("cpu"))
    caller = Caller(lambda *args, **kwargs: None, spec)
    return (*find_fills(caller, prepared), prepared, caller)


BATCHES: dict[str, tuple[Any, Any]] = {
    # values of four samples, mask
    "zero": (torch.randn(4, 3), "zero"),
    "zero of one number": (torch.tensor([1.0, 2.0, 3.0, 4.0]), "zero"),
    "zero of truth values": (torch.ones(4, 3, dtype=torch.bool), "zero"),
    "constant that float32 rounds": (torch.randn(4, 2, 3), {"constant": 0.1}),
    "infinite constant": (torch.randn(4, 3), {"constant": float("inf")}),
    "nan constant": (torch.randn(4, 3), {"constant": float("nan")}),
    "token": (torch.arange(12).reshape(4, 3) + 10, {"token": 7}),
    "mean": (torch.randn(4, 3), "mean"),
    "mean of integers": (torch.arange(12).reshape(4, 3) ** 2, "mean"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_every_constant_mask_is_recognised_and_nothing_else(name: str) -> None:
    values, mask = BATCHES[name]
    batch = {"x": values, "y": torch.randn(4, 2)}
    modalities = {"a": {"inputs": "x", "mask": mask}, "b": "y"}
    fills, tensors, prepared, caller = found(
        batch, modalities, {"args": ["y"], "kwargs": {"x": "x"}}
    )
    # What is saved comes back the same.
    (fill,) = [Fill.model_validate_json(f.model_dump_json()) for f in fills["a"]]
    assert fill.argument == "x" and (fill.shape is None) == (not tensors["a"])
    stored = tensors["a"]
    for bits, expected in ((3, [False] * 4), (2, [True] * 4)):
        args, kwargs = caller.arguments(prepared.coalition(bits))
        same = absent_samples([fill], stored, args, kwargs)
        assert same.tolist() == expected
    mixed = values.clone()
    stand_in = prepared.masked("x")
    assert stand_in is not None
    mixed[1] = stand_in[1]
    same = absent_samples([fill], stored, [], {"x": mixed})
    assert same.tolist() == [False, True, False, False]


def test_all_inputs_of_a_modality_have_to_be_absent_and_kept_ones_do_not_count() -> None:
    batch = {
        "in": [torch.randn(4, 5), {"ids": torch.full((4, 5), 9), "length": torch.full((4,), 5)}],
        "y": torch.randn(4, 2),
    }
    modalities = {
        "text": {
            "inputs": {"wave": "in.0", "ids": "in.1.ids", "length": "in.1.length"},
            "mask": {"wave": "zero", "ids": {"token": 2}, "length": "keep"},
        },
        "b": "y",
    }
    fills, tensors, prepared, caller = found(batch, modalities, {"args": ["batch"]})
    assert [(f.argument, f.path, f.value) for f in fills["text"]] == [
        (0, "in.0", 0.0),
        (0, "in.1.ids", 2.0),
    ]
    args, kwargs = caller.arguments(prepared.whole)
    args[0]["in"][0][:2] = 0
    args[0]["in"][1]["ids"][1:] = 2
    same = absent_samples(fills["text"], tensors["text"], args, kwargs)
    assert same.tolist() == [False, True, False, False]


def test_samples_need_not_come_first() -> None:
    batch = {"x": torch.ones(6, 4, 3), "y": torch.randn(4, 2)}
    fills, _, prepared, caller = found(batch, {"a": "x", "b": "y"}, {"args": ["x", "y"]})
    assert prepared.dims["x"] == 1
    batch["x"][:, 2] = 0
    same = absent_samples(fills["a"], [], *caller.arguments(batch))
    assert same.tolist() == [False, False, True, False]


@pytest.mark.parametrize("mask", ["marginal", "noise"])
def test_masks_that_draw_are_never_seen(mask: str) -> None:
    batch = {"x": torch.randn(4, 3), "z": torch.randn(4, 3), "y": torch.randn(4, 2)}
    modalities = {
        "a": {
            "inputs": ["x", "z"],
            "mask": {"x": mask, "z": mask if mask == "marginal" else "zero"},
        },
        "b": "y",
    }
    fills, _, _, _ = found(batch, modalities, {"args": ["x", "z", "y"]})
    assert fills["a"] == [] and len(fills["b"]) == 1


def test_inputs_that_do_not_reach_the_model_tell_nothing() -> None:
    batch = {"x": torch.randn(4, 3), "y": torch.randn(4, 2)}
    fills, _, _, _ = found(batch, {"a": "x", "b": "y"}, {"args": ["y"]})
    assert fills["a"] == []


def test_an_input_left_out_of_the_call_tells_nothing_by_its_values() -> None:
    batch = {"x": torch.randn(4, 3), "y": torch.randn(4, 2)}
    modalities = {"a": {"inputs": "x", "mask": "drop"}, "b": "y"}
    fills, _, _, _ = found(batch, modalities, {"args": ["x", "y"]})
    assert fills["a"] == [Fill(argument=0)]
    assert Absence(fills["a"]).inputs([None, batch["y"]], {}) == [None]
    assert Absence(fills["a"]).inputs([], {}) == [None]
    same = absent_samples(fills["a"], [], [torch.zeros(4, 3), batch["y"]], {})
    assert not same.any()


def test_a_mean_of_another_shape_is_no_absence() -> None:
    fill = Fill(argument=0, shape=(3,))
    same = absent_samples([fill], [torch.zeros(3)], [torch.zeros(2, 5)], {})
    assert not same.any()


def test_sparse_inputs() -> None:
    dense = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    same = absent_samples([Fill(argument=0, value=0.0)], [], [dense.to_sparse()], {})
    assert same.tolist() == [False, True]


def test_an_argument_of_another_form_is_refused() -> None:
    with pytest.raises(DataError):
        absent_samples([Fill(argument=0, path="3", value=0.0)], [], [[torch.zeros(2)]], {})
