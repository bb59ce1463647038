"""CSV and TSV logs of any layout: nothing is left out silently."""

import bz2
import gzip
import lzma
import os

import numpy as np
import pytest

from mmaudit.evidence.readers import Columns, read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import TRAIN, VALIDATION, csv_text, write


def only(path, **options):
    (run,) = read_runs(path, **options)
    return run


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "# a comment, with a comma\n", "\n"])
def test_layouts(tmp_path, separator, line_end, start):
    run = only(write(tmp_path / "a.csv", start + csv_text(separator, line_end)))
    np.testing.assert_allclose(run.series["train_loss"].value, TRAIN)
    np.testing.assert_allclose(run.series["val_loss"].value, VALIDATION)
    assert run.series["val_loss"].epoch.tolist() == [0, 1, 2, 3, 4, 5]
    assert (run.series["val_loss"].step == -1).all()
    assert run.notes == ()


def test_header_behind_a_hash_and_decimal_commas(tmp_path):
    run = only(write(tmp_path / "a.txt", "# epoch train_loss val_loss\n0 2.0 2.1\n1 1.8 2.0\n"))
    assert run.series["train_loss"].value.tolist() == [2.0, 1.8]
    run = only(write(tmp_path / "b.csv", "epoch;train_loss;val_loss\n0;2,5;2,1\n1;1,8;2,0\n"))
    assert run.series["train_loss"].value.tolist() == [2.5, 1.8]


def test_quoted_names(tmp_path):
    run = only(write(tmp_path / "a.csv", '"epoch","train, loss","val, loss"\n0,"1.5",2\n1,1,2\n'))
    assert run.series["train, loss"].value.tolist() == [1.5, 1.0]


@pytest.mark.parametrize("tail", ["6,0", "6,0.7", "6", '6,"0.7'])
def test_a_torn_row_is_left_out_and_said(tmp_path, tail):
    run = only(write(tmp_path / "a.csv", csv_text() + tail))
    assert len(run.series["train_loss"].value) == 6
    assert "torn" in run.notes[0]


def test_a_whole_last_row_without_a_line_end_stays(tmp_path):
    run = only(write(tmp_path / "a.csv", csv_text().rstrip("\n")))
    assert len(run.series["val_loss"].value) == 6 and run.notes == ()


def test_rows_with_too_many_cells_are_counted(tmp_path):
    run = only(write(tmp_path / "a.csv", csv_text() + "6,1,2,3,4\n7,1,2,3\n8,1.0,2.0\n"))
    assert run.series["train_loss"].epoch.tolist()[-1] == 8
    assert run.notes == ("2 rows of a.csv with too many cells left out.",)


def test_headers_written_again_and_texts_among_numbers(tmp_path):
    run = only(write(tmp_path / "a.csv", csv_text() + csv_text()))
    assert len(run.series["train_loss"].value) == 12
    assert "1 repeated header" in run.notes[0]
    run = only(write(tmp_path / "b.csv", csv_text() + "6,broken,1.5\n"))
    assert len(run.series["train_loss"].value) == 6 and len(run.series["val_loss"].value) == 7
    assert "1 cell of 'train_loss'" in run.notes[0]


def test_columns_of_one_name(tmp_path):
    run = only(write(tmp_path / "a.csv", "epoch,loss,loss\n0,1,2\n1,3,4\n"))
    assert run.series["loss"].value.tolist() == [1, 3]
    assert run.series["loss.1"].value.tolist() == [2, 4]
    assert "several columns 'loss'" in run.notes[0]


def test_numbers_that_are_not_finite_are_kept(tmp_path):
    run = only(write(tmp_path / "a.csv", "epoch,train_loss,val_loss\n0,nan,1\n1,inf,\n2,1e999,2\n"))
    assert np.isnan(run.series["train_loss"].value[0])
    assert np.isinf(run.series["train_loss"].value[1:]).all()
    # an empty cell was not written
    assert run.series["val_loss"].epoch.tolist() == [0, 2]


def test_long_tables_and_named_columns(tmp_path):
    text = "t,part,what,x\n" + "".join(
        f"{i},{part},loss,{v}\n" for i in range(3) for part, v in (("train", 1), ("val", 2))
    )
    columns = Columns(epoch="t", split="part", name="what", value="x")
    run = only(write(tmp_path / "a.csv", text), columns=columns)
    assert sorted(run.series) == ["train/loss", "val/loss"]
    assert run.series["val/loss"].epoch.tolist() == [0, 1, 2]
    with pytest.raises(LogError, match="no column 'nope'"):
        only(tmp_path / "a.csv", columns=Columns(run="nope"))


def test_runs_in_one_table_are_told_apart_and_it_is_said(tmp_path):
    text = "fold,epoch,loss,val_loss\n" + "".join(
        f"{f},{e},{e + f},{e}\n" for f in (3, 1) for e in range(4)
    )
    first, second = read_runs(write(tmp_path / "a.csv", text))
    assert (first.title, second.title) == ("3", "1")
    assert first.series["loss"].value.tolist() == [3, 4, 5, 6]
    assert "'fold' was taken" in first.notes[0]


