"""Reference models from an audit file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mmaudit
from mmaudit.cli import app
from mmaudit.evidence.further import FURTHER
from mmaudit.evidence.references import REFERENCES, collect_references
from mmaudit.exceptions import SpecError
from mmaudit.measures import MEASURES
from mmaudit.measures.capacity_gap import CapacityGap
from mmaudit.referencing import path_from, train_references
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


def test_a_model_without_a_modality_is_the_whole_network_with_that_one_masked(
    tmp_path: Path,
) -> None:
    project, out = make_project(tmp_path), tmp_path / "alone"
    found = train_references(
        project, out=out, modalities=["sound"], without=True, recipe=QUICK, device="cpu"
    )
    assert list(found) == ["sound", "without-sound"]
    result = found["without-sound"]
    assert result.without and not result.own_encoder and result.notes == ()
    # Its audit file calls it as it was trained: it is right as often with the sound masked, and no sound ever taught it.
    report = mmaudit.audit(out / "without-sound" / "audit.yaml", device="cpu", replicates=100)
    assert report.title == "Toy, without sound"
    masked = report.estimate("coalitions", coalition="picture").value
    assert masked == pytest.approx(result.accuracy.value) and masked > 0.6
    sound = report.estimate("coalitions", coalition="sound").value
    assert sound is not None and sound < 0.6
    summary = json.loads((out / "unimodal.json").read_text())
    assert list(summary["modalities"]) == list(summary["without"]) == ["sound"]
    assert summary["without"]["sound"]["accuracy"]["value"] == pytest.approx(masked)


def test_the_command_line_says_how_to_audit_beside_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FURTHER, REFERENCES, collect_references)
    monkeypatch.setitem(MEASURES, CapacityGap.key, CapacityGap)
    project = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    call = ["unimodal", "audit.yaml", "--out", "runs/alone", "--without", "--epochs", "2"]
    call += ["--lr", "0.03", "--device", "cpu", "--quiet"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    said = result.stdout
    assert "sound alone     reaches" in said and "without picture reaches" in said
    assert "add to audit.yaml:\n references: runs/alone" in said
    project.write_text(project.read_text() + said.rsplit("\n ", 1)[1])
    report = mmaudit.audit(project, device="cpu", replicates=100)
    summary = json.loads((tmp_path / "runs/alone/unimodal.json").read_text())
    for name in ("sound", "picture"):
        alone = report.estimate("capacity_gap", modality=name, quantity="alone", mask="none")
        assert alone.value == pytest.approx(summary["modalities"][name]["accuracy"]["value"])
        drop = report.estimate("capacity_gap", modality=name, quantity="drop without", mask="none")
        without = summary["without"][name]["accuracy"]["value"]
        assert drop.value == pytest.approx((report.accuracy.value or 0) - without)
    # The references' own audit files name no references.
    text = (tmp_path / "runs/alone/sound/audit.yaml").read_text()
    assert "references" not in text


def test_what_cannot_be_left_out_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    text = project.read_text().replace("  picture: picture\n", "")
    project.write_text(text + "call: {args: [sound, picture]}\n")
    with pytest.raises(SpecError, match="sound is the only modality"):
        train_references(project, out=tmp_path / "x", without=True, device="cpu")
    assert not (tmp_path / "x").exists()
    assert path_from(project, "/elsewhere/alone") == Path("/elsewhere/alone")
