"""The self-test finds nothing off in an honest package, and something in a dishonest one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mmaudit.command_line import selftesting
from mmaudit.measures.contribution import Contribution
from mmaudit.selftest import SelftestResult, run_selftest
from mmaudit.selftest.cases import CASES, run_case
from mmaudit.selftest.checks import check_cases, compared
from mmaudit.selftest.coverage import SCENARIOS, coverage_of
from mmaudit.selftest.results import CoverageRow, ErrorRow, VerdictRow

XOR = replace(next(case for case in CASES if case.name == "XOR"), samples=400)


def test_the_cases_have_every_verdict_two_three_and_five_modalities_and_several_masks():
    verdicts = {verdict for case in CASES for verdict in case.verdicts.values()}
    assert verdicts == {"well used", "redundant", "under-used", "uninformative", "harmful"}
    assert {len(case.verdicts) for case in CASES} == {2, 3, 5}
    assert {case.mask for case in CASES} == {"zero", "mean", "marginal"}
    assert any(case.world.group_size > 1 for case in CASES)


def test_estimates_of_a_case_are_near_the_truth():
    found = list(compared(XOR, run_case(XOR, 3), 3, samples=20_000))
    names = {one.estimator for one in found}
    assert {"coalitions: accuracy", "contributions: value, accuracy", "utilization: u"} <= names
    assert {"interactions: accuracy", "responses: Acc", "mask_sensitivity: drop"} <= names
    assert max(one.deviation for one in found) < 5
    assert max(abs(one.error) for one in found if one.estimator == "coalitions: accuracy") > 0


def test_a_wrong_estimator_is_noticed(monkeypatch):
    honest = Contribution.rows

    def half(self, sums):
        for row in honest(self, sums):
            if row.estimate.value is not None and row.labels["quantity"] == "value":
                kept = {
                    "value": row.estimate.value / 2,
                    "low": row.estimate.low / 2,
                    "high": row.estimate.high / 2,
                }
                row = row.model_copy(update={"estimate": row.estimate.model_copy(update=kept)})
            yield row

    monkeypatch.setattr(Contribution, "rows", half)
    errors, _ = check_cases([XOR], 0, samples=20_000)
    off = {row.estimator for row in errors if not row.right}
    assert "contributions: value, accuracy" in off and "coalitions: accuracy" not in off


def test_wrong_verdicts_are_noticed():
    swapped = {"a": "harmful", "b": "well used"}
    case = replace(XOR, verdicts=swapped, never=("synergy",), rules=("leaked label",))
    _, rows = check_cases([case], 0, samples=5000)
    assert [(row.about, row.right) for row in rows] == [
        ("a", False),
        ("b", True),
        ("model", False),
        ("model", False),
    ]


def test_coverage_is_counted_and_narrow_intervals_are_noticed(monkeypatch):
    rows = coverage_of(SCENARIOS[0], 40, np.random.default_rng(0))
    assert {row.runs for row in rows} == {40}
    assert all(row.right and 0.85 < row.coverage <= 1 for row in rows)
    from mmaudit.measures import intervals

    monkeypatch.setattr(intervals, "student_factor", lambda units: 1.0 + 0 * units)
    rows = {row.interval: row for row in coverage_of(SCENARIOS[0], 40, np.random.default_rng(0))}
    assert not rows["contributions, accuracy"].right
    assert rows["coalitions, accuracy"].right


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(selftesting.selftest)
    return lambda *args: CliRunner().invoke(app, list(args))


def made(right: bool) -> SelftestResult:
    error = ErrorRow(
        estimator="x",
        estimates=3,
        largest_error=0.1,
        mean_error=0.05,
        largest_deviation=9.0,
        exact=0,
        worst="here",
        right=right,
    )
    cover = CoverageRow(
        scenario="s", interval="i", coverage=0.9, intervals=100, runs=50, warned=0.0, right=right
    )
    verdict = VerdictRow(case="c", about="a", expected="well used", found="harmful", right=right)
    return SelftestResult(
        version="0",
        seed=0,
        quick=True,
        seconds=61.0,
        errors=(error,),
        coverage=(cover,),
        verdicts=(verdict,),
    )


def test_the_command_prints_and_keeps_what_was_found(command, monkeypatch, tmp_path):
    monkeypatch.setattr("mmaudit.selftest.run_selftest", lambda **_: made(True))
    done = command("--quiet", "--json", str(tmp_path / "x.json"))
    assert done.exit_code == 0
    assert "All is as it should be" in done.stdout and "1 min 1 s" in done.stdout
    assert json.loads((tmp_path / "x.json").read_text())["verdicts"][0]["about"] == "a"


def test_the_command_fails_where_something_is_off(command, monkeypatch):
    monkeypatch.setattr("mmaudit.selftest.run_selftest", lambda **_: made(False))
    done = command("--quiet")
    assert done.exit_code == 1
    for line in ("x: 9.0 standard errors", "covers 90.0 %", "expected well used, found harmful"):
        assert line in done.stdout


def test_a_folder_is_no_file(command, tmp_path):
    done = command("--json", str(tmp_path))
    assert done.exit_code != 0 and "is a folder" in str(done.exception)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_of_it():
    result = run_selftest(seed=11)
    assert result.off == ()
    assert len({row.estimator for row in result.errors}) >= 12
