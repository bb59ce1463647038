"""When a head is favoured, when two OGRs are alike, and that different numbers are never written alike."""

from datetime import UTC, datetime

import numpy as np
import pytest

from mmaudit.report.loss_outcomes import blend_outcome, numbers_apart, ogr_margin
from mmaudit.report.loss_record import LossRecord, RunLosses
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult


def outcome(**weights):
    """Of weights, each a value or ``(value, low, high)``."""
    rows = []
    for head, given in weights.items():
        value, low, high = given if isinstance(given, tuple) else (given, None, None)
        labels = {"head": head, "run": "all", "window": "whole training", "quantity": "weight"}
        estimate = Estimate(value=value, low=low, high=high, n=1)
        rows.append(LabelledEstimate(labels=labels, estimate=estimate))
    result = MeasureResult(key="blend_weights", title="", unit="", direction="balanced", rows=tuple(rows))  # fmt: skip
    losses = dict.fromkeys(weights, (1.0, 0.5))
    run = RunLosses(title="run", at=(0.0, 1.0), train=losses, validation=losses)
    record = LossRecord(
        mmaudit_version="0", created=datetime(2024, 1, 1, tzinfo=UTC), title="made up", heads=tuple(weights),
        axis="epoch", runs=(run,), measures={"blend_weights": result},
    )  # fmt: skip
    return blend_outcome(record)


def test_without_intervals_a_margin_decides():
    assert outcome(a=0.44, b=0.56)[1:] == ("b", (), "favoured")
    assert outcome(a=0.48, b=0.52)[1:] == ("b", ("a",), "even")
    assert outcome(a=0.0, v=0.52, joint=0.48)[1:] == ("v", ("joint",), "even")
    assert outcome(a=1.0)[1:] == ("a", (), "favoured")
    # of many heads the largest is small, and still clearly the largest
    many = {f"m{i}": 0.08 for i in range(11)}
    assert outcome(**many, top=0.12)[1:] == ("top", (), "favoured")


def test_intervals_that_overlap_favour_nobody():
    assert outcome(video=(0.53, 0.0, 1.0), joint=(0.47, 0.0, 1.0)).outcome == "even"
    assert outcome(video=(0.8, 0.1, 1.0), joint=(0.2, 0.0, 0.9)).outcome == "unsettled"
    assert outcome(video=(0.8, 0.7, 0.9), joint=(0.2, 0.1, 0.3)).outcome == "favoured"


def test_nothing_is_favoured_where_nothing_has_weight():
    assert outcome(a=0.0, b=0.0).outcome == "even"
    assert outcome(a=-0.5, b=-0.5).outcome == "even"


def test_margins_of_ogr():
    assert ogr_margin(0.0037, 0.0028) == 0.05
    assert ogr_margin(-3.0, 1.0) == pytest.approx(0.3)


def test_different_numbers_are_never_written_alike():
    rng = np.random.default_rng(0)
    for size in (1e-12, 1e-5, 1e-3, 1.0, 1e5, 1e9):
        for _ in range(50):
            first = size * rng.random()
            pair = [first, first * (1 + 10.0 ** -rng.uniform(0, 7))]
            low_high = [Estimate(value=v, low=v / 2, high=2 * v, n=3) for v in pair]
            for found in ([Estimate(value=v) for v in pair], low_high):
                written = [text.split(" [")[0] for text in numbers_apart(found)]
                assert written[0] != written[1], pair


def test_equal_numbers_need_no_more_digits():
    # the same number, computed in two ways
    assert numbers_apart([Estimate(value=0.3), Estimate(value=0.1 + 0.2)]) == [".30", ".30"]
    words = numbers_apart([Estimate(undefined="why not"), Estimate(value=0.5)])
    assert words == ["undefined", ".50"]
    assert numbers_apart([]) == []
