import csv
import io

import pytest
from typer.testing import CliRunner

from mmaudit.cli import app
from mmaudit.export.csv_tables import to_csv
from mmaudit.export.markdown import to_markdown
from mmaudit.export.model_card import to_model_card
from tests.report.fixtures import make_report, with_findings


@pytest.fixture
def record(tmp_path):
    report = with_findings(make_report(samples=60), "under-used", "well used")
    report.save(tmp_path / "audit")
    return tmp_path / "audit", report


def _run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mmaudit")


def test_all_at_once(record, tmp_path):
    folder, report = record
    out = tmp_path / "out"
    result = _run(
        "export", folder, "--html", out / "r.html", "--markdown", out / "r.md", "--csv", out / "all.csv",
        "--model-card", out / "card.md",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr.count("wrote ") == 4
    assert (out / "r.md").read_text() == to_markdown(report)
    assert (out / "all.csv").read_text() == to_csv(report)
    assert (out / "card.md").read_text() == to_model_card(report)
    assert "<html" in (out / "r.html").read_text()[:500]


def test_csv_into_a_folder(record, tmp_path):
    folder, report = record
    assert _run("export", folder, "--csv", tmp_path / "tables").exit_code == 0
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {f"{key}.csv" for key in (*report.measures, "findings")}
    (tmp_path / "tables" / "coalitions.csv").write_text("mine")
    again = _run("export", folder, "--csv", tmp_path / "tables")
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert (tmp_path / "tables" / "coalitions.csv").read_text() == "mine"
    assert _run("export", folder, "--csv", tmp_path / "tables", "--force").exit_code == 0
    assert (tmp_path / "tables" / "coalitions.csv").read_text() != "mine"


@pytest.mark.parametrize(
    ("option", "make"),
    [("--csv", to_csv), ("--model-card", to_model_card), ("--markdown", to_markdown)],
)
def test_to_stdout(record, option, make):
    folder, report = record
    result = _run("export", folder, option, "-")
    assert result.stdout == make(report)
    if option == "--csv":
        assert len(list(csv.reader(io.StringIO(result.stdout)))) > 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model-card FILE"),
        (["--html", "-"], "--html needs a file name"),
        (["--csv", "-", "--markdown", "-"], "cannot all go to stdout"),
        (["--csv", "{here}/audit/report.json"], "is a file; name a folder"),
        (["--model-card", "{here}"], "is a folder"),
        (["--model-card", "{here}/audit/report.json"], "exists already"),
        (["--markdown", "{here}/x", "--model-card", "{here}/x"], "are the same"),
    ],
)
def test_bad_places(record, tmp_path, arguments, words):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    result = _run("export", record[0], *(a.format(here=tmp_path) for a in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_what_lies_behind_a_verdict_is_shown(record):
    folder, _ = record
    result = _run("show", folder, "--why", "audio")
    assert result.exit_code == 0
    assert result.stdout.startswith("audio: under-used")
    assert "worse than its best modality" in _run("show", folder, "--why", "model").stdout
    wrong = _run("show", folder, "--why", "audoi")
    assert wrong.exit_code == 2
    assert "did you mean 'audio'" in wrong.stderr
    assert _run("show", folder, "--why", "audio", "--json").exit_code == 2
