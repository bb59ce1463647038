"""What the two sides of a comparison are called."""

import pytest

from mmaudit.remedies import REMEDIES
from mmaudit.report.sides import model_name, remedy_name, sides_of
from tests.report.comparisons import make_comparison

_START = {"parent": "0", "start": "checkpoint", "recipe": "{}"}


def pair(first, second, **changed):
    comparison = make_comparison(names=("m", "m"))
    before = comparison.before.model_copy(update={"report_id": "one", "lineage": first})
    return before, comparison.after.model_copy(update={"lineage": second | changed})


def test_names_are_those_of_the_remedies():
    for key, remedy in REMEDIES.items():
        assert remedy_name(key) == ("plain training" if key == "joint" else remedy.title)


def test_a_control_is_called_plain_training():
    sides = sides_of(*pair(_START | {"remedy": "joint"}, _START | {"remedy": "ogm_ge"}))
    assert sides[:3] == ("control", "Plain training", "OGM-GE")
    assert sides.heading == "Plain training and OGM-GE"
    assert sides.against == "plain training with the same budget"


@pytest.mark.parametrize("key", ["recipe", "start", "parent"])
def test_another_budget_is_not_called_the_same(key):
    sides = sides_of(
        *pair(_START | {"remedy": "joint"}, _START | {"remedy": "mla"}, **{key: "other"})
    )
    assert sides.against == "plain training"


def test_two_remedies_are_called_by_their_names():
    sides = sides_of(*pair(_START | {"remedy": "agm"}, _START | {"remedy": "modality_dropout"}))
    assert (sides.before, sides.after) == ("AGM", "Modality dropout")
    assert sides.against == "AGM with the same budget"


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [
        ({}, _START | {"remedy": "agm"}, "retrained"),
        ({}, {}, "models"),
        (_START | {"remedy": "agm"}, {}, "models"),
        (_START | {"remedy": "joint"}, _START | {"remedy": "agm", "parent": "one"}, "retrained"),
        (_START | {"remedy": "agm"}, _START | {"remedy": "agm"}, "retrained"),
    ],
)
def test_all_others_are_before_and_after(first, second, relation):
    sides = sides_of(*pair(first, second))
    assert sides[:3] == (relation, "Before", "After")
    assert sides.heading == "Before and after" and sides.against == ""


@pytest.mark.parametrize(
    ("names", "lineage", "name"),
    [
        (("a", "a, retrained with AGM"), None, "AGM"),
        (("a, retrained with joint training", "a, retrained with AGM"), None, "AGM"),
        (("a", "a"), {"remedy": "mla"}, "MLA"),
        (("a", "a"), {"remedy": "my_own"}, "my own"),
        (("a", "a, retrained with My Own"), {"remedy": "my_own"}, "My Own"),
        (("a", "b"), None, "b"),
        (("a", "a"), None, "the second model"),
    ],
)
def test_models(names, lineage, name):
    comparison = make_comparison(names=names, lineage=lineage)
    assert model_name(comparison.after, comparison.before) == name
