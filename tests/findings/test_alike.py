"""Copies are found by their common errors."""

from __future__ import annotations

import numpy as np

from mmaudit.evidence.extra_table import write_table
from mmaudit.findings import find
from mmaudit.findings.alike import find_alike
from tests.findings.records import CHANCE, INFORMED, UNREAD, USED, record, verdicts


def table(folder, answers, label, empty=0):
    """A table of two modalities whose answers alone are given; together the first one's."""
    n = len(label)
    prediction = np.stack([np.full(n, empty), *answers, answers[0]], axis=1)
    write_table(
        folder,
        {
            "prediction": prediction.astype(np.int32),
            "correct": (prediction == label[:, None]).astype(np.uint8),
            "present": np.full(n, 3, np.int32),
        },
    )
    return folder


def drawn(seed=0, n=600, right=0.8):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n)
    err = lambda: np.where(rng.random(n) < right, label, (label + rng.integers(1, 4, n)) % 4)  # noqa: E731
    return label, err


def test_copies_are_found_and_independent_errors_are_not(tmp_path):
    label, err = drawn()
    first = err()
    made = record({"a": USED, "b": USED})
    copies = table(tmp_path / "x" / "coalitions", [first, first.copy()], label)
    found = [f for f in find(made, copies) if f.rule == "identical modalities"]
    assert len(found) == 1 and "100 %" in found[0].text
    apart = table(tmp_path / "y" / "coalitions", [first, err()], label)
    assert find_alike(made, apart)[0].share < 0.5
    assert "identical modalities" not in [f.rule for f in find(made, apart)]


def test_a_hand_count(tmp_path):
    # 20 samples: right together 4, wrong together and alike 12, one wrong 4.
    label = np.ones(20, int)
    first = np.array([1] * 4 + [2] * 12 + [3] * 4)
    second = np.array([1] * 4 + [2] * 12 + [1] * 4)
    (alike,) = find_alike(
        record({"a": USED, "b": USED}), table(tmp_path / "c", [first, second], label)
    )
    assert (alike.samples, alike.share) == (16, 0.75)


def test_two_that_say_nothing_are_not_alike(tmp_path):
    label, _ = drawn()
    mute = np.zeros(len(label), int)
    assert (
        find_alike(record({"a": USED, "b": USED}), table(tmp_path / "c", [mute, mute], label)) == ()
    )


def test_perfect_ones_are_not_alike(tmp_path):
    label, _ = drawn()
    assert (
        find_alike(record({"a": USED, "b": USED}), table(tmp_path / "c", [label, label], label))
        == ()
    )


def test_no_table_no_suspicion(tmp_path):
    made = record({"a": USED, "b": USED})
    assert find_alike(made, None) == find_alike(made, tmp_path / "none") == ()


def test_answers_that_hardly_vary_are_not_alike(tmp_path):
    """Of an exclusive or, given one part, a model says the same whatever the part is; and another same thing given nothing."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 1000)
    stuck = np.ones(1000, int)
    assert (
        find_alike(
            record({"a": USED, "b": USED}), table(tmp_path / "c", [stuck, stuck.copy()], label)
        )
        == ()
    )
    seldom = stuck.copy()
    seldom[:20] = 0
    assert (
        find_alike(
            record({"a": USED, "b": USED}), table(tmp_path / "d", [seldom, seldom.copy()], label)
        )
        == ()
    )


def identical(modalities, *pairs, **more):
    made = record(modalities, **more)
    return made.model_copy(update={"data": made.data.model_copy(update={"identical": pairs})})


def test_equal_inputs_are_told_and_make_each_other_redundant():
    found = find(identical({"a": USED, "b": USED | INFORMED, "c": USED}, ("a", "b")))
    assert verdicts(found) == {"a": "redundant", "b": "redundant", "c": "well used"}
    (told,) = [f for f in found if f.rule == "identical modalities"]
    assert told.level == "attention"
    assert "a and b are identical: their inputs are equal in every sample" in told.text


def test_a_copy_that_is_read_less_is_not_under_used():
    assert verdicts(find(record({"a": USED, "b": UNREAD | INFORMED})))["b"] == "under-used"
    found = find(identical({"a": USED, "b": UNREAD | INFORMED}, ("a", "b")))
    assert verdicts(found)["b"] == "redundant"


def test_a_copy_of_noise_is_uninformative():
    found = find(identical({"a": UNREAD | CHANCE, "b": UNREAD | CHANCE, "c": USED}, ("a", "b")))
    assert verdicts(found) == {"a": "uninformative", "b": "uninformative", "c": "well used"}


def test_three_that_are_one_are_told_once():
    pairs = (("a", "b"), ("a", "c"), ("b", "c"))
    found = find(identical({"a": USED, "b": USED, "c": USED}, *pairs))
    (told,) = [f for f in found if f.rule == "identical modalities"]
    assert told.text.startswith("a, b and c are identical")
