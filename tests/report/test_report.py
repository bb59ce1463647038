import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mmaudit.exceptions import MMAuditError, RecordError, UndefinedMeasureError
from mmaudit.figures import FIGURES, figures_by_part
from mmaudit.report import AuditReport
from tests.report.fixtures import (
    STRENGTHS,
    empty_report,
    hostile_report,
    make_report,
    undefined_rows_report,
)

LABELS = {
    "coalitions": ["coalition", "score", "class"],
    "responses": ["quantity", "modality", "empty", "class"],
    "contributions": ["modality", "score", "quantity", "class"],
    "interactions": ["first", "second", "score", "class"],
    "utilization": ["quantity", "modality", "given", "class"],
}
NUMBERS = ["value", "low", "high", "n", "method", "undefined", "warning", "unit"]


@pytest.mark.parametrize(
    "report",
    [
        make_report(("audio",), samples=60),
        make_report(samples=60),
        make_report(tuple(STRENGTHS), samples=60),
        empty_report(),
        undefined_rows_report(),
        hostile_report(),
    ],
    ids=["one", "two", "six", "empty", "undefined", "hostile"],
)
def test_what_is_saved_comes_back(report, tmp_path):
    path = report.save(tmp_path / "audit")
    assert path == tmp_path / "audit" / "report.json"
    for where in (path, tmp_path / "audit", str(path)):
        loaded = AuditReport.load(where)
        assert loaded == report
        assert loaded.record == report.record
    changed = report.record.model_copy(update={"report_id": "another"})
    assert AuditReport(changed) != report


def test_estimates_are_found_by_their_labels():
    report = make_report(("audio", "image", "text"), samples=80)
    utilization = report.estimate("utilization", modality="audio", given="image")
    rows = report.rows("utilization", modality="audio", given="image", **{"class": "all"})
    assert [row.estimate for row in rows] == [utilization]
    assert report.estimate("utilization", modality="audio", given="rest") == report.estimate(
        "utilization", modality="audio", given="text+image"
    )
    assert report.estimate("coalitions", coalition="text+audio+image") == report.accuracy
    assert report.estimate("responses", modality="image", empty="zero").value is not None
    assert report.estimate("interactions", first="text", second="audio") == report.estimate(
        "interactions", first="audio", second="text"
    )
    of_class = report.estimate("contributions", modality="image", **{"class": "3"})
    assert of_class.n == report.data.class_counts[3]
    nats = report.estimate("contributions", modality="image", score="log-likelihood")
    assert nats != report.estimate("contributions", modality="image")


@pytest.mark.parametrize(
    ("measure", "labels", "says"),
    [
        ("utilisation", {}, "expected one of the measures of this audit (coalitions, responses"),
        (
            "utilization",
            {"modality": "audoi", "given": "image"},
            "modality audio, image, image - audio",
        ),
        ("utilization", {"modality": "audio"}, "say also given"),
        ("contributions", {"modality": "audio", "empty": "zero"}, "no row with"),
    ],
)
def test_labels_that_do_not_fit_are_named(measure, labels, says):
    with pytest.raises(RecordError, match=None) as error:
        make_report(samples=40).estimate(measure, **labels)
    assert says in str(error.value)


def test_measures_without_a_value_say_why():
    report = empty_report()
    with pytest.raises(UndefinedMeasureError, match="no sample has a target"):
        report.estimate("contributions", modality="audio")
    with pytest.raises(UndefinedMeasureError, match="failed in this audit: ZeroDivisionError"):
        report.to_frame("utilization")
    assert "no sample has a target" in (report.accuracy.undefined or "")


@pytest.mark.parametrize("measure", LABELS)
def test_frames_are_tidy(measure):
    report = make_report(("audio", "image", "pose"), samples=60)
    frame = report.to_frame(measure)
    assert list(frame.columns) == LABELS[measure] + NUMBERS
    assert len(frame) == len(report.measures[measure].rows)
    assert not frame.duplicated(LABELS[measure]).any()
    # A value and a reason exclude each other in every row.
    assert (frame["value"].isna() == frame["undefined"].notna()).all()
    for row, (_, line) in zip(report.measures[measure].rows, frame.iterrows(), strict=True):
        assert row.labels == {key: line[key] for key in LABELS[measure]}
        if row.estimate.value is not None:
            assert line["value"] == row.estimate.value
    assert len(report.to_frame(measure, limit=2)) == 2


def test_undefined_rows_are_missing_and_not_zero():
    frame = make_report(("image", "pose"), samples=60).to_frame("responses")
    pose = frame[(frame["modality"] == "pose")]
    assert pose["value"].isna().all()
    assert pose["undefined"].str.contains("no response").all()


