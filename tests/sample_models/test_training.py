"""The training scripts of the branched, regression and multi-label subjects, cut short."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from safetensors.torch import load_file


@pytest.mark.parametrize(
    ("subject", "recipes"),
    [("mmtm", ("HEAD_START", "JOINT")), ("sensors", ("RECIPE",)), ("scenes", ("FIRST", "JOINT"))],
)
def test_a_training_leaves_weights_that_fit(tmp_path: Path, monkeypatch, capsys, subject, recipes):
    script = importlib.import_module(f"sample_models.{subject}.train")
    for name in recipes:
        short = getattr(script, name).model_copy(update={"epochs": 1})
        monkeypatch.setattr(script, name, short)
    script.main(runs=tmp_path / "runs", weights=tmp_path)
    model = importlib.import_module(f"sample_models.{subject}").build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert any((before[name] != value).any() for name, value in model.state_dict().items())
    assert (tmp_path / "model.safetensors").stat().st_size < 300_000
    assert "epoch 1 of 1" in capsys.readouterr().out
