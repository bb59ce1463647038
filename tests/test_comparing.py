from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmaudit.comparing
from mmaudit.comparing import compare
from mmaudit.exceptions import RecordError, SpecError
from mmaudit.measures.ratios import RATIOS
from mmaudit.report.comparison import Comparison
from tests.measures.table import columns_from_games
from tests.pairs import NAMES, make_pair, make_record


def changed(report, **changes):
    """The report with other fields in its record."""
    return type(report)(report.record.model_copy(update=changes), report.folder)


def numbers(comparison):
    return [row for measure in comparison.measures.values() for row in measure.rows]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("pair"))


def test_accuracies_by_hand(tmp_path):
    """40 samples: 10 right in both, 8 after alone, 2 before alone, 20 in neither."""
    right = np.zeros((2, 40, 4), int)
    right[:, :10, 3] = 1
    right[1, 10:18, 3] = 1
    right[0, 18:20, 3] = 1
    reports = [
        make_record(
            tmp_path / str(i), columns_from_games(table, -1.0 - table), NAMES[:2], ("no", "yes")
        )
        for i, table in enumerate(right)
    ]
    row = compare(*reports).row("coalitions", coalition="audio+image")
    assert (row.before.value, row.after.value) == (12 / 40, 18 / 40)
    assert row.difference.value == pytest.approx(0.15)
    assert (row.gained, row.lost) == (8, 2)
    assert row.test == "exact McNemar"
    # 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert row.p == row.p_holm == pytest.approx(2 * 56 / 1024)
    assert row.smallest_p == pytest.approx(2 / 1024)
    assert row.difference.n == 40
    assert "40 samples, fewer than 50" in row.difference.warning


def test_a_record_and_itself(pair):
    before, _, _ = pair
    comparison = compare(before, before)
    assert comparison.same_answers
    assert comparison.verdict.kind == "does not help"
    known = [row for row in numbers(comparison) if row.difference.value is not None]
    assert len(known) > 100
    for row in known:
        assert (row.difference.value, row.difference.low, row.difference.high) == (0.0, 0.0, 0.0)
        assert row.p == row.p_holm == 1.0
    assert any("answer all 300 samples alike" in note.text for note in comparison.notes)


def test_swapping_changes_the_signs(pair):
    before, after, _ = pair
    there, back = compare(before, after, replicates=300), compare(after, before, replicates=300)
    for row, other in zip(numbers(there), numbers(back), strict=True):
        assert row.labels == other.labels
        assert (row.before, row.after) == (other.after, other.before)
        assert (row.gained, row.lost) == (other.lost, other.gained)
        assert row.p == other.p
        if row.difference.value is not None:
            assert row.difference.value == pytest.approx(-other.difference.value, abs=1e-14)
            assert row.difference.low == pytest.approx(-other.difference.high, abs=1e-12)
            assert row.difference.high == pytest.approx(-other.difference.low, abs=1e-12)


def test_before_and_after_are_the_records_own_estimates(pair):
    before, after, _ = pair
    comparison = compare(before, after)
    assert list(comparison.measures) == list(RATIOS)
    for key, measure in comparison.measures.items():
        assert len(measure.rows) == len(before.measures[key].rows)
        for row in measure.rows:
            assert [row.before] == [found.estimate for found in before.rows(key, **row.labels)]
            assert [row.after] == [found.estimate for found in after.rows(key, **row.labels)]
            assert row.difference.value == pytest.approx(row.after.value - row.before.value)
            if row.p is not None:
                assert row.smallest_p <= row.p <= row.p_holm


def test_equal_records_and_seeds_give_equal_comparisons(pair, tmp_path):
    before, after, tables = pair
    assert compare(before, after) == compare(before, after)
    assert compare(before, after, seed=1) != compare(before, after)
    order = np.random.default_rng(0).permutation(300)
    mixed = {
        name: [values[i] for i in order] if isinstance(values, list) else np.asarray(values)[order]
        for name, values in tables[1].items()
    }
    again = make_record(tmp_path, mixed, NAMES[:2], before.classes, title=after.title, shards=3)
    for row, other in zip(
        numbers(compare(before, after)), numbers(compare(before, again)), strict=True
    ):
        assert row.p == other.p
        assert row.difference.value == pytest.approx(other.difference.value, abs=1e-9)


def test_reports_may_be_named_by_their_folders(pair, tmp_path):
    before, after, _ = pair
    comparison = compare(str(before.folder), after.folder)
    assert comparison == compare(before, after)
    assert Comparison.load(comparison.save(tmp_path)) == comparison


