"""JSON of lists: side by side by their places, their common length or a whole multiple, and never by index alone."""

import json

import numpy as np
import pytest

from mmaudit import read_losses
from mmaudit.evidence.readers import Columns, read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import write

LONG = [2.0 - 0.03 * i for i in range(50)]
SHORT = [2.1 - 0.1 * i for i in range(10)]


def losses(tmp_path, lists):
    (run,) = read_losses(write(tmp_path / "a.json", json.dumps(lists))).runs
    return run


def series(tmp_path, lists, **options):
    (run,) = read_runs(write(tmp_path / "a.json", json.dumps(lists)), **options)
    return run.series, run.notes


def test_each_validation_comes_after_k_train_values(tmp_path):
    run = losses(tmp_path, {"train_loss": LONG, "val_loss": SHORT})
    assert run.axis == "step" and run.at.tolist() == [5.0 * k for k in range(1, 11)]
    np.testing.assert_allclose(run.train[0], np.reshape(LONG, (10, 5)).mean(axis=1))
    np.testing.assert_allclose(run.validation[0], SHORT)
    assert any("each was put after 5 of the 50 values" in note for note in run.notes)
    assert any("count the values of its longest list" in note for note in run.notes)


@pytest.mark.parametrize(("train", "held"), [(53, 10), (50, 49), (50, 51), (7, 3), (3, 7)])
def test_lengths_that_say_nothing_are_refused(tmp_path, train, held):
    lists = {"train_loss": [1.0] * train, "val_loss": [1.0] * held}
    with pytest.raises(LogError, match=f"have {train} values and validation losses {held}"):
        losses(tmp_path, lists)


def test_one_length_counts_as_epochs(tmp_path):
    run = losses(tmp_path, {"loss": SHORT, "val_loss": SHORT})
    assert run.axis == "epoch" and run.at.tolist() == list(range(10)) and run.notes == ()


def test_epochs_beside_one_of_them_place_the_other(tmp_path):
    epochs = list(range(1, 51))
    run = losses(tmp_path, {"epoch": epochs, "train_loss": LONG, "val_loss": SHORT})
    assert run.axis == "epoch" and run.at.tolist() == [5.0 * k for k in range(1, 11)]
    np.testing.assert_allclose(run.train[0], LONG[4::5])
    run = losses(tmp_path, {"epoch": epochs[:10], "train_loss": LONG, "val_loss": SHORT})
    assert run.axis == "epoch" and run.at.tolist() == epochs[:10]
    np.testing.assert_allclose(run.train[0], np.reshape(LONG, (10, 5)).mean(axis=1))
    assert any("5 of them were put at each of the 10 places" in note for note in run.notes)


def test_epochs_of_a_split_place_what_no_multiple_would(tmp_path):
    at = [3, 10, 17, 24, 31, 38, 45]
    lists = {
        "train_epoch": list(range(50)),
        "train_loss": LONG,
        "val_epochs": at,
        "val_loss": SHORT[:7],
    }
    run = losses(tmp_path, lists)
    assert run.axis == "epoch" and run.at.tolist() == at
    np.testing.assert_allclose(run.train[0], np.array(LONG)[at])
    same = {
        "train_step": [10, 20],
        "train_loss": [2.0, 1.0],
        "val_step": [15, 25],
        "val_loss": [3.0, 2.0],
    }
    found, _ = series(tmp_path, same)
    assert found["train_loss"].step.tolist() == [10, 20]
    assert found["val_loss"].step.tolist() == [15, 25]


def test_a_list_beside_losses_that_agree_changes_nothing(tmp_path):
    lists = {
        "train_loss": SHORT,
        "val_loss": SHORT,
        "lr": [0.1] * 53,
        "layers": [64, 32, 8],
        "train_loss_step": LONG,
    }
    found, notes = series(tmp_path, lists)
    for name in ("train_loss", "val_loss"):
        assert found[name].epoch.tolist() == list(range(10)) and (found[name].step == -1).all()
    assert found["train_loss_step"].epoch.tolist() == np.repeat(np.arange(10), 5).tolist()
    assert np.isnan(found["lr"].epoch).all()
    assert len(notes) == 1 and "'train_loss_step': 50 values" in notes[0]


@pytest.mark.parametrize("epochs", [[50], list(range(7)), list(range(5))])
def test_epochs_of_another_length_than_losses_that_agree_count_nothing(tmp_path, epochs):
    found, notes = series(tmp_path, {"epoch": epochs, "loss": LONG, "val_loss": LONG})
    assert found["val_loss"].epoch.tolist() == list(range(50)) and notes == ()


def test_a_loss_without_a_place_is_told(tmp_path):
    found, notes = series(tmp_path, {"loss": SHORT, "val_loss": SHORT, "val_loss_audio": SHORT[:7]})
    assert np.isnan(found["val_loss_audio"].epoch).all()
    assert notes == (
        "'val_loss_audio': 7 values without epochs or steps, no whole multiple of the others: not put beside them.",
    )


def test_lists_that_are_no_losses_have_no_place_beside_each_other(tmp_path):
    found, notes = series(tmp_path, {"layers": [64, 64, 32, 16], "sizes": [3, 4]})
    assert found["layers"].epoch.tolist() == [0, 1, 2, 3] and notes == ()
    assert np.isnan(found["sizes"].epoch).all() and (found["sizes"].step == -1).all()


def test_a_named_list_that_is_missing(tmp_path):
    with pytest.raises(LogError, match="no list 'ep'"):
        series(tmp_path, {"loss": SHORT}, columns=Columns(epoch="ep"))
