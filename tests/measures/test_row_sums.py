from __future__ import annotations

import numpy as np
import pytest

from mmaudit.evidence.extra_table import write_table as write_extra
from mmaudit.exceptions import RecordError
from mmaudit.measures import table_rows
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.row_sums import read_rows, row_sums
from tests.measures.table import columns_from_games, write_table

AV = ("audio", "video")


def game_table(folder, n=300, M=2, *, groups=None, ids=None, shards=2, seed=0, nonfinite=()):
    rng = np.random.default_rng(seed)
    correct = rng.random((n, 2**M)) < 0.7
    targets = rng.integers(0, 2, n)
    columns = columns_from_games(
        correct, -rng.exponential(size=correct.shape), targets=targets, groups=groups, ids=ids
    )
    columns["confidence"] = rng.random((n, 2**M)).astype(np.float32)
    columns["loglik"][list(nonfinite)] = np.nan
    return write_table(folder / "coalitions", columns, shards=shards), columns


def evidence_of(folder, modalities=AV, *, grouped=False, seed=0):
    return Evidence(folder, modalities, ("no", "yes"), grouped, seed, 200)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("nonfinite", [(), (5, 6, 290)])
def test_the_units_are_those_of_the_shared_sums(tmp_path, grouped, nonfinite):
    groups = np.arange(300) // 7
    folder, _ = game_table(tmp_path, groups=groups, nonfinite=nonfinite)
    evidence = evidence_of(folder, grouped=grouped)
    sums, counts = row_sums(evidence, ["correct", "target"], lambda c: c["correct"])
    assert np.array_equal(sums, evidence.sums.correct(None))
    assert np.array_equal(counts, evidence.sums.counts(None))
    assert len(counts) == (43 if grouped else 300 - len(nonfinite))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_blocks_are_those_of_the_shared_sums(tmp_path, monkeypatch, grouped):
    monkeypatch.setattr(table_rows, "_OVERALL_BYTES", 1)
    monkeypatch.setattr(table_rows, "_CLASS_BYTES", 1)
    folder, _ = game_table(tmp_path, 900, groups=np.arange(900) // 2)
    evidence = evidence_of(folder, grouped=grouped)
    sums, counts = row_sums(evidence, ["correct"], lambda c: c["correct"])
    assert 100 < len(counts) <= table_rows.LEAST_BLOCKS
    assert np.array_equal(sums, evidence.sums.correct(None))
    assert np.array_equal(counts, evidence.sums.counts(None))


def test_the_order_of_rows_and_shards_does_not_matter(tmp_path):
    folder, columns = game_table(tmp_path / "a")
    order = np.random.default_rng(1).permutation(300)
    shuffled = {
        name: [values[i] for i in order] if isinstance(values, list) else values[order]
        for name, values in columns.items()
    }
    other = write_table(tmp_path / "b", shuffled, shards=5)
    first, second = (
        row_sums(evidence_of(place), ["confidence"], lambda c: c["confidence"])
        for place in (folder, other)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_sums_of_a_table_beside(tmp_path):
    folder, _ = game_table(tmp_path)
    score = np.arange(300.0)
    write_extra(tmp_path / "further", {"sample_id": [str(i) for i in range(300)], "score": score})
    evidence = evidence_of(folder)
    sums, counts = row_sums(
        evidence, ["score"], lambda c: np.stack([c["score"], c["score"] ** 2], 1), table="further"
    )
    assert sums.sum(axis=0) == pytest.approx([score.sum(), (score**2).sum()])
    # the units are in the same order as those of the coalition table: the same ids, the same seed
    same, _ = row_sums(evidence, ["position"], lambda c: c["position"][:, None])
    assert np.array_equal(same, sums[:, :1])
    assert counts.sum() == 300


def test_rows_that_the_function_cannot_value_are_left_out(tmp_path):
    folder, columns = game_table(tmp_path)
    sums, counts = row_sums(
        evidence_of(folder), ["correct"], lambda c: np.where(c["correct"][:, :2], 1.0, np.nan)
    )
    both = columns["correct"][:, :2].all(axis=1).sum()
    assert counts.sum() == both
    assert sums.sum(axis=0).tolist() == [both, both]


def test_a_chunk_is_never_large(tmp_path):
    folder, _ = game_table(tmp_path, 5000, shards=1)
    sizes = [len(chunk["correct"]) for chunk in read_rows(evidence_of(folder), ["correct"])]
    assert sum(sizes) == 5000
    assert max(sizes) <= 2048


def test_what_cannot_be_summed_is_said(tmp_path):
    folder, _ = game_table(tmp_path)
    evidence = evidence_of(folder)
    with pytest.raises(RecordError, match="no table 'elsewhere'"):
        row_sums(evidence, ["score"], lambda c: c["score"], table="elsewhere")
    with pytest.raises(RecordError, match="only finite values"):
        row_sums(evidence, ["correct"], lambda c: np.full((len(c["correct"]), 1), np.nan))
    with pytest.raises(RecordError, match="no group"):
        row_sums(evidence_of(folder, grouped=True), ["correct"], lambda c: c["correct"])
    (folder / "part-00000.parquet").write_bytes(b"not a table")
    with pytest.raises(RecordError, match="damaged"):
        row_sums(evidence, ["correct"], lambda c: c["correct"])
