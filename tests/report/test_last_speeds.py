"""Where learning speeds end: which step, which branch is fastest, and whether the runs settle it."""

from datetime import UTC, datetime

import pytest

from mmaudit.report.last_speeds import last_speeds
from mmaudit.report.loss_record import LossRecord, RunLosses
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult


def estimate(value, half=None, n=1):
    if value is None:
        return Estimate(undefined="not yet")
    if half is None:
        return Estimate(value=value, n=n)
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def record(speeds, difference=None, *, crossing=True, places=(("7", 1),)):
    """Speeds of branches and their difference, all at the same places."""
    rows = []
    for place, n in places:
        at = [(name, "own", estimate(1.0, n=n)) for name in speeds]
        if crossing:
            at += [(name, "crossing", estimate(1.0, n=n)) for name in speeds]
        at += [(name, "speed", found) for name, found in speeds.items()]
        if difference is not None:
            at.append(("apart", "difference", difference))
        rows += [
            LabelledEstimate(labels={"branch": name, "checkpoint": place, "quantity": quantity}, estimate=found)
            for name, quantity, found in at
        ]  # fmt: skip
    measure = MeasureResult(key="learning_speed", title="", unit="", rows=tuple(rows))
    return LossRecord(
        mmaudit_version="0",
        created=datetime.now(UTC),
        title="",
        heads=("a",),
        axis="epoch",
        runs=(RunLosses(title="", at=(0,), train={"a": (1,)}, validation={"a": (1,)}),),
        measures={"learning_speed": measure},
    )


@pytest.mark.parametrize(
    ("value", "half", "outcome"),
    [
        (0.5, None, "apart"),
        (-0.5, None, "apart"),
        (0.04, None, "alike"),
        (-0.04, None, "alike"),
        (0.5, 0.4, "apart"),
        (0.5, 0.6, "unsettled"),
        (0.01, 0.6, "unsettled"),
        (0.01, 0.02, "alike"),
        (0.04, 0.02, "alike"),
    ],
)
def test_two_branches(value, half, outcome):
    speeds = {"a": estimate(0.1 + value), "b": estimate(0.1)}
    found = last_speeds(record(speeds, estimate(value, half)))
    assert found.outcome == outcome
    assert (found.fastest, found.slowest) == (("a", "b") if value > 0 else ("b", "a"))


@pytest.mark.parametrize(
    ("spread", "half", "outcome"),
    [
        (0.5, None, "apart"),
        (0.5, 0.1, "apart"),
        (0.5, 0.3, "unsettled"),
        (0.02, 0.1, "alike"),
    ],
)
def test_three_branches_by_the_intervals_of_first_and_last(spread, half, outcome):
    speeds = {name: estimate(k * spread / 2, half) for k, name in enumerate("abc")}
    # the interval of a spread is above 0 whoever is first
    found = last_speeds(record(speeds, estimate(spread, None if half is None else 0.001)))
    assert found.outcome == outcome and (found.fastest, found.slowest) == ("c", "a")


def test_what_has_no_outcome():
    assert last_speeds(record({})) is None
    late = last_speeds(record({"a": estimate(None), "b": estimate(None)}, crossing=False))
    assert late.quantity == "own" and late.outcome is None and set(late.known) == {"a", "b"}
    single = last_speeds(record({"a": estimate(0.2)}))
    assert single.outcome is None and single.fastest == "a" and single.slowest is None
    half = last_speeds(record({"a": estimate(0.2), "b": estimate(None)}, estimate(None)))
    assert half.outcome is None and half.known == {"a": 0.2}
    none = last_speeds(record({"a": estimate(None), "b": estimate(None)}, estimate(None)))
    assert none.quantity == "speed" and none.fastest is None and none.outcome is None


@pytest.mark.parametrize(
    ("places", "last"),
    [
        ((("5", 2), ("9", 2), ("10", 2)), "10"),
        ((("5", 3), ("60", 2)), "60"),
        ((("50", 3), ("60", 1)), "50"),
        ((("30", 2), ("60", 1)), "30"),
        ((("0", 1),), "0"),
    ],
)
def test_neither_one_long_run_nor_a_broken_one_speaks_for_all(places, last):
    assert last_speeds(record({"a": estimate(0.1)}, places=places)).checkpoint == last
