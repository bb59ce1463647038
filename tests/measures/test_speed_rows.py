"""Learning speeds as rows of the record: against a plain loop, over runs, thinned, and where there are none."""

import math

import numpy as np
import pytest
from scipy import stats

from mmaudit.evidence.losses import MOST_CHECKPOINTS
from mmaudit.evidence.recorded_norms import GroupNorms, Norms
from mmaudit.measures.run_set import ONE_RUN
from mmaudit.measures.speed_rows import measure_speeds

BRANCHES = ("audio", "image", "text")


def norms(own, crossing=None, *, steps=None, branches=None, weight=4.0, left_out=()):
    """Norms with these mu, shape ``(M, T)``."""
    own = np.atleast_2d(own).astype(float)
    steps = np.arange(1, own.shape[1] + 1) if steps is None else np.asarray(steps)
    weights = np.full(own.shape, weight)
    return Norms(
        tuple(branches or BRANCHES[: len(own)]),
        steps,
        GroupNorms(own * weight, weights),
        None if crossing is None else GroupNorms(np.atleast_2d(crossing) * weight, weights),
        np.array(left_out, dtype=np.int64),
    )


def drawn(seed, M=2, T=30, **options):
    rng = np.random.default_rng(seed)
    return norms(rng.exponential(size=(M, T)), rng.exponential(size=(M, T)), **options)


def one(found, step, quantity, branch=None):
    (row,) = [
        r
        for r in found.rows
        if r.labels["checkpoint"] == str(step)
        and r.labels["quantity"] == quantity
        and branch in (None, r.labels["branch"])
    ]
    return row.estimate


def speeds_by_loop(recorded, step):
    """Speeds up to a step, with nothing but a loop."""
    found = []
    for m in range(len(recorded.branches)):
        above = below = 0.0
        for t, at in enumerate(recorded.step):
            if at <= step:
                above += recorded.crossing.gradient[m, t] / recorded.crossing.weight[m, t]
                below += recorded.own.gradient[m, t] / recorded.own.weight[m, t]
        found.append(math.log10(above / below))
    return found


def test_the_two_steps_by_hand():
    # the known speeds of two steps, base 10
    found = measure_speeds([norms([[0.01, 0.005], [0.03, 0.01]], [[0.02, 0.03], [0.005, 0.01]])])
    for step, audio, image in ((1, 0.301030, -0.778151), (2, 0.522879, -0.425969)):
        assert one(found, step, "speed", "audio").value == pytest.approx(audio, abs=1e-6)
        assert one(found, step, "speed", "image").value == pytest.approx(image, abs=1e-6)
        difference = one(found, step, "difference", "audio less image")
        assert difference.value == pytest.approx(audio - image, abs=2e-6)
        assert difference.method == ONE_RUN and difference.low is None
    assert one(found, 2, "own", "audio").value == pytest.approx(0.015)
    assert one(found, 2, "crossing", "image").value == pytest.approx(0.015)
    assert found.undefined is None and "Wu et al. 2022" in found.reference
    assert {tuple(row.labels) for row in found.rows} == {("branch", "checkpoint", "quantity")}


@pytest.mark.parametrize("M", [2, 3])
def test_several_runs_have_students_t(M):
    runs = [drawn(seed, M) for seed in range(4)]
    found = measure_speeds(runs)
    each = np.array([speeds_by_loop(run, 20) for run in runs])
    for m, branch in enumerate(BRANCHES[:M]):
        estimate = one(found, 20, "speed", branch)
        low, high = stats.t.interval(0.95, 3, each[:, m].mean(), stats.sem(each[:, m]))
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((each[:, m].mean(), low, high))  # fmt: skip
        assert estimate.n == 4 and estimate.method == "Student t over 4 runs"
    apart = each[:, 0] - each[:, 1] if M == 2 else each.max(axis=1) - each.min(axis=1)
    assert one(found, 20, "difference").value == pytest.approx(apart.mean())


def test_properties():
    first = drawn(0)
    found = measure_speeds([first])
    louder = first._replace(
        own=first.own._replace(gradient=7 * first.own.gradient),
        crossing=first.crossing._replace(gradient=7 * first.crossing.gradient),
    )
    swapped = Norms(
        first.branches[::-1],
        first.step,
        GroupNorms(*(x[::-1] for x in first.own)),
        GroupNorms(*(x[::-1] for x in first.crossing)),
        first.left_out,
    )
    for step in (1, 15, 30):
        apart = one(found, step, "difference").value
        assert one(measure_speeds([louder]), step, "difference").value == pytest.approx(apart)
        assert one(measure_speeds([swapped]), step, "difference").value == pytest.approx(-apart)
    alike = drawn(0)._replace(crossing=drawn(0).own)
    assert all(
        r.estimate.value == pytest.approx(0) for r in measure_speeds([alike]).rows
        if r.labels["quantity"] in ("speed", "difference")
    )  # fmt: skip


