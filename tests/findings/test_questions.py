"""The answers behind the verdicts, one limit at a time."""

from __future__ import annotations

import pytest

from mmaudit.findings import find, read_thresholds
from mmaudit.findings.facts import Facts
from mmaudit.findings.questions import answers
from tests.findings.records import CHANCE, INFORMED, UNREAD, USED, record, rules, verdicts


def of_b(numbers, /, **more):
    """Answers about b beside a well used a."""
    return answers(Facts(record({"a": USED, "b": numbers}, **more), read_thresholds()))["b"]


@pytest.mark.parametrize(
    ("value", "half", "read"),
    [
        (0.1, 0.02, "yes"),
        (0.0, 0.01, "no"),
        (0.0, 0.03, "unclear"),
        (0.015, 0.004, "no"),
        (0.05, 0.06, "unclear"),
        (-0.1, 0.02, "yes"),
    ],
)
def test_read(value, half, read):
    assert of_b({"contribution": (value, half), "drop": (value, half)}).read == read


def test_either_of_contribution_and_drop_shows_reading_but_both_have_to_show_none():
    assert of_b({"contribution": 0.1, "drop": (0.0, 0.01)}).read == "yes"
    assert of_b({"contribution": (0.0, 0.01), "drop": (0.0, 0.05)}).read == "unclear"


def test_other_samples_values_decide_where_masks_disagree():
    only_zeros = of_b({"contribution": [0.1, (0.0, 0.01)], "drop": [0.1, (0.0, 0.01)]})
    assert only_zeros.read == "no" and only_zeros.disagree and not only_zeros.gains
    only_others = of_b({"contribution": [(0.0, 0.01), 0.1], "drop": [(0.0, 0.01), 0.1]})
    assert only_others.read == "yes" and only_others.disagree and only_others.gains
    # First the values of others, then zeros: the same.
    turned = {"masks": "marginal (256 donors)", "second": "zero"}
    assert (
        of_b({"contribution": [(0.0, 0.01), 0.1], "drop": [(0.0, 0.01), 0.1]}, **turned).read
        == "no"
    )
    # Two masks neither of which is the values of others: nobody decides.
    neither = {"masks": "mean", "second": "zero"}
    assert (
        of_b({"contribution": [(0.0, 0.01), 0.1], "drop": [(0.0, 0.01), 0.1]}, **neither).read
        == "unclear"
    )


def test_a_second_mask_on_fewer_samples_need_not_be_certain():
    faint = {"contribution": [0.1, (0.08, 0.1)], "drop": [0.1, (0.08, 0.1)]}
    assert of_b(faint).read == "yes"
    against = {"contribution": [0.1, (-0.01, 0.1)], "drop": [0.1, (-0.01, 0.1)]}
    assert of_b(against).read == "unclear"


@pytest.mark.parametrize(
    ("above", "informative"),
    [
        ((0.1, 0.02), "yes"),
        ((0.0, 0.015), "no"),
        ((0.01, 0.05), "no"),
        ((0.05, 0.15), "unclear"),
        ((0.015, 0.01), "unclear"),
        ((-0.2, 0.02), "no"),
    ],
)
def test_informative_by_reference(above, informative):
    assert of_b(UNREAD | {"alone": 0.6, "above": above}).informative.answer == informative


def test_with_many_modalities_a_small_part_each_is_not_nothing():
    faint = {
        "contribution": (0.02, 0.03),
        "drop": (0.02, 0.03),
        "alone": 0.53,
        "above": (0.02, 0.04),
    }
    made = record(dict.fromkeys("abcdefghijkl", faint), whole=0.75)
    assert answers(Facts(made, read_thresholds()))["a"].informative.answer == "unclear"
    assert "uninformative" not in verdicts(find(made)).values()


def test_to_deny_does_not_get_easier_with_more_modalities():
    # Clearly above 0 for one modality, not so among five: neither yes nor no.
    faint = UNREAD | {"alone": 0.53, "above": (0.03, 0.025)}
    made = record({"a": USED, **dict.fromkeys("bcde", faint)})
    assert answers(Facts(made, read_thresholds()))["b"].informative.answer == "unclear"


def test_the_model_itself_can_prove_information_but_not_its_absence():
    assert of_b({"contribution": 0.2, "drop": 0.2, "inside": 0.8}).informative.source == "model"
    assert of_b({"contribution": 0.2, "drop": 0.2, "inside": 0.5}).informative.answer == "unclear"


def test_a_gain_in_likelihood_forbids_to_say_that_there_is_nothing():
    rare = UNREAD | {"probe": 0.5, "probe_above": (0.0, 0.01), "gain": (0.2, 0.02)}
    assert of_b(rare).informative.answer == "unclear"
    assert of_b(rare | {"gain": (0.0, 0.01)}).informative.answer == "no"


def test_what_is_not_known_to_say_anything_is_not_read_less_than_it_says():
    vague = UNREAD | {"alone": 0.6, "above": (0.05, 0.15), "gap": [0.3, 0.3]}
    assert not of_b(vague).less
    assert of_b(vague | {"above": 0.3}).less


