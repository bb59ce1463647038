"""Measures of losses: the oracles through the rows, repeated runs, one run, what cannot be compared."""

import numpy as np
import pytest
from scipy import stats

from mmaudit.evidence.loss_flags import Flag
from mmaudit.evidence.losses import Losses
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.blending import super_epoch_length
from mmaudit.measures.loss_measures import Options, measure_losses
from mmaudit.measures.run_set import ONE_RUN, mean_estimate, place_name, ratio_estimate

HEADS = ("a", "v", "joint")


def losses(train, validation, *, heads=HEADS, run="r", at=None, flags=(), shared=False):
    train, validation = np.atleast_2d(train).astype(float), np.atleast_2d(validation).astype(float)
    at = np.arange(train.shape[1], dtype=float) if at is None else np.asarray(at, float)
    joint = "joint" if "joint" in heads else None
    return Losses(
        run,
        heads,
        joint,
        "epoch",
        at,
        train,
        validation,
        "as logged",
        tuple(flags),
        evaluation_sets=shared,
    )


def one(measures, key, **labels):
    (row,) = [r for r in measures[key].rows if labels.items() <= r.labels.items()]
    return row.estimate


WINDOW = losses([[2.0, 0.5], [2.0, 1.2], [2.0, 0.4]], [[2.1, 1.5], [2.1, 1.4], [2.1, 1.3]])


def test_the_window_of_three_heads():
    found = measure_losses([WINDOW], Options())
    for head, dO, dG, ogr, weight in (
        ("a", 0.9, 0.6, 1.5, 0.010289), ("v", 0.1, 0.7, 1 / 7, 0.972347), ("joint", 0.8, 0.8, 1.0, 0.017363),
    ):  # fmt: skip
        for lag in ("1", "cumulative"):
            at = {"head": head, "checkpoint": "1", "lag": lag}
            assert one(found, "ogr", quantity="dO", **at).value == pytest.approx(dO)
            assert one(found, "ogr", quantity="dG", **at).value == pytest.approx(dG)
            assert one(found, "ogr", quantity="OGR", **at).value == pytest.approx(ogr)
            assert one(found, "ogr", quantity="train gain", **at).value == pytest.approx(dO + dG)
        whole = one(found, "blend_weights", head=head, window="whole training", quantity="weight")
        assert whole.value == pytest.approx(weight, abs=1e-6)
        assert whole.method == ONE_RUN and whole.low is None
    assert one(
        found, "losses", head="a", checkpoint="1", quantity="overfitting"
    ).value == pytest.approx(1.0)


def test_the_trajectory_by_hand():
    found = measure_losses(
        [losses([2, 1.5, 1, 0.6], [2.1, 1.7, 1.5, 1.6], heads=("a",))], Options()
    )
    near = [one(found, "ogr", checkpoint=str(c), lag="1", quantity="OGR").value for c in (1, 2, 3)]
    np.testing.assert_allclose(near, [0.25, 1.5, 5.0])
    far = [
        one(found, "ogr", checkpoint=str(c), lag="cumulative", quantity="OGR").value
        for c in (1, 2, 3)
    ]
    np.testing.assert_allclose(far, [0.25, 2 / 3, 1.8])
    assert one(found, "overfitting", quantity="best checkpoint").value == 2
    assert one(found, "overfitting", quantity="first overfitting").value == 3
    assert one(found, "overfitting", quantity="rise after best").value == pytest.approx(0.1 / 1.5)
    assert one(found, "overfitting", quantity="train gain after best").value == pytest.approx(0.4)
    assert "two heads" in found["blend_weights"].undefined


@pytest.mark.parametrize(
    ("policy", "weight"), [("clip", 0.0), ("signed", -0.237624), ("abs", 0.161074)]
)
def test_policies_are_named(policy, weight):
    rows = losses([[2, 1.7], [2, 1.2], [2, 0.8]], [[2.0, 2.2], [2.0, 1.6], [2.0, 1.4]])
    found = measure_losses([rows], Options(policy=policy))
    assert one(
        found, "blend_weights", head="a", window="whole training", quantity="weight"
    ).value == pytest.approx(weight, abs=1e-6)
    assert (
        found["blend_weights"].settings["policy"] == policy
        and policy in found["blend_weights"].title
    )


