"""``mmaudit ogr --columns``: columns of a table by their names, and what is told where they are wrong."""

import pytest
from typer.testing import CliRunner

from mmaudit.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mmaudit")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{e},{s},{2 - e / 10 + k}" for e in range(12) for k, s in enumerate(("A", "B"))]
    path.write_text("it_is,of,loss\n" + "\n".join(rows) + "\n")
    return path


def test_columns_are_named(tmp_path, table):
    heads = tmp_path / "heads.yaml"
    heads.write_text("heads: {x: {train: A/loss, validation: B/loss}}\n")
    result = run("ogr", table, "--map", heads, "--columns", "split=of", "--columns", "epoch=it_is")
    assert result.exit_code == 0, result.output
    heads.write_text(heads.read_text() + "columns: {split: of, epoch: it_is}\n")
    assert run("ogr", table, "--map", heads).stdout == result.stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["of"], "KEY=NAME"),
        (["split="], "KEY=NAME"),
        (["split=of", "split=loss"], "each key once"),
        (["head=of"], "split"),
        (["split=nope"], "no column 'nope'"),
    ],
)
def test_wrong_columns(table, given, told):
    result = run("ogr", table, *(part for text in given for part in ("--columns", text)))
    assert result.exit_code == 2 and told in " ".join(result.stderr.split())


def test_the_help_shows_a_map():
    text = run("ogr", "--help").stdout
    assert "columns: {epoch: ep, split: phase}" in text
    assert "joint: {train: train/loss, validation: val/loss}\n" in text
