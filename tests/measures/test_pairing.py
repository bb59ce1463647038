from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mmaudit.exceptions import RecordError
from mmaudit.measures.pairing import Table, pair_tables
from mmaudit.measures.resampling import collect_sums
from tests.measures.table import columns_from_logits, write_table

NAMES = ("audio", "image", "text")
CLASSES = ("x", "y", "z")


def columns(n=200, *, seed=0, M=3, **others):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2**M, n, 3)).astype(np.float32)
    targets = np.random.default_rng(99).integers(0, 3, n)
    return columns_from_logits(logits, targets, ids=[f"s{i}" for i in range(n)], **others)


def rows(table, order):
    return {
        name: [values[i] for i in order] if isinstance(values, list) else np.asarray(values)[order]
        for name, values in table.items()
    }


def pair(first, second, tmp_path, *, names=(NAMES, NAMES), shards=(1, 1), grouped=False, **options):
    tables = [
        Table(write_table(tmp_path / which, table, shards=number), order, len(table["sample_id"]))
        for which, table, order, number in zip(("a", "b"), (first, second), names, shards)
    ]
    return pair_tables(*tables, classes=CLASSES, grouped=grouped, seed=0, replicates=100, **options)


def sums_of(folder, **options):
    return collect_sums(
        folder, modalities=NAMES, classes=CLASSES, grouped=False, seed=0, replicates=100, **options
    )


def test_each_side_is_what_one_table_alone_gives(tmp_path):
    found = pair(columns(), columns(seed=1), tmp_path)
    assert found.whole
    for side, folder in ((found.before, "a"), (found.after, "b")):
        alone = sums_of(tmp_path / folder)
        for index in (None, 0, 2):
            assert np.array_equal(side.correct(index), alone.correct(index))
            assert np.array_equal(
                side.contributions("log-likelihood", index),
                alone.contributions("log-likelihood", index),
            )
            assert np.array_equal(
                side.responses("loglik", "zero", index), alone.responses("loglik", "zero", index)
            )


@pytest.mark.parametrize("most", [4096, 16])
def test_samples_are_matched_by_id_whatever_the_order(tmp_path, most):
    first, second = columns(), columns(seed=1)
    order = np.random.default_rng(5).permutation(200)
    straight = pair(first, second, tmp_path / "1", most_units=most)
    mixed = pair(first, rows(second, order), tmp_path / "2", shards=(1, 3), most_units=most)
    assert np.array_equal(straight.discordant, mixed.discordant)
    assert mixed.after.loglik() == pytest.approx(straight.after.loglik(), abs=1e-9)
    assert np.array_equal(mixed.before.counts(None), mixed.after.counts(None))


def test_discordant_samples_are_counted_one_by_one(tmp_path):
    first, second = columns(), columns(seed=1)
    found = pair(first, second, tmp_path)
    for k in range(3):
        of_class = first["target"] == k
        for c in range(8):
            a, b = (np.asarray(t["correct"])[of_class, c].astype(bool) for t in (first, second))
            assert found.discordant[0, k, c] == (b & ~a).sum()
            assert found.discordant[1, k, c] == (a & ~b).sum()
        for place, empty in enumerate(("exact", "zero")):
            for m in range(3):
                a, b = (t[f"response_score_{empty}"][of_class, m] for t in (first, second))
                column = 8 + 3 * place + m
                assert found.discordant[0, k, column] == (b > a).sum()
                assert found.discordant[1, k, column] == (a > b).sum()
    assert not found.uneven.any()


def test_ties_are_seen(tmp_path):
    first = columns()
    first["response_score_zero"][7, 1] = 0.5
    found = pair(first, columns(seed=1), tmp_path)
    assert np.argwhere(found.uneven).tolist() == [[first["target"][7], 8 + 3 + 1]]


@pytest.mark.parametrize(
    "order", [("image", "text", "audio"), ("text", "image", "audio"), ("image", "audio", "text")]
)
def test_another_order_of_modalities_is_another_order_of_bits(tmp_path, order):
    rng = np.random.default_rng(2)
    logits, targets = rng.normal(size=(8, 150, 3)), rng.integers(0, 3, 150)
    present = rng.integers(1, 8, 150)
    names = {m: order.index(name) for m, name in enumerate(NAMES)}
    move = lambda bits: sum((bits >> m & 1) << to for m, to in names.items())  # noqa: E731
    moved = np.empty_like(logits)
    for c in range(8):
        moved[move(c)] = logits[c]
    ids = [f"s{i}" for i in range(150)]
    first = columns_from_logits(logits, targets, ids=ids, present=present)
    second = columns_from_logits(moved, targets, ids=ids, present=move(present))
    found = pair(first, second, tmp_path, names=(NAMES, order))
    assert found.same
    assert found.after.responses("score", "exact", None) == pytest.approx(
        found.before.responses("score", "exact", None)
    )
    assert np.array_equal(found.after.present(None), found.before.present(None))


