import dataclasses
import types
from collections import OrderedDict, UserDict, namedtuple

import pytest
import torch

from mmaudit.exceptions import DataError
from mmaudit.masking.paths import find_value, get_value, map_tensors, tensor_paths, with_values

Pair = namedtuple("Pair", ["audio", "image"])


@dataclasses.dataclass
class Sample:
    audio: torch.Tensor
    label: int = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    audio: torch.Tensor


class Plain:
    def __init__(self, audio):
        self.audio = audio


class Redirecting(Plain):
    """Puts values elsewhere than where they are found, as graph containers do."""

    def __setattr__(self, name, value):
        if name != "audio" or "audio" in self.__dict__:
            raise AssertionError("the copy must not go through __setattr__")
        self.__dict__[name] = value


X, Y = torch.zeros(2), torch.ones(2)
CONTAINERS = {
    "dict": ({"audio": X, "image": Y}, "audio"),
    "ordered dict": (OrderedDict(audio=X, image=Y), "audio"),
    "user dict": (UserDict(audio=X, image=Y), "audio"),
    "int key": ({0: X, 1: Y}, "0"),
    "key with dots": ({"encoder.audio": X}, "encoder.audio"),
    "list": ([X, Y], "0"),
    "negative index": ((Y, X), "-1"),
    "tuple": ((X, Y), "0"),
    "namedtuple by name": (Pair(X, Y), "audio"),
    "namedtuple by index": (Pair(X, Y), "0"),
    "dataclass": (Sample(X), "audio"),
    "frozen dataclass": (Frozen(X), "audio"),
    "object": (Plain(X), "audio"),
    "object with __setattr__": (Redirecting(X), "audio"),
    "namespace": (types.SimpleNamespace(audio=X), "audio"),
    "nested": ({"a": [Sample(X), (Y,)]}, "a.0.audio"),
    "leading batch": ([{"audio": X}], "batch.0.audio"),
    "key called batch": ({"batch": X}, "batch.batch"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_get_and_replace(name):
    container, path = CONTAINERS[name]
    new = torch.full((2,), 7.0)
    assert get_value(container, path) is X
    assert find_value(container, path) is X
    replaced = with_values(container, {path: new})
    assert type(replaced) is type(container)
    assert get_value(replaced, path) is new
    assert get_value(container, path) is X, "the original has changed"


def test_the_rest_is_shared():
    container = {"a": [X, {"b": Y}], "c": {"d": Y}}
    replaced = with_values(container, {"a.0": Y})
    assert replaced["a"][1] is container["a"][1]
    assert replaced["c"] is container["c"]


def test_batch_alone_is_the_container():
    assert get_value(X, "batch") is X
    assert with_values(X, {"batch": Y}) is Y
    assert tensor_paths(X) == {"batch": X}


def test_several_replacements():
    replaced = with_values((X, {"b": Y}), {"0": 1, "1.b": 2})
    assert replaced == (1, {"b": 2})


def test_transformers_containers():
    transformers = pytest.importorskip("transformers")
    batch = transformers.BatchEncoding({"input_ids": X, "attention_mask": Y})
    replaced = with_values(batch, {"batch.input_ids": Y})
    assert type(replaced) is type(batch)
    assert replaced["input_ids"] is Y and batch["input_ids"] is X
    assert set(tensor_paths(batch)) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    "container, path, words",
    [
        ({"audio": X}, "audoi", ["audoi", "audio"]),
        ([X], "1", ["index 1", "length 1"]),
        ([X], "audio", ["expected an index", "audio"]),
        ({"audio": X}, "audio.0", ["audio.0", "shape (2,)"]),
        ({}, "audio", ["empty dict"]),
        (Plain(X), "image", ["no 'image'", "audio"]),
        ({"a": X}, "a..b", ["empty segment"]),
    ],
)
def test_errors_say_what_is_there(container, path, words):
    calls = [lambda: get_value(container, path)]
    if (
        not isinstance(container, dict) or "." in path
    ):  # a mapping takes a new key: a modality that a batch leaves out
        calls.append(lambda: with_values(container, {path: Y}))
    for call in calls:
        with pytest.raises(DataError) as error:
            call()
        assert "\n" not in str(error.value)
        for word in words:
            assert word in str(error.value)


def test_a_mapping_takes_a_new_last_key():
    batch = {"image": X}
    assert with_values(batch, {"audio": Y}) == {"image": X, "audio": Y}
    assert list(batch) == ["image"]


def test_absent_is_none_but_nonsense_is_an_error():
    assert find_value({"a": 1}, "b") is None
    assert find_value({"a": None}, "a") is None
    assert find_value({"a": None}, "a.b.c") is None
    assert find_value(Plain(X), "image") is None
    with pytest.raises(DataError):
        find_value((X,), "3")
    with pytest.raises(DataError):
        find_value({"a": X}, "a.b")


def test_immutable_containers_are_refused():
    with pytest.raises(DataError, match="mappingproxy"):
        with_values(types.MappingProxyType({"a": X}), {"a": Y})


@pytest.mark.parametrize("name", CONTAINERS)
def test_tensor_paths_lead_to_their_tensors(name):
    container, _ = CONTAINERS[name]
    found = tensor_paths(container)
    assert found
    for path, tensor in found.items():
        assert get_value(container, path) is tensor


def test_map_tensors_shares_what_does_not_change():
    container = {"x": X, "more": [Y, "text", None], "same": {"n": 1}}
    doubled = map_tensors(container, lambda t: t + 1)
    assert doubled["x"].tolist() == [1, 1] and doubled["more"][0].tolist() == [2, 2]
    assert doubled["more"][1:] == ["text", None]
    assert doubled["same"] is container["same"]
    assert map_tensors(container, lambda t: t) is container
    assert X.tolist() == [0, 0]
