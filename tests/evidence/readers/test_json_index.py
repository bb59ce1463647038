"""JSON of mappings whose keys are the numbers of the points, as pandas writes tables."""

import json

import numpy as np
import pandas as pd
import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.evidence.readers.json_index import rows_by_index
from tests.evidence.readers.logs import EPOCHS, TRAIN, VALIDATION, write

FRAME = pd.DataFrame({"train_loss": TRAIN, "val_loss": VALIDATION})


def only(path):
    (run,) = read_runs(path)
    return run


@pytest.mark.parametrize("orient", ["columns", "index"])
@pytest.mark.parametrize("with_epoch", [True, False])
def test_tables_of_pandas(tmp_path, orient, with_epoch):
    frame = FRAME.assign(epoch=EPOCHS + 5) if with_epoch else FRAME
    run = only(write(tmp_path / "a.json", frame.to_json(orient=orient, double_precision=15)))
    assert set(run.series) == {"train_loss", "val_loss"}
    np.testing.assert_allclose(run.series["train_loss"].value, TRAIN)
    np.testing.assert_allclose(run.series["val_loss"].value, VALIDATION)
    first = 5 if with_epoch else 0
    assert run.series["val_loss"].epoch.tolist() == [first + e for e in range(6)]


def test_an_index_with_gaps_is_of_steps_and_places_missing_values(tmp_path):
    frame = FRAME.set_axis([100, 250, 300, 400, 500, 600])
    frame.loc[[100, 300, 500], "val_loss"] = None
    run = only(write(tmp_path / "a.json", frame.to_json()))
    assert run.series["train_loss"].step.tolist() == [100, 250, 300, 400, 500, 600]
    assert run.series["val_loss"].step.tolist() == [250, 400, 600]
    assert np.isnan(run.series["val_loss"].epoch).all()


@pytest.mark.parametrize(
    ("key", "kind"), [("epoch_{}", "epoch"), ("Epoch {}", "epoch"), ("step{}", "step")]
)
def test_keys_that_say_what_they_count(key, kind):
    rows = rows_by_index({key.format(n): {"train": {"loss": n / 4}} for n in (2, 10, 1)})
    assert rows == [{kind: n, "train/loss": n / 4} for n in (1, 2, 10)]


def test_splits_and_runs_above_the_numbers(tmp_path):
    points = {str(e): {"loss": float(t)} for e, t in zip(EPOCHS, TRAIN)}
    run = only(write(tmp_path / "a.json", json.dumps({"train": points, "val": points})))
    assert set(run.series) == {"train/loss", "val/loss"}
    whole = json.loads(FRAME.to_json())
    runs = read_runs(write(tmp_path / "b.json", json.dumps({"seed0": whole, "seed1": whole})))
    assert len(runs) == 2 and {len(r.series["val_loss"].value) for r in runs} == {6}


@pytest.mark.parametrize(
    "document",
    [
        {"0": {"train_loss": [1.0, 2.0]}, "1": {"train_loss": [1.0, 2.0]}},
        {"seed0": {"loss": 1.0}, "seed1": {"loss": 2.0}},
        {"0": {"1": {"loss": 1.0}}},
        {"0": 1.0, "1": 2.0},
        {"time0": {"loss": 1.0}},
        {"epoch_1": {"loss": 1.0}, "step_1": {"acc": 1.0}},
        {},
    ],
)
def test_what_is_numbered_otherwise(document):
    assert rows_by_index(document) == []


def test_facts_beside_the_points():
    document = {"lr": 0.1, "layers": [3, 4], "history": {"0": {"loss": 1.0}, "1": {"loss": 0.5}}}
    assert rows_by_index(document) == [
        {"epoch": 0, "history/loss": 1.0},
        {"epoch": 1, "history/loss": 0.5},
    ]
