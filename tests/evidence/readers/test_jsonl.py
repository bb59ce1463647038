"""JSON lines and documents of any layout."""

import json

import numpy as np
import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import json_lines, write
from tests.integration.shared_data import shared_file


def only(path, **options):
    (run,) = read_runs(path, **options)
    return run


def test_flat_and_nested_lines(tmp_path):
    rows = [{"epoch": i, "train": {"loss": 2 - i}, "val_loss": None if i else 3} for i in range(3)]
    run = only(write(tmp_path / "a.jsonl", json_lines(rows)))
    assert run.series["train/loss"].value.tolist() == [2, 1, 0]
    assert run.series["val_loss"].epoch.tolist() == [0]


def test_long_lines_of_a_recorder(tmp_path):
    rows = [{"about": "losses of all heads"}]
    rows += [
        {"step": 10 * e, "epoch": e, "split": split, "name": "audio_loss", "value": e + 0.5}
        for e in range(3)
        for split in ("train", "validation")
    ]
    folder = tmp_path / "seed0"
    write(folder / "history.jsonl", json_lines(rows))
    run = only(tmp_path)
    assert run.title == "seed0"
    assert run.series["train/audio_loss"].step.tolist() == [0, 10, 20]
    assert sorted(run.series) == ["train/audio_loss", "validation/audio_loss"]


def test_a_torn_last_line_is_said(tmp_path):
    text = json_lines([{"epoch": i, "loss": 1.0} for i in range(3)]) + '{"epoch": 3, "lo'
    run = only(write(tmp_path / "a.jsonl", text))
    assert len(run.series["loss"].value) == 3 and "torn" in run.notes[0]


def test_not_a_number_is_kept_and_null_is_not(tmp_path):
    text = '{"epoch":0,"loss":NaN}\n{"epoch":1,"loss":null}\n{"epoch":2,"loss":"nan"}\n{"epoch":3,"loss":1}\n'
    run = only(write(tmp_path / "a.jsonl", text))
    assert run.series["loss"].epoch.tolist() == [0, 2, 3]
    assert np.isnan(run.series["loss"].value[:2]).all()


def test_many_parts_are_one_log(tmp_path):
    rows = [
        {"step": i, "loss": i / 7, **({"val": 1.0} if i % 100 == 0 else {})} for i in range(45_000)
    ]
    run = only(write(tmp_path / "a.jsonl", json_lines(rows)))
    np.testing.assert_allclose(run.series["loss"].value, np.arange(45_000) / 7)
    assert run.series["val"].step.tolist() == list(range(0, 45_000, 100))


@pytest.mark.parametrize(
    "document",
    [
        {"loss": [1, 2, 3], "val_loss": [4, 5, 6]},
        {"history": [{"loss": i + 1, "val_loss": i + 4, "epoch": i} for i in range(3)]},
        [{"loss": i + 1, "val_loss": i + 4, "epoch": i} for i in range(3)],
        {"epoch": [0, 1, 2], "loss": [1, 2, 3], "val_loss": [4, 5, 6], "note": "x"},
    ],
)
def test_documents(tmp_path, document):
    run = only(write(tmp_path / "a.json", json.dumps(document)))
    assert run.series["val_loss"].value.tolist() == [4, 5, 6]
    assert run.series["val_loss"].epoch.tolist() == [0, 1, 2]


def test_forty_real_runs():
    runs = read_runs(shared_file("logs/mfn_mosi_runs.json"))
    assert len(runs) == 40 and len({run.title for run in runs}) == 40
    assert all({"train_loss", "val_loss"} <= run.series.keys() for run in runs)
    assert {len(run.series["train_loss"].value) for run in runs} == {50}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a":1}\n{bad\n{"a":2}\n', "line 2 is no JSON"),
        ("a.jsonl", '{"a":1}\n[1]\n{"a":2}\n', "one JSON object a line"),
        ("a.jsonl", '{"a":1}\n{"b":"' + "x" * 2_000_000 + '"}\n', "line 2 is longer than 1 MB"),
        ("a.jsonl", "{}\n{}\n", "no numbers"),
        ("a.json", "[" * 100_000, "no JSON document"),
        ("a.json", '{"loss": [1, 2', "no JSON document"),
        ("a.json", "[1, 2]", "expected a mapping of lists"),
        ("a.json", "{}", "no numbers"),
    ],
)
def test_no_log(tmp_path, name, text, message):
    with pytest.raises(LogError, match=message):
        read_runs(write(tmp_path / name, text))


def test_half_a_surrogate_pair(tmp_path):
    text = '{"epoch":0,"train_\\ud800_loss":1}\n' * 3
    run = only(write(tmp_path / "a.jsonl", text))
    assert list(run.series) == ["train_?_loss"]


@pytest.mark.parametrize("digits", [400, 5000, 1_100_000])
def test_numbers_too_large_to_hold_are_infinite_and_counted(tmp_path, digits):
    huge = "1" + "0" * digits
    run = only(write(tmp_path / "a.json", f'{{"loss": [1, {huge}, -{huge}, null]}}'))
    assert run.series["loss"].value[:3].tolist() == [1, np.inf, -np.inf]
    assert np.isnan(run.series["loss"].value[3])
    if digits == 400:
        assert "2 numbers of 'loss'" in run.notes[0]
    text = f'{{"epoch":0,"loss":1.0}}\n{{"epoch":1,"loss":{huge}}}\n{{"epoch":2,"loss":1e400}}\n'
    if digits < 1_100_000:
        run = only(write(tmp_path / "a.jsonl", text))
        assert (
            run.series["loss"].value[0] == 1 and not np.isfinite(run.series["loss"].value[1:]).any()
        )
    else:
        with pytest.raises(LogError, match="longer than 1 MB"):
            only(write(tmp_path / "a.jsonl", text))


def test_other_codings(tmp_path):
    text = json_lines([{"epoch": e, "train_loss": 1.0 + e, "é": "ü"} for e in range(3)])
    for coding in ("utf-8-sig", "utf-16", "utf-32"):
        for name in ("a.jsonl", "a.json"):
            whole = text if name == "a.jsonl" else '{"train_loss": [1.0, 2.0, 3.0]}'
            run = only(write(tmp_path / name, whole.encode(coding)))
            assert run.series["train_loss"].value.tolist() == [1, 2, 3] and run.notes == ()
    odd = b'{"epoch":0,"train_loss":1}\n{"epoch":1,"train_loss":2,"who":"K\xf6ln"}\n'
    run = only(write(tmp_path / "b.jsonl", odd))
    assert run.series["train_loss"].value.tolist() == [1, 2]
    assert "not all in UTF-8: 1 byte" in run.notes[0]
    run = only(write(tmp_path / "c.jsonl", text.encode() + bytes(4096)))
    assert len(run.series["train_loss"].value) == 3 and "torn" in run.notes[0]
