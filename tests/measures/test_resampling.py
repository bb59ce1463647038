from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaudit.exceptions import RecordError
from mmaudit.measures.resampling import bootstrap_weights, collect_sums
from mmaudit.measures.shapley import shapley_interactions, shapley_values
from tests.measures.table import columns_from_games, columns_from_logits, write_table

NAMES = ("audio", "image", "text")


def random_columns(n, *, M=3, K=4, seed=0, **others):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2**M, n, K)).astype(np.float32)
    return columns_from_logits(logits, rng.integers(0, K, n), **others)


def collect(folder, *, M=3, K=4, grouped=False, seed=0, **others):
    return collect_sums(
        folder,
        modalities=NAMES[:M],
        classes=tuple(map(str, range(K))),
        grouped=grouped,
        seed=seed,
        **others,
    )


def shuffled(columns, seed):
    n = len(columns["sample_id"])
    order = np.random.default_rng(seed).permutation(n)
    return {
        name: [values[i] for i in order] if isinstance(values, list) else np.asarray(values)[order]
        for name, values in columns.items()
    }


def test_means_are_those_of_the_columns(tmp_path):
    present = np.random.default_rng(1).integers(0, 8, 300)
    columns = random_columns(300, present=present)
    sums = collect(write_table(tmp_path, columns, shards=3))
    means = sums.means()
    assert means["accuracy"] == pytest.approx(columns["correct"].mean(axis=0))
    assert means["log-likelihood"] == pytest.approx(columns["loglik"].mean(axis=0), rel=1e-5)
    for m in range(3):
        has = present >> m & 1 == 1
        for empty in ("exact", "zero"):
            for quantity in ("score", "loglik"):
                name = f"response_{quantity}_{empty}"
                assert means[name][m] == pytest.approx(columns[name][has, m].mean(), rel=1e-5)
    assert sums.response_size(None) == pytest.approx(
        np.where(present[:, None] >> np.arange(3) & 1, columns["response_size"], 0).max(axis=0)
    )


def test_classes_are_apart(tmp_path):
    columns = random_columns(300)
    sums = collect(write_table(tmp_path, columns))
    for k in range(4):
        of_class = columns["target"] == k
        assert sums.counts(k).sum() == of_class.sum()
        accuracy = columns["correct"][of_class].mean(axis=0)
        assert sums.means(k)["accuracy"] == pytest.approx(accuracy)
        for score, name in (("accuracy", "correct"), ("log-likelihood", "loglik")):
            worth = np.asarray(columns[name], float)[of_class].mean(axis=0)
            found = sums.contributions(score, k).sum(axis=0) / of_class.sum()
            assert found == pytest.approx(shapley_values(worth), abs=1e-5)
            table = shapley_interactions(worth)
            found = sums.interactions(score, k).sum(axis=0) / of_class.sum()
            assert found == pytest.approx(table[[0, 0, 1], [1, 2, 2]], abs=1e-5)
    assert collect(tmp_path, K=6).counts(5).sum() == 0


@given(st.integers(2, 200), st.integers(1, 4), st.booleans(), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_row_order_and_shards_change_nothing(tmp_path_factory, n, shards, grouped, seed):
    groups = np.random.default_rng(seed).integers(0, 20, n)
    columns = random_columns(n, seed=seed, groups=groups)
    first = tmp_path_factory.mktemp("a")
    second = tmp_path_factory.mktemp("b")
    write_table(first, columns)
    write_table(second, shuffled(columns, seed), shards=min(shards, n))
    for most in (4096, 16):
        a = collect(first, grouped=grouped, seed=seed, most_units=most)
        b = collect(second, grouped=grouped, seed=seed, most_units=most)
        for index in (None, 1):
            assert a.correct(index) == pytest.approx(b.correct(index), abs=1e-12)
            assert a.present(index) == pytest.approx(b.present(index))
        assert a.loglik() == pytest.approx(b.loglik(), abs=1e-9)


def test_few_samples_are_their_own_units(tmp_path):
    sums = collect(write_table(tmp_path, random_columns(500)))
    assert sums.counts(None).shape == (500, 1)
    assert (sums.counts(None) == 1).all()


def test_groups_are_units(tmp_path):
    groups = np.repeat(np.arange(40), np.arange(1, 41))
    columns = random_columns(len(groups), groups=groups)
    sums = collect(write_table(tmp_path, shuffled(columns, 0)), grouped=True)
    assert sums.groups == 40
    assert sorted(sums.counts(None)[:, 0]) == list(range(1, 41))


def test_blocks_keep_groups_whole_and_are_not_systematic(tmp_path):
    groups = np.repeat(np.arange(600), 3)
    columns = random_columns(1800, groups=groups)
    write_table(tmp_path, columns)
    sums = collect(tmp_path, grouped=True, most_units=64)
    assert sums.groups == 600
    assert sums.group_count(None, sums.counts(None)) == 600
    assert (sums.counts(None) % 3 == 0).all()
    samples = collect(tmp_path, most_units=64)
    sizes = samples.counts(None)[:, 0]
    # a hash scatters sizes as a multinomial does: variance about the mean of 28
    assert 0.5 < sizes.var() / sizes.mean() < 1.7
    other = collect(tmp_path, most_units=64, seed=9)
    assert not np.array_equal(other.counts(None), samples.counts(None))


def test_blocks_and_exact_units_agree(tmp_path):
    columns = random_columns(3000, seed=3)
    write_table(tmp_path, columns)
    exact, blocks = collect(tmp_path), collect(tmp_path, most_units=300)
    assert blocks.means()["accuracy"] == pytest.approx(exact.means()["accuracy"], abs=1e-12)
    errors = []
    for sums in (exact, blocks):
        replicates = sums.bootstrap(
            np.hstack([sums.correct(None), sums.loglik(), sums.counts(None)])
        )
        errors.append((replicates[:, :-1] / replicates[:, -1:]).std(axis=0))
    # 300 blocks know a standard error to about 4 %
    assert errors[1] == pytest.approx(errors[0], rel=0.2)
    assert np.mean(errors[1] / errors[0]) == pytest.approx(1, abs=0.05)


def test_bootstrap_weights():
    weights = bootstrap_weights(50, 400, seed=3)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.25)
    assert np.array_equal(weights, bootstrap_weights(50, 400, seed=3))
    assert not np.array_equal(weights, bootstrap_weights(50, 400, seed=4))


