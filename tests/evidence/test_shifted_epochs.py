"""Epochs counted from 0 and from 1."""

import numpy as np
import pytest

from mmaudit.evidence.shifted_epochs import shifted_epochs

AT = np.arange(10.0)


@pytest.mark.parametrize(("by", "word"), [(1, "after"), (-1, "before")])
def test_a_shift_by_one_is_one_flag_for_all_heads(by, word):
    (flag,) = shifted_epochs(dict.fromkeys("abc", (AT + 3, AT[::-1] + 3 + by)))
    assert flag.kind == "shifted" and flag.head is None and not flag.unusable
    assert "epochs 3 to 12" in flag.text and f"{3 + by} to {12 + by}" in flag.text
    assert f"the epoch {word} it" in flag.text


def test_heads_of_other_epochs_are_told_apart():
    flags = shifted_epochs({"a": (AT, AT + 1), "b": (AT, AT - 1), "c": (AT, AT), "d": (AT, AT + 1)})
    assert [flag.head for flag in flags] == [None, "b"]
    assert "of 'a', 'd' are of" in flags[0].text and "of 'b' are of" in flags[1].text


def test_gaps_within_do_not_hide_it():
    some = np.array([0, 1, 2, 5, 6, 7, 9.0])
    assert len(shifted_epochs({"a": (some, some + 1)})) == 1


@pytest.mark.parametrize("held", [AT, AT + 2, AT[1:], AT + 0.5, np.append(AT, 10), AT[:0], AT * 2])
def test_other_epochs(held):
    assert shifted_epochs({"a": (AT, held)}) == []
    assert shifted_epochs({"a": (held, held)}) == []


def test_every_fifth_epoch_is_told_apart_by_its_number():
    assert shifted_epochs({"a": (5 * AT, 5 * AT + 1)}) == []
    assert shifted_epochs({"a": (np.zeros(1), np.ones(1))}) == [] == shifted_epochs({})
