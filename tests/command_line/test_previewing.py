"""Previews: what is shown is what the audit would mask, and what the model then says."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from mmaudit import audit
from mmaudit.command_line.inspecting import inspect_audit_file, print_structure
from mmaudit.command_line.preview_page import print_preview
from mmaudit.command_line.previewing import preview_audit_file
from tests.command_line.projects import PROJECTS, write_project

_SPEC = """\
model: "train:build"
checkpoint: best.pt
data: "train:loader"
modalities: {modalities}
target: label
ids: id
"""


def _audit_file(folder, modalities, source=PROJECTS["late"]):
    write_project(folder, "late")
    (folder / "train.py").write_text(source)
    path = folder / "audit.yaml"
    path.write_text(_SPEC.replace("{modalities}", modalities))
    return path


def _printed(preview, width=80):
    out = io.StringIO()
    print_preview(preview, Console(file=out, width=width))
    return out.getvalue()


def test_scores_are_those_of_the_audit(tmp_path):
    path = _audit_file(tmp_path, "{audio: audio, image: {inputs: image, mask: mean}}")
    found = preview_audit_file(path, samples=40, device="cpu")
    report = audit(path, replicates=100, device="cpu")
    assert found.seen == 40 and len(found.samples) == 40
    for masked, coalition in (
        ((), "audio+image"),
        (("audio",), "image"),
        (("image",), "audio"),
        (("audio", "image"), "none"),
    ):
        assert found.scores[masked] == pytest.approx(
            report.estimate("coalitions", coalition=coalition).value
        )


def test_marginal_values_are_those_of_another_sample(tmp_path):
    path = _audit_file(tmp_path, "{audio: {inputs: audio, mask: marginal}, image: image}")
    found = preview_audit_file(path, samples=16, device="cpu")
    rows = [
        shown.whole
        for sample in preview_audit_file(path, samples=40, device="cpu").samples
        for shown in sample.inputs[:1]
    ]
    for sample in found.samples:
        audio, image = sample.inputs
        assert not np.allclose(audio.masked, audio.whole) and any(
            np.allclose(audio.masked, row) for row in rows
        )
        assert not image.masked.any()


def test_predictions_are_the_models_own(tmp_path):
    path = _audit_file(tmp_path, "{audio: audio, image: image}")
    found = preview_audit_file(path, samples=3, device="cpu")
    space: dict = {"__name__": "late"}
    exec(PROJECTS["late"], space)
    model = space["build"]()
    model.load_state_dict(torch.load(tmp_path / "best.pt", weights_only=True))
    for sample, row in zip(found.samples, space["rows"](), strict=False):
        with torch.no_grad():
            scores = model(torch.zeros(1, 6), row["image"][None]).softmax(-1)[0]
        without = next(p for p in sample.predictions if p.masked == ("audio",))
        assert (without.label, without.confidence) == (
            str(int(scores.argmax())),
            pytest.approx(scores.max().item()),
        )
        assert without.right == (int(scores.argmax()) == row["label"]) and sample.label == str(
            row["label"]
        )


@pytest.mark.parametrize("width", [80, 120])
def test_page_fits(tmp_path, width):
    path = _audit_file(tmp_path, "{audio: {inputs: audio, mask: noise}, image: image}")
    printed = _printed(preview_audit_file(path, samples=2, device="cpu"), width)
    assert max(map(len, printed.splitlines())) <= width
    for words in (
        "Sample s0   label 0",
        "image   (1, 3, 3) float32",
        "masked: zero",
        "without both",
        "Accuracy on 16 samples",
    ):
        assert words in printed


def test_samples_without_a_modality_are_named(tmp_path):
    source = (
        PROJECTS["late"]
        + """

def some():
    batch = next(iter(loader()))
    batch["has_audio"] = torch.arange(16) > 0
    return [batch]
"""
    )
    path = _audit_file(
        tmp_path, "{audio: {inputs: audio, present: has_audio}, image: image}", source
    )
    path.write_text(path.read_text().replace("train:loader", "train:some"))
    printed = _printed(preview_audit_file(path, samples=2, device="cpu"))
    assert printed.count("not in this sample: the mask stands in for it") == 1


def test_structure_is_coloured_and_says_the_same_without(tmp_path):
    path = _audit_file(tmp_path, "{audio: audio, image: image}")
    title, modalities, record = inspect_audit_file(path, device="cpu")
    plain, coloured = io.StringIO(), io.StringIO()
    print_structure(title, modalities, record, Console(file=plain, width=80))
    print_structure(
        title,
        modalities,
        record,
        Console(file=coloured, width=80, force_terminal=True, color_system="standard"),
    )
    assert "\x1b[1;36maudio" in coloured.getvalue() and "\x1b[1;35mimage" in coloured.getvalue()
    assert "eyes (Linear)  <- image          encoder, 40 parameters" in plain.getvalue()
    assert "Everything could be determined." in plain.getvalue()


def test_inspection_says_what_it_could_not_tell(tmp_path):
    path = _audit_file(tmp_path, "{both: {inputs: [audio, image]}}")
    _, modalities, record = inspect_audit_file(path, device="cpu")
    record = record.model_copy(update={"unknown": ("Something is unclear. " * 10,)})
    out = io.StringIO()
    print_structure("title", modalities, record, Console(file=out, width=80))
    assert (
        " ! Something is unclear." in out.getvalue()
        and max(map(len, out.getvalue().splitlines())) <= 80
    )
