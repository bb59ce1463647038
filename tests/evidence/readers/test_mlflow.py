"""MLflow stores, as folders and as databases, laid out as its versions 1 to 3 write them."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import write


def folder_store(root, runs=("r1", "r2"), step=True):
    for number, run in enumerate(runs):
        place = root / "0" / run
        write(place / "meta.yaml", f"run_id: {run}\n")
        write(place / "tags" / "mlflow.runName", f"seed {number}")
        for name in ("train/a_loss", "val/a_loss"):
            lines = [f"{1000 + i} {2 - i / 10} {i if step else 0}\n" for i in range(4)]
            write(place / "metrics" / name, "".join(lines))
    write(root / "0" / "meta.yaml", "name: exp\n")
    return root


def database(path, deleted=()):
    with sqlite3.connect(path) as base:
        base.execute(
            "create table metrics (key varchar, value float, timestamp bigint, run_uuid varchar, step bigint, is_nan boolean)"
        )
        base.execute("create table runs (run_uuid varchar, lifecycle_stage varchar)")
        base.execute("create table tags (key varchar, value varchar, run_uuid varchar)")
        for run in ("r1", "r2"):
            stage = "deleted" if run in deleted else "active"
            base.execute("insert into runs values (?, ?)", (run, stage))
            base.execute("insert into tags values ('mlflow.runName', ?, ?)", (f"name {run}", run))
            for i in range(4):
                row = ("val_loss", 0.0 if i == 2 else 2 - i / 10, 1000 + i, run, i, i == 2)
                base.execute("insert into metrics values (?, ?, ?, ?, ?, ?)", row)
    base.close()
    return path


def test_folders_of_a_store_an_experiment_and_a_run(tmp_path):
    root = folder_store(tmp_path / "mlruns")
    folder_store(root / ".trash", runs=("gone",))
    for path, count in ((root, 2), (root / "0", 2), (root / "0" / "r1", 1)):
        runs = read_runs(path)
        assert [run.title for run in runs] == [f"seed {i}" for i in range(count)]
        assert runs[0].series["train/a_loss"].value.tolist() == [2.0, 1.9, 1.8, 1.7]
        assert runs[0].series["train/a_loss"].step.tolist() == [0, 1, 2, 3]


def test_metrics_without_steps(tmp_path):
    run = read_runs(folder_store(tmp_path / "mlruns", step=False))[0]
    assert (run.series["val/a_loss"].step == -1).all()


def test_a_torn_line_of_a_metric(tmp_path):
    root = folder_store(tmp_path / "mlruns", runs=("r1",))
    with (root / "0" / "r1" / "metrics" / "train" / "a_loss").open("a") as file:
        file.write("1004 1.")
    (run,) = read_runs(root)
    assert len(run.series["train/a_loss"].value) == 4 and "a_loss is torn" in run.notes[0]
    with (root / "0" / "r1" / "metrics" / "train" / "a_loss").open("a") as file:
        file.write("\nbroken\n1005 1 5\n")
    (run,) = read_runs(root)
    assert list(run.series) == ["val/a_loss"]
    assert "metric a_loss: line 6 is not 'time value step'. It is left out." in run.notes[0]
    (root / "0" / "r1" / "metrics" / "val" / "a_loss").write_text("broken\n")
    with pytest.raises(LogError, match="'time value step'"):
        read_runs(root)
    folder_store(root, runs=("r2",))
    (run,) = read_runs(root)
    assert len(run.series) == 2 and "1 run without a metric" in run.notes[-1]


def test_database(tmp_path):
    runs = read_runs(database(tmp_path / "m.db"))
    assert [run.title for run in runs] == ["name r1", "name r2"]
    series = runs[0].series["val_loss"]
    assert np.isnan(series.value[2]) and series.value[3] == pytest.approx(1.7)


def test_deleted_runs_are_left_out(tmp_path):
    assert [run.title for run in read_runs(database(tmp_path / "m.db", ("r1",)))] == ["name r2"]


def test_the_database_is_only_read(tmp_path):
    path = database(tmp_path / "m.db")
    before = path.read_bytes()
    read_runs(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.db"]


@pytest.mark.parametrize(
    "statement",
    [
        "drop table metrics; create view metrics as with recursive c(x) as (select 1 union all select x + 1 from c) select x as key, x as value, 1 as timestamp, 'r1' as run_uuid, 1 as step, 0 as is_nan from c",
        "drop table runs; create view runs as select 1 as run_uuid, 'active' as lifecycle_stage",
        "alter table metrics add column big text generated always as (hex(zeroblob(900000000))) virtual",
        "drop table metrics; create virtual table metrics using fts5(key, value, timestamp, run_uuid, step, is_nan)",
    ],
)
def test_tables_that_are_computed_are_not(tmp_path, statement):
    path = database(tmp_path / "m.db")
    with closing(sqlite3.connect(path)) as base:
        base.executescript(statement)
    for form in (None, "mlflow"):
        with pytest.raises(LogError):
            read_runs(path, form=form)


def test_triggers_and_views_beside_the_tables_do_nothing(tmp_path):
    path = database(tmp_path / "m.db")
    with closing(sqlite3.connect(path)) as base:
        base.executescript(
            "create view endless as with recursive c(x) as (select 1 union all select x + 1 from c) select x from c;"
            "create trigger t after insert on metrics begin delete from runs; end;"
        )
    before = path.read_bytes()
    assert len(read_runs(path)) == 2 and path.read_bytes() == before


def test_texts_that_are_none(tmp_path):
    path = database(tmp_path / "m.db")
    with closing(sqlite3.connect(path)) as base:
        base.execute("update metrics set key = cast(x'ff00fe' as text) where run_uuid = 'r1'")
        base.execute("update metrics set value = x'00ff', step = 'one' where run_uuid = 'r2'")
        base.execute("update tags set value = null")
        base.commit()
    first, second = read_runs(path)
    assert [first.title, second.title] == ["r1", "r2"]
    assert first.series["\ufffd\0\ufffd"].step.tolist() == [0, 1, 2, 3]
    assert np.isnan(second.series["val_loss"].value).all()


@pytest.mark.parametrize("schema", ["create table metrics (x)", "create view metrics as select 1"])
def test_other_databases(tmp_path, schema):
    with sqlite3.connect(tmp_path / "o.db") as base:
        base.execute(schema)
        base.execute("create table runs (x)")
    base.close()
    with pytest.raises(LogError):
        read_runs(tmp_path / "o.db")
