"""The closed-form subjects get the verdicts that their card states."""

from __future__ import annotations

import pytest

import mmaudit
from mmaudit.findings import find
from sample_models.synthetic.cases import CASES
from sample_models.synthetic.data import batches
from sample_models.synthetic.model import construct
from tests.findings.records import rules, verdicts

CARD = {
    "balanced2": {"a": "well used", "b": "well used"},
    "balanced3": {"a": "well used", "b": "well used", "c": "well used"},
    "ignored": {"a": "well used", "b": "under-used"},
    "dominant": {"a": "well used", "b": "under-used"},
    "redundant": {"a": "redundant", "b": "redundant"},
    "xor": {"a": "well used", "b": "well used"},
    "five": {
        "a": "well used",
        "b": "redundant",
        "c": "redundant",
        "d": "under-used",
        "e": "uninformative",
    },
}


def judged(name):
    spec = {
        "modalities": {modality: {"inputs": modality} for modality in CASES[name].modalities},
        "target": "label",
        "ids": "id",
        "call": {"args": list(CASES[name].modalities)},
    }
    report = mmaudit.audit(construct(name), batches(name), spec, device="cpu", replicates=200)
    return find(report.record, report.table("coalitions"))


def test_parity_is_synergy():
    found = judged("xor")
    assert verdicts(found) == CARD["xor"]
    assert "synergy" in rules(found) and "dominance" not in rules(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", CARD)
def test_the_card(name):
    assert verdicts(judged(name)) == CARD[name]
