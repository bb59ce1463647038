"""``mmaudit ogr``: what it prints and writes, and that bad logs end in one sentence."""

import json
import os
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from mmaudit.cli import app
from mmaudit.command_line.ending import say
from mmaudit.report.loss_report import LossReport
from tests.loss_logs import write_logs


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mmaudit")


def test_what_is_found_is_printed_and_the_guess_told(tmp_path):
    result = run("ogr", *write_logs(tmp_path))
    assert result.exit_code == 0, result.output
    assert "audio overfits first, from epoch 9" in " ".join(result.stdout.split())
    assert "audio: train 'train_audio_loss'" in result.stdout
    assert "--save-map" in result.stderr


def test_everything_is_written(tmp_path):
    out, page, heads = tmp_path / "out", tmp_path / "a.html", tmp_path / "heads.yaml"
    result = run(
        "ogr", *write_logs(tmp_path, runs=2), "--out", out, "--html", page, "--save-map", heads, "--lag", 2,
        "--policy", "signed", "--super-epoch", 5, "--smoothing", 0.2, "--markdown", "-",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("# Overfitting along the training")
    assert LossReport.load(out).record.settings == {
        "lag": 2,
        "smoothing": 0.2,
        "policy": "signed",
        "super_epoch": 5,
    }
    assert "<html" in page.read_text()[:300] and "train_audio_loss" in heads.read_text()
    again = run("ogr", *write_logs(tmp_path, runs=2), "--out", out)
    assert again.exit_code == 2 and "--force" in again.stderr
    replaced = run("ogr", *write_logs(tmp_path, runs=2), "--out", out, "--map", heads, "--force")
    assert replaced.exit_code == 0 and LossReport.load(out).record.guessed == ()


def test_json_alone_on_stdout(tmp_path):
    result = run("ogr", *write_logs(tmp_path, runs=3), "--run", "seed1", "--json")
    record = json.loads(result.stdout)
    assert record["schema_version"] == 1 and [r["title"] for r in record["runs"]] == ["seed1"]


def test_nothing_is_written_where_anything_is_wrong(tmp_path):
    page = tmp_path / "a.html"
    for bad in (
        ["--lag", 99],
        ["--run", "nobody"],
        ["--map", tmp_path / "none.yaml"],
        ["--format", "xml"],
    ):
        result = run("ogr", *write_logs(tmp_path), "--html", page, *bad)
        assert result.exit_code == 2 and not page.exists()
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "junk", "fifo", "device", "folder", "deep", "torn"]
)
def test_bad_logs_end_in_one_sentence(tmp_path, kind):
    path = tmp_path / "log.csv"
    if kind == "empty":
        path.write_text("")
    elif kind == "junk":
        path.write_bytes(bytes(range(256)) * 20)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "deep":
        path.write_text("[" * 200_000)
    elif kind == "torn":
        path.write_text('epoch,"train_loss')
    result = run("ogr", path)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("Error:") and len(result.stderr.strip().splitlines()) == 1


def test_it_starts_quickly_and_without_torch(tmp_path):
    (path,) = write_logs(tmp_path)
    code = (
        "import sys; from mmaudit.cli import app; sys.argv = ['mmaudit', 'ogr', sys.argv[1]]\n"
        "try: app()\nexcept SystemExit as end: assert not end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - start < 30


def test_names_of_files_do_not_control_the_terminal(tmp_path):
    (log,) = write_logs(tmp_path)
    odd = log.rename(tmp_path / "log\x1b[31m\x07.csv")
    hint = run("ogr", odd)
    page = tmp_path / "a\x1b]0;title\x07\nwrote b.html"
    written = run("ogr", odd, "--html", page)
    again = run("ogr", odd, "--html", page)
    assert (hint.exit_code, written.exit_code, again.exit_code) == (0, 0, 2)
    assert "mmaudit ogr LOGS ... --save-map heads.yaml" in hint.stderr
    assert "wrote " in written.stderr and "\nwrote b.html" not in written.stderr
    for result in (hint, written, again):
        assert all(line.isprintable() for line in result.stderr.split("\n")), result.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_what_is_said_keeps_its_lines_and_names_that_are_no_text(capsys):
    say("one\n two\r\x9b é\u202e")
    assert capsys.readouterr().err == "one\n two   é \n"


def test_the_head_of_an_error_keeps_its_colour(monkeypatch, capsys):
    monkeypatch.setattr("mmaudit.command_line.ending._in_colour", lambda: True)
    with pytest.raises(SystemExit):
        app(["ogr", "no\x1bfile.csv"])
    told = capsys.readouterr().err
    assert told.startswith("\x1b[31m") and told.count("\x1b") == told.count("\x1b[")
    assert "no file.csv" in told
