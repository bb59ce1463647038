import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mmaudit.checking import check
from mmaudit.cli import app
from mmaudit.report import AuditReport
from mmaudit.report.labels import LABELS
from mmaudit.report.requirements import RequirementError
from mmaudit.report.schema import Estimate, FailureRecord
from mmaudit.testing import assert_audit
from tests.report.fixtures import make_report, twelve_report, with_every_measure, with_findings


@pytest.fixture(scope="module")
def report():
    """The utilization of audio is .05 [.02, .08]; both modalities have a verdict."""
    return _with(
        with_findings(make_report(samples=200), "under-used", "well used"),
        "utilization",
        {"modality": "audio", "given": "image", "class": "all"},
        Estimate(value=0.05, low=0.02, high=0.08, n=200),
    )


def _with(report, key, labels, estimate):
    measure = report.measures[key]
    rows = tuple(
        row.model_copy(update={"estimate": estimate})
        if labels.items() <= row.labels.items()
        else row
        for row in measure.rows
    )
    measures = report.measures | {key: measure.model_copy(update={"rows": rows})}
    return AuditReport(report.record.model_copy(update={"measures": measures}))


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        ("utilization.audio >= 0.02", True),
        ("utilization.audio > 0.02", False),
        ("utilization.audio >= 0.021", False),
        ("utilization.audio >= 0.05", False),
        ("utilization.audio > 0.019", True),
        ("utilization.audio <= 0.08", True),
        ("utilization.audio < 0.08", False),
        ("utilization.audio < 0.081", True),
        ("utilization.audio <= 0.05", False),
    ],
)
def test_the_end_that_is_needed_is_compared(report, requirement, holds):
    (outcome,) = check(report, [requirement])
    assert outcome.holds is holds
    end = "lower end .02" if ">" in requirement else "upper end .08"
    assert outcome.compared.startswith(end)
    assert outcome.found == ".050 [.020, .080]"


def test_a_value_close_to_the_bound_is_shown_with_enough_decimals(report):
    (outcome,) = check(report, ["utilization.audio >= 0.0200004"])
    assert not outcome.holds
    (near,) = check(
        _with(
            report,
            "utilization",
            {"modality": "audio", "given": "image", "class": "all"},
            Estimate(value=0.05, low=0.01999, high=0.08, n=200),
        ),
        ["utilization.audio >= 0.02"],
    )
    assert near.compared == "lower end .01999"


@pytest.mark.parametrize(
    ("requirement", "measure", "labels"),
    [
        ("accuracy >= 0", "coalitions", {"coalition": "audio+image"}),
        ("accuracy.image >= 0", "coalitions", {"coalition": "image"}),
        ("accuracy.coalition=none >= 0", "coalitions", {"coalition": "none"}),
        (
            "log-likelihood > -9",
            "coalitions",
            {"coalition": "audio+image", "score": "log-likelihood"},
        ),
        ("coalitions.image+audio > 0", "coalitions", {"coalition": "audio+image"}),
        ("contributions.audio.class=3 >= -1", "contributions", {"modality": "audio", "class": "3"}),
        ("contributions.audio.quantity=share >= -9", "contributions", {"modality": "audio", "quantity": "share"}),
        ("utilization.audio.given=none >= -1", "utilization", {"modality": "audio", "given": "none"}),
        ("interactions.first=image.second=audio < 9", "interactions", {"first": "audio", "second": "image"}),
        ("responses.image > 0", "responses", {"modality": "image"}),
    ],
)  # fmt: skip
def test_the_number_is_that_of_the_record(report, requirement, measure, labels):
    (outcome,) = check(report, [requirement], point=True)
    assert outcome.estimate == report.estimate(measure, **labels)
    assert outcome.holds


def test_verdicts(report):
    held = check(
        report,
        ["verdict.audio == under-used", "verdict.image == 'well used'", "verdict.image != harmful"],
    )
    assert [outcome.holds for outcome in held] == [True, True, True]
    (failed,) = check(report, ["verdict.audio == well used"])
    assert not failed.holds
    assert failed.found == "under-used"
    (without,) = check(make_report(samples=20), ["verdict.audio != harmful"])
    assert not without.holds
    assert "no verdicts" in without.reason


