import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmaudit.figures.estimates import by_labels, defined, lowest_score, ranked, reach
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import estimate, report_of

NOTHING = Estimate(undefined="one class")
NUMBERS = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=6)


def test_labels_lead_to_estimates_in_the_order_of_the_record():
    rows = {
        ("a", "pooled", "120"): estimate(0.3),
        ("b", "pooled", "120"): estimate(0.1),
        ("b", "rank", "120"): Estimate(value=2.0, n=9),
    }
    report = report_of("competition", rows, ("a", "b"))
    assert by_labels(report, "competition", "modality", "quantity", "penalty") == rows
    assert list(by_labels(report, "competition", "quantity", "nothing")) == [
        ("pooled", ""),
        ("rank", ""),
    ]
    assert by_labels(report, "dominance", "modality") == {}


def test_what_has_no_value_is_left_out():
    half = estimate(0.5)
    assert defined([None, half, NOTHING]) == [half]
    assert ranked("abc", [None, half, NOTHING]) == [(0.5, "b")]
    assert reach([None, NOTHING]) == (0.0, 0.0)


def test_each_estimate_has_a_name():
    with pytest.raises(ValueError, match="zip"):
        ranked("ab", [estimate(0.5)])


@given(NUMBERS)
def test_the_largest_value_comes_first(values):
    names = [str(place) for place in range(len(values))]
    found = ranked(names, [Estimate(value=value) for value in values])
    assert found[0][0] == max(values)
    assert all(one[0] >= other[0] for one, other in itertools.pairwise(found))
    assert sorted(name for _, name in found) == sorted(names)


@given(NUMBERS, st.floats(0, 3))
def test_everything_lies_within_reach(values, half):
    estimates = [estimate(value, half) for value in values]
    low, high = reach(estimates)
    assert low <= 0 <= high
    assert all(low <= e.low and e.high <= high for e in estimates)
    ends = {0.0, *(end for e in estimates for end in (e.low, e.high))}
    assert {low, high} <= ends
    assert lowest_score(estimates) == max(low, -1.0)
