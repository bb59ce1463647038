"""Reference models from an audit file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mmaudit
from mmaudit.exceptions import SpecError
from mmaudit.referencing import train_references
from tests.projects import make_project

QUICK = {"epochs": 6, "lr": 0.03, "batch_size": 32}


def test_what_the_joint_model_does_not_hear_can_be_learnt_from_sound_alone(tmp_path: Path) -> None:
    project, out = make_project(tmp_path), tmp_path / "alone"
    joint = mmaudit.audit(project, device="cpu", replicates=100)
    found = train_references(project, out=out, recipe=QUICK, device="cpu")
    assert list(found) == ["sound", "picture"]
    alone = found["sound"].accuracy.value
    assert alone is not None
    coalitions = joint.to_frame("coalitions")
    heard = coalitions[
        (coalitions["coalition"] == "sound")
        & (coalitions["score"] == "accuracy")
        & (coalitions["class"] == "all")
    ]["value"].iloc[0]
    assert alone > 0.7 > heard
    # The saved model answers as the figures say, from its own modality alone.
    report = mmaudit.audit(out / "sound" / "audit.yaml", device="cpu", replicates=100)
    again = report.to_frame("coalitions")
    rows = again[(again["score"] == "accuracy") & (again["class"] == "all")]
    values = dict(zip(rows["coalition"], rows["value"], strict=True))
    assert values["sound"] == values["sound+picture"] == pytest.approx(alone)
    assert values["picture"] == values["none"]
    summary = json.loads((out / "unimodal.json").read_text())
    assert summary["modalities"]["sound"]["accuracy"]["value"] == pytest.approx(alone)
    assert summary["modalities"]["sound"]["own_encoder"]


def test_unknown_modalities_are_named(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    with pytest.raises(SpecError, match="'smell' is no modality; there are sound, picture"):
        train_references(project, out=tmp_path / "x", modalities=["smell"], device="cpu")