def test_the_same_answers_are_known_as_such(tmp_path):
    table = columns()
    order = np.random.default_rng(1).permutation(200)
    assert pair(table, rows(table, order), tmp_path / "1", most_units=16).same
    other = columns()
    other["loglik"] = other["loglik"].copy()
    other["loglik"][3, 1] -= 1e-4
    assert not pair(table, other, tmp_path / "2").same


def test_parts_change_nothing(tmp_path):
    groups = np.random.default_rng(0).integers(0, 60, 200)
    first, second = columns(groups=groups), columns(seed=1, groups=groups)
    whole = pair(first, second, tmp_path, grouped=True)
    parts = pair(first, second, tmp_path, grouped=True, part_bytes=2_000)
    assert np.array_equal(whole.discordant, parts.discordant)
    assert whole.before.groups == parts.before.groups == len(set(groups))
    assert parts.after.loglik() == pytest.approx(whole.after.loglik(), abs=1e-9)
    assert parts.before.samples == 200


def test_groups_are_whole_in_both(tmp_path):
    groups = np.repeat(np.arange(40), 5)
    first, second = columns(groups=groups), columns(seed=1, groups=groups)
    found = pair(first, second, tmp_path, grouped=True)
    assert (found.before.counts(None) == 5).all()
    assert found.before.counts(None).shape == found.after.counts(None).shape == (40, 1)


def test_what_one_side_lacks_is_in_neither(tmp_path):
    first, second = columns(), columns(seed=1)
    first["loglik"][4, 2] = -np.inf
    second["loglik"][9, 0] = np.nan
    found = pair(rows(first, range(190)), rows(second, range(3, 200)), tmp_path)
    assert (found.only_before, found.only_after, found.not_finite) == (3, 10, 2)
    assert not found.whole
    kept = [i for i in range(3, 190) if i not in (4, 9)]
    assert found.before.samples == found.after.samples == len(kept)
    for side, table in ((found.before, first), (found.after, second)):
        assert side.means()["accuracy"] == pytest.approx(
            np.asarray(table["correct"])[kept].mean(axis=0)
        )


def broken(kind):
    table = columns(seed=1, groups=np.arange(200) // 4)
    if kind == "target":
        table["target"][17] = (table["target"][17] + 1) % 3
    elif kind == "group":
        table["group"][17] = "another"
    elif kind == "set of modalities":
        table["present"][17] = 3
    elif kind == "no group":
        table["group"][17] = None
    elif kind == "id twice":
        table["sample_id"][17] = "s3"
    return table


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("target", "sample s17 has another target"),
        ("group", "sample s17 has another group"),
        ("set of modalities", "sample s17 has another set of modalities"),
        ("no group", "sample s17 has a group in one record alone"),
        ("id twice", "b has a sample id more than once"),
    ],
)
def test_tables_that_do_not_match_are_refused(tmp_path, kind, sentence):
    good = columns(groups=np.arange(200) // 4)
    with pytest.raises(RecordError, match=sentence):
        pair(good, broken(kind), tmp_path, grouped=True)


def test_other_refusals(tmp_path):
    twice = columns()
    twice["sample_id"][5] = "s6"
    with pytest.raises(RecordError, match="a has a sample id more than once"):
        pair(twice, columns(), tmp_path / "1")
    other = columns()
    other["sample_id"] = [f"t{i}" for i in range(200)]
    with pytest.raises(RecordError, match="share no sample"):
        pair(columns(), other, tmp_path / "2")
    with pytest.raises(RecordError, match="no rows"):
        pair(rows(columns(), []), columns(), tmp_path / "3")
    with pytest.raises(RecordError, match="4 coalitions"):
        pair(columns(), columns(M=2), tmp_path / "4")
    with pytest.raises(RecordError, match="at least 100"):
        pair_tables(
            *[Table(tmp_path, NAMES, 1)] * 2, classes=CLASSES, grouped=False, seed=0, replicates=9
        )


def test_memory_does_not_grow_with_the_samples(tmp_path):
    peaks = []
    for n in (2_000, 30_000):
        tables = [
            Table(write_table(tmp_path / f"{n}-{seed}", columns(n, seed=seed), shards=3), NAMES, n)
            for seed in (0, 1)
        ]
        tracemalloc.start()
        pair_tables(
            *tables, classes=CLASSES, grouped=False, seed=0, most_units=1000, part_bytes=2**20
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # a chunk of 8,192 rows is the most that more samples may add
    assert peaks[1] - peaks[0] < 15e6
