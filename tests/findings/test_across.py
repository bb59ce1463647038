"""Findings about the whole model."""

from __future__ import annotations

from mmaudit.findings import find
from tests.findings.records import CHANCE, INFORMED, UNREAD, USED, record, rules


def told(*args, **more):
    return {f.rule: f for f in find(record(*args, **more)) if f.verdict is None}


def test_worse_than_its_best_modality_comes_first():
    found = find(record({"a": USED | {"advantage": -0.05, "alone": 0.95}, "b": USED}))
    assert found[0].rule == "worse than its best modality" and found[0].level == "problem"
    assert "worse than a alone" in found[0].text and ".050 [.040, .060]" in found[0].text


def test_it_is_not_claimed_by_chance():
    assert "worse than its best modality" not in told(
        {"a": USED | {"advantage": (-0.05, 0.06)}, "b": USED}
    )


def test_a_probe_or_the_masked_model_can_show_it_too():
    assert "worse than its best modality" in told(
        {"a": {"contribution": 0.2, "drop": 0.2, "probe": 0.97}, "b": USED | {"advantage": 0.1}}
    )
    three = {
        "a": {"contribution": 0.2, "drop": 0.2, "inside": 0.97},
        "b": {"drop": 0.0},
        "c": {"drop": 0.0},
    }
    assert "worse than its best modality" in told(three)
    # Of two, the one alone is the model without the other.
    two = {
        "a": {"contribution": 0.2, "drop": 0.2, "inside": 0.97},
        "b": {"contribution": 0.0, "drop": -0.07},
    }
    assert "worse than its best modality" in told(two)


def test_dominance():
    found = told({"a": USED, "b": UNREAD | INFORMED}, shares={"a": (0.97, 0.02), "b": (0.03, 0.02)})
    assert found["dominance"].level == "attention" and found["dominance"].remedies
    assert "dominance" not in told(
        {"a": USED, "b": USED}, shares={"a": (0.82, 0.1), "b": (0.18, 0.1)}
    )


def test_a_share_of_nothing_good_is_no_dominance():
    down = {"contribution": -0.2, "drop": -0.2, "inside": 0.3}
    assert "dominance" not in told(
        {"a": down, "b": USED | {"contribution": 0.02}}, shares={"a": (1.5, 0.1)}
    )


def test_synergy_overlap_or_none():
    both = {"a": USED, "b": USED}
    assert "synergy" in told(both, interactions={("a", "b"): 0.2})
    assert "overlap" in told(both, interactions={("a", "b"): -0.2})
    assert "no synergy" in told(both, interactions={("a", "b"): (0.0, 0.01)})
    assert not {"synergy", "overlap", "no synergy"} & set(
        told(both, interactions={("a", "b"): (0.0, 0.1)})
    )


def test_a_leaked_label_is_a_suspicion():
    sure = USED | {"alone": 0.999, "inside": 0.999, "contribution": 0.49, "drop": 0.49}
    found = told({"a": sure, "b": UNREAD | INFORMED, "c": UNREAD | CHANCE}, whole=0.999)
    assert "may hold the label" in found["leaked label"].text
    assert "leaked label" not in told({"a": sure, "b": USED}, whole=0.999)
    assert "leaked label" not in told(
        {"a": sure, "b": sure | UNREAD | {"inside": 0.999}}, whole=0.999
    )
    # Nearly perfect because nearly all samples are of one class.
    assert "leaked label" not in told({"a": sure, "b": UNREAD}, whole=0.999, counts=(1990, 10))


def test_no_better_than_a_constant():
    found = told({"a": UNREAD, "b": UNREAD}, whole=0.5)
    assert found["no better than a constant"].level == "problem"
    assert "no better than a constant" not in told({"a": USED, "b": USED})


def test_masks_that_disagree():
    torn = {"contribution": [0.2, (0.0, 0.005)], "drop": [0.2, (0.0, 0.005)], "inside": 0.7}
    found = told({"a": torn, "b": USED})
    assert "Whether a counts" in found["depends on the mask"].text


def test_a_ranking_that_flips():
    a = USED | {"contribution": [0.3, 0.1]}
    b = USED | {"contribution": [0.1, 0.3]}
    found = told({"a": a, "b": b})
    assert "largest contribution" in found["depends on the mask"].text


def test_nothing_to_do():
    assert told({"a": USED, "b": USED})["do nothing"].level == "good"
    assert "do nothing" not in told({"a": USED, "b": UNREAD | INFORMED})
    assert "do nothing" not in told({"a": USED, "b": UNREAD})


def test_a_record_without_scores_has_no_findings():
    empty = record({"a": USED, "b": USED})
    assert find(empty.model_copy(update={"measures": {}})) == ()
    assert rules(find(empty))