def test_what_has_no_value_or_no_interval_fails_and_says_why(report):
    labels = {"modality": "audio", "given": "image", "class": "all"}
    undefined = _with(report, "utilization", labels, Estimate(undefined="accuracy is 0"))
    (outcome,) = check(undefined, ["utilization.audio >= -1"], point=True)
    assert (outcome.holds, outcome.reason) == (False, "accuracy is 0")
    bare = _with(report, "utilization", labels, Estimate(value=0.05, n=200))
    assert [check(bare, ["utilization.audio > 0"], point=point)[0].holds for point in (False, True)] == [False, True]  # fmt: skip
    assert "no lower end" in check(bare, ["utilization.audio > 0"])[0].reason
    # With an interval, its end counts whether or not the value would do where there is none.
    assert not check(report, ["utilization.audio >= 0.05"], point=True)[0].holds


def test_what_was_not_measured_or_failed_fails(report):
    (outcome,) = check(report, ["capacity_gap.audio <= 1"])
    assert not outcome.holds
    assert "capacity_gap was not measured" in outcome.reason
    measures = {k: v for k, v in report.measures.items() if k != "utilization"}
    failure = FailureRecord(measure="utilization", error="ZeroDivisionError: no")
    failed = AuditReport(
        report.record.model_copy(update={"measures": measures, "failures": (failure,)})
    )
    assert "ZeroDivisionError" in check(failed, ["utilization.audio > 0"])[0].reason


def test_a_warning_is_told_although_the_requirement_holds(report):
    small = make_report(samples=30)
    (outcome,) = check(small, ["accuracy >= 0.1"])
    assert outcome.holds
    assert "only 30 samples" in outcome.reason


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("utilisation.audio > 0", "did you mean 'utilization'?"),
        ("utilization.audoi > 0", "did you mean 'audio'?"),
        ("utilization.modality=audoi > 0", "did you mean 'audio'?"),
        ("verdict.audoi != harmful", "did you mean 'audio'?"),
        ("utilization.audio.gven=image > 0", "did you mean 'given'?"),
        ("utilization.audio.given=text > 0", "given none, image"),
        ("utilization.audio.modality=audio > 0", "said twice"),
        ("utilization > 0", "say also"),
        ("missing_modality.audio > 0", "has no modality"),
        ("R2 > 0", "found 'R2'"),
        ("", "write for example"),
    ],
)
def test_what_there_is_not_is_refused(report, requirement, words):
    with pytest.raises(RequirementError, match="requirement") as error:
        check(report, [requirement])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_no_requirement_is_no_check(report):
    with pytest.raises(RequirementError, match="no requirement"):
        check(report, [])


def test_long_names_of_twelve_modalities_in_quotes():
    report = twelve_report()
    name = report.modalities[3]
    (outcome,) = check(report, [f"contributions.'{name}' < 0.001"])
    assert outcome.holds
    assert check(report, [f"utilization.'{name}' < 0.001"])[0].holds


@pytest.mark.parametrize("modalities", [("audio", "image"), ("audio", "image", "text")])
@pytest.mark.parametrize(("key", "labels"), LABELS.items(), ids=LABELS)
def test_every_measure_can_be_asked_for_in_short(key, labels, modalities):
    report = with_every_measure(make_report(modalities, samples=60))
    path = f"{key}.audio" if "modality" in labels else key
    if key == "interactions":
        path += ".first=image.second=audio"
    elif key == "missing_modality":
        path += ".rate=0.00"
    elif key == "branch_utilization":
        path = f"{key}.{'+'.join(reversed(modalities[1:]))}.given=audio"
    elif key in ("coalitions", "calibration"):
        path += ".image+audio"
    (outcome,) = check(report, [f"{path} >= -99"])
    assert outcome.holds, outcome
    assert outcome.estimate in [row.estimate for row in report.measures[key].rows]


