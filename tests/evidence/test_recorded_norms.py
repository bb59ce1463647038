"""Norms as they are read from a run: which steps count, and what a group without gradients is."""

import numpy as np
import pytest

from mmaudit.evidence.readers import Run, Series
from mmaudit.evidence.recorded_norms import norm_notes, read_norm_name, recorded_norms


def series(points):
    """Step -> value, or pairs of them where steps are not in order."""
    pairs = list(points.items() if isinstance(points, dict) else points)
    step, value = np.array([s for s, _ in pairs], np.int64), np.array([v for _, v in pairs], float)
    return Series(step, np.full(len(step), np.nan), value, np.arange(len(step)))


def run(**named):
    """``audio_own_gradient={1: 0.5}`` and so on; weights of 1 where none are given."""
    found = {}
    for name, points in named.items():
        base = name.replace("_", " ")
        found[f"norms/{base}"] = series(points)
        weight = base.replace("gradient", "weight")
        if base.endswith("gradient") and weight.replace(" ", "_") not in named:
            found[f"norms/{weight}"] = series(dict.fromkeys(dict(points), 1.0))
    return Run("r", "JSON lines", (), found)


def test_steps_that_count():
    found = recorded_norms(
        run(
            audio_own_gradient={1: 1.0, 2: np.inf, 3: np.nan, 4: 4.0, 5: -1.0, 6: 6.0, 8: 1e60},
            image_own_gradient={1: 2.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0, 8: 1.0},
            image_own_weight={1: 2.0, 2: 1.0, 3: 1.0, 4: 0.0, 5: 1.0, 8: 1.0},
        )
    )
    # image has no gradient at step 6, which counts: it was not updated
    assert found.step.tolist() == [1, 6] and found.left_out.tolist() == [2, 3, 4, 5, 8]
    assert found.own.gradient.tolist() == [[1.0, 6.0], [2.0, 0.0]]
    assert found.own.weight.tolist() == [[1.0, 1.0], [2.0, 1.0]]
    assert found.branches == ("audio", "image") and found.crossing is None


def test_a_step_that_was_written_by_half_does_not_count():
    found = recorded_norms(run(a_own_gradient={1: 1.0, 2: 1.0}, a_own_weight={1: 3.0}))
    assert found.step.tolist() == [1] and found.left_out.tolist() == [2]


def test_of_a_step_written_twice_the_later_counts():
    found = recorded_norms(
        run(a_own_gradient=[(1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0)], a_own_weight=[(1, 1.0), (2, 1.0), (3, 1.0), (2, 4.0)])
    )  # fmt: skip
    assert found.step.tolist() == [1, 2, 3]
    assert (found.own.gradient / found.own.weight).tolist() == [[1.0, 5.0, 3.0]]


def test_a_branch_that_nothing_crosses_into():
    found = recorded_norms(
        run(a_own_gradient={1: 1.0}, b_own_gradient={1: 1.0}, a_crossing_gradient={1: 7.0})
    )
    assert found.crossing.gradient.tolist() == [[7.0], [0.0]]


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"shared_gradient": {1: 1.0}},
        {"a_own_weight": {1: 1.0}},
        {"encoder_gradient": {1: 1.0}},
    ],
)
def test_other_series_are_no_norms(named):
    assert recorded_norms(run(**named)) is None
    plain = {name.removeprefix("norms/"): s for name, s in run(a_own_gradient={1: 1.0}).series.items()}  # fmt: skip
    assert recorded_norms(Run("r", "CSV", (), plain)) is None


def test_norms_without_steps_do_not_count():
    found = recorded_norms(run(a_own_gradient={-1: 1.0}))
    assert found.step.tolist() == [] and found.left_out.tolist() == []


def test_names_of_any_modality():
    for name in ("own", "shared", "crossing own", "norms/x", "left\neye"):
        for group in ("own", "crossing"):
            assert read_norm_name(f"{name} {group} weight") == (name, group, "weight")
    assert read_norm_name("own weight") is None and read_norm_name("x shared weight") is None


def test_notes():
    bad = recorded_norms(run(a_own_gradient={1: np.nan, 2: 1.0}))
    good = recorded_norms(run(a_own_gradient={1: 1.0}))
    assert norm_notes([None, None]) == norm_notes([good, good]) == norm_notes([]) == ()
    told = norm_notes([bad, None, good])
    assert "in 2 of 3 runs" in told[0] and told[1].startswith("1 of 3 steps with norms left out")