def test_tensorboards_download_of_a_tag(tmp_path):
    text = "Wall time,Step,Value\n1.0,0,2.5\n2.0,10,2.0\n"
    write(tmp_path / "run-exp1-tag-train_loss.csv", text)
    write(tmp_path / "run-exp1-tag-val_loss.csv", text)
    (run,) = read_runs(sorted(tmp_path.glob("*.csv")))
    assert run.title == "exp1" and sorted(run.series) == ["train_loss", "val_loss"]
    assert run.series["val_loss"].step.tolist() == [0, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5,6\n", "no header"),
        (
            "epoch,train_err\n0,90%\n",
            "no numbers beside 'epoch': cells such as '90%' in 'train_err'",
        ),
        ("epoch,train_loss\n", "no numbers"),
        (b"epoch,a\n1,\0\n", "no text"),
        (b"", "empty"),
        ("x" * 2_000_000 + ",b\n1,2\n", "longer than 1 MB"),
        (",".join(f"c{i}" for i in range(6000)) + "\n", "6,000 columns"),
        ('epoch,"train\n1,2\n', "no table"),
    ],
)
def test_no_table(tmp_path, text, message):
    with pytest.raises(LogError, match=message):
        read_runs(write(tmp_path / "a.csv", text))


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_codings(tmp_path, coding):
    text = csv_text() if coding != "utf-16-le" else "\ufeff" + csv_text()
    run = only(write(tmp_path / "a.csv", text.encode(coding)))
    np.testing.assert_allclose(run.series["val_loss"].value, VALIDATION)
    assert run.notes == ()
    if coding == "utf-16":
        with pytest.raises(LogError, match=r"a\.csv is no text in UTF-8"):
            only(write(tmp_path / "a.csv", text.encode("utf-16-be")))


def test_bytes_in_another_coding_are_counted(tmp_path):
    run = only(write(tmp_path / "a.csv", csv_text().replace("val", "v\xe4l").encode("latin-1")))
    assert "not all in UTF-8: 1 byte" in run.notes[0] and "train_loss" in run.series
    zeros = only(write(tmp_path / "b.csv", csv_text().encode() + bytes(512)))
    assert len(zeros.series["train_loss"].value) == 6 and "ends in zeros" in zeros.notes[0]


def test_numbers_too_large(tmp_path):
    text = "epoch,train_loss\n0,1.0\n1,1e400\n2,-" + "9" * 500 + "\n"
    run = only(write(tmp_path / "a.csv", text))
    assert run.series["train_loss"].value.tolist() == [1, np.inf, -np.inf]


@pytest.mark.parametrize(
    ("separator", "quote"), [("\t", ""), ("|", ""), (",", '"'), (" | ", ""), (" ", "")]
)
def test_decimal_commas_between_other_signs(tmp_path, separator, quote):
    rows = csv_text().strip().split("\n")
    lines = [rows[0].replace(",", separator)]
    for row in rows[1:]:
        cells = row.split(",")
        cells = [f"{quote}{cell.replace('.', ',')}{quote}" for cell in cells]
        lines.append(separator.join(cells))
    run = only(write(tmp_path / "a.csv", "\n".join(lines) + "\n"))
    found = {name.strip(): series for name, series in run.series.items()}
    np.testing.assert_allclose(found["train_loss"].value, TRAIN)
    np.testing.assert_allclose(found["val_loss"].value, VALIDATION)


@pytest.mark.parametrize(
    "rows", ["0\t2,900\t1,800\n1\t1,750\t1,700\n", "0\t2,90\t1.5\n1\t1,75\t1.7\n"]
)
def test_commas_that_may_be_thousands_are_no_decimals(tmp_path, rows):
    path = write(tmp_path / "a.tsv", "epoch\ttrain_loss\tval_loss\n" + rows)
    try:
        assert "train_loss" not in only(path).series
    except LogError as error:
        assert "cells such as '2,900' in 'train_loss' are texts" in str(error)


def test_a_table_with_bars(tmp_path):
    run = only(write(tmp_path / "a.txt", csv_text("|")))
    np.testing.assert_allclose(run.series["train_loss"].value, TRAIN)


@pytest.mark.parametrize(
    "text",
    [
        "Epoch 0: Train loss 2.2986 | Val loss 2.3758 acc 55.2%\n" * 3,
        "Epoch 0: train 2.2986 val 2.3758\n" * 3,
        "epoch: 1, lr: 1.00e-03 - train loss: 2.30 - valid loss: 2.37, valid ER: 1.20e-01\n" * 3,
        "2023-01-01 10:00:00 | INFO | train | {'loss': '2.3'}\n" * 3,
    ],
)
def test_printed_lines_are_no_table(tmp_path, text):
    with pytest.raises(LogError, match="What a training prints is not read") as error:
        only(write(tmp_path / "a.log", text))
    assert "--format" not in str(error.value) and text[:10] in str(error.value)


def test_a_table_of_unknown_columns_may_be_named(tmp_path):
    path = write(tmp_path / "a.dat", "a b\n1 2\n3 4\n")
    with pytest.raises(LogError, match="--format csv"):
        only(path)
    assert set(only(path, form="csv").series) == {"a", "b"}


@pytest.mark.parametrize("form", [None, "csv"])
@pytest.mark.parametrize(
    ("pack", "told"),
    [
        (gzip.compress, r"compressed \(gzip\): unpack"),
        (bz2.compress, r"compressed \(bzip2\): unpack"),
        (lzma.compress, r"compressed \(xz\): unpack"),
        (lambda data: b"PK\x03\x04" + os.urandom(200), "a zip archive"),
    ],
)
def test_compressed(tmp_path, form, pack, told):
    with pytest.raises(LogError, match=told):
        only(write(tmp_path / "a.csv.packed", pack(csv_text().encode() * 20)), form=form)
