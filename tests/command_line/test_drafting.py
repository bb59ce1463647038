"""Drafts for projects of several habits: each must be read back, run, and say what it guessed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml

from mmaudit import audit
from mmaudit.command_line.drafting import draft_audit_file
from mmaudit.exceptions import DataError, MMAuditError, ModelError
from tests.command_line.projects import PROJECTS, write_project


def _draft(folder, kind, **options):
    write_project(folder, kind)
    return draft_audit_file(
        folder / "best.pt", "train:build", "train:loader", directory=folder, **options
    )


def test_mapping(tmp_path):
    draft = _draft(tmp_path, "late")
    spec = yaml.safe_load(draft.text)
    assert spec["modalities"] == {
        "audio": {"inputs": "audio", "mask": "zero"},
        "image": {"inputs": "image", "mask": "zero"},
    }
    assert (spec["target"], spec["ids"], spec["group"]) == ("label", "id", "speaker")
    assert spec["call"] == {"kwargs": {"audio": "audio", "image": "image"}}
    assert spec["outputs"] == {"kind": "logits"} and spec["checkpoint"] == "best.pt"
    assert (
        draft.structure.encoders == {"audio": ("ears",), "image": ("eyes",)}
        and draft.structure.fusion == "head"
    )


def test_every_line_has_its_comment(tmp_path):
    lines = _draft(tmp_path, "late").text.splitlines()
    assert 12 <= len(lines) <= 25
    assert [line for line in lines if "#" not in line] == ["data:"]


def test_tuple_takes_names_and_order_from_forward(tmp_path):
    spec = yaml.safe_load(_draft(tmp_path, "tuples").text)
    assert {name: part["inputs"] for name, part in spec["modalities"].items()} == {
        "lidar": "0",
        "radar": "1",
    }
    assert spec["target"] == "2" and spec["call"] == {"kwargs": {"lidar": "0", "radar": "1"}}
    assert spec["outputs"] == {"path": "logits", "kind": "probabilities"}


def test_tokens_keep_their_attention_mask_and_get_the_padding_token(tmp_path):
    draft = _draft(tmp_path, "tokens")
    spec = yaml.safe_load(draft.text)
    assert spec["modalities"]["text"] == {
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask"},
        "mask": {"input_ids": {"token": 1}, "attention_mask": "keep"},
    }
    assert spec["modalities"]["image"] == {"inputs": "pixel_values", "mask": "zero"}
    assert spec["target"] == "labels" and "labels" not in spec["call"]["kwargs"]
    assert spec["outputs"] == {"path": "logits", "kind": "one_logit"} and spec["task"] == "binary"


def test_nested_tuple_goes_to_forward_whole(tmp_path):
    spec = yaml.safe_load(_draft(tmp_path, "nested").text)
    assert [part["inputs"] for part in spec["modalities"].values()] == ["0.0", "0.1"]
    assert spec["target"] == "1" and spec["call"] == {"args": ["0"]}


def test_mapping_goes_to_forward_whole(tmp_path):
    spec = yaml.safe_load(_draft(tmp_path, "whole").text)
    assert list(spec["modalities"]) == ["pose", "face"] and spec["target"] == "y"
    assert spec["call"] == {"args": ["batch"]} and spec["outputs"] == {"kind": "log_probabilities"}


@pytest.mark.parametrize("kind", PROJECTS)
def test_drafts_can_be_audited_as_they_are(tmp_path, kind):
    draft = _draft(tmp_path, kind)
    (tmp_path / "audit.yaml").write_text(draft.text)
    report = audit(tmp_path / "audit.yaml", replicates=100, device="cpu")
    assert list(report.modalities) == list(yaml.safe_load(draft.text)["modalities"])
    labels = report.data.samples
    assert labels == {"late": 40, "tuples": 20, "tokens": 24, "nested": 18, "whole": 18}[kind]


def test_accuracy_on_the_batch_is_the_plain_one(tmp_path):
    draft = _draft(tmp_path, "late")
    space: dict = {"__name__": "late"}
    exec((tmp_path / "train.py").read_text(), space)
    model = space["build"]()
    model.load_state_dict(torch.load(tmp_path / "best.pt", weights_only=True))
    batch = next(iter(space["loader"]()))
    with torch.no_grad():
        hits = model(batch["audio"], batch["image"]).argmax(-1) == batch["label"]
    assert draft.score == pytest.approx(hits.double().mean().item())


def test_npz(tmp_path):
    write_project(tmp_path, "late")
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "test.npz",
        audio=rng.normal(size=(30, 6)),
        image=rng.random((30, 1, 3, 3)),
        label=np.arange(30) % 3,
    )
    draft = draft_audit_file(
        tmp_path / "best.pt", "train:build", str(tmp_path / "test.npz"), directory=tmp_path
    )
    spec = yaml.safe_load(draft.text)
    assert spec["data"] == {"test": {"file": "test.npz"}} and spec["target"] == "label"


def test_answers_win(tmp_path):
    asked = []

    def ask(what, guess, reason):
        asked.append((what, guess))
        return {"outputs": "log_probabilities"}.get(what, guess)

    with pytest.raises(ModelError, match="do not sum to 1"):
        _draft(tmp_path, "late", ask=ask)
    assert asked == [("target", "label"), ("outputs", "logits")]


def test_answer_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="there is no 'nothing'"):
        _draft(
            tmp_path,
            "late",
            ask=lambda what, guess, reason: "nothing" if what == "target" else guess,
        )


@pytest.mark.parametrize(
    ("labels", "target", "words"),
    [
        (
            "i % 3 + 1",
            None,
            r"'label' was taken .*numbers 1 to 3\): classes count from 0.*--target",
        ),
        ("i % 3 - 1", "label", r"numbers -1 to 1\): classes count from 0, so leave out samples"),
        (
            "i % 3 - 1",
            None,
            r"'rank' was taken .*; 'label' \(whole numbers -1 to 1\) is called like",
        ),
    ],
)
def test_labels_that_do_not_suit_the_outputs_are_named(tmp_path, labels, target, words):
    write_project(tmp_path, "late")
    text = PROJECTS["late"].replace('"label": i % 3', f'"label": {labels}, "rank": i // 2 + 2')
    (tmp_path / "train.py").write_text(text)
    options = {"directory": tmp_path, "target": target}
    with pytest.raises(ModelError, match=words):
        draft_audit_file(tmp_path / "best.pt", "train:build", "train:loader", **options)


def test_a_named_target_wins(tmp_path):
    write_project(tmp_path, "late")
    text = PROJECTS["late"].replace('"label": i % 3', '"label": i % 3 + 1, "kind": i % 3')
    (tmp_path / "train.py").write_text(text)
    draft = draft_audit_file(
        tmp_path / "best.pt", "train:build", "train:loader", directory=tmp_path, target="kind"
    )
    assert yaml.safe_load(draft.text)["target"] == "kind"


def test_batch_that_does_not_suit_forward(tmp_path):
    write_project(tmp_path, "late")
    (tmp_path / "train.py").write_text(PROJECTS["late"].replace("torch.randn(6,", "torch.randn(5,"))
    with pytest.raises(
        ModelError, match=r"does not run on a batch: forward\(audio, image\) raised"
    ):
        draft_audit_file(tmp_path / "best.pt", "train:build", "train:loader", directory=tmp_path)


def test_batch_without_inputs(tmp_path):
    write_project(tmp_path, "late")
    text = PROJECTS["late"] + "\n\ndef labels():\n    return [{'label': torch.arange(4)}]\n"
    (tmp_path / "train.py").write_text(text)
    with pytest.raises(MMAuditError, match="nothing in a batch can be a modality"):
        draft_audit_file(tmp_path / "best.pt", "train:build", "train:labels", directory=tmp_path)
