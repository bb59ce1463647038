"""Whatever is given as a log: found by its content, or refused in one sentence, at once."""

import os
import random
import subprocess
import sys
import time

import pytest

from mmaudit.evidence.readers import READERS, read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import csv_text, json_lines, write


def refused(path, **options):
    start = time.monotonic()
    with pytest.raises(LogError) as caught:
        read_runs(path, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.isprintable() and len(sentence) < 1500
    assert time.monotonic() - start < 5
    return sentence


def test_nothing_there(tmp_path):
    assert "no such file" in refused(tmp_path / "a.csv")
    assert "at least one" in refused([])
    assert "no format" in refused(write(tmp_path / "a.csv", csv_text()), form="xml")
    (tmp_path / "empty").mkdir()
    assert "holds no log" in refused(tmp_path / "empty")


def test_pipes_devices_and_loops_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "neither a file" in refused(tmp_path / "fifo.csv")
    assert "neither a file" in refused(tmp_path / "zero.csv")
    assert "no such file" in refused(tmp_path / "loop")
    below = tmp_path / "below"
    below.mkdir()
    os.mkfifo(below / "metrics.csv")
    os.mkfifo(below / "events.out.tfevents.1.h")
    (below / "again").symlink_to(below)
    assert "holds no log" in refused(below)


@pytest.mark.parametrize("form", READERS)
def test_every_reader_refuses_what_is_not_its_own(tmp_path, form):
    junk = random.Random(0)
    for number, data in enumerate(
        [
            junk.randbytes(4000),
            b"",
            b"\n\n",
            b"{",
            b"[1]",
            b"a,b\n",
            b"\xff" * 100,
            b"SQLite format 3\0x",
        ]
    ):
        refused(write(tmp_path / f"{number}.bin", data), form=form)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", form=form)


def test_junk_of_all_names(tmp_path):
    junk = random.Random(1)
    names = ("csv", "tsv", "json", "jsonl", "log", "db", "txt")
    for number in range(35):
        name = f"x{number}.{names[number % len(names)]}"
        refused(write(tmp_path / name, junk.randbytes(3000)))
    for number in range(5):
        refused(write(tmp_path / f"events.out.tfevents.{number}.h", junk.randbytes(3000)))


def test_files_that_say_their_split(tmp_path):
    write(tmp_path / "train.csv", "epoch,loss\n0,1\n1,2\n")
    write(tmp_path / "val.csv", "epoch,loss\n0,3\n1,4\n")
    (run,) = read_runs([tmp_path / "train.csv", tmp_path / "val.csv"])
    assert {name: s.value.tolist() for name, s in run.series.items()} == {
        "train/loss": [1, 2],
        "val/loss": [3, 4],
    }
    assert "parts of one run" in run.notes[-1]


def test_titles_differ(tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder / "log.csv", csv_text())
        write(tmp_path / folder / "log.jsonl", json_lines([{"epoch": 0, "loss": 1.0}] * 2))
    runs = read_runs([*sorted(tmp_path.rglob("*.csv")), *sorted(tmp_path.rglob("*.jsonl"))])
    titles = [run.title for run in runs]
    assert len(set(titles)) == 4 and titles[0].startswith("a/log")


def test_a_folder_of_two_formats_says_so(tmp_path):
    write(
        tmp_path / "metrics.csv", "epoch,step,train_loss,val_loss\n0,1,2,\n0,1,,3\n1,2,2,\n1,2,,3\n"
    )
    write(tmp_path / "history.jsonl", json_lines([{"epoch": 0, "loss": 1.0}] * 2))
    (run,) = read_runs(tmp_path)
    assert run.format == "Lightning CSV" and "other formats too (jsonl)" in run.notes[-1]


def test_reading_loads_no_torch():
    code = "import sys, mmaudit.trajectories; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_log_that_is_given_twice_is_no_repeat(tmp_path):
    path = write(tmp_path / "log.csv", "epoch,train_loss,val_loss\n0,2,2.1\n1,1,1.2\n")
    with pytest.raises(LogError, match="given twice"):
        read_runs([path, tmp_path / "." / "log.csv"])
