"""Each verdict on made-up numbers, at and beyond its limits."""

from __future__ import annotations

import pytest

from mmaudit.findings import find
from mmaudit.remedies import REMEDIES
from tests.findings.records import (
    CHANCE,
    INFORMED,
    UNREAD,
    USED,
    record,
    verdict,
    verdicts,
)


def judged(second, first=None, **more):
    """The verdict of b beside a well used a."""
    return verdict(find(record({"a": first or USED, "b": second}, **more)), "b")


def test_well_used():
    found = judged(USED)
    assert found.verdict == "well used" and found.level == "good" and not found.remedies
    assert ".20 [.19, .21]" in found.text
    assert {row.measure for row in found.evidence} == {"mask_sensitivity", "capacity_gap"}
    assert "corrected for 2 modalities" in found.conditions


def test_an_ignored_modality_is_under_used_or_uninformative_as_it_has_something_to_say():
    under = judged(UNREAD | INFORMED)
    assert under.verdict == "under-used" and under.level == "attention"
    assert under.remedies == ("agm", "mla", "modality_dropout") and set(under.remedies) <= set(
        REMEDIES
    )
    nothing = judged(UNREAD | CHANCE)
    assert nothing.verdict == "uninformative" and not nothing.remedies


def test_without_evidence_of_information_the_verdict_is_open_and_says_how_to_get_it():
    found = judged(UNREAD)
    assert found.verdict == "undetermined"
    assert any("mmaudit unimodal audit.yaml --out alone" in text for text in found.missing)
    assert any("references: alone" in text for text in found.missing)


def test_a_silent_modality_needs_no_intervals_to_be_unread():
    silent = {"silent": True, "contribution": (0.0, 0.0), "drop": (0.0, 0.0), "inside": 0.5}
    assert judged(silent | CHANCE).verdict == "uninformative"
    found = judged(silent | INFORMED)
    assert found.verdict == "under-used" and "draws nothing" in found.text


def test_the_probe_speaks_where_there_is_no_reference():
    probed = {"probe": 0.75, "probe_above": 0.25, "gain": 0.3}
    assert judged(UNREAD | probed).verdict == "under-used"
    dumb = {"probe": 0.5, "probe_above": (0.0, 0.03), "gain": (0.0, 0.01)}
    found = judged(UNREAD | dumb)
    assert found.verdict == "uninformative" and any("probe" in c for c in found.conditions)


def test_a_probe_too_uncertain_decides_nothing():
    vague = {"probe": 0.5, "probe_above": (0.05, 0.15), "gain": (0.0, 0.1)}
    assert judged(UNREAD | vague).verdict == "undetermined"


def test_a_reference_at_chance_beside_a_probe_that_finds_something_has_failed():
    found = judged(UNREAD | CHANCE | {"probe": 0.8, "probe_above": 0.3, "gain": 0.3})
    assert found.verdict == "under-used"
    assert any("training may have failed" in text for text in found.conditions)


def test_synergy_is_well_used_though_nothing_is_said_alone():
    xor = {"contribution": 0.2, "drop": 0.4, "inside": 0.5, "without": 0.4}
    found = find(
        record(
            {"a": xor | CHANCE | {"without": 0.4}, "b": xor | CHANCE | {"without": 0.4}},
            interactions={("a", "b"): 0.4},
        )
    )
    assert verdicts(found) == {"a": "well used", "b": "well used"}
    assert "together with others" in verdict(found, "a").text
    assert [f.rule for f in found if f.verdict is None][0] == "synergy"


def test_harmful_where_masking_raises_the_score():
    bad = {"contribution": -0.1, "drop": -0.1, "inside": 0.4}
    found = judged(bad | CHANCE)
    assert found.verdict == "harmful" and found.level == "problem"
    assert ".10 [.09, .11]" in found.text


def test_harmful_stands_above_all_that_is_known_otherwise():
    assert (
        judged(INFORMED | {"contribution": 0.1, "drop": -0.1, "inside": 0.8}).verdict == "harmful"
    )


def test_not_harmful_where_another_mask_says_the_opposite():
    found = judged({"contribution": [-0.1, 0.1], "drop": [-0.1, 0.1], "inside": 0.5} | INFORMED)
    assert found.verdict != "harmful"
    assert any("depends on the mask" in text for text in found.conditions)


def test_harmful_under_one_mask_alone_is_said_to_be_so():
    found = judged({"contribution": [-0.1, (0.0, 0.005)], "drop": [-0.1, (0.0, 0.005)]} | CHANCE)
    assert found.verdict == "harmful"
    assert any("harmful only" in text for text in found.conditions)


