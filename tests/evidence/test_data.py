import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from mmaudit.evidence.data import open_source
from mmaudit.exceptions import DataError
from mmaudit.masking.reference import Reference
from mmaudit.masking.spec import MaskingSpec, SourceSpec
from mmaudit.masking.targets import class_indices

NAN = float("nan")


def batch(**more):
    return {"a": torch.ones(3, 2), "b": torch.zeros(3, 4), "y": torch.tensor([0, 2, 1])} | more


def spec(**more):
    return MaskingSpec(**({"modalities": {"a": "a", "b": "b"}, "target": "y"} | more))


def parse(*batches, **more):
    return list(open_source(list(batches), spec(**more)).batches())


def sentence(*batches, **more):
    with pytest.raises(DataError) as error:
        parse(*batches, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_batch():
    given = batch(group=["p", "q", "p"], name=["u", "v", "w"], rest=object())
    (read,) = parse(given, ids="name", group="group")
    assert read.ids == ["u", "v", "w"] and read.groups == ["p", "q", "p"]
    assert read.targets.tolist() == [0, 2, 1] and read.targets.dtype == np.int32
    assert {name: rows.tolist() for name, rows in read.present.items()} == {
        "a": [True] * 3,
        "b": [True] * 3,
    }
    assert (read.index, read.start, read.n) == (0, 0, 3)
    assert read.data is given, "nothing had to be changed"
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.n = 4


def test_running_numbers_and_no_target():
    first, second = parse(
        (torch.ones(3, 2), torch.ones(3)),
        (torch.ones(2, 2), torch.ones(2)),
        modalities={"a": "0"},
        target=None,
    )
    assert first.ids == ["0", "1", "2"] and second.ids == ["3", "4"] and second.start == 3
    assert first.targets is None and first.groups is None and second.n == 2


def test_arrays_become_tensors():
    source = open_source([batch(a=np.ones((3, 2)), y=np.array([0, 1, 2]))], spec())
    (read,) = source.batches()
    assert read.data["a"].dtype == torch.float32 and read.targets.tolist() == [0, 1, 2]
    assert "float64 to float32" in source.notes[0].text


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": torch.arange(150.0), "y": np.zeros(150, int), "b": torch.ones(150, 2)},
        TensorDataset(torch.arange(150.0)),
    ],
)
def test_arrays_and_datasets_are_cut_into_batches(arrays):
    changes = {} if isinstance(arrays, dict) else {"modalities": {"a": "0"}, "target": None}
    source = open_source(arrays, spec(**changes))
    sizes = [read.n for read in source.batches()]
    assert sizes == [64, 64, 22] and source.samples == 150
    assert [read.n for read in open_source(arrays, spec(**changes), batch_size=100).batches()] == [
        100,
        50,
    ]


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1],
        torch.tensor([2, 0, 1], dtype=torch.uint8),
        torch.tensor([[2.0], [0.0], [1.0]]),
        torch.tensor([2, 0, 1], dtype=torch.bfloat16),
        np.array([2, 0, 1], dtype=np.int16),
        ["fox", "cat", "dog"],
        np.array(["fox", "cat", "dog"]),
        [b"fox", b"cat", b"dog"],
    ],
)
def test_labels(labels):
    classes = class_indices(labels, ["a", "b", "c"], names=("cat", "dog", "fox"))
    assert classes.tolist() == [2, 0, 1] and classes.dtype == np.int32


def test_boolean_labels():
    assert class_indices(torch.tensor([True, False]), ["a", "b"], classes=2).tolist() == [1, 0]


@pytest.mark.parametrize(
    "labels, names, words",
    [
        ([0, 3], ("x", "y"), ["sample 'b' has target 3", "[0, 2)"]),
        ([0, -100], None, ["sample 'b' has target -100", "at least 0"]),
        ([0.5, 1], None, ["sample 'a' has target 0.5"]),
        ([1.0, NAN], None, ["sample 'b' has target nan"]),
        ([2**40, 1], None, ["sample 'a'"]),
        (["x", "z"], ("x", "y"), ["sample 'b' has target 'z'", "x, y"]),
        (["x", "z"], None, ["'classes'"]),
        ([[0, 1], [1, 0]], None, ["(2, 2)"]),
        ([0], None, ["(1,) for 2 samples"]),
        ([1j, 0], None, ["complex128"]),
    ],
)
def test_labels_that_are_none(labels, names, words):
    with pytest.raises(DataError) as error:
        class_indices(labels, ["a", "b"], names=names)
    assert all(word in str(error.value) for word in words)


def test_binary_targets_are_two():
    assert "[0, 2)" in sentence(batch(), task="binary")


def test_absent_modalities_are_data():
    first, second, third = parse(
        batch(),
        {"b": torch.zeros(3, 4), "y": [0, 0, 0]},
        batch(b=None),
        modalities={"a": "a", "b": "b"},
    )
    assert first.present["a"].all() and not second.present["a"].any() and second.present["b"].all()
    assert third.present["a"].all() and not third.present["b"].any()


def test_a_column_says_which_samples_have_a_modality():
    modalities = {"a": {"inputs": "a", "present": "has_a"}, "b": "b"}
    for flags in (
        [True, False, True],
        torch.tensor([1, 0, 1]),
        torch.tensor([[1.0], [0.0], [1.0]]),
    ):
        (read,) = parse(batch(has_a=flags), modalities=modalities)
        assert read.present["a"].tolist() == [True, False, True] and read.present["b"].all()
    assert "boolean for each of 3" in sentence(batch(has_a=[1, 2, 0]), modalities=modalities)


