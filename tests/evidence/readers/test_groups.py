"""Tables that say their split, or their head, in a column: recognised by its name and what it holds, and told."""

import json

import numpy as np
import pytest

from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.readers import Columns, read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import TRAIN, VALIDATION, json_lines, write

HEADS = ("audio", "text", "joint")


def only(path, **options):
    (run,) = read_runs(path, **options)
    return run


def wide(column, values=("train", "val")):
    lines = [f"epoch,{column},loss,audio_loss"]
    for e, (t, v) in enumerate(zip(TRAIN, VALIDATION)):
        lines += [f"{e},{values[0]},{t:.4f},{t + 1:.4f}", f"{e},{values[1]},{v:.4f},{v + 1:.4f}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "column",
    ["split", "phase", "mode", "Stage", "set", "subset", "type", "data_split", "anything", "run"],
)
def test_a_split_in_a_column(tmp_path, column):
    run = only(write(tmp_path / "a.csv", wide(column)))
    assert sorted(run.series) == ["train/audio_loss", "train/loss", "val/audio_loss", "val/loss"]
    np.testing.assert_allclose(run.series["val/audio_loss"].value, VALIDATION + 1)
    assert run.series["val/loss"].epoch.tolist() == [0, 1, 2, 3, 4, 5]
    assert run.notes == (
        f"Column '{column}' was taken for the split (train, val): series are called after it.",
    )
    assert set(guess_map([run]).map.heads) == {"audio", "joint"}


@pytest.mark.parametrize(
    ("column", "values", "taken"),
    [
        ("phase", ("Train", "Eval"), True),
        ("phase", ("train_epoch", "val_epoch"), True),
        ("phase", ("train", "train"), True),
        ("phase", ("warmup", "finetune"), False),
        ("phase", ("train", "pretrained"), False),
        ("anything", ("train", "train"), False),
        ("anything", ("train_epoch", "val_epoch"), False),
        ("phase", ("1", "2"), False),
    ],
)
def test_by_its_name_and_its_values(tmp_path, column, values, taken):
    run = only(write(tmp_path / "a.csv", wide(column, values)))
    assert (f"{values[0]}/loss" in run.series) == taken
    assert ("loss" in run.series) != taken


def test_named_by_the_user_whatever_it_holds(tmp_path):
    text = wide("where", ("A", "B"))
    run = only(write(tmp_path / "a.csv", text), columns=Columns(split="where"))
    assert sorted(run.series) == ["A/audio_loss", "A/loss", "B/audio_loss", "B/loss"]
    assert run.notes == ()
    with pytest.raises(LogError, match="no column 'nope'"):
        only(tmp_path / "a.csv", columns=Columns(split="nope"))


def test_a_column_that_names_a_split_itself_is_called_as_it_is(tmp_path):
    text = "epoch,mode,train_loss,val_loss\n" + "".join(
        f"{e},{'train' if k else 'val'},{'1.5' if k else ''},{'' if k else '1.7'}\n"
        for e in range(3)
        for k in (1, 0)
    )
    run = only(write(tmp_path / "a.csv", text))
    assert sorted(run.series) == ["train_loss", "val_loss"]
    assert run.series["val_loss"].epoch.tolist() == [0, 1, 2]


def test_lines_with_a_type_and_nested_losses(tmp_path):
    rows = [{"type": "train", "epoch": 0, "lr": 0.1}]
    for e in range(4):
        for split, shift in (("train", 0), ("val", 1)):
            losses = {"audio": 2 - e + shift, "video": 1.0, "fusion": 1.0}
            rows.append({"type": split, "epoch": e, "losses": losses})
    rows.append({"about": "the end"})
    run = only(write(tmp_path / "a.jsonl", json_lines(rows)))
    assert run.series["val/losses/audio"].value.tolist() == [3, 2, 1, 0]
    found = guess_map([run]).map
    assert found.heads["audio"].train == "train/losses/audio"
    assert set(found.heads) == {"audio", "video", "joint"}


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("head", ["head", "modality", "Branch"])
def test_a_row_for_each_head_and_split(tmp_path, form, head):
    rows = [
        {"epoch": e, "split": split, head: name, "loss": e + at}
        for e in range(3)
        for at, (split, name) in enumerate((s, n) for s in ("train", "valid") for n in HEADS)
    ]
    text = {
        "csv": ",".join(rows[0]) + "\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows),
        "jsonl": json_lines(rows),
        "json": json.dumps(rows),
    }[form]  # fmt: skip
    run = only(write(tmp_path / f"a.{form}", text))
    assert run.series["valid/text/loss"].value.tolist() == [4, 5, 6]
    found = guess_map([run]).map
    assert list(found.heads) == list(HEADS) and found.heads["text"].validation == "valid/text/loss"
    named = only(
        tmp_path / f"a.{form}", columns=Columns(split="split", name=head, value="loss", epoch="epoch")
    )  # fmt: skip
    assert named.series["valid/text"].value.tolist() == [4, 5, 6]


