from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LinearRegression

import sample_models.sensors
from sample_models.sensors import batches, build
from sample_models.sensors.data import SENSORS, Readings, samples
from sample_models.sensors.train import squared_error

FOLDER = Path(sample_models.sensors.__file__).parent
TRUTH = json.loads((FOLDER / "truth.json").read_text())


def alone(*sensors):
    """R2 of least squares on the training data, tested on the test data."""
    train, test = samples("train"), samples("test")
    seen, other = (np.hstack([part.inputs[s].numpy() for s in sensors]) for part in (train, test))
    return LinearRegression().fit(seen, train.wear).score(other, test.wear)


def test_each_sensor_alone_says_what_the_truth_says():
    for sensor in SENSORS:
        assert alone(sensor) == pytest.approx(TRUTH["alone"][sensor], abs=TRUTH["tolerance"])
    assert alone(*SENSORS) == pytest.approx(0.978, abs=0.001)
    # what temperature shows, vibration shows too
    assert alone("vibration", "temperature") - alone("vibration") < 0.005


def test_the_spread_of_the_wear_is_that_of_its_causes():
    wear = samples("train").wear.double()
    assert wear.var().item() == pytest.approx(4 + 1 + 1 + 0.09, rel=0.05)


def test_pressure_reaches_nothing():
    model = build()
    model.load_state_dict(load_file(FOLDER / "model.safetensors"))
    readings = samples("test").inputs
    assert not model.encoders["pressure"][2].weight.any()
    assert model.encoders["pressure"][0].weight.any()
    with torch.no_grad():
        plain = model(**readings)
        swapped = model(**{**readings, "pressure": readings["pressure"].flip(0)})
    assert torch.equal(plain, swapped)


def test_splits_are_drawn_apart_and_again_alike():
    first, again = Readings("test"), Readings("test")
    assert torch.equal(first.wear, again.wear)
    assert not torch.equal(first.wear, Readings("train").wear[:600])
    batch = next(iter(batches("validation", batch_size=3)))
    assert batch["pressure"].shape == (3, 6) and batch["wear"].dtype == torch.float32
    assert batch["id"] == [f"validation-0000{i}" for i in range(3)]
    out = build()(batch["vibration"], batch["temperature"], batch["pressure"])
    assert out.shape == (3,)
    assert torch.equal(squared_error(batch["wear"] + 2, batch), torch.full((3,), 4.0))