def test_what_is_not_finite_is_left_out_and_counted(tmp_path):
    columns = random_columns(100)
    columns["loglik"][7, 3] = np.nan
    columns["loglik"][9, 0] = -np.inf
    columns["response_loglik_exact"][11, 1] = np.nan
    sums = collect(write_table(tmp_path, columns))
    assert sums.samples == 97
    assert sums.left_out == 3
    assert sums.left_out_ids == ("7", "9", "11")
    assert sums.settings()["left_out_not_finite"] == 3
    kept = np.delete(columns["correct"], [7, 9, 11], axis=0)
    assert sums.means()["accuracy"] == pytest.approx(kept.mean(axis=0))
    assert np.isfinite(sums.loglik()).all()


def test_bad_tables_are_refused_in_one_sentence(tmp_path):
    columns = random_columns(20)
    write_table(tmp_path / "good", columns)
    with pytest.raises(RecordError, match="8 coalitions, but 2 modalities have 4"):
        collect(tmp_path / "good", M=2)
    with pytest.raises(RecordError, match="target 3, but 2 classes"):
        collect(tmp_path / "good", K=2)
    with pytest.raises(RecordError, match="sample 0 has no group"):
        collect(tmp_path / "good", grouped=True)
    with pytest.raises(RecordError, match="no table"):
        collect(tmp_path / "nothing")
    with pytest.raises(RecordError, match="at least 100"):
        collect(tmp_path / "good", replicates=5)
    with pytest.raises(RecordError, match="no rows"):
        collect(write_table(tmp_path / "empty", random_columns(0)))
    columns["loglik"][:] = np.nan
    with pytest.raises(RecordError, match="only finite"):
        collect(write_table(tmp_path / "nan", columns))


def test_many_modalities_keep_few_coalitions_for_classes(tmp_path):
    rng = np.random.default_rng(0)
    correct = rng.random((200, 64)) < 0.5
    targets = rng.integers(0, 3, 200)
    folder = write_table(tmp_path, columns_from_games(correct, targets=targets))
    sums = collect_sums(
        folder, modalities=tuple("abcdef"), classes=tuple("xyz"), grouped=False, seed=0
    )
    kept = sums.coalitions(0)
    assert sorted(c.bit_count() for c in kept.tolist()) == [0] + [1] * 6 + [5] * 6 + [6]
    expected = correct[targets == 0].mean(axis=0)
    assert sums.means(0)["accuracy"] == pytest.approx(expected[kept])
    found = sums.contributions("accuracy", 0).sum(axis=0) / (targets == 0).sum()
    assert found == pytest.approx(shapley_values(expected))


def test_memory_does_not_grow_with_the_samples(tmp_path):
    write_table(tmp_path / "few", random_columns(6_000, K=3))
    write_table(tmp_path / "many", random_columns(60_000, K=3), shards=4)
    peaks = []
    collect(tmp_path / "few", K=3)  # what is imported on first use is not what is measured
    for name in ("few", "many"):
        tracemalloc.start()
        collect(tmp_path / name, K=3, most_units=2000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # a chunk of 8,192 rows (a few MB of float64) is the most that more samples may add
    assert peaks[1] - peaks[0] < 25e6
    assert peaks[1] < 40e6
