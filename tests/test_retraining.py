"""From an audit file to a retrained model and a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mmaudit
from mmaudit.exceptions import RecordError, SpecError
from mmaudit.masking.spec import AuditSpec, read_spec
from mmaudit.retraining import retrain
from tests.projects import make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


QUICK = {"epochs": 3, "lr": 0.02, "batch_size": 32}


def test_the_whole_way(project: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage not in stages:
            stages.append(stage)

    out = tmp_path / "run"
    result = retrain(
        project, "agm", out=out, recipe=QUICK, options={"alpha": 1.5}, control=True,
        replicates=200, device="cpu", progress=progress,
    )  # fmt: skip
    assert stages == [
        "Audit before",
        "Training",
        "Audit after",
        "Training (control)",
        "Audit of the control",
        "Comparing",
    ]
    assert result.checkpoint.is_file()
    changed = load_file(result.checkpoint)
    came = load_file(tmp_path / "weights.safetensors")
    assert any(not torch.equal(changed[name], came[name]) for name in came)
    assert any("held out" in note for note in result.notes)
    assert result.control is not None
    assert (out / "comparison.json").is_file()
    assert (out / "control" / "comparison.json").is_file()
    # The audit file of the retrained model stands on its own, and gives the same figures again.
    again = mmaudit.audit(out / "audit.yaml", out=tmp_path / "again", device="cpu", replicates=200)
    first = result.after.to_frame("contributions")
    assert again.to_frame("contributions")["value"].equals(first["value"])
    assert "AGM" in again.title
    assert again.record.lineage["parent"] == result.before.record.report_id
    assert again.record.lineage["remedy"] == "agm"
    # The model as it came is untouched.
    assert all(torch.equal(load_file(tmp_path / "weights.safetensors")[k], came[k]) for k in came)


def test_the_written_audit_file_says_what_the_first_one_said(project: Path, tmp_path: Path) -> None:
    text = yaml.safe_load(project.read_text())
    text["modalities"]["sound"] = {"inputs": ["sound"], "mask": {"constant": 0.5}}
    text["modalities"]["picture"] = {"inputs": "picture", "mask": {"noise": {"std": 1.0}}}
    text["expected"] = 0.9
    del text["expected"]
    project.write_text(yaml.safe_dump(text, sort_keys=False))
    retrain(project, "joint", out=tmp_path / "run", recipe=QUICK, replicates=100, device="cpu")
    one, other = read_spec(project), read_spec(tmp_path / "run" / "audit.yaml")
    assert isinstance(other, AuditSpec)
    same = {"modalities", "target", "task", "model", "data", "call", "outputs", "seed"}
    for name in same:
        assert getattr(one, name) == getattr(other, name), name
    assert other.directory == project.parent


def test_an_interrupted_retraining_goes_on_to_the_same_end(project: Path, tmp_path: Path) -> None:
    whole = retrain(
        project, "agm", out=tmp_path / "whole", recipe=QUICK, replicates=100, device="cpu"
    )

    for limit in (2, 9, 20):  # in the first audit, in the training, later
        seen = 0

        def stop(stage: str, done: int, total: int | None, limit: int = limit) -> None:
            nonlocal seen
            seen += 1
            if seen == limit:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            retrain(
                project, "agm", out=tmp_path / "cut", recipe=QUICK, replicates=100, device="cpu",
                resume=True, progress=stop,
            )  # fmt: skip
    cut = retrain(
        project,
        "agm",
        out=tmp_path / "cut",
        recipe=QUICK,
        replicates=100,
        device="cpu",
        resume=True,
    )
    one, other = load_file(whole.checkpoint), load_file(cut.checkpoint)
    assert all(torch.equal(one[name], other[name]) for name in one)
    strip = {"before", "after", "created"}
    a, b = (json.loads(r.comparison.model_dump_json()) for r in (whole, cut))
    assert {k: v for k, v in a.items() if k not in strip} == {
        k: v for k, v in b.items() if k not in strip
    }


def test_from_scratch_is_another_model(project: Path, tmp_path: Path) -> None:
    short = {**QUICK, "epochs": 1, "lr": 1e-6}
    kept = retrain(project, "joint", out=tmp_path / "a", recipe=short, replicates=100, device="cpu")
    new = retrain(
        project,
        "joint",
        out=tmp_path / "b",
        recipe=short,
        replicates=100,
        device="cpu",
        start="scratch",
    )
    came = load_file(tmp_path / "weights.safetensors")["head.weight"]
    assert torch.allclose(load_file(kept.checkpoint)["head.weight"], came, atol=1e-3)
    assert not torch.allclose(load_file(new.checkpoint)["head.weight"], came, atol=1e-3)


def test_a_finished_audit_is_not_done_again(project: Path, tmp_path: Path) -> None:
    report = mmaudit.audit(project, out=tmp_path / "audit", device="cpu", replicates=100)
    result = retrain(
        project, "joint", out=tmp_path / "run", recipe=QUICK, replicates=100, device="cpu",
        before=tmp_path / "audit",
    )  # fmt: skip
    assert result.before.record.report_id == report.record.report_id
    other = tmp_path / "other.yaml"
    other.write_text(project.read_text().replace("title: Toy", "title: Toy\nseed: 5"))
    with pytest.raises(RecordError, match="another model or of another audit file"):
        retrain(other, "joint", out=tmp_path / "no", recipe=QUICK, before=tmp_path / "audit", device="cpu")  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_plain_training_needs_no_control(project: Path, tmp_path: Path) -> None:
    result = retrain(
        project,
        "joint",
        out=tmp_path / "run",
        recipe=QUICK,
        replicates=100,
        device="cpu",
        control=True,
    )
    assert result.control is None
    assert not (tmp_path / "run" / "control").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"remedy": "agn"}, "no remedy; there are agm"),
        ({"options": {"alpa": 1}}, "alpa"),
        ({"recipe": {"lr": -1}}, "lr"),
        ({"start": "zero"}, "checkpoint, scratch"),
    ],
)
def test_wrong_wishes_get_a_sentence_and_leave_nothing(
    project: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        retrain(project, **{"remedy": "agm", "out": tmp_path / "run", "device": "cpu", **change})
    assert not (tmp_path / "run").exists()


def test_other_peoples_folders_are_left_alone(project: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("...")
    with pytest.raises(RecordError, match="not empty"):
        retrain(project, "joint", out=full, recipe=QUICK, device="cpu")
    retrain(project, "joint", out=tmp_path / "run", recipe=QUICK, replicates=100, device="cpu")
    with pytest.raises(RecordError, match="holds a retraining"):
        retrain(project, "joint", out=tmp_path / "run", recipe=QUICK, device="cpu")
    with pytest.raises(RecordError, match="begun with another recipe"):
        retrain(
            project, "joint", out=tmp_path / "run", recipe={**QUICK, "epochs": 9}, resume=True,
            replicates=100, device="cpu",
        )  # fmt: skip


def test_without_training_data_there_is_nothing_to_train_on(project: Path, tmp_path: Path) -> None:
    text = yaml.safe_load(project.read_text())
    del text["data"]["train"]
    project.write_text(yaml.safe_dump(text, sort_keys=False))
    with pytest.raises(SpecError, match="add data.train"):
        retrain(project, "joint", out=tmp_path / "run", recipe=QUICK, device="cpu")