def test_a_validation_loss_that_does_not_change_has_no_ogr():
    found = measure_losses([losses([2, 1, 0.5], [1.0, 1.00001, 1.00002], heads=("a",))], Options())
    assert (
        "less than 0.0001" in one(found, "ogr", checkpoint="2", lag="1", quantity="OGR").undefined
    )
    assert one(found, "ogr", checkpoint="2", lag="1", quantity="dG").value == pytest.approx(-1e-5)


def repeated(R=5, T=20, noise=0.02, lengths=None):
    rng = np.random.default_rng(3)
    at = np.arange(T)
    runs = []
    for r in range(R):
        length = T if lengths is None else lengths[r]
        rows = []
        for level, turn in ((0.5, 6), (0.6, 12), (0.3, 9)):
            fall = level + 1.5 * np.exp(-at / 4)
            rise = np.where(at > turn, fall[turn] + 0.05 * (at - turn), fall)
            rows.append((fall - 0.01 * at, rise))
        train = np.array([t for t, _ in rows]) + noise * rng.normal(size=(3, T))
        held = np.array([v for _, v in rows]) + noise * rng.normal(size=(3, T))
        runs.append(losses(train[:, :length], held[:, :length], run=f"seed {r}"))
    return runs


def test_repeated_runs_have_students_intervals():
    runs = repeated()
    found = measure_losses(runs, Options())
    values = np.array([run.validation[1, 7] for run in runs])
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    row = one(found, "losses", head="v", checkpoint="7", quantity="validation")
    assert (row.value, row.low, row.high) == pytest.approx((values.mean(), low, high))
    assert row.n == 5 and row.method == "Student t over 5 runs"
    for head, turn in (("a", 6), ("v", 12), ("joint", 9)):
        onset = one(found, "overfitting", head=head, run="all", quantity="first overfitting")
        assert abs(onset.value - (turn + 1)) <= 1
        assert onset.low <= turn + 1 <= onset.high and onset.n == 5
        single = [
            r
            for r in found["overfitting"].rows
            if r.labels["head"] == head and r.labels["run"] == "seed 2"
        ]
        assert single
    weights = [
        r.estimate
        for r in found["blend_weights"].rows
        if r.labels["run"] == "all"
        and r.labels["window"] == "whole training"
        and r.labels["quantity"] == "weight"
    ]
    assert sum(w.value for w in weights) == pytest.approx(1)
    assert all(0 <= w.low <= w.value <= w.high <= 1 for w in weights)


def test_one_run_is_the_mean_of_one():
    (first, *_) = repeated()
    alone = measure_losses([first], Options())
    twice = measure_losses([first, first], Options())
    for key in ("losses", "ogr", "blend_weights"):
        for row in alone[key].rows:
            other = one(twice, key, **row.labels)
            assert (
                other.value == pytest.approx(row.estimate.value, rel=1e-9, nan_ok=True)
                or row.estimate.value is None
            )


def test_runs_of_different_length():
    found = measure_losses(repeated(lengths=[20, 20, 18, 20, 4]), Options())
    assert one(found, "losses", head="a", checkpoint="19", quantity="train").n == 3
    assert one(found, "losses", head="a", checkpoint="2", quantity="train").n == 5
    onset = one(found, "overfitting", head="a", run="all", quantity="first overfitting")
    assert "4 of 5 runs overfit by themselves" in onset.warning
    assert found["blend_weights"].undefined is None