def test_a_silent_modality_that_says_something_is_read_less_than_it_says():
    silent = {"silent": True, "contribution": (0.0, 0.0), "drop": (0.0, 0.0), "inside": 0.5}
    assert of_b(silent | {"probe_above": 0.1, "probe": 0.6, "gain": 0.1}).less
    assert not of_b(silent | CHANCE).less


def test_the_gap_has_to_be_there_under_every_mask():
    assert of_b(UNREAD | INFORMED | {"gap": [0.3, 0.3]}).less
    assert not of_b(UNREAD | INFORMED | {"gap": [0.3, 0.0]}).less


def test_a_model_trained_without_it_counts_for_more_than_masks():
    masks = {"contribution": 0.2, "drop": 0.2}
    assert of_b(masks).needed == "yes"
    assert of_b(masks | {"without": (0.03, 0.05)}).needed == "unclear"
    assert of_b(masks | {"without": (0.0, 0.01)}).needed == "no"
    assert of_b(masks | {"without": 0.1}).needed == "yes"


def test_a_training_without_it_that_does_worse_than_masking_has_failed():
    masks = {"contribution": (0.1, 0.01), "drop": [(0.0, 0.005), (0.0, 0.01)]}
    failed = of_b(masks | {"without": (0.37, 0.04)})
    assert failed.needed == "no"  # masking shows a model without it that loses nothing
    effect, source = failed.needed_by
    assert effect.value == 0.0 and "trained" not in source
    # Not by delta, not certainly, or not at all: it counts.
    assert of_b(masks | {"without": (0.015, 0.001)}).needed_by[1] == "a model trained without it"
    unsure = Facts(record({"a": USED, "b": masks | {"without": (0.05, 0.06)}}), read_thresholds())
    assert unsure.failed_without == {} and unsure.trained_without("b") is not None
    assert of_b({"contribution": 0.3, "drop": 0.3, "without": (0.25, 0.01)}).needed == "yes"
    # One mask that costs less is enough, whatever the other one does.
    far = {"contribution": 0.3, "drop": [0.4, (0.1, 0.01)], "without": (0.3, 0.02)}
    assert of_b(far).needed_by[1] != "a model trained without it"


def test_a_training_that_fails_for_the_best_of_masks_has_to_fail_for_all_modalities_tried():
    weak = {"contribution": 0.1, "drop": (0.0, 0.001), "without": (0.05, 0.045)}
    facts = Facts(record({"a": USED, "b": weak}), read_thresholds())
    assert facts.drop_without("b").p_above(0) < facts.alpha  # alone it would be certain
    assert facts.failed_without == {}


def test_a_model_asked_about_other_samples_is_not_compared_with_masking():
    made = record({"a": USED, "b": {"contribution": 0.1, "drop": 0.0, "without": 0.3}})
    facts = Facts(made, read_thresholds())
    assert list(facts.failed_without) == ["b"] and facts.trained_without("b") is None
    assert facts.failed_without["b"].value == pytest.approx(0.3)
    rows = tuple(
        row.model_copy(update={"estimate": row.estimate.model_copy(update={"n": 900})})
        for row in made.measures["capacity_gap"].rows
    )
    gap = made.measures["capacity_gap"].model_copy(update={"rows": rows})
    fewer = made.model_copy(update={"measures": {**made.measures, "capacity_gap": gap}})
    assert Facts(fewer, read_thresholds()).failed_without == {}


@pytest.mark.parametrize(
    ("drop", "needed"),
    [
        ((0.0, 0.01), "no"),
        ((0.03, 0.006), "yes"),
        ((0.018, 0.006), "unclear"),
        ((0.01, 0.006), "no"),
        ((-0.1, 0.02), "no"),
    ],
)
def test_needed_by_masking(drop, needed):
    assert of_b({"contribution": 0.1, "drop": drop}).needed == needed


def test_harm_below_the_smallest_effect_that_matters_is_none():
    little = {"contribution": (-0.01, 0.004), "drop": (-0.01, 0.004)}
    assert of_b(little | CHANCE).harmful_under == ()
    assert verdicts(find(record({"a": USED, "b": little | CHANCE})))["b"] == "uninformative"


def test_harmful_comes_before_under_used():
    both = UNREAD | INFORMED | {"drop": -0.1}
    assert of_b(both).less
    assert verdicts(find(record({"a": USED, "b": both})))["b"] == "harmful"


def test_the_frequency_of_labels_is_no_chance_level():
    # In a multi-label record the counts are those of the labels' numbers.
    found = find(record({"a": UNREAD, "b": UNREAD}, whole=0.5, task="multilabel"))
    assert "no better than a constant" not in rules(found)


def test_the_covariance_with_the_constant_prediction():
    # 900 of 1,000 samples are of one class; given b, the model is right on .95, and on all of that class or on few of it.
    made = record({"a": USED, "b": UNREAD | {"inside": (0.95, 0.0137)}}, n=1000, counts=(900, 100))
    facts = Facts(made, read_thresholds())
    effect = facts.inside_above("b")
    assert effect.value == pytest.approx(0.05)
    # Without the score in that class independence is assumed: sqrt((.95 * .05 + .9 * .1) / 1000) * 1.96.
    assert effect.high - effect.value == pytest.approx(1.96 * (0.1375 / 1000) ** 0.5, rel=0.05)
