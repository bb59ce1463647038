"""Folders of logs with any names: runs, splits, panels; what lies beside them does no harm, and is named."""

import json
import os

import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.evidence.readers.folder import log_files
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import csv_text, events, json_lines, write
from tests.evidence.readers.test_mlflow import database


def split_text(value=1.0, count=3):
    return "epoch,loss\n" + "".join(f"{e},{value + e}\n" for e in range(count))


def beside(folder):
    """What trainings leave beside their logs."""
    write(folder / "hparams.yaml", "lr: 0.1\n")
    write(folder / "config.json", json.dumps({"lr": 0.1, "epochs": 10, "layers": [64, 64, 32]}))
    write(folder / "args.json", json.dumps({"seed": 1, "loss": "mse"}))
    write(folder / "requirements.txt", "numpy==2.0\ntorch\n")
    write(folder / "README.txt", "It was a run, of which step by step more is said.\n")
    write(folder / "picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
    write(folder / "predictions.csv", "id,label,score\n" + "".join(f"{i},1,.5\n" for i in range(9)))
    write(folder / "results.json", json.dumps({"test_loss": 0.5, "test_acc": 0.9}))
    write(folder / ".ipynb_checkpoints" / "train-checkpoint.csv", split_text(9.0))


def test_a_file_for_each_split(tmp_path):
    write(tmp_path / "train.csv", split_text(1.0))
    write(tmp_path / "val.csv", split_text(2.0))
    beside(tmp_path)
    (run,) = read_runs(tmp_path)
    assert run.title == tmp_path.name
    assert {n: s.value.tolist() for n, s in run.series.items()} == {
        "train/loss": [1, 2, 3],
        "val/loss": [2, 3, 4],
    }
    told = " ".join(run.notes)
    assert "parts of one run" in told
    for name in ("config.json", "predictions.csv", "results.json"):
        assert name in told
    assert "hparams" not in told and "picture" not in told and "checkpoint" not in told


def test_a_file_for_each_run_in_the_order_of_their_numbers(tmp_path):
    for seed in (0, 1, 2, 10):
        write(tmp_path / f"seed{seed}.csv", csv_text())
    beside(tmp_path / "meta")
    runs = read_runs(tmp_path)
    assert [run.title for run in runs] == ["seed0", "seed1", "seed2", "seed10"]


@pytest.mark.parametrize(
    "names",
    [
        ("{seed}/train.csv", "{seed}/val.csv"),
        ("{seed}_train.csv", "{seed}_val.csv"),
        ("{seed}/train/log.csv", "{seed}/val/log.csv"),
        ("train/{seed}.csv", "val/{seed}.csv"),
        ("{seed}/train_loss.csv", "{seed}/val_loss.csv"),
    ],
)
def test_splits_of_several_runs(tmp_path, names):
    for seed in (0, 1):
        for at, name in enumerate(names):
            write(tmp_path / "logs" / name.format(seed=f"seed{seed}"), split_text(seed + 0.5 * at))
    runs = read_runs(tmp_path / "logs")
    assert [run.title for run in runs] == ["seed0", "seed1"]
    assert runs[0].series.keys() == runs[1].series.keys() and len(runs[0].series) == 2
    assert [series.value[0] for series in runs[1].series.values()] == [1.0, 1.5]


def test_a_file_for_each_series(tmp_path):
    for head in ("audio_", "text_", ""):
        for split in ("train", "val"):
            write(tmp_path / f"{split}_{head}loss.csv", "step,value\n0,1\n10,2\n")
    write(tmp_path / "val_acc.csv", "step,value\n0,.1\n10,.2\n")
    (run,) = read_runs(tmp_path)
    assert "val_audio_loss/value" in run.series and len(run.series) == 7


def test_runs_and_splits_of_each(tmp_path):
    text = "fold,epoch,loss\n" + "".join(f"{f},{e},{f}{e}\n" for f in (0, 1) for e in range(3))
    write(tmp_path / "train.csv", text)
    write(tmp_path / "val.csv", text)
    runs = read_runs(tmp_path)
    assert len(runs) == 2
    assert all(run.series.keys() == {"train/loss", "val/loss"} for run in runs)


def test_panels_and_other_formats(tmp_path):
    for name, metric in (("a", "train/loss"), ("b", "val/loss"), ("c", "lr")):
        lines = [f'"Step","one - {metric}","two - {metric}"', "0,1,2", "5,3,4"]
        write(tmp_path / "panels" / f"{name}.csv", "\n".join(lines) + "\n")
    runs = read_runs(tmp_path / "panels")
    assert [(run.title, sorted(run.series)) for run in runs] == [
        ("one", ["lr", "train/loss", "val/loss"]),
        ("two", ["lr", "train/loss", "val/loss"]),
    ]
    write(tmp_path / "mixed" / "a.jsonl", json_lines([{"epoch": e, "loss": 1.0} for e in (0, 1)]))
    write(tmp_path / "mixed" / "b.json", json.dumps({"loss": [1, 2], "val_loss": [1, 2]}))
    write(tmp_path / "mixed" / "c.log", csv_text())
    database(tmp_path / "mixed" / "m.db")
    assert [run.format for run in read_runs(tmp_path / "mixed")] == [
        "JSON lines", "JSON", "CSV", "MLflow", "MLflow",
    ]  # fmt: skip
    (only,) = read_runs(tmp_path / "mixed", form="json")
    assert only.title == "b" and "left out" in only.notes[-1]


def test_a_file_that_cannot_be_read_is_named_and_hides_no_other(tmp_path):
    write(tmp_path / "seed0.csv", csv_text())
    write(tmp_path / "seed1.csv", os.urandom(3000))
    write(tmp_path / "seed2.csv", "epoch,train_loss,val_loss\n")
    write(tmp_path / "seed3.jsonl", "{bad\n{bad\n")
    (run,) = read_runs(tmp_path)
    assert run.title == "seed0"
    assert all(f"seed{i}" in run.notes[-1] for i in (1, 2, 3))
    assert "no text in UTF-8" in run.notes[-1] and "no numbers" in run.notes[-1]


def test_odd_names_of_series_are_read_where_they_have_places(tmp_path):
    write(tmp_path / "a.csv", "step,J1,J2\n0,1,2\n1,2,3\n")
    beside(tmp_path)
    (run,) = read_runs(tmp_path)
    assert sorted(run.series) == ["J1", "J2"]


def test_no_log_in_it(tmp_path):
    beside(tmp_path / "a")
    (tmp_path / "a" / "results.json").unlink()
    with pytest.raises(LogError, match="none holds losses along a training"):
        read_runs(tmp_path / "a")
    write(tmp_path / "b" / "x.csv", os.urandom(300))
    write(tmp_path / "b" / "y.csv", "")
    with pytest.raises(LogError, match="1 more"):
        read_runs(tmp_path / "b")
    write(tmp_path / "c" / "x.png", os.urandom(300))
    with pytest.raises(LogError, match="holds no log"):
        read_runs(tmp_path / "c")


def test_known_formats_come_first_and_what_is_not_read_is_told(tmp_path):
    write(
        tmp_path / "metrics.csv", "epoch,step,train_loss,val_loss\n0,1,2,\n0,1,,3\n1,2,2,\n1,2,,3\n"
    )
    write(tmp_path / "other.csv", csv_text())
    (run,) = read_runs(tmp_path)
    assert run.format == "Lightning CSV" and "'other.csv'" in run.notes[-1]
    write(tmp_path / "metrics.csv", "epoch,step,train_loss\n")
    (run,) = read_runs(tmp_path)
    assert run.title == "other" and "could not be read as lightning" in run.notes[-1]


def test_event_files_without_scalars_give_way(tmp_path):
    events(tmp_path / "events.out.tfevents.1.h", [])
    write(tmp_path / "log.csv", csv_text())
    (run,) = read_runs(tmp_path)
    assert run.title == "log" and "could not be read as tensorboard" in run.notes[-1]


def test_links_are_read_once_and_loops_not_followed(tmp_path):
    write(tmp_path / "a" / "run.csv", csv_text())
    (tmp_path / "a" / "again.csv").symlink_to(tmp_path / "a" / "run.csv")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "gone.csv").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "a" / "fifo.csv")
    assert [file.name for file in log_files(tmp_path / "a")] == ["again.csv"]
    assert len(read_runs(tmp_path / "a")) == 1


