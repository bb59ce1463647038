"""Logs that are meant to hurt: each ends in runs or in one printable sentence, in seconds, with bounded memory."""

import json
import os
import sqlite3
import time
from contextlib import closing

import pytest

from mmaudit.evidence.loss_map import read_map
from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import csv_text, events, json_lines, write

ODD = "\x1b[2J<b onclick=x>&\u202e\x00\x07loss/train"
ALSO_ODD = ODD.replace("train", "val")


def ends(call, seconds=5.0):
    """Runs or the sentence that refuses them."""
    start = time.monotonic()
    try:
        found = call()
    except LogError as error:
        found = str(error)
        assert found.isprintable() and len(found) < 1500
    assert time.monotonic() - start < seconds
    return found


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 900 + "1" + "}" * 900,
        '{"loss": ' + "[" * 900 + "]" * 900 + "}",
        '{"loss": 1' + "0" * 1_500_000 + "}",
        '{"loss": [' + "1" * 1_500_000 + "]}",
        "[" + '{"loss": 1},' * 50_000 + '{"loss": ' + "9" * 5000 + "}]",
        '{"loss": "' + "x" * 3_000_000 + '"}',
        "[" + "{}," * 200_000 + "{}]",
        json.dumps([{f"k{i}": 1} for i in range(6000)]),
        '{"log_history": ' + "[" * 900 + "]" * 900 + "}",
        '{"train": [{"loss": [[1]]}, {"loss": {}}], "val": [{"loss": null}]}',
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "trainer_state.json"])
def test_json(tmp_path, text, name):
    ends(lambda: read_runs(write(tmp_path / name, text)))


@pytest.mark.parametrize(
    "row",
    [
        {"split": ["train"], "loss": 1},
        {"run": {"a": 1}, "epoch": {}, "loss": [1]},
        {"epoch": True, "loss": False, "step": "1"},
        {"epoch": [1], "step": [2], "loss": "1.5"},
        {"name": [], "value": 1},
        {"name": None, "value": "x"},
        {"": 1, " ": 2, "loss": 3},
        {"epoch": 10**30, "step": -(10**30), "loss": 10**400},
        {"split": "train" * 1000, "type": "", "mode": None, "loss": 1},
        {ODD: 1.0, "epoch": 0, "val_loss": 2.0},
        {"\ud800_loss": 1.0, "\udfff": "\ud800", "split": "\ud800"},
        {"loss": {"train": {"a": 1}, "val": {"a": 2}}, "epoch": 1},
    ],
)
def test_rows_of_odd_cells(tmp_path, row):
    for count in (1, 3):
        for name, text in (
            ("a.jsonl", json_lines([row] * count)),
            ("a.json", json.dumps([row] * count)),
            ("trainer_state.json", json.dumps({"log_history": [row] * count})),
        ):
            found = ends(lambda: read_runs(write(tmp_path / name, text)))
            if not isinstance(found, str):
                for run in found:
                    assert all(note.isprintable() for note in run.notes)
                    for series in run.series:
                        series.encode()


def test_names_that_a_terminal_or_a_page_would_act_on(tmp_path):
    value = [(ODD, i, 1.0) for i in range(3)] + [(ALSO_ODD, i, 1.0) for i in range(3)]
    text = f'epoch,"{ODD}","{ALSO_ODD}"\n0,1,2\n1,1,2\n'.replace("\x00", "")
    folder = tmp_path / "<b>\n\x1b[1m"
    folder.mkdir()
    for path in (
        write(folder / "a\n\x1b.csv", text),
        write(folder / "b.jsonl", json_lines([{"epoch": 0, ODD: 1, ALSO_ODD: 1}] * 2)),
        events(folder / "c" / "events.out.tfevents.1.h\x1b", value),
    ):
        (run,) = read_runs(path)
        assert run.title.isprintable() and all(note.isprintable() for note in run.notes)
        sentences = guess_map([run]).sentences
        assert all(text.isprintable() for text in sentences)
    for name in (b"\xff\xfe.csv", b"\xffseed0.csv", b"\xffseed1.csv"):
        write(tmp_path / os.fsdecode(name), csv_text())
    runs = read_runs(tmp_path)
    assert all(run.title.isprintable() for run in runs)


def test_folders_in_circles_and_what_is_no_file(tmp_path):
    deep = tmp_path / "a"
    for _ in range(50):
        deep = deep / "a"
    deep.mkdir(parents=True)
    for name in ("back", "self"):
        (deep / name).symlink_to(tmp_path)
    (tmp_path / "around.csv").symlink_to(tmp_path / "around.csv")
    os.mkfifo(tmp_path / "train.csv")
    (tmp_path / "val.jsonl").mkdir()
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    assert "holds no log" in ends(lambda: read_runs(tmp_path))
    write(deep / "log.csv", csv_text())
    assert len(read_runs(tmp_path)) == 1


@pytest.mark.parametrize("path", ["a" * 5000, "\0", "nowhere/\ud800"])
def test_paths_that_cannot_be(path):
    assert isinstance(ends(lambda: read_runs(path)), str)


def test_a_database_of_something_else(tmp_path):
    for number, script in enumerate(
        (
            "create table runs (a); create table other (b);",
            "create table metrics (a); create table runs (b);",
            "create table metrics (key, value, timestamp, run_uuid, step, is_nan); create table runs (run_uuid, lifecycle_stage);",
        )
    ):
        path = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(path)) as base:
            base.executescript(script)
        for form in (None, "mlflow"):
            assert isinstance(ends(lambda: read_runs(path, form=form)), str)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n" + '"' * 100_000,
        "a,b\n" + '"x' * 100_000 + "\n1,2\n",
        "epoch," + "x" * 500_000 + "\n1,2\n",
        "epoch,loss\n" + "1," * 400_000 + "\n",
        "epoch\tloss\n" + "\t\n" * 100_000,
        "#" * 500_000 + "\n" + "# c\n" * 100_000 + "epoch,loss\n0,1\n",
        "epoch,loss\n" + "\n" * 500_000 + "0,1\n",
        "epoch,loss\r" + "0,1\r" * 1000,
        "epoch loss\n" + " " * 500_000 + "1 2\n",
        "epoch,loss\n0,1\n" + ",,,,\n" * 50_000,
        "split,loss\n" + "".join(f"s{i},1\n" for i in range(50_000)),
        "run,loss\n" + "".join(f"s{i},1\n" for i in range(50_000)),
    ],
)
def test_tables(tmp_path, text):
    ends(lambda: read_runs(write(tmp_path / "a.csv", text)))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a,*a]\n" for i in range(9)),
        "heads: &h {a: *h}",
        "heads: {a: {train: x, validation: y}}\n<<: {b: 1}",
        "heads: {" + ", ".join(f"h{i}: {{train: x, validation: y}}" for i in range(500)) + "}",
        "? " * 3000,
        "heads: " + "{a: " * 500 + "}" * 500,
        "heads: {? [a] : {train: x, validation: y}}",
        "--- 1\n--- 2\n",
        "heads: {1: {train: x, validation: y}, '1': {train: x, validation: y}}",
        "heads: {a: {train: 2024-01-01, validation: y}}",
        "heads: {\x07: 1}",
        "x: " + "9" * 90_000,
        "heads: {a: {train: " + "'x' " * 2000 + "}}",
    ],
)
def test_maps(tmp_path, text):
    found = ends(lambda: read_map(write(tmp_path / "m.yaml", text)))
    assert not isinstance(found, str) or "pydantic" not in found and "Input should" not in found