def test_a_long_table_whose_split_is_called_otherwise(tmp_path):
    text = "iteration,metric,value,which\n" + "".join(
        f"{i},{name},{i}.5,{split}\n"
        for i in range(3)
        for name in ("a_loss", "loss")
        for split in ("training", "validation")
    )
    run = only(write(tmp_path / "a.csv", text))
    assert sorted(run.series) == [
        "training/a_loss", "training/loss", "validation/a_loss", "validation/loss",
    ]  # fmt: skip
    assert run.series["training/loss"].step.tolist() == [0, 1, 2]
    assert "'which' was taken for the split" in run.notes[0]


def test_a_table_of_metrics_with_a_column_for_each_split(tmp_path):
    text = "epoch,metric,train,val\n" + "".join(
        f"{e},{name},{e}.5,{e}.25\n" for e in range(3) for name in ("audio_loss", "acc")
    )
    run = only(write(tmp_path / "a.csv", text))
    assert run.series["audio_loss/val"].value.tolist() == [0.25, 1.25, 2.25]
    assert guess_map([run]).map.heads["audio"].train == "audio_loss/train"


def test_runs_and_splits_in_one_table(tmp_path):
    text = "seed,epoch,split,loss\n" + "".join(
        f"{s},{e},{split},{s}{e}\n" for s in (0, 1) for e in range(3) for split in ("train", "val")
    )
    first, second = read_runs(write(tmp_path / "a.csv", text))
    assert first.series.keys() == second.series.keys() == {"train/loss", "val/loss"}
    assert second.series["val/loss"].value.tolist() == [10, 11, 12]


def test_runs_that_are_the_splits_of_one(tmp_path):
    text = "run,tag,step,value\n" + "".join(
        f"exp{k}/{split},epoch_loss,{i},{k}.{i}\n"
        for k in (1, 2)
        for split in ("train", "validation")
        for i in range(3)
    )
    runs = read_runs(write(tmp_path / "a.csv", text))
    assert [run.title for run in runs] == ["exp1", "exp2"]
    assert runs[1].series["validation/epoch_loss"].value.tolist() == [2.0, 2.1, 2.2]


def test_cells_without_a_split_or_of_lists(tmp_path):
    rows = [{"epoch": e, "split": s, "loss": 1.0} for e in range(3) for s in ("train", None, "val")]
    run = only(write(tmp_path / "a.jsonl", json_lines(rows)))
    assert sorted(run.series) == ["loss", "train/loss", "val/loss"]
    rows = [{"epoch": e, "split": [1], "run": [e], "name": {}, "loss": 1.0} for e in range(3)]
    run = only(write(tmp_path / "b.jsonl", json_lines(rows)))
    assert list(run.series) == ["loss"]
    run = only(tmp_path / "b.jsonl", columns=Columns(split="split"))
    assert list(run.series) == ["[1]/loss"]


def test_two_ways_to_one_name(tmp_path):
    rows = [{"epoch": 0, "split": "train", "loss": 1.0, "train/loss": 2.0}] * 2
    run = only(write(tmp_path / "a.jsonl", json_lines([*rows, {**rows[0], "split": "val"}])))
    assert sum(len(series.value) for series in run.series.values()) == 6


def test_more_names_than_are_read(tmp_path):
    text = "epoch,what,x\n" + "".join(f"0,name{i},1\n" for i in range(6000))
    with pytest.raises(LogError, match="6,000 different names"):
        only(write(tmp_path / "a.csv", text), columns=Columns(name="what", value="x"))


@pytest.mark.parametrize(
    ("column", "cells", "rows", "series"),
    [
        ("epoch", ("-1", "nan", "1e300"), 2, 3),
        ("epoch", ("0", "one", "2"), 1, 3),
        ("step", ("0", "-7", "inf"), 2, 3),
        ("step", ("0", "9" * 5000, ""), 2, 3),
        ("epoch", ("0", "1", "2"), 0, 3),
    ],
)
def test_places_that_cannot_be_used_are_counted(tmp_path, column, cells, rows, series):
    text = f"{column},train_loss\n" + "".join(f"{cell},1.0\n" for cell in cells)
    run = only(write(tmp_path / "a.csv", text))
    assert len(run.series["train_loss"].value) == series
    told = [note for note in run.notes if f"without a usable {column}" in note]
    assert [int(note.split()[0]) for note in told] == ([rows] if rows else [])