@pytest.mark.parametrize("M", [2, 3])
def test_modalities_in_another_order_are_compared_by_name(tmp_path, M):
    skills = ((1.2, 0.6, 0.9)[:M], (1.3, 1.0, 0.2)[:M])
    before, after, tables = make_pair(tmp_path / "1", skills)
    # the same model, its modalities listed the other way round
    turn = list(range(M))[::-1]
    coalitions = [sum((c >> m & 1) << turn[m] for m in range(M)) for c in range(2**M)]
    moved = dict(tables[1])
    for name in ("correct", "loglik", "prediction", "confidence", "entropy"):
        moved[name] = np.asarray(moved[name])[:, coalitions]
    for name in moved:
        if name.startswith("response"):
            moved[name] = np.asarray(moved[name])[:, turn]
    other = make_record(tmp_path / "2", moved, NAMES[:M][::-1], before.classes, title=after.title)
    straight, turned = compare(before, after), compare(before, other)
    assert turned.modalities == NAMES[:M]
    for row, again in zip(numbers(straight), numbers(turned), strict=True):
        assert row.labels == again.labels
        assert row.after.value == pytest.approx(again.after.value, abs=1e-9)
        assert row.difference.value == pytest.approx(again.difference.value, abs=1e-9)
        assert row.p == again.p
    assert any("another order after" in note.text for note in turned.notes)


def refused(before, after, **options):
    with pytest.raises(RecordError) as caught:
        compare(before, after, **options)
    text = str(caught.value)
    assert text.count("\n") == 0
    assert "cannot be compared" in text
    return text


def test_what_cannot_be_compared_is_refused_with_the_reason(pair):
    before, after, _ = pair
    data = after.data
    assert "different modalities, audio, image before and audio, text after" in refused(
        before, changed(after, modalities=("audio", "text"))
    )
    assert "different tasks, multiclass before and binary after" in refused(
        before, changed(after, spec={"task": "binary"})
    )
    fewer = data.model_copy(update={"classes": before.classes[::-1]})
    assert "different classes" in refused(before, changed(after, data=fewer))
    masks = {"audio": "zero", "image": "mean of the training data (n = 9)"}
    assert "image is masked in different ways, zero before and mean of" in refused(
        before, changed(after, masks=masks)
    )
    other = data.model_copy(update={"fingerprint": "300-aa"})
    assert "different data (300 samples before, 300 after" in refused(
        before, changed(after, data=other)
    )
    assert "common=True" in refused(before, changed(after, data=other))
    none = data.model_copy(update={"fingerprint": ""})
    assert "different data" in refused(changed(before, data=none), changed(after, data=none))
    grouped = data.model_copy(update={"groups": 30})
    assert "grouped in the record after alone" in refused(before, changed(after, data=grouped))
    assert "record before kept no table" in refused(changed(before, tables={}), after)


def test_bad_requests(pair):
    before, after, _ = pair
    with pytest.raises(SpecError, match="at least 100"):
        compare(before, after, replicates=50)
    with pytest.raises(SpecError, match="at least 0"):
        compare(before, after, seed=-1)
    with pytest.raises(RecordError, match="no report at"):
        compare("nowhere", after)


def test_a_table_of_another_audit_is_noticed(pair, tmp_path):
    before, after, _ = pair
    mixed = type(after)(after.record, before.folder)
    with pytest.raises(RecordError, match="the table belongs to another audit"):
        compare(before, mixed)


def test_a_table_that_lost_samples_is_noticed(tmp_path):
    before, after, _ = make_pair(tmp_path, shards=3)
    (after.folder / "coalitions" / "part-00001.parquet").unlink()
    with pytest.raises(RecordError, match="record after lacks 100 samples"):
        compare(before, after)


def test_common_samples_are_compared_on_request(tmp_path):
    before, after, tables = make_pair(tmp_path / "1")
    kept = list(range(40, 300))
    fewer = {
        name: [values[i] for i in kept] if isinstance(values, list) else np.asarray(values)[kept]
        for name, values in tables[1].items()
    }
    other = make_record(tmp_path / "2", fewer, NAMES[:2], before.classes)
    assert "different data" in refused(before, other)
    comparison = compare(before, other, common=True)
    assert comparison.samples == 260
    assert comparison.settings["common"] is True
    assert any(
        "260 samples are compared; left out: 40 that only the record before has" in n.text
        for n in comparison.notes
    )
    row = comparison.row("coalitions", coalition="audio+image")
    assert row.before.value == pytest.approx(np.asarray(tables[0]["correct"])[kept, 3].mean())
    assert row.before.n == row.after.n == row.difference.n == 260
    unnamed = other.data.model_copy(update={"ids": "running number"})
    assert "name their ids" in refused(before, changed(other, data=unnamed), common=True)


def test_samples_without_finite_values_are_left_out_of_both(tmp_path):
    before, after, tables = make_pair(tmp_path / "1")
    tables[1]["loglik"][7, 2] = -np.inf
    other = make_record(tmp_path / "2", tables[1], NAMES[:2], before.classes)
    comparison = compare(before, other)
    assert comparison.samples == 299
    assert any("1 with values that are not finite" in note.text for note in comparison.notes)
    row = comparison.row("coalitions", coalition="audio+image", score="log-likelihood")
    kept = np.arange(300) != 7
    assert row.before.value == pytest.approx(tables[0]["loglik"][kept, 3].mean(), abs=1e-6)


