"""Doubts that are told in the same words are one sentence; those that say something else stay."""

from mmaudit.export.joined_flags import join_flags, join_texts
from mmaudit.report.loss_record import LossFlag

SORTED = "points are not in order; they were sorted."


def order(*names, kind="order", text="'{}': " + SORTED, heads=(), **options):
    heads = heads or [None] * len(names)
    return [
        LossFlag(kind=kind, head=head, text=text.format(name, head), **options)
        for name, head in zip(names, heads, strict=True)
    ]


def test_the_same_of_many_series_is_one_sentence():
    (found,) = join_flags(order("train_a", "val_a", "train_b"))
    assert found.text == f"'train_a': {SORTED[:-1]}; the same of 'val_a' and 'train_b'."
    (many,) = join_flags(order(*(f"s{i}" for i in range(12))))
    assert many.text.endswith("'s6' and 5 more.") and many.text.count("sorted") == 1


def test_other_numbers_kinds_and_weights_stay_apart():
    other = LossFlag(kind="order", text="'c': the training went back 2 times.")
    assert len(join_flags([*order("a"), other])) == 2
    assert len(join_flags([*order("a"), *order("b", kind="gap")])) == 2
    assert len(join_flags([*order("a"), *order("b", unusable=True)])) == 2
    counts = [f"{n} of 9 values of '{name}' are left out." for n, name in ((1, "a"), (2, "b"), (1, "c"))]  # fmt: skip
    assert join_texts(counts) == ("1 of 9 values of 'a' are left out; the same of 'c'.", counts[1])


def test_the_own_head_may_differ_along():
    text = "'{}' is not finite: the training of '{}' diverged."
    (found,) = join_flags(order("val_a", "val_b", text=text, heads=("a", "b")))
    assert found.heads == ("a", "b")
    assert found.text == "'val_a' is not finite: the training of 'a' diverged; the same of 'val_b'."
    # two names that are not the head's cannot be told by one
    pairs = [LossFlag(kind="sum", text=f"'{a}' is the sum of '{b}'.") for a, b in ("ab", "cd")]
    assert len(join_flags(pairs)) == 2


def test_the_same_text_twice_is_told_once():
    assert [f.text for f in join_flags(order("a", "a"))] == [f"'a': {SORTED}"]
    assert join_flags([]) == () and join_texts([]) == ()


def test_names_with_apostrophes_are_left_alone():
    flags = order("it's", "he's", "'", "a'b'c", "d'b'c")
    assert {f.text for f in flags} == {f.text for f in join_flags(flags)}
