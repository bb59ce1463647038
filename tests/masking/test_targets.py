"""What is true of samples, in the form of each task; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.batches import BatchParser
from mmaudit.masking.spec import AuditSpec, ExpectedSpec, MaskingSpec, OutputSpec, read_spec
from mmaudit.masking.targets import read_targets

IDS = ["p", "q"]


def spec(task, **more):
    return MaskingSpec(modalities={"a": "a"}, target="y", task=task, **more)


@pytest.mark.parametrize(
    ("task", "value", "found", "dtype"),
    [
        ("multiclass", [1, 0], [1, 0], np.int32),
        ("segments", [[0, 2, -100], [1, -1, 0]], [[0, 2, -1], [1, -1, 0]], np.int32),
        (
            "segments",
            torch.tensor([[0.0, float("nan")], [1.0, -1.0]]),
            [[0, -1], [1, -1]],
            np.int32,
        ),
        ("multilabel", torch.tensor([[True, False], [False, False]]), [[1, 0], [0, 0]], np.int8),
        ("multilabel", np.array([[1.0, np.nan], [-1.0, 0.0]]), [[1, -1], [-1, 0]], np.int8),
        ("multilabel", [1, 0], [[1], [0]], np.int8),
        ("regression", torch.tensor([1.5, -2.0]), [[1.5], [-2.0]], np.float64),
        ("regression", torch.tensor([[1.5], [-2.0]]), [[1.5], [-2.0]], np.float64),
        ("regression", np.array([[3, 4], [5, 6]], np.int16), [[3, 4], [5, 6]], np.float64),
        ("regression", torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16), [[1], [3]], np.float64),
    ],
)
def test_forms(task, value, found, dtype):
    read = read_targets(value, spec(task), IDS)
    assert read.dtype == dtype and read.tolist() == found


def test_unknown_numbers_stay_unknown():
    read = read_targets(np.array([[1.0, np.nan], [2.0, 3.0]]), spec("regression"), IDS)
    assert np.isnan(read).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("task", "value", "more", "said"),
    [
        ("segments", [0, 1], {}, "one class for each segment"),
        (
            "segments",
            [[0, 1], [0, 2]],
            {"classes": ["x", "y"]},
            "sample 'q' has target 2 in segment 1",
        ),
        ("segments", [[0.5, 1], [0, 2]], {}, "target 0.5 in segment 0; expected an integer"),
        ("segments", [["x"], ["y"]], {}, "expects one class for each segment"),
        ("segments", [[1, 2], [3]], {}, "rows of different lengths"),
        ("multilabel", [[0, 2], [1, 1]], {}, "target 2 for label 1; expected 0 or 1"),
        ("multilabel", [[0.3, 1.0], [1, 1]], {}, "target 0.3"),
        (
            "multilabel",
            [[0, 1], [1, 1]],
            {"classes": ["only"]},
            "2 labels, but the spec's classes name 1",
        ),
        ("regression", [1.0, float("inf")], {}, "sample 'q' has an infinite target"),
        ("regression", ["a", "b"], {}, "expects numbers"),
        ("regression", np.zeros((2, 3, 4)), {}, "expected one row of numbers"),
        ("regression", np.zeros((3, 1)), {}, "for 2 samples"),
        (
            "regression",
            np.zeros((2, 2)),
            {"classes": ["x"]},
            "2 numbers, but the spec's classes name 1",
        ),
    ],
)
def test_refused(task, value, more, said):
    with pytest.raises(DataError, match=said):
        read_targets(value, spec(task, **more), IDS)


def test_numbers_keep_the_precision_in_which_they_came():
    exact = 1e9 + 0.125
    raw = {"a": np.zeros((2, 1)), "y": np.array([exact, 0.0])}
    batch = BatchParser(spec("regression"), lambda note: None).parse(raw, 0, 0)
    assert batch.targets[0, 0] == exact and float(np.float32(exact)) != exact


def test_a_regression_predicts_values_without_being_told():
    assert spec("regression").outputs.kind == "values"
    assert spec("regression", outputs=OutputSpec(path="out")).outputs == OutputSpec(
        path="out", kind="values"
    )
    again = MaskingSpec.model_validate(spec("regression").model_dump(mode="json"))
    assert again == spec("regression")
    assert spec("multilabel").outputs.kind == "logits"


@pytest.mark.parametrize(
    "more", [{"task": "regression", "outputs": {"kind": "logits"}}, {"outputs": {"kind": "values"}}]
)
def test_a_kind_that_does_not_fit_the_task(more):
    with pytest.raises(SpecError, match="does not fit task"):
        read_spec({"modalities": {"a": "a"}, **more}, MaskingSpec)


def test_exact_coalitions_end_at_twelve():
    twelve = {f"m{i}": str(i) for i in range(12)}
    assert len(read_spec({"modalities": twelve}, MaskingSpec).names) == 12
    with pytest.raises(SpecError, match="13 modalities: exact coalitions end at 12.*into one"):
        read_spec({"modalities": {**twelve, "m12": "12"}}, MaskingSpec)
    with pytest.raises(SpecError, match="expected at least one"):
        read_spec({"modalities": {}}, MaskingSpec)


def test_the_expected_score_has_the_name_of_the_task():
    assert ExpectedSpec.model_validate({"R2": 0.8}) == ExpectedSpec(accuracy=0.8)
    found = AuditSpec.model_validate(
        {"modalities": {"a": "a"}, "data": "m:f", "expected": {"R2": 0.5, "tolerance": 0.1}}
    )
    assert found.expected == ExpectedSpec(accuracy=0.5, tolerance=0.1)