def test_redundant_where_a_model_without_it_does_as_well():
    copy = (
        {"contribution": 0.2, "drop": [0.0, 0.1], "inside": 0.85} | INFORMED | {"gap": [0.0, 0.2]}
    )
    assert judged(copy).verdict == "redundant"
    assert judged(copy | {"without": 0.1, "drop": [(0.0, 0.005), 0.1]}).verdict == "redundant"


def test_a_failed_training_without_it_is_said_and_is_no_evidence():
    spared = {"contribution": 0.1, "drop": [(0.0, 0.005), (0.0, 0.01)], "inside": 0.85} | INFORMED
    found = judged(spared | {"gap": [0.0, 0.05], "without": (0.372, 0.04)})
    assert found.verdict == "redundant" and "masking" in found.because
    said = next(text for text in found.conditions if "that training fell short" in text)
    assert ".37 [.33, .41] worse than the joint model with it masked" in said
    says = {row.says for row in found.evidence if row.labels["quantity"] == "drop without"}
    assert says == {"training fell short"}
    well = judged(spared | {"gap": [0.0, 0.05], "without": (0.0, 0.005)})
    assert not any("failed" in text for text in well.conditions)


def test_a_model_of_another_modality_is_a_model_without_this_one():
    # Three of them, masks far from the data: only the reference model of b shows that a can be spared.
    far = {
        "contribution": 0.25,
        "drop": 0.3,
        "inside": 0.5,
        "alone": 0.9,
        "above": 0.4,
        "gap": [0.4, 0.4],
    }
    rest = {"c": UNREAD | CHANCE}
    found = find(record({"a": far | {"advantage": 0.0}, "b": far | {"advantage": 0.0}} | rest))
    assert verdicts(found) == {"a": "redundant", "b": "redundant", "c": "uninformative"}
    assert "a model trained on b alone" in verdict(found, "a").because
    found = find(record({"a": far | {"advantage": 0.1}, "b": far | {"advantage": 0.1}} | rest))
    assert verdicts(found)["a"] == "well used"


def test_what_carries_the_joint_model_is_well_used_though_an_unread_modality_would_do_better():
    carrier = USED | {"contribution": 0.3, "drop": 0.3, "without": -0.05}
    better = UNREAD | INFORMED | {"alone": 0.95, "above": 0.45, "advantage": -0.05, "without": 0.2}
    found = find(record({"a": carrier, "b": better}))
    assert verdicts(found) == {"a": "well used", "b": "under-used"}
    assert found[0].rule == "worse than its best modality"


def test_equivalence_needs_the_whole_interval():
    copy = {"contribution": 0.2, "inside": 0.85} | INFORMED | {"gap": [0.0, 0.2]}
    drop = {"drop": [(0.0, 0.06), 0.1], "without": (0.0, 0.06)}
    found = judged(copy | drop)
    assert found.verdict == "undetermined" and "whether it is needed" in found.text
    assert any("are needed" in text for text in found.missing)


def test_a_weak_voice_beside_the_case_of_zero_masks_far_from_the_data():
    # Under zeros each alone is at chance in the joint model, though a model of each alone is good: both are used.
    torn = {
        "contribution": 0.42,
        "drop": 0.75,
        "inside": 0.2,
        "gap": [0.5, 0.3],
        "advantage": 0.3,
        "without": 0.3,
    }
    both = {"a": torn | {"alone": 0.66, "above": 0.56}, "b": torn | {"alone": 0.87, "above": 0.77}}
    assert verdicts(find(record(both, whole=0.95, counts=(200,) * 10))) == {
        "a": "well used",
        "b": "well used",
    }


def test_read_less_than_it_says_though_needed():
    # As a modality whose weak proxy is read: .075 of .25 that it says, and .1 would be lost without it.
    proxy = {"contribution": 0.075, "drop": 0.1, "inside": 0.3, "alone": 0.5, "above": 0.25}
    proxy |= {"gap": [0.2, 0.2], "advantage": 0.1, "without": 0.1}
    found = judged(proxy, whole=0.6, counts=(500,) * 4)
    assert found.verdict == "under-used"
    assert judged(proxy | {"gap": [0.2, 0.0]}, whole=0.6, counts=(500,) * 4).verdict == "well used"


def test_what_only_zeros_show_is_no_reading():
    # A mean far from 0: zeros shift the logits, other samples' values do nothing.
    shifted = {"contribution": [0.1, (0.0, 0.005)], "drop": [0.1, (0.0, 0.005)], "inside": 0.5}
    found = judged(shifted | CHANCE)
    assert found.verdict == "uninformative"
    assert any("depends on the mask" in text for text in found.conditions)