def test_runs_recorded_at_unlike_steps():
    dense, sparse = drawn(0, T=31), drawn(1, T=10, steps=np.arange(3, 31, 3))
    found = measure_speeds([dense, sparse])
    # between two records of the sparse run its last one holds, and after the last as long
    for step, last in ((16, 15), (31, 30)):
        each = [speeds_by_loop(dense, step)[0], speeds_by_loop(sparse, last)[0]]
        assert one(found, step, "speed", "audio").value == pytest.approx(np.mean(each))
    assert one(found, 2, "speed", "audio").method == "no interval: 1 of 2 runs has it"
    assert "every 1 steps, others every 3" in one(found, 16, "own", "audio").warning
    assert one(found, 16, "speed", "audio").warning is None
    # a run that ended earlier says nothing of what came later
    short = drawn(2, T=5)
    assert one(measure_speeds([dense, short]), 6, "speed", "audio").n == 1


def test_a_step_left_out_is_no_longer_gap():
    found = measure_speeds([drawn(0, T=9), drawn(1, T=8, steps=[1, 2, 3, 4, 5, 6, 7, 8], left_out=[9])])  # fmt: skip
    assert one(found, 9, "own", "audio").n == 2 and one(found, 9, "own", "audio").warning is None
    assert found.settings == {"runs": 2, "recorded_steps": 9, "left_out_steps": 1}


def test_sums_are_made_before_places_are_chosen():
    long = drawn(0, T=5 * MOST_CHECKPOINTS + 7)
    found = measure_speeds([long])
    at = sorted({int(row.labels["checkpoint"]) for row in found.rows})
    assert len(at) == MOST_CHECKPOINTS and at[0] == 1 and at[-1] == 5 * MOST_CHECKPOINTS + 7
    for step in (at[0], at[500], at[-1]):
        assert one(found, step, "speed", "image").value == pytest.approx(
            speeds_by_loop(long, step)[1]
        )
    assert one(found, at[-1], "own", "audio").value == pytest.approx(
        (long.own.gradient / long.own.weight)[0].sum()
    )


def test_late_fusion_has_own_updates_and_no_speed():
    found = measure_speeds([norms([[0.5, 0.25], [1.0, 1.0]])])
    assert one(found, 2, "own", "audio").value == pytest.approx(0.75)
    assert "late fusion" in one(found, 2, "speed", "audio").undefined
    assert {row.labels["quantity"] for row in found.rows} == {"own", "speed"}


def test_a_speed_is_undefined_until_both_sums_are_above_0():
    found = measure_speeds([norms([[0.5, 0.25], [1.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]])])
    assert "not been updated" in one(found, 1, "speed", "audio").undefined
    assert "not every branch" in one(found, 1, "difference").undefined
    assert one(found, 2, "difference").value is not None


def test_one_branch_has_no_difference():
    found = measure_speeds([norms([[0.5]], [[1.0]])])
    assert {row.labels["quantity"] for row in found.rows} == {"own", "crossing", "speed"}


def test_branches_that_not_every_run_has():
    three, two = drawn(0, 3), drawn(1, 2)
    found = measure_speeds([three, two])
    assert one(found, 30, "speed", "audio").n == 2 and one(found, 30, "speed", "text").n == 1
    # a spread of two branches is none of three
    spread = speeds_by_loop(three, 30)
    assert one(found, 30, "difference").value == pytest.approx(max(spread) - min(spread))


def test_where_there_is_nothing():
    assert measure_speeds([]) is None and measure_speeds([None, None]) is None
    empty = norms(np.zeros((2, 0)), np.zeros((2, 0)), left_out=[1, 2, 3])
    found = measure_speeds([empty])
    assert found.rows == () and "no recorded step of the norms counts" in found.undefined
    assert found.settings["left_out_steps"] == 3
    # one run that has none takes nothing from the others
    assert one(measure_speeds([empty, drawn(0)]), 30, "speed", "audio").method == "no interval: 1 of 2 runs has it"  # fmt: skip