def test_a_folder_and_a_file_in_it_are_one_log(tmp_path):
    write(tmp_path / "a" / "run.csv", csv_text())
    with pytest.raises(LogError, match="given twice"):
        read_runs([tmp_path / "a", tmp_path / "a" / "run.csv"])


def test_too_many_files(tmp_path, monkeypatch):
    for i in range(5):
        write(tmp_path / f"{i}.csv", csv_text())
    monkeypatch.setattr("mmaudit.evidence.readers.folder.MOST_FILES", 4)
    with pytest.raises(LogError, match="more than 4 logs"):
        read_runs(tmp_path)
    monkeypatch.setattr("mmaudit.evidence.readers.folder._MOST_ENTRIES", 4)
    with pytest.raises(LogError, match="more than 4 files"):
        read_runs(tmp_path)


def test_documents_of_several_splits_and_runs(tmp_path):
    rows = [{"epoch": e, "loss": 1.0 + e} for e in range(3)]
    write(tmp_path / "a.json", json.dumps({"train": rows, "val": rows}))
    (run,) = read_runs(tmp_path / "a.json")
    assert sorted(run.series) == ["train/loss", "val/loss"]
    lists = {"loss": [1, 2], "val_loss": [1, 2]}
    write(tmp_path / "b.json", json.dumps({"seed0": lists, "seed1": lists}))
    runs = read_runs(tmp_path / "b.json")
    assert len(runs) == 2 and all(run.series.keys() == lists.keys() for run in runs)
    write(tmp_path / "c.json", json.dumps({"train": {"loss": [1, 2]}, "val": {"loss": [1, 2]}}))
    (run,) = read_runs(tmp_path / "c.json")
    assert run.title == "c" and sorted(run.series) == ["train/loss", "val/loss"]