def test_long_single_runs_are_resampled_in_blocks():
    rng = np.random.default_rng(0)
    at = np.arange(40)
    fall = 1 + 1.5 * np.exp(-at / 4)
    rise = np.where(at > 10, fall[10] + 0.03 * (at - 10), fall) + 0.02 * rng.normal(size=40)
    run = losses(
        [fall - 0.01 * at, fall - 0.005 * at],
        [rise, fall + 0.02 * rng.normal(size=40)],
        heads=("a", "v"),
    )
    found = measure_losses([run], Options())
    onset = one(found, "overfitting", head="a", run="all", quantity="first overfitting")
    assert onset.low <= 11 <= onset.high and "block bootstrap over 40 checkpoints" in onset.method
    weight = one(found, "blend_weights", head="v", window="whole training", quantity="weight")
    assert (
        0 <= weight.low <= weight.value <= weight.high <= 1 and "block bootstrap" in weight.method
    )
    again = measure_losses([run], Options())
    assert again == found


def test_super_epochs():
    assert super_epoch_length(51) == 10
    (first, *_) = repeated(noise=0.0)
    found = measure_losses([first], Options(super_epoch=8))
    windows = list(dict.fromkeys(r.labels["window"] for r in found["blend_weights"].rows))
    assert windows == ["whole training", "0 to 8", "8 to 16", "16 to 19"]
    for window in windows:
        weights = [
            one(found, "blend_weights", head=h, run="all", window=window, quantity="weight").value
            for h in HEADS
        ]
        assert sum(weights) == pytest.approx(1)
    # no head improves in the last window: the weights before it are kept, and it is said
    last = one(found, "blend_weights", head="a", window="16 to 19", quantity="weight")
    assert "previous weights" in last.warning


def test_heads_that_cannot_be_compared_are_not_blended():
    flag = Flag("sum", "a", "the train loss of 'a' is a sum.", unusable=True)
    found = measure_losses([losses(WINDOW.train, WINDOW.validation, flags=[flag])], Options())
    assert {r.labels["head"] for r in found["blend_weights"].rows} == {"v", "joint"}
    assert one(found, "ogr", head="a", checkpoint="1", lag="1", quantity="OGR").warning == flag.text
    # odd in one of three runs only
    some = [
        losses(WINDOW.train, WINDOW.validation, run=str(i), flags=[flag] if i == 0 else [])
        for i in range(3)
    ]
    assert {r.labels["head"] for r in measure_losses(some, Options())["blend_weights"].rows} == set(
        HEADS
    )


def test_sets_of_data_are_not_blended():
    found = measure_losses([losses(WINDOW.train, WINDOW.validation, shared=True)], Options())
    assert "nothing to blend" in found["blend_weights"].undefined


def test_one_checkpoint_and_bad_options():
    found = measure_losses([losses([[1.0]], [[2.0]], heads=("a",))], Options())
    assert "one checkpoint" in found["ogr"].undefined
    assert one(found, "losses", quantity="train").value == 1
    for options in (Options(lag=0), Options(lag=2), Options(smoothing=1.0), Options(super_epoch=0)):
        with pytest.raises(UndefinedMeasureError):
            measure_losses([WINDOW], options)


def test_smoothing_is_applied_and_kept():
    (first, *_) = repeated()
    found = measure_losses([first], Options(smoothing=0.6))
    assert found["losses"].settings["smoothing"] == 0.6
    raw = measure_losses([first], Options())
    values = [
        one(m, "losses", head="a", checkpoint="19", quantity="validation").value
        for m in (found, raw)
    ]
    assert values[0] < values[1]


def test_fieller_covers_a_ratio():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        above, below = 0.6 + 0.1 * rng.normal(size=6), 0.5 + 0.08 * rng.normal(size=6)
        found = ratio_estimate(above, below, "")
        covered += found.low <= 1.2 <= found.high
    assert 0.93 <= covered / 600 <= 0.97


def test_a_ratio_whose_denominator_may_be_0_has_no_interval():
    found = ratio_estimate(np.array([1.0, 1.1, 0.9]), np.array([0.5, -0.4, 0.1]), "")
    assert found.low is None and "does not certainly change" in found.warning
    assert ratio_estimate(np.array([np.nan]), np.array([1.0]), "why").undefined == "why"


def test_a_mean_over_some_of_the_runs():
    found = mean_estimate(np.array([1.0, np.nan]), 2, "")
    assert found.value == 1 and found.method == "no interval: 1 of 2 runs has it"
    assert place_name(3.0) == "3" and place_name(2.25) == "2.25"