def test_samples_frame_agrees_with_the_measures(tmp_path):
    report = make_report(samples=90, folder=tmp_path)
    frame = report.to_frame("samples")
    assert list(frame["position"]) == list(range(90))
    for coalition in ("none", "audio", "image", "audio+image"):
        expected = report.estimate("coalitions", coalition=coalition).value
        assert frame[f"correct[{coalition}]"].mean() == pytest.approx(expected, abs=1e-12)
        loglik = report.estimate("coalitions", coalition=coalition, score="log-likelihood").value
        assert frame[f"loglik[{coalition}]"].mean() == pytest.approx(loglik, abs=1e-6)
    assert frame["present[audio]"].all()
    assert frame["response_score_exact[image]"].mean() == pytest.approx(
        report.estimate("responses", modality="image").value, abs=1e-6
    )
    assert len(report.to_frame("samples", limit=50)) == 50
    assert report.to_frame("samples", limit=7).equals(frame.head(7))
    with pytest.raises(RecordError, match="at least 0"):
        report.to_frame("samples", limit=-1)


def test_samples_need_their_table(tmp_path):
    report = make_report(samples=40, folder=tmp_path / "a")
    with pytest.raises(RecordError, match="has no table 'coalitions'"):
        AuditReport(report.record).to_frame("samples")
    shard = next((tmp_path / "a" / "coalitions").iterdir())
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(RecordError, match="damaged"):
        report.to_frame("samples")
    outside = report.record.model_copy(update={"tables": {"coalitions": "../elsewhere"}})
    with pytest.raises(RecordError, match="outside"):
        AuditReport(outside, tmp_path / "a").to_frame("samples")


def test_a_table_of_another_audit_is_refused(tmp_path):
    make_report(("audio", "image", "text"), samples=40, folder=tmp_path)
    other = make_report(samples=40)
    record = other.record.model_copy(update={"tables": {"coalitions": "coalitions"}})
    with pytest.raises(RecordError, match="another audit"):
        AuditReport(record, tmp_path).to_frame("samples")


