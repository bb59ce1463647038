"""What may be asked for: ids and bounded values, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaudit.jobs.errors import JobError
from mmaudit.jobs.offers import OFFERS, Settings, check_settings

_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
_KEYS = st.one_of(
    st.sampled_from(
        ["epochs", "lr", "batch_size", "seed", "start", "control", "alpha", "p", "hgm"]
    ),
    st.text(),
    st.integers(),
)


@pytest.mark.parametrize("remedy", OFFERS)
def test_defaults_are_inside_the_bounds_and_on_the_form(remedy):
    checked = check_settings(remedy, {})
    assert {setting.name for setting in OFFERS[remedy].form} == set(checked.model_dump())
    for setting in OFFERS[remedy].form:
        assert setting.default == getattr(checked, setting.name)
        # No setting is a text: nothing that could be a path or code gets through.
        assert setting.kind in ("integer", "number", "choice", "switch")
        if setting.kind in ("integer", "number"):
            assert check_settings(remedy, {setting.name: setting.least})
            assert check_settings(remedy, {setting.name: setting.most})
            for beyond in (setting.least - 1e-7 - (setting.kind == "integer"), setting.most + 1):
                with pytest.raises(JobError, match=f"{setting.name} is .* from"):
                    check_settings(remedy, {setting.name: beyond})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs is 0, expected a whole number from 1 to 200"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"seed": 2**31}, "expected a whole number from 0 to 2147483647"),
        ({"start": "/etc/passwd"}, "expected checkpoint or scratch"),
        ({"control": 1}, "expected true or false"),
        ({"alhpa": 1.0}, "did you mean 'alpha'"),
        ({"out": "/root"}, "unknown setting 'out'"),
        ({"epochs": 0, "alpha": 99.0}, "epochs is 0.*alpha is 99"),
    ],
)
def test_one_sentence_for_what_is_out_of_bounds(wrong, said):
    with pytest.raises(JobError, match=said):
        check_settings("agm", wrong)


@pytest.mark.parametrize("remedy", [None, 3, "AGM", "agm\n", "../agm", ["agm"], "x" * 10_000])
def test_unknown_remedies(remedy):
    with pytest.raises(JobError, match="no remedy on offer") as caught:
        check_settings(remedy, {})
    assert len(str(caught.value)) < 300


def test_options_and_recipe_are_told_apart():
    checked = check_settings("modality_dropout", {"p": 0.5, "lr": 1})
    assert checked.options == {"p": 0.5}
    assert checked.recipe == {"epochs": 10, "lr": 1.0, "batch_size": 64, "seed": 0}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(list(OFFERS)), st.one_of(st.dictionaries(_KEYS, _VALUES, max_size=4), _VALUES)
)
def test_whatever_comes_is_in_bounds_or_refused_in_one_line(remedy, asked):
    try:
        checked = check_settings(remedy, asked)
    except JobError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
        return
    assert isinstance(checked, Settings)
    for name, value in checked.model_dump().items():
        assert type(value) in (int, float, bool) or value in ("checkpoint", "scratch"), name


def test_remedies_take_what_is_offered():
    from mmaudit.remedies import REMEDIES

    assert set(OFFERS) == set(REMEDIES)
    for remedy, offer in OFFERS.items():
        default = check_settings(remedy, {})
        taken = REMEDIES[remedy].Options(**default.options)
        assert taken == REMEDIES[remedy].Options(), f"{remedy}: the app has another default"
        for setting in offer.form:
            if setting.name in default.options and setting.kind == "number":
                for bound in (setting.least, setting.most):
                    REMEDIES[remedy].Options(**{setting.name: bound})


def test_recipes_take_what_is_offered():
    from mmaudit.training import Recipe

    default = check_settings("joint", {})
    assert Recipe(**default.recipe) == Recipe()