def test_regressions_are_asked_by_their_own_score(report):
    result = report.measures["coalitions"]
    rows = tuple(
        row.model_copy(update={"labels": row.labels | {"score": "R2"}})
        for row in result.rows
        if row.labels["score"] == "accuracy"
    )
    regression = AuditReport(
        report.record.model_copy(
            update={
                "measures": {"coalitions": result.model_copy(update={"rows": rows})},
                "spec": {"task": "regression"},
            }
        )
    )
    (outcome,) = check(regression, ["R2 >= 0.1"])
    assert outcome.holds
    assert outcome.estimate == report.accuracy
    with pytest.raises(RequirementError, match="accuracy"):
        check(regression, ["accuracy >= 0.1"])


def test_in_pytest(report, tmp_path):
    report.save(tmp_path / "audit")
    assert assert_audit(tmp_path / "audit", "accuracy >= 0.1", "verdict.audio != harmful") == report
    with pytest.raises(AssertionError) as error:
        assert_audit(report, "accuracy >= 0.1", "utilization.audio >= 0.9")
    head, failed, held = str(error.value).splitlines()
    assert head.startswith("1 of 2 requirements")
    assert failed.startswith("  utilization.audio >= 0.9: fails, found .050 [.020, .080]")
    assert held.startswith("  accuracy >= 0.1: holds")


def _run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mmaudit")


def test_the_command(report, tmp_path):
    folder = tmp_path / "audit"
    report.save(folder)
    good = _run("check", folder, "--require", "accuracy >= 0.1", "--require", "verdict.audio != harmful")  # fmt: skip
    assert good.exit_code == 0, good.output
    assert good.stdout.count("holds") == 2
    assert "all 2 hold" in good.stdout
    bad = _run("check", folder, "--require", "accuracy >= 0.1", "--require", "utilization.audio >= 0.05")  # fmt: skip
    assert bad.exit_code == 1
    assert "lower end .020" in bad.stdout
    assert "1 of 2 fail" in bad.stdout
    assert bad.stderr == ""


def test_two_records_of_one_title_are_told_apart(report, tmp_path):
    for name in ("one", "two"):
        report.save(tmp_path / name)
    result = _run("check", tmp_path / "one", tmp_path / "two", "--require", "accuracy >= 0.1")
    text = "".join(result.stdout.split())
    assert result.exit_code == 0
    for name in ("one", "two"):
        assert f"{tmp_path / name}:{''.join(report.title.split())}" in text


def test_the_command_as_json_over_two_records(report, tmp_path):
    for name in ("one", "two"):
        report.save(tmp_path / name)
    result = _run("check", tmp_path / "one", tmp_path / "two", "--json", "--require", "utilization.audio >= 0.05")  # fmt: skip
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [one["holds"] for one in found] == [False, False]
    (outcome,) = found[0]["requirements"]
    assert outcome["estimate"]["low"] == 0.02
    assert outcome["compared"] == "lower end .020"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what must hold"),
        (["--require", "utilization.audio"], "expected a comparison"),
        (["--require", "accuracy >= 0", "--require", "utilization.audoi > 0"], "did you mean"),
        (["--require", "accuracy >= high"], "a number behind >="),
    ],
)
def test_bad_input_prints_one_sentence_alone(report, tmp_path, arguments, words):
    report.save(tmp_path / "audit")
    result = _run("check", tmp_path / "audit", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_missing_record_is_bad_input(tmp_path):
    result = _run("check", tmp_path, "--require", "accuracy >= 0")
    assert result.exit_code == 2
    assert "no report" in result.stderr


def test_help_has_the_grammar():
    text = " ".join(_run("check", "--help").stdout.split())
    for words in ("MEASURE[.MODALITY][.label=value ...] OP NUMBER", "verdict.audio != harmful", "lower end"):  # fmt: skip
        assert words in text


def test_neither_needs_torch():
    code = "import sys, mmaudit.testing, mmaudit.checking; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