def test_saving_elsewhere_takes_the_tables_along(tmp_path):
    report = make_report(samples=40, folder=tmp_path / "a")
    report.save(tmp_path / "b")
    loaded = AuditReport.load(tmp_path / "b")
    assert loaded == report
    assert loaded.to_frame("samples").equals(report.to_frame("samples"))
    # In its own folder nothing is copied.
    report.save(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["coalitions", "report.json"]


def test_an_audit_is_not_replaced_unless_asked(tmp_path):
    first = make_report(samples=40, folder=tmp_path / "1", seed=1)
    second = make_report(samples=50, folder=tmp_path / "2", seed=2)
    first.save(tmp_path / "out")
    with pytest.raises(RecordError, match="exists already"):
        second.save(tmp_path / "out")
    assert AuditReport.load(tmp_path / "out") == first
    second.save(tmp_path / "out", overwrite=True)
    loaded = AuditReport.load(tmp_path / "out")
    assert loaded == second
    assert len(loaded.to_frame("samples")) == 50
    assert len(list((tmp_path / "out").iterdir())) == 2, "the old table is gone"


@pytest.mark.parametrize("step", ["fsync", "replace", "rename"])
def test_a_failure_at_any_step_keeps_the_audit_that_was_there(step, tmp_path, monkeypatch):
    first = make_report(samples=40, folder=tmp_path / "1", seed=1)
    second = make_report(samples=50, folder=tmp_path / "2", seed=2)
    first.save(tmp_path / "out")
    before = sorted(p.name for p in (tmp_path / "out").iterdir())
    home = os if step == "fsync" else type(tmp_path)
    real, failures = getattr(home, step), 0
    for fail_at in range(1, 12):
        calls = 0

        def failing(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(home, step, failing)
            try:
                second.save(tmp_path / "out", overwrite=True)
            except RecordError as error:
                failures += 1
                assert "No space left on device" in str(error)
            else:
                assert calls < fail_at
                break
        loaded = AuditReport.load(tmp_path / "out")
        renamed = loaded == second
        assert loaded == first or renamed
        assert len(loaded.to_frame("samples")) == (50 if renamed else 40)
        if renamed:  # only the flush of the folder after the rename failed
            break
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before
    assert failures


def _bytes(report, tmp_path):
    return report.save(tmp_path / "whole").read_bytes()


def test_every_truncation_is_refused(tmp_path):
    whole = _bytes(
        make_report(("audio",), classes=("a", "b"), samples=40, per_class=False), tmp_path
    )
    file = tmp_path / "report.json"
    for end in np.linspace(0, len(whole) - 3, 60).astype(int):
        file.write_bytes(whole[:end])
        with pytest.raises(RecordError) as error:
            AuditReport.load(file)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged or truncated"),
        (b"\x80\x04\x95", "damaged or truncated"),
        (b"not json", "damaged or truncated"),
        (b"[" * 100_000, "damaged or truncated"),
        (b"[]", "expected a mapping with 'schema_version', found list"),
        (b"{}", "expected a mapping with 'schema_version'"),
        (b'{"schema_version": 99}', "version 99; this mmaudit reads version 1"),
        (b'{"schema_version": true}', "version True"),
        (b'{"schema_version": 1}', "no whole report: report_id: Field required"),
        (b'{"schema_version": 1, "x": NaN}', "holds NaN"),
        (b'{"schema_version": 1, "x": -Infinity}', "holds -Infinity"),
        (b'{"schema_version": 1, "x": 1e999}', "holds 1e999"),
    ],
)
def test_what_is_no_record_gets_one_sentence(content, says, tmp_path):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(MMAuditError) as error:
        AuditReport.load(tmp_path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_missing_reports_are_named(tmp_path):
    with pytest.raises(RecordError, match=r"expected a folder with a report\.json$"):
        AuditReport.load(tmp_path)
    for name in "abcdef":
        (tmp_path / "agm" / name).mkdir(parents=True)
        (tmp_path / "agm" / name / "report.json").touch()
    with pytest.raises(RecordError, match=r"there is one in .*agm.a, .*agm.d and 2 more$"):
        AuditReport.load(tmp_path)
    (tmp_path / ".running").mkdir()
    (tmp_path / ".running" / "audit-state.json").touch()
    with pytest.raises(RecordError, match="interrupted: go on with it .*--resume"):
        AuditReport.load(tmp_path)
    with pytest.raises(RecordError, match="no report at .*nowhere"):
        AuditReport.load(tmp_path / "nowhere")


def test_unknown_fields_are_refused(tmp_path):
    value = json.loads(_bytes(make_report(samples=40), tmp_path))
    value["verdict"] = "fine"
    (tmp_path / "report.json").write_text(json.dumps(value))
    with pytest.raises(RecordError, match="verdict"):
        AuditReport.load(tmp_path)


def test_numbers_that_are_none_are_not_written(tmp_path):
    report = make_report(samples=40)
    for value in (float("nan"), object()):
        record = report.record.model_copy(update={"settings": {"threshold": value}})
        with pytest.raises(RecordError, match="JSON"):
            AuditReport(record).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_shows_itself():
    report = make_report(samples=600)
    text = repr(report)
    assert "audio, image" in text
    assert "600 samples" in text
    fragment = report._repr_html_()
    assert "<table" in fragment
    assert "<script" not in fragment
    assert ".78 [.75, .81]" in fragment
    assert "<script" not in hostile_report()._repr_html_()


def test_figures_of_what_there_is():
    assert list(make_report(samples=60).figures()) == [
        "contributions",
        "coalitions",
        "utilization",
        "responses",
        "classes",
    ]
    assert empty_report().figures() == {}
    assert "classes" not in make_report(samples=60, per_class=False).figures()


def test_importing_reports_loads_nothing_heavy():
    code = (
        "import sys, mmaudit.report, mmaudit.report.schema; "
        "print([m for m in ('torch', 'pandas', 'plotly', 'pyarrow', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_figures_and_pages_load_no_torch():
    code = (
        "import sys, mmaudit.figures, mmaudit.export.html, mmaudit.export.terminal, "
        "mmaudit.export.markdown, mmaudit.report.frames; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_replacing_an_audit_touches_no_files_but_its_shards(tmp_path):
    report = make_report(samples=40)
    value = report.record.model_dump(mode="json") | {
        "tables": {"coalitions": "mine", "other": ".."}
    }
    (tmp_path / "out" / "mine").mkdir(parents=True)
    (tmp_path / "out" / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "out" / "report.json").write_text(json.dumps(value))
    report.save(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("modalities", [("audio",), ("audio", "image"), ("audio", "image", "text")])
def test_the_measures_speak_the_same_words(modalities, tmp_path):
    """What reads records and what writes them agree on the labels, and an audit's own rows fill every figure."""
    from mmaudit.measures import compute_measures

    report = make_report(modalities, samples=200, folder=tmp_path)
    measures, failures = compute_measures(
        tmp_path / "coalitions",
        modalities=modalities,
        classes=report.classes,
        grouped=False,
        seed=0,
        replicates=100,
    )
    assert failures == ()
    real = AuditReport(report.record.model_copy(update={"measures": measures}))
    for key, labels in LABELS.items():
        if measures[key].undefined is None:
            assert {tuple(sorted(row.labels)) for row in measures[key].rows} == {
                tuple(sorted(labels))
            }
    # The invented answers have the same points as the measures find in the table.
    for modality in modalities:
        for key, more in (
            ("contributions", {}),
            ("utilization", {"given": "rest"}),
            ("responses", {}),
        ):
            assert real.estimate(key, modality=modality, **more).value == pytest.approx(
                report.estimate(key, modality=modality, **more).value, abs=1e-6
            )
    shown = [key for keys in figures_by_part(real).values() for key in keys]
    drawn = [key for key in shown if FIGURES[key].info(real).undefined is None]
    assert list(real.figures()) == drawn
    assert {"contributions", "coalitions", "utilization", "responses", "classes"} <= set(drawn)
    assert len(real.summary()) >= 1
