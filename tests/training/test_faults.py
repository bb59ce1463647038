"""Faults of settings, in words."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from mmaudit.training import Recipe
from mmaudit.training.faults import setting_faults


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (Recipe, {"shceduler": "cosine"}, "there is no 'shceduler', did you mean 'scheduler'?"),
        (Recipe, {"zzz": 1}, "there is no 'zzz', there are optimizer"),
        (Recipe, {"epochs": 0}, "epochs: Input should be greater"),
        (_Nothing, {"a": 1}, "there is no 'a', there are none"),
    ],
)
def test_faults(kind, settings, words):
    with pytest.raises(ValidationError) as caught:
        kind(**settings)
    assert setting_faults(caught.value, kind.model_fields).startswith(words)
