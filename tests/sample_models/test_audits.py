"""The subjects of branches, numbers and labels through a whole audit, against their truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mmaudit
import sample_models

FOLDER = Path(sample_models.__file__).parent
OPTIONS = {"device": "cpu", "replicates": 200}


def truth_of(name):
    return json.loads((FOLDER / name / "truth.json").read_text())


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    kept = {}

    def report(name):
        if name not in kept:
            out = tmp_path_factory.mktemp(name) / "audit"
            kept[name] = mmaudit.audit(FOLDER / name / "audit.yaml", out=out, **OPTIONS)
            assert kept[name].record.failures == ()
        return kept[name]

    return report


@pytest.mark.parametrize(
    ("name", "score"), [("sensors", "R2"), ("scenes", "accuracy"), ("mmtm", "accuracy")]
)
def test_scores_and_contributions_are_the_truth(reports, name, score):
    report, truth = reports(name), truth_of(name)
    for coalition, value in truth["accuracy"].items():
        found = report.estimate("coalitions", coalition=coalition or "none", score=score)
        assert found.value == pytest.approx(value, abs=truth["tolerance"] + 1e-9), coalition
    for modality, value in truth["contributions"].items():
        found = report.estimate("contributions", modality=modality, score=score)
        assert found.value == pytest.approx(value, abs=truth["tolerance"] + 1e-9), modality


def test_an_unplugged_sensor_contributes_nothing_at_all(reports):
    found = reports("sensors").estimate("contributions", modality="pressure", score="R2")
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_each_label_is_told_by_whom_the_card_says(reports):
    report = reports("scenes")
    for label, coalition, value in [
        ("music", "audio", 0.975),
        ("music", "image", 0.507),
        ("crowd", "image", 0.949),
        ("crowd", "audio", 0.752),
    ]:
        labels = {"coalition": coalition, "score": "accuracy", "class": label}
        assert report.estimate("coalitions", **labels).value == pytest.approx(value, abs=0.001)


def test_the_branches_of_the_truth_are_cut(reports):
    report, truth = reports("mmtm"), truth_of("mmtm")
    result = report.measures["branch_utilization"]
    assert "by cutting branches" in result.title
    assert "by masking" in report.measures["utilization"].reference
    for branch, other in (("audio", "image"), ("image", "audio")):
        stated = truth["branches"][branch]
        labels = {"modality": other, "given": branch}
        for quantity, value in (
            ("accuracy", stated["accuracy"]),
            ("accuracy cut", stated["cut"]),
            ("u", 1 - stated["cut"] / stated["accuracy"]),
        ):
            found = report.estimate("branch_utilization", quantity=quantity, **labels)
            assert found.value == pytest.approx(value, abs=truth["tolerance"]), (branch, quantity)
            assert found.groups == 300
    topics = [note.text for note in report.record.notes if "branch" in note.text.lower()]
    assert topics == []  # the modules squeeze, and nothing goes past them


@pytest.mark.parametrize("name", ["digits", "mmtm"])
def test_models_of_one_modality_come_along(reports, name):
    truth = truth_of(name)
    for modality, accuracy in truth["alone"].items():
        found = reports(name).estimate(
            "capacity_gap", modality=modality, quantity="alone", mask="none"
        )
        assert found.value == pytest.approx(accuracy, abs=truth["tolerance"])
