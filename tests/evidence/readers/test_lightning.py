"""Lightning's CSV: sparse rows, rows after the training, several versions below a folder."""

import numpy as np
import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import write
from tests.integration.shared_data import shared_file


def metrics(epochs=4, later=""):
    rows = ["epoch,step,train_loss_epoch,train_loss_step,val_loss"]
    for e in range(epochs):
        rows += [f"{e},{10 * e + s},,{2 - 0.1 * e}," for s in (4, 9)]
        rows += [f"{e},{10 * e + 9},,,{2.2 - 0.1 * e}", f"{e},{10 * e + 9},{2 - 0.1 * e},,"]
    return "\n".join(rows) + "\n" + later


def test_sparse_rows_and_later_ones(tmp_path):
    later = "4,40,,,9.0\n4,40,,,9.5\n"
    (run,) = read_runs(write(tmp_path / "version_0" / "metrics.csv", metrics(later=later)))
    assert run.title == "version_0" and run.format == "Lightning CSV"
    assert run.series["val_loss"].epoch.tolist() == [0, 1, 2, 3]
    assert len(run.series["train_loss_step"].value) == 8
    assert run.notes == (
        "2 rows after the training (a validation or test of the finished model) left out.",
    )


def test_versions_below_a_folder(tmp_path):
    for version in (0, 1):
        write(tmp_path / "logs" / f"version_{version}" / "metrics.csv", metrics())
        write(tmp_path / "logs" / f"version_{version}" / "hparams.yaml", "lr: 0.1\n")
    write(tmp_path / "logs" / "version_2" / "metrics.csv", "epoch,step\n")
    runs = read_runs(tmp_path)
    assert [run.title for run in runs] == ["logs/version_0", "logs/version_1"]
    assert "left out" in runs[0].notes[-1]


def test_a_folder_with_nothing_but_empty_versions(tmp_path):
    write(tmp_path / "version_0" / "metrics.csv", "epoch,step,train_loss\n")
    with pytest.raises(LogError, match="no numbers"):
        read_runs(tmp_path)


def test_a_real_log():
    (run,) = read_runs(shared_file("logs/lightning/metrics.csv"))
    assert len(run.series["val_loss"].value) == 5
    assert "2 rows after the training" in run.notes[0]
    assert run.series["train_loss"].epoch.max() == run.series["val_loss"].epoch.max() == 4
    assert np.isfinite(run.series["train_loss"].value).all()


def test_a_validation_by_a_trainer_of_its_own_is_no_restart(tmp_path):
    (run,) = read_runs(write(tmp_path / "version_0" / "metrics.csv", metrics(later="0,0,,,9.0\n")))
    assert run.series["val_loss"].value.tolist() == [2.2, 2.1, 2.0, pytest.approx(1.9)]
    assert "1 row after the training" in run.notes[-1]


SERIES = [f"{s}_loss{h}" for h in ("", "_audio", "_video") for s in ("train", "val")]


def rows_of(layout, shift=0):
    """Three heads over 6 epochs in a file that is called as Lightning's, but lies otherwise; validations count from ``shift``."""
    at = [(name, e, e + (shift if "val" in name else 0)) for name in SERIES for e in range(6)]
    if layout == "blocks":  # all rows of the training, then all of the validation
        lines = ["epoch,step," + ",".join(SERIES)]
        for split in ("train", "val"):
            for e in range(6):
                place = e + (shift if split == "val" else 0)
                cells = ["1.5" if name.startswith(split) else "" for name in SERIES]
                lines.append(f"{place},{10 * place}," + ",".join(cells))
    elif layout == "sparse":  # one series after another
        lines = ["step,epoch," + ",".join(SERIES)]
        for name, _, place in at:
            cells = ["1.5" if name == other else "" for other in SERIES]
            lines.append(f"{10 * place},{place}," + ",".join(cells))
    elif layout == "complete":
        lines = ["epoch,step," + ",".join(SERIES)]
        lines += [f"{e},{10 * e}," + ",".join(["1.5"] * len(SERIES)) for e in range(6)]
    else:
        by_time = sorted(at, key=lambda row: row[1]) if layout == "long in time" else at
        lines = ["metric,step,epoch,value"]
        lines += [f"{name},{10 * place},{place},1.5" for name, _, place in by_time]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("layout", ["long", "long in time", "sparse", "blocks", "complete"])
def test_a_name_alone_makes_no_log_of_lightning(tmp_path, layout, shift):
    text = rows_of(layout, shift)
    (named,) = read_runs(write(tmp_path / "run" / "metrics.csv", text))
    (other,) = read_runs(write(tmp_path / "other.csv", text))
    assert named.format == other.format == "CSV" and named.notes == other.notes
    assert sorted(named.series) == sorted(other.series) == sorted(SERIES)
    for name in SERIES:
        for one, two in zip(named.series[name], other.series[name]):
            np.testing.assert_array_equal(one, two)
        assert len(named.series[name].value) == 6


def test_the_only_validations_are_never_taken_for_later_ones(tmp_path):
    rows = "epoch,step,train_loss,val_loss\n" + "".join(f"{e},{e},{2 - e / 4},\n" for e in range(4))
    (run,) = read_runs(write(tmp_path / "a" / "metrics.csv", rows + "4,4,,1.5\n"))
    assert run.format == "Lightning CSV" and run.series["val_loss"].value.tolist() == [1.5]


def test_tests_after_the_training_are_left_out_beside_validations_in_it(tmp_path):
    text = metrics().replace("val_loss\n", "val_loss,test_loss\n", 1)
    (run,) = read_runs(write(tmp_path / "a" / "metrics.csv", text + "0,0,,,,9.0\n"))
    assert run.format == "Lightning CSV" and "test_loss" not in run.series
    assert "1 row after the training" in run.notes[-1]
