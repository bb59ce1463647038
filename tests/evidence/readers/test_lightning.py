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