def test_what_is_undefined_stays_undefined(tmp_path):
    before, after, tables = make_pair(tmp_path / "1")
    tables[1]["response_size"][:, 1] = 0.0
    silent = make_record(tmp_path / "2", tables[1], NAMES[:2], before.classes)
    row = compare(before, silent).row("responses", modality="image")
    assert row.difference.value is None
    assert row.difference.undefined.startswith("after: no response: masking image")
    assert (row.p, row.p_holm, row.test) == (None, None, "")
    assert row.before.value is not None
    one = compare(before, silent).row("responses", modality="audio")
    assert one.family == 1, "what is undefined is no hypothesis"


def test_a_measure_of_one_record_alone_is_named(pair, tmp_path):
    before, _, tables = pair
    some = make_record(
        tmp_path, tables[1], NAMES[:2], before.classes, only=["coalitions", "utilization"]
    )
    comparison = compare(before, some)
    assert list(comparison.measures) == ["coalitions", "utilization"]
    texts = [note.text for note in comparison.notes]
    assert "contributions is in the record before alone and is not compared" in texts


def test_one_modality(tmp_path):
    before, after, _ = make_pair(tmp_path, ((0.8,), (1.5,)))
    comparison = compare(before, after)
    assert comparison.row("coalitions", coalition="audio").difference.value > 0
    assert "at least two modalities" in comparison.measures["interactions"].undefined
    assert (
        comparison.row("utilization", modality="audio", given="rest").difference.value is not None
    )


def test_beyond_five_modalities_only_telling_coalitions_are_compared(tmp_path):
    skills = (tuple([0.6] * 6), tuple([0.6] * 5 + [1.0]))
    before, after, _ = make_pair(tmp_path, skills, n=120, K=2)
    comparison = compare(before, after, replicates=100)
    coalitions = {row.labels["coalition"] for row in comparison.measures["coalitions"].rows}
    assert len(coalitions) == 1 + 6 + 6 + 1
    rates = comparison.rows("utilization", quantity="u", **{"class": "all"})
    assert len(rates) == 12
    assert comparison.row("utilization", modality="pose", given="rest").difference.value is not None


def test_twelve_modalities_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 60)
    reports = []
    for i in range(2):
        correct = rng.random((60, 2**12)) < 0.5 + 0.1 * i
        table = columns_from_games(correct, -rng.exponential(size=correct.shape), targets=targets)
        reports.append(
            make_record(
                tmp_path / str(i),
                table,
                NAMES,
                ("a", "b"),
                only=["coalitions", "contributions", "responses"],
            )
        )
    comparison = compare(*reports, replicates=200)
    assert len(comparison.rows("contributions", **{"class": "all"})) == 48
    assert comparison.row("coalitions", coalition="+".join(NAMES)).difference.value is not None


def test_many_classes_are_compared_together_only(pair, monkeypatch):
    before, after, _ = pair
    monkeypatch.setattr(mmaudit.comparing, "_MOST_CLASS_ROWS", 50)
    comparison = compare(before, after)
    assert {row.labels["class"] for row in numbers(comparison)} == {"all"}
    assert any("only all classes together" in note.text for note in comparison.notes)


def test_differences_of_the_audits_are_named(pair):
    before, after, _ = pair
    other = changed(
        after,
        settings={**after.record.settings, "precision": "bfloat16", "seed": 5},
        spec={"task": "multiclass", "outputs": {"kind": "probabilities"}},
        data=after.data.model_copy(update={"ids": "running number"}),
    )
    texts = " ".join(note.text for note in compare(before, other).notes)
    assert "the precision differs, float32 before and bfloat16 after" in texts
    assert "the outputs are logits before and probabilities after" in texts
    assert "running number" in texts
    assert "seed of the masks" not in texts, "zero masks draw nothing"
    noisy = dict.fromkeys(NAMES[:2], "noise (mean 0, sd 1)")
    texts = " ".join(
        note.text
        for note in compare(changed(before, masks=noisy), changed(other, masks=noisy)).notes
    )
    assert "seed of the masks differs, 0 before and 5 after" in texts


@given(st.integers(2, 40), st.integers(2, 4), st.integers(0, 3))
@settings(max_examples=8, deadline=None)
def test_small_data_never_fails(tmp_path_factory, n, K, seed):
    before, after, _ = make_pair(tmp_path_factory.mktemp("small"), n=n, K=K, seed=seed)
    comparison = compare(before, after, replicates=100)
    for row in numbers(comparison):
        assert (row.difference.value is None) == (row.difference.undefined is not None)
        assert row.p is None or row.p >= row.smallest_p


def test_it_needs_no_torch():
    code = (
        "import sys, mmaudit.comparing, mmaudit.figures.comparison, mmaudit.export.comparison, mmaudit.report.comparison; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
