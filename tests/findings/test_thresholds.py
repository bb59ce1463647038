"""Thresholds have names; others are refused."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from mmaudit.exceptions import SpecError
from mmaudit.findings import Thresholds, find, read_thresholds
from tests.findings.records import USED, record


def test_defaults_and_overrides():
    assert read_thresholds().delta == 0.02
    assert read_thresholds({"delta": 0.1, "samples": 20}).samples == 20


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"detla": 0.1}, "did you mean 'delta'"),
        ({"xyz": 0.1}, "There are delta"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"level": 2}, "level is 2"),
        ({"delta": float("nan")}, "delta is nan"),
        ({"samples": 50.5}, "samples is 50.5"),
    ],
)
def test_refused_in_one_sentence(given, says):
    with pytest.raises(SpecError, match=says) as error:
        read_thresholds(given)
    assert "\n" not in str(error.value)


def test_a_record_with_an_unknown_threshold_is_refused():
    with pytest.raises(SpecError, match="did you mean"):
        find(record({"a": USED}, thresholds={"dominanc": 0.9}))


def test_every_threshold_is_documented():
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(Thresholds))).body
    documented = set()
    for field, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            documented.add(field.target.id)
    assert documented == set(Thresholds.model_fields)
