import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from mmaudit.command_line.comparing import compare
from mmaudit.command_line.ending import Commands
from mmaudit.comparing import compare as compare_records
from mmaudit.report.comparison import Comparison
from tests.pairs import make_pair

app = Typer(cls=Commands)
app.command()(compare)
app.callback()(lambda: None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    before, after, _ = make_pair(tmp_path_factory.mktemp("pair"))
    return before.folder, after.folder


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_it_prints_the_table_and_the_verdict(folders):
    result = run(*folders)
    assert result.exit_code == 0, result.output
    assert "Difference, 300 samples" in result.stdout
    assert "AGM" in result.stdout.partition("Verdict: ")[2].partition(":")[0]


def test_json_is_all_there_is_on_stdout(folders):
    result = run(*folders, "--json", "--replicates", 200, "--seed", 3)
    assert result.exit_code == 0
    found = Comparison.model_validate(json.loads(result.stdout))
    assert found == compare_records(*folders, replicates=200, seed=3)


def test_files(folders, tmp_path):
    out, page = tmp_path / "c.json", tmp_path / "c.md"
    result = run(*folders, "--out", out, "--markdown", page)
    assert result.exit_code == 0
    assert Comparison.load(out) == compare_records(*folders)
    assert page.read_text().startswith("# Before and after")
    assert f"wrote {out}" in result.stderr
    again = run(*folders, "--out", out)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    assert run(*folders, "--out", out, "--force").exit_code == 0
    assert "is a folder" in run(*folders, "--out", tmp_path).stderr


def test_markdown_on_stdout(folders):
    result = run(*folders, "--markdown", "-")
    assert result.stdout.startswith("# Before and after")
    assert "Verdict:" not in result.stdout
    both = run(*folders, "--markdown", "-", "--json")
    assert both.exit_code == 2
    assert "both print on stdout" in both.stderr


def test_what_cannot_be_compared_ends_with_a_sentence(folders, tmp_path):
    other, _, _ = make_pair(tmp_path, n=200)
    result = run(folders[0], other.folder)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "different data (300 samples before, 200 after" in result.stderr
    assert result.stdout == ""
    assert run(folders[0], tmp_path / "none").exit_code == 2
    assert run(*folders, "--replicates", 5).exit_code == 2
