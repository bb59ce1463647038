from __future__ import annotations

import collections
import fractions
import io
import pickle
import pickletools

import pytest
import torch

from mmaudit.checkpoint import pickled_names
from mmaudit.checkpoint.pickled_names import (
    HIDDEN,
    UNREAD,
    TooLongError,
    names_in_file,
    names_in_pickle,
)
from tests.checkpoint.files import gadgets, hostile_files, tar_bytes

VALUE = {
    "a": collections.OrderedDict(x=1),
    "b": [collections.Counter("aa"), collections.OrderedDict()],
    "c": fractions.Fraction,
}
NAMES = {"collections.OrderedDict", "collections.Counter", "fractions.Fraction"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_found_in_every_protocol(protocol):
    found = names_in_pickle(pickle.dumps(VALUE, protocol=protocol))
    names = set(found.names) - {"copyreg._reconstructor", "builtins.object"}
    assert names == NAMES
    assert found.newer == (protocol >= 4)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_they_are_what_an_unpickler_would_import(protocol, tmp_path):
    """The independent answer: an unpickler that writes down what it is asked for."""
    asked = []

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            value = super().find_class(module, name)
            asked.append(f"{value.__module__}.{value.__qualname__}")
            return value

    content = pickle.dumps({**VALUE, "d": torch.Size([1]), "e": range(3)}, protocol=protocol)
    Unpickler(io.BytesIO(content)).load()
    for variant in (content, pickletools.optimize(content)):
        assert list(names_in_pickle(variant).names) == list(dict.fromkeys(asked))


def test_a_name_that_is_put_together_is_said_to_be_hidden():
    hidden = b"\x80\x04\x8c\x02os\x8c\x06systemN0\x93."
    assert names_in_pickle(hidden.replace(b"N0", b"")).names == ("os.system",)
    # A tuple in the place of a string, and a registered extension.
    assert names_in_pickle(b"\x80\x04\x8c\x02os)\x93.").names == (HIDDEN,)
    assert names_in_pickle(b"\x80\x02\x82\x01.").names == (HIDDEN,)


def test_files_of_several_pickles(tmp_path):
    payload = gadgets(tmp_path / "marker.npy")["os.system"]
    for container, kind in [
        ("legacy", "torch legacy"),
        ("tar", "torch tar"),
        ("pickle 2", "pickle"),
        ("pickle 4", "pickle"),
    ]:
        path = tmp_path / "file"
        path.write_bytes(hostile_files(payload)[container])
        assert {"posix.system", "nt.system"} & set(names_in_file(path, kind))
    path.write_bytes(b"\x80\x02garbage")
    assert names_in_file(path, "pickle") == ()


def test_names_before_damage_are_told(tmp_path):
    """An unpickler runs what comes first and stumbles afterwards."""
    path = tmp_path / "file"
    path.write_bytes(b"\x80\x02cposix\nsystem\n" + b"\xff" * 9)
    assert names_in_file(path, "pickle") == ("posix.system",)


@pytest.mark.parametrize("filling", [b"N0" * 60, b"X\x64\0\0\0" + b"x" * 100 + b"0"])
def test_a_long_pickle_is_not_followed_to_its_end(tmp_path, monkeypatch, filling):
    content = b"\x80\x02cfractions\nFraction\n" + filling + b"cposix\nsystem\n."
    path = tmp_path / "file"
    path.write_bytes(content)
    whole = ("fractions.Fraction", "posix.system")
    assert names_in_file(path, "pickle") == names_in_pickle(content).names == whole
    monkeypatch.setattr(pickled_names, "MOST_STEPS", 100)
    monkeypatch.setattr(pickled_names, "_LARGEST", 100)
    assert names_in_file(path, "pickle") == ("fractions.Fraction", UNREAD)
    found: dict[str, None] = {}
    with pytest.raises(TooLongError):
        names_in_pickle(b"\x80\x02cfractions\nFraction\nNN.", most=2, found=found)
    assert list(found) == ["fractions.Fraction"]


def test_the_bound_holds_for_all_pickles_of_a_file_together(tmp_path, monkeypatch):
    members = {str(i): pickle.dumps([i] * 10, protocol=2) for i in range(20)}
    path = tmp_path / "file"
    path.write_bytes(tar_bytes({"pickle": members["0"], **members}))
    assert names_in_file(path, "torch tar") == ()
    monkeypatch.setattr(pickled_names, "MOST_STEPS", 100)
    assert names_in_file(path, "torch tar") == (UNREAD,)
    monkeypatch.undo()
    monkeypatch.setattr(pickled_names, "_MOST_MEMBERS", 20)
    assert names_in_file(path, "torch tar") == (UNREAD,)