def test_rows_of_nan_are_absent_samples():
    rows = torch.tensor([[NAN, NAN], [NAN, 1.0], [1.0, 2.0]])
    source = open_source([batch(a=rows), batch(a=rows)], spec())
    for read in source.batches():
        assert read.present["a"].tolist() == [False, True, True] and read.present["b"].all()
    assert len(source.notes) == 1 and "'a' are all NaN" in source.notes[0].text
    pair = {"modalities": {"both": {"inputs": ["a", "b"]}}}
    assert parse(batch(a=rows), **pair)[0].present["both"].all(), "the other input is there"
    gone = torch.full((3, 4), NAN)
    assert parse(batch(a=rows, b=gone), **pair)[0].present["both"].tolist() == [False, True, True]


def test_a_modality_found_nowhere_is_an_error_after_a_whole_reading():
    text = sentence(batch(), modalities={"a": "a", "b": "audoi"})
    assert "no sample has modality 'b' (path 'audoi')" in text and "a, b, y" in text
    source = open_source([batch(), batch(b=None)], spec())
    assert len(list(source.batches(skip=1))) == 1


@pytest.mark.parametrize(
    "batches, changes, words",
    [
        ([], {}, "expected at least one"),
        ([batch(y=[])], {}, "is empty"),
        ([batch()], {"target": "z"}, "no 'z' in a dict with a, b, y"),
        ([batch(y=torch.tensor(1))], {}, "single number"),
        (
            [batch(), batch(a=torch.ones(3, 2).double())],
            {},
            "batch 1: modality 'a', path 'a': torch.float64",
        ),
        ([batch(), batch(a=torch.ones(3, 2, 1))], {}, "3 dimensions"),
        ([batch(a=["some", "raw", "text"])], {}, "found list"),
        ([batch(n=["u", "v", "u"])], {"ids": "n"}, "sample id 'u' occurs twice"),
        (
            [batch(n=["u", "v", "w"]), batch(n=["x", "w", "y"])],
            {"ids": "n"},
            "batch 1: sample id 'w' occurs twice",
        ),
        ([batch(n=["u", "v"])], {"ids": "n"}, "2 values for 3 samples"),
        ([batch(n=["u", None, "w"])], {"group": "n"}, "nothing for '1'"),
        ([batch(c=None)], {"modalities": {"a": {"inputs": ["a", "c"]}}}, "has 'a' but not 'c'"),
        ([{"z": 1}], {"target": None}, "neither a target nor"),
    ],
)
def test_bad_batches(batches, changes, words):
    assert words in sentence(*batches, **changes)


def test_many_ids_take_little_memory_and_are_still_compared():
    from mmaudit.masking.batches import _SeenIds

    seen = _SeenIds()
    for start in range(0, 100_000, 500):
        assert seen.add([f"clip {i}" for i in range(start, start + 500)]) is None
    assert seen._sorted.nbytes <= 8 * 100_000 and len(seen._recent) < 2**15
    assert seen.add(["clip 100000", "clip 3"]) == "clip 3"
    assert seen.add(["clip 99999"]) == "clip 99999"


def test_a_source_that_raises_is_one_sentence():
    def broken():
        yield batch()
        raise OSError("disk\ngone")

    source = open_source(broken, spec())
    reading = source.batches()
    next(reading)
    with pytest.raises(DataError, match="batch 1 could not be read: OSError: disk gone"):
        next(reading)


@pytest.mark.parametrize("source", [3, "nothing.txt", torch.ones(3), {}, None])
def test_what_is_no_source(source):
    with pytest.raises((DataError, ValueError), match="expected|neither"):
        open_source(source, spec())


def test_several_loaders_are_said_to_be_a_mapping():
    loaders = {"train": torch.utils.data.DataLoader([1]), "test": torch.utils.data.DataLoader([1])}
    with pytest.raises(
        DataError, match="found a dict of train, test; give one of them.* under 'train'"
    ):
        open_source(loaders, spec())


def test_arguments():
    source = open_source([batch()], spec())
    for options in ({"skip": -1}, {"stride": 0}, {"stride": 2, "offset": 2}):
        with pytest.raises(ValueError, match="offset < stride"):
            source.batches(**options)


def test_a_factory(tmp_path):
    numbers = {"modalities": {"m": "x"}, "target": "y", "ids": "id"}
    source = open_source(
        SourceSpec(
            factory="tests.evidence.datasets:factory",
            args={"n": 6, "batch_size": 4, "shuffle": True},
        ),
        spec(**numbers),
    )
    assert [i for read in source.batches() for i in read.ids] == [f"s{i}" for i in range(6)]
    assert source.files[0].role == "code" and source.files[0].path.endswith("datasets.py")


def test_two_halves_make_the_whole():
    source = open_source([batch(y=[i % 3, 0, 1]) for i in range(7)], spec())
    whole = list(source.batches())
    halves = [list(source.batches(stride=2, offset=k)) for k in (0, 1)]
    merged = [b for pair in itertools.zip_longest(*halves) for b in pair if b is not None]
    assert [(b.start, b.ids, b.targets.tolist()) for b in merged] == [
        (b.start, b.ids, b.targets.tolist()) for b in whole
    ]


def test_masks_take_their_reference_from_a_source():
    made = Reference.collect(
        open_source([batch(), batch()], spec()).batches(),
        spec(modalities={"a": {"inputs": "a", "mask": "mean"}}),
    )
    assert made.moments["a"]["a"].n == 6 and made.moments["a"]["a"].mean.tolist() == [1, 1]