def test_losses_that_are_words_are_told(tmp_path):
    run = only(
        write(tmp_path / "a.csv", "epoch,train_loss,val_loss,host\n0,abc,1,x\n1,broken,2,y\n")
    )
    assert run.notes == ("2 cells of 'train_loss' in a.csv are no numbers: left out.",)
    with pytest.raises(LogError, match="2 cells of 'train_loss'"):
        guess_map([run])


def test_one_word_among_numbers_is_told_of_one(tmp_path):
    run = only(write(tmp_path / "a.csv", "epoch,train_loss\n0,abc\n1,2.0\n"))
    assert run.notes == ("1 cell of 'train_loss' in a.csv is no number: left out.",)


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("first", [True, 1.5])
def test_true_and_false_are_no_numbers(tmp_path, form, first):
    rows = [
        {"epoch": e, "train_loss": first if e == 0 else True, "val_loss": 2.0, "stop": e > 1}
        for e in range(3)
    ]
    text = {
        "csv": ",".join(rows[0]) + "\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows),
        "jsonl": json_lines(rows),
        "json": json.dumps(rows),
    }[form]  # fmt: skip
    run = only(write(tmp_path / f"a.{form}", text))
    number = 3 if first is True else 2
    assert run.notes == (f"{number} cells of 'train_loss' in a.{form} are no numbers: left out.",)
    assert set(run.series) == ({"val_loss"} if first is True else {"train_loss", "val_loss"})
    assert first is True or run.series["train_loss"].value.tolist() == [1.5]


def test_a_list_with_true_in_it_is_told(tmp_path):
    lists = {"train_loss": [1.0, True], "val_loss": [1.0, 2.0], "sizes": [[1], [2]]}
    run = only(write(tmp_path / "a.json", json.dumps(lists)))
    assert list(run.series) == ["val_loss"]
    assert run.notes == ("'train_loss' in a.json holds what is no number: left out.",)


def test_a_short_name_of_the_validation_split(tmp_path):
    for split, shift in (("tr", 0), ("va", 1)):
        text = "epoch,loss\n" + "".join(f"{e},{2 - e / 10 + shift}\n" for e in range(3))
        write(tmp_path / f"log_{split}.csv", text)
    run = only(tmp_path)
    assert guess_map([run]).map.heads["joint"].validation.endswith("va/loss")


LONG = [
    (split, name, e)
    for name in ("loss", "loss_audio")
    for split in ("train", "val")
    for e in range(4)
]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("epoch,variable,value", "{e},{split}_{name},{e}.5"),
        ("run.hash,metric.name,context.subset,step,epoch,value", "a1,{name},{split},{e},{e},{e}.5"),
        ("epoch,what,split,value", "{e},{name},{split},{e}.5"),
    ],
)
def test_a_column_of_names_of_losses_is_known_by_what_it_holds(tmp_path, header, row):
    lines = [header, *(row.format(split=s, name=n, e=e) for s, n, e in LONG)]
    run = only(write(tmp_path / "metrics.csv", "\n".join(lines) + "\n"))
    assert len(run.series) == 4 and any("was taken for names" in note for note in run.notes)
    assert set(guess_map([run]).map.heads) == {"audio", "joint"}


def test_a_column_that_may_hold_names_is_told(tmp_path):
    text = "epoch,what,value\n" + "".join(f"{e},{w},{e}.5\n" for e in range(3) for w in "ab")
    run = only(write(tmp_path / "a.csv", text))
    assert run.notes == ("If 'what' names what each row measures, say so: --columns name=what.",)
    assert set(only(tmp_path / "a.csv", columns=Columns(name="what")).series) == {"a", "b"}
    with pytest.raises(LogError, match="--columns name=what"):
        guess_map([run])


def test_runs_of_aim_are_told_apart(tmp_path):
    text = "run.hash,metric.name,epoch,value\n" + "".join(
        f"{h},{n},{e},{e}.5\n" for h in "xy" for n in ("train_loss", "val_loss") for e in range(3)
    )
    assert [run.title for run in read_runs(write(tmp_path / "a.csv", text))] == ["x", "y"]
