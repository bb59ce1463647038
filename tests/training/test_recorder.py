from __future__ import annotations

import json

import pytest

from mmaudit.exceptions import RecordError
from mmaudit.training.recorder import Recorder, read_history


def test_what_is_recorded_is_read_back(tmp_path):
    recorder = Recorder(tmp_path / "history.jsonl")
    recorder.record(step=0, epoch=0, split="train", values={"loss": 2.5, "accuracy": 0.1})
    recorder.record(step=7, epoch=1, split="validation", values={"loss": 1 / 3})
    history = read_history(tmp_path)
    assert history.to_dict("records") == [
        {"step": 0, "epoch": 0, "split": "train", "name": "loss", "value": 2.5},
        {"step": 0, "epoch": 0, "split": "train", "name": "accuracy", "value": 0.1},
        {"step": 7, "epoch": 1, "split": "validation", "name": "loss", "value": 1 / 3},
    ]


def test_a_resumed_record_keeps_finished_epochs_only(tmp_path):
    path = tmp_path / "history.jsonl"
    recorder = Recorder(path)
    for epoch in range(4):
        recorder.record(step=epoch, epoch=epoch, split="train", values={"loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 4, "epo')
    assert read_history(path)["epoch"].tolist() == [0, 1, 2, 3]
    Recorder(path, keep_epochs=1)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1]


def test_numbers_that_do_not_exist_are_refused(tmp_path):
    recorder = Recorder(tmp_path / "history.jsonl")
    with pytest.raises(ValueError, match="'loss' is nan"):
        recorder.record(step=0, epoch=0, split="train", values={"loss": float("nan")})


def test_a_missing_or_damaged_record_is_named(tmp_path):
    with pytest.raises(RecordError, match="no loss record"):
        read_history(tmp_path)
    (tmp_path / "history.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    with pytest.raises(RecordError, match="line 1"):
        read_history(tmp_path)
