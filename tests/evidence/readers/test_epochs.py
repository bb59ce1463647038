"""Validations whose step is the epoch before them: counted in epochs only where nothing else can be meant."""

import numpy as np
import pytest

from mmaudit import read_losses
from mmaudit.evidence.readers.epochs import with_epochs
from tests.evidence.readers.logs import json_lines, write

NAN = float("nan")


def test_mmengine_is_counted_in_epochs(tmp_path):
    rows = []
    for e in range(1, 7):
        rows += [{"loss": 3 - e / 4 + k, "epoch": e, "step": 50 * (e - 1) + 10 * k} for k in (1, 2)]
        rows.append({"val/loss": 3 - e / 5, "step": e})
    (run,) = read_losses(write(tmp_path / "scalars.json", json_lines(rows))).runs
    assert run.axis == "epoch" and run.at.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(run.train[0], [3 - e / 4 + 1.5 for e in range(1, 7)])
    np.testing.assert_allclose(run.validation[0], [3 - e / 5 for e in range(1, 7)])
    assert any("6 rows of scalars.json whose step" in note for note in run.notes)
    assert not any("different units" in flag.text for flag in run.flags)


def test_rows_get_both_places_of_the_row_before():
    found = with_epochs(np.array([5, 10, 1, 15, 20, 2]), np.array([1, 1, NAN, 2, 2, NAN]))
    assert found.step.tolist() == [5, 10, 10, 15, 20, 20]
    assert found.epoch.tolist() == [1, 1, 1, 2, 2, 2] and found.rows == 2


def test_epochs_from_0_and_validations_from_1():
    found = with_epochs(np.array([10, 1, 20, 2]), np.array([0, NAN, 1, NAN]))
    assert found.epoch.tolist() == [0, 0, 1, 1]


def test_a_validation_at_step_0_of_epoch_0():
    found = with_epochs(np.array([0, 0, 10, 1, 20, 2]), np.array([0, NAN, 1, NAN, 2, NAN]))
    assert found.epoch.tolist() == [0, 0, 1, 1, 2, 2] and found.step[3] == 10


@pytest.mark.parametrize(
    ("step", "epoch"),
    [
        ([0, 1, 1, 2], [1, NAN, 2, NAN]),  # ahead of the training
        ([10, 10, 20, 20], [1, NAN, 2, NAN]),  # steps of the training
        ([1, 1, 2, 2], [1, NAN, 2, NAN]),  # one step an epoch: either way the same
        ([10, 1, 20, 3], [1, NAN, 2, NAN]),  # not the epoch before
        ([10, 1, 15, 1, 20, 2], [1, NAN, 1, NAN, 2, NAN]),  # within an epoch
        ([1, 10, 2, 20], [NAN, 1, NAN, 2]),  # before the training
        ([10, 1, 20], [1, NAN, 2]),  # one alone
        ([10, 2, 20, 3], [1, NAN, 2, NAN]),  # one ahead, though epochs count from 1
        ([10, -1, 20, -1], [1, NAN, 2, NAN]),  # no steps
        ([10, 20], [NAN, NAN]),
        ([], []),
    ],
)
def test_what_may_mean_something_else_stays(step, epoch):
    step, epoch = np.array(step, np.int64), np.array(epoch, float)
    found = with_epochs(step, epoch)
    assert found.rows == 0 and found.step.tolist() == step.tolist()
    np.testing.assert_array_equal(found.epoch, epoch)
