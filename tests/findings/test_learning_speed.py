"""What learning speeds mean, in one finding at most, with its evidence."""

import pytest

from mmaudit import ogr
from tests.norm_logs import constant, steady, write_log

RULE = "conditional learning speed"


def found(paths):
    report = ogr(paths)
    findings = [f for f in report.findings if f.rule == RULE]
    assert len(findings) <= 1
    for finding in findings:
        assert finding.level == "information" and finding.because
        for row in finding.evidence:
            assert report.estimate(row.measure, **row.labels) == row.estimate
    return findings[0] if findings else None


def runs(folder, speeds):
    """A log for each pair of crossing updates, beside own ones of 0.01."""
    own = {"audio": 0.01, "image": 0.01}
    return [
        write_log(folder / f"{i}.jsonl", {s: constant(own, {"audio": a, "image": b}) for s in (5, 10)})
        for i, (a, b) in enumerate(speeds)
    ]  # fmt: skip


def test_the_branch_to_care_for_is_the_faster_one(tmp_path):
    finding = found(steady(tmp_path / "a.jsonl"))
    assert finding.modality == "audio"
    assert finding.text == (
        "audio learns faster through image than image through audio: conditional learning speed (log10) .60 against -.30 at step 40, "
        "difference .90 (one run: not tested). audio is the branch to care for: it should learn more from its own input."
    )
    assert [row.says for row in finding.evidence] == ["difference", "", ""]
    assert "40 recorded steps" in finding.because and "other seeds" in finding.missing[0]


def test_the_second_branch_may_be_the_faster_one(tmp_path):
    finding = found(runs(tmp_path, [(0.01, 0.04), (0.01, 0.05), (0.012, 0.04)]))
    assert finding.modality == "image" and finding.missing == ()
    assert (
        "image learns faster through audio" in finding.text and "difference .61 [" in finding.text
    )
    assert finding.evidence[0].estimate.value == pytest.approx(-0.61, abs=0.005)


def test_about_as_fast(tmp_path):
    finding = found(runs(tmp_path, [(0.02, 0.0205)]))
    assert finding.modality is None
    assert "image and audio learn about as fast through each other" in finding.text
    assert "care" not in finding.text


def test_runs_that_do_not_agree(tmp_path):
    finding = found(runs(tmp_path, [(0.01, 0.04), (0.04, 0.01), (0.01, 0.08)]))
    assert finding.modality is None and "3 runs do not settle" in finding.text


def test_more_branches(tmp_path):
    own = dict.fromkeys("abc", 0.01)
    log = write_log(tmp_path / "x.jsonl", {1: constant(own, {"a": 0.01, "b": 0.1, "c": 0.02})}, heads="abc")  # fmt: skip
    finding = found(log)
    assert "b learns fastest through the others, a slowest" in finding.text
    assert "1.00 against .00 at step 1, largest less smallest 1.00" in finding.text
    assert len(finding.evidence) == 4 and finding.modality == "b"


def test_where_nothing_can_be_said(tmp_path):
    for name, norms, heads in (
        ("late", constant(crossing=None), ("audio", "image")),
        ("frozen", constant(crossing={"audio": 0.01, "image": 0.0}), ("audio", "image")),
        ("one", constant({"audio": 0.01}, {"audio": 0.1}), ("audio",)),
        ("bad", {("audio", "own"): "NaN"}, ("audio", "image")),
    ):
        assert found(write_log(tmp_path / f"{name}.jsonl", {1: norms}, heads=heads)) is None


@pytest.mark.parametrize("epochs", [0, 1, 12])
def test_it_does_not_need_checkpoints_of_losses(tmp_path, epochs):
    log = write_log(tmp_path / "a.jsonl", {1: constant()}, epochs=epochs)
    assert found(log).modality == "audio"
