from __future__ import annotations

import collections
import fractions
import io
import pickle
import pickletools

import pytest
import torch

from mmaudit.checkpoint.pickled_names import HIDDEN, names_in_file, names_in_pickle
from tests.checkpoint.files import gadgets, hostile_files

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