def test_holm_makes_a_claim_harder_the_more_modalities_there_are():
    # z = 2.2: beyond 1.96, not beyond what twelve claims ask for.
    faint = {"contribution": (0.022, 0.0196), "drop": (0.022, 0.0196), "inside": (0.522, 0.02)}
    few = find(record({"a": faint | {"contribution": 0.3, "drop": 0.3}, "b": faint}))
    many = find(record(dict.fromkeys("abcdefghijkl", faint)))
    assert verdict(many, "b").verdict == "undetermined"
    assert "12 modalities" in " ".join(verdict(many, "a").conditions)
    assert verdict(few, "a").verdict == "well used"


@pytest.mark.parametrize(("n", "groups"), [(49, None), (2000, 9), (5, None)])
def test_too_little_data_is_an_answer(n, groups):
    found = find(record({"a": USED, "b": USED}, n=n, groups=groups))
    assert set(verdicts(found).values()) == {"undetermined"}
    assert "too little data" in [f.rule for f in found]
    assert str(groups if groups else n) in verdict(found, "a").text


def test_a_modality_that_no_sample_has():
    found = find(record({"a": USED, "b": USED, "c": {"absent": True}}))
    assert (
        verdict(found, "c").verdict == "undetermined"
        and "no audited sample" in verdict(found, "c").text
    )
    assert "corrected for 2 modalities" in verdict(found, "a").conditions


def test_one_modality_alone():
    found = find(record({"a": USED | {"contribution": 0.4, "drop": 0.4}}))
    assert verdicts(found) == {"a": "well used"}
    assert not verdict(found, "a").remedies


def test_regression():
    parts = USED | {"above": 0.5, "alone": 0.5, "inside": 0.5}
    found = find(record({"a": parts, "b": UNREAD | INFORMED}, task="regression", counts=()))
    assert verdicts(found) == {"a": "well used", "b": "under-used"}
    assert "R2" in verdict(found, "a").text
    assert verdict(found, "b").remedies == ()


def test_thresholds_move_verdicts():
    small = {
        "contribution": 0.03,
        "drop": 0.03,
        "inside": 0.53,
        "above": 0.05,
        "alone": 0.55,
        "without": 0.03,
        "gap": [0.02, 0.02],
    }
    assert judged(small).verdict == "well used"
    assert judged(small, thresholds={"delta": 0.1}).verdict != "well used"


def test_without_a_second_mask_it_is_said():
    found = find(record({"a": USED, "b": USED}, second=None))
    assert "one mask" in [f.rule for f in found]
    assert any("under one mask only" in text for text in verdict(found, "a").conditions)


def test_mla_is_offered_only_where_every_modality_has_an_encoder():
    assert judged(UNREAD | INFORMED, encoders=False).remedies == ("agm", "modality_dropout")


def test_names_from_elsewhere_are_written_on_one_line():
    hostile = "x\x1b[2J\n" + "long" * 40
    found = find(record({hostile: UNREAD | INFORMED, "b": USED}))
    text = verdict(found, hostile).text
    assert text.isprintable() and len(text) < 300


def test_a_contribution_that_may_be_a_fair_part_is_not_called_too_little():
    """Of 0.3 that it says alone, half would be fair: 0.14 is less, but only surely so where its interval says so."""
    views = {"alone": 0.8, "above": 0.3, "gap": [0.1, 0.1], "advantage": 0.1, "drop": 0.1}
    assert judged(views | {"contribution": (0.14, 0.005)}).verdict == "under-used"
    assert judged(views | {"contribution": (0.14, 0.03)}).verdict != "under-used"


def test_a_model_at_chance_has_nothing_to_lose():
    noise = CHANCE | {
        "contribution": (0.01, 0.03),
        "drop": (0.01, 0.03),
        "without": (0.04, 0.03),
        "inside": 0.5,
    }
    for whole, open_ in (((0.5, 0.02), True), (0.9, False)):
        found = find(record({"a": noise, "b": noise}, whole=whole))
        for name in "ab":
            assert ("whether it is needed" in verdict(found, name).text) == open_


def test_what_only_one_mask_shows_is_said_in_the_sentence():
    found = judged(USED | {"drop": [-0.1, (0.0, 0.03)], "contribution": [-0.05, (0.0, 0.03)]})
    assert found.verdict == "harmful"
    assert "higher under the mask zero" in found.because and "under the mask zero" in found.text
    both = judged(USED | {"drop": [-0.1, -0.1], "contribution": [-0.05, -0.05]})
    assert both.verdict == "harmful" and "under the mask" not in both.text


def test_an_interval_that_would_do_for_one_modality_is_said_not_to_do_for_several():
    found = judged(USED | {"without": (0.002, 0.0179), "drop": (0.002, 0.0179)})
    assert found.verdict == "undetermined"
    assert "below .02, but not surely so as one of 2 modalities" in found.text
