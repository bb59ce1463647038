"""Common checkpoints: windows, granularities, restarts, gaps; and what speaks against the comparison."""

import numpy as np
import pytest

from mmaudit.evidence.loss_map import read_map
from mmaudit.evidence.losses import MOST_CHECKPOINTS, align
from mmaudit.evidence.readers import Run, Series
from mmaudit.exceptions import LogError

JOINT = read_map({"heads": {"joint": {"train": "t", "validation": "v"}}})
T = 12
FALL = np.exp(-np.arange(T) / 4)


def series(values, *, step=None, epoch=None):
    values = np.asarray(values, dtype=float)
    n = len(values)
    return Series(
        np.full(n, -1) if step is None else np.asarray(step),
        np.full(n, np.nan) if epoch is None else np.asarray(epoch, dtype=float),
        values,
        np.arange(n),
    )


def run(**found):
    return Run("r", "CSV", (), found)


def kinds(losses):
    return {flag.kind for flag in losses.flags}


def heads(*names, joint="joint"):
    return read_map(
        {
            "heads": {n: {"train": f"t_{n}", "validation": f"v_{n}"} for n in names},
            "joint": joint if joint in names else None,
        }
    )


def curves(**pairs):
    found = {}
    for name, (train, validation) in pairs.items():
        at = np.arange(len(train))
        found[f"t_{name}"], found[f"v_{name}"] = (
            series(train, epoch=at),
            series(validation, epoch=at),
        )
    return found


def test_batches_against_epochs_by_steps():
    losses = align(
        run(t=series(np.arange(10), step=np.arange(1, 11)), v=series([5, 6], step=[5, 10])), JOINT
    )
    assert losses.axis == "step" and losses.at.tolist() == [5, 10]
    assert losses.train.tolist() == [[2.0, 7.0]]
    assert "mean of the (about 5)" in losses.window and "window" in kinds(losses)


def test_one_value_for_each_epoch_is_taken_as_it_is():
    losses = align(
        run(t=series(np.arange(10), epoch=np.arange(10)), v=series([5, 6], epoch=[4, 9])), JOINT
    )
    assert losses.train.tolist() == [[4.0, 9.0]]
    assert losses.window == "train loss as logged at each checkpoint"


def test_several_validations_in_an_epoch_are_told_apart_by_steps():
    validation = series([3, 2, 1], step=[5, 10, 15], epoch=[0, 0, 1])
    losses = align(
        run(t=series(np.ones(15), step=np.arange(1, 16), epoch=[0] * 10 + [1] * 5), v=validation),
        JOINT,
    )
    assert losses.axis == "step" and len(losses.at) == 3


def test_validation_before_any_training_is_no_gap():
    losses = align(run(t=series([1, 2], step=[5, 10]), v=series([9, 8, 7], step=[0, 5, 10])), JOINT)
    assert losses.at.tolist() == [5, 10] and "gap" not in kinds(losses)


def test_a_check_before_the_training_leaves_epochs_to_count():
    at = np.arange(4)
    train = series([4, 3, 2, 1], step=10 * at + 9, epoch=at)._replace(order=np.array([1, 3, 5, 7]))
    held = series([9, 5, 4, 3, 2], step=[0, 9, 19, 29, 39], epoch=[0, 0, 1, 2, 3])
    held = held._replace(order=np.array([0, 2, 4, 6, 8]))
    losses = align(run(t=train, v=held), JOINT)
    assert losses.axis == "epoch" and losses.validation.tolist() == [[5, 4, 3, 2]]
    assert any("before any training" in flag.text for flag in losses.flags)


def test_gaps_are_told():
    losses = align(
        run(t=series([1, 2], step=[5, 20]), v=series([9, 8, 7, 6], step=[5, 10, 15, 20])), JOINT
    )
    assert losses.at.tolist() == [5, 20]
    (gap,) = [flag for flag in losses.flags if flag.kind == "gap"]
    assert "2 of 4 checkpoints" in gap.text


def test_a_restart_counts_what_was_written_last():
    steps = [1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8]
    values = [0, 0, 0, 9, 9, 9, 1, 1, 1, 1, 1]
    losses = align(
        run(t=series(values, step=steps), v=series([1, 9, 1, 1], step=[3, 6, 6, 8])), JOINT
    )
    assert losses.train.tolist() == [[0.0, 1.0, 1.0]] and losses.validation.tolist() == [[1, 1, 1]]
    (restart,) = [flag for flag in losses.flags if flag.kind == "restart"]
    assert "went back 1 time; 3 points" in restart.text


def test_values_of_one_step_in_a_row_are_batches_and_no_restart():
    losses = align(
        run(t=series([1, 3, 5, 7], step=[1, 1, 2, 2]), v=series([2, 4, 6, 8], step=[1, 1, 2, 2])),
        JOINT,
    )
    assert losses.train.tolist() == [[2.0, 6.0]] and losses.validation.tolist() == [[3.0, 7.0]]
    assert "restart" not in kinds(losses)


def test_disorder_is_sorted_and_told():
    rng = np.random.default_rng(0)
    steps = rng.permutation(1000)
    losses = align(
        run(
            t=series(steps / 100, step=steps),
            v=series(np.arange(10), step=np.arange(99, 1000, 100)),
        ),
        JOINT,
    )
    np.testing.assert_allclose(losses.train[0], np.arange(10) + 0.495)
    assert "order" in kinds(losses)


def test_calls_of_a_logger_that_counts_each():
    """Validation at step 0, train at 1, validation at 2, ...: the two of an epoch belong together."""
    even, odd = np.arange(0, 12, 2), np.arange(1, 12, 2)
    losses = align(run(t=series(even, step=odd), v=series(even, step=even)), JOINT)
    assert losses.train.tolist() == losses.validation.tolist() and "order" in kinds(losses)


def test_heads_that_are_validated_in_turn():
    at = np.arange(0, 60, 10)
    found = {
        "t_a": series(at, step=at), "t_b": series(at, step=at + 1),
        "v_a": series(at, step=at + 2), "v_b": series(at, step=at + 3),
    }  # fmt: skip
    losses = align(run(**found), heads("a", "b"))
    assert losses.at.tolist() == (at + 3).tolist() and "order" in kinds(losses)
    assert losses.train.tolist() == losses.validation.tolist()


def test_heads_that_are_validated_more_rarely_take_nothing_from_the_others():
    found = {
        "t_a": series(np.arange(10), epoch=np.arange(10)), "v_a": series(np.arange(10), epoch=np.arange(10)),
        "t_b": series(np.arange(10), epoch=np.arange(10)), "v_b": series([4, 9], epoch=[4, 9]),
    }  # fmt: skip
    losses = align(run(**found), heads("a", "b"))
    assert losses.train[0].tolist() == losses.validation[0].tolist() == list(range(10))
    there = np.isfinite(losses.train[1])
    assert losses.at[there].tolist() == losses.train[1][there].tolist() == [4, 9]
    assert np.array_equal(there, np.isfinite(losses.validation[1]))
    (gap,) = [f for f in losses.flags if f.kind == "gap"]
    assert gap.head == "b" and "2 checkpoints, other heads at up to 10" in gap.text


def test_heads_without_a_common_checkpoint_are_told():
    found = curves(a=(FALL, FALL + 0.1)) | {
        "t_b": series(FALL, epoch=np.arange(T) + 0.5), "v_b": series(FALL, epoch=np.arange(T) + 0.5),
    }  # fmt: skip
    found["v_b"], found["t_b"] = found["v_b"].where(np.arange(T) > 1), found["t_b"]
    losses = align(run(**found), heads("a", "b"))
    assert np.isfinite(losses.train).sum(axis=1).tolist() == [12, 10]
    assert any("no epoch at which all heads" in f.text for f in losses.flags)


@pytest.mark.parametrize("split", [0, 1])
def test_a_head_that_turns_nan_takes_nothing_from_the_others(split):
    pair = [FALL.copy(), FALL + 0.1]
    pair[split][7:] = np.nan
    losses = align(run(**curves(a=tuple(pair), b=(FALL, FALL + 0.1))), heads("a", "b"))
    assert np.isfinite(losses.train).sum(axis=1).tolist() == [7, 12]
    (flag,) = [f for f in losses.flags if f.kind == "diverged"]
    assert flag.head == "a" and "is not finite after epoch 6 (5 of 12 values)" in flag.text
    assert "gap" not in {f.kind for f in losses.flags if f.head == "b"}
    assert set(losses.incomparable) == {"a"}


def test_a_head_with_few_checkpoints_is_told_by_name():
    losses = align(run(**curves(a=(FALL, FALL + 0.1), b=(FALL[:3], FALL[:3] + 0.1))), heads("a", "b"))  # fmt: skip
    (few,) = [f for f in losses.flags if f.kind == "few checkpoints"]
    assert few.head == "b" and "'b' has 3 checkpoints" in few.text


def test_values_between_evaluations_are_averaged():
    at = np.arange(1, 13)
    found = run(
        t=series(at, step=at * 10, epoch=at / 4), v=series([4, 5, 6], step=[40, 80, 120], epoch=[1, 2, 3])
    )  # fmt: skip
    losses = align(found, JOINT)
    assert losses.axis == "epoch" and losses.train.tolist() == [[2.5, 6.5, 10.5]]
    assert "mean of the (about 4)" in losses.window


def test_values_of_epochs_by_steps_are_taken_as_they_are():
    found = {
        "train_loss_epoch": series(np.arange(1, 11), step=10 * np.arange(1, 11)),
        "val_loss": series([5, 6], step=[50, 100]),
    }
    names = {"joint": {"train": "train_loss_epoch", "validation": "val_loss"}}
    losses = align(run(**found), read_map({"heads": names}))
    assert losses.train.tolist() == [[5, 10]] and losses.window.endswith("steps before it")


def test_without_steps_and_epochs_points_count():
    losses = align(run(t=series(FALL), v=series(FALL)), JOINT)
    assert losses.axis == "point" and len(losses.at) == T
    with pytest.raises(LogError, match="cannot be put side by side"):
        align(run(t=series(FALL), v=series(FALL[1:])), JOINT)


def test_points_keep_their_places_where_one_is_left_out():
    train, held_out = FALL.copy(), FALL + 0.1
    train[3] = np.nan
    losses = align(run(t=series(train), v=series(held_out)), JOINT)
    assert losses.at.tolist() == [0, 1, 2, *range(4, T)]
    assert losses.validation[0] - losses.train[0] == pytest.approx(np.full(T - 1, 0.1))


def test_where_a_loss_ends_is_told_in_the_order_of_its_places():
    order = np.random.default_rng(0).permutation(T)
    values = np.where(np.arange(T) > 7, np.nan, FALL)
    found = run(t=series(FALL, epoch=np.arange(T)), v=series(values[order], epoch=order))
    (flag,) = [f for f in align(found, JOINT).flags if f.kind == "diverged"]
    assert "not finite after epoch 7 (4 of 12 values)" in flag.text


def test_more_checkpoints_than_are_kept_are_averaged():
    n = 10 * MOST_CHECKPOINTS
    at = np.arange(n)
    losses = align(run(t=series(at, step=at), v=series(at + 1.0, step=at)), JOINT)
    assert losses.train.shape == (1, MOST_CHECKPOINTS)
    np.testing.assert_allclose(losses.train[0], np.arange(n).reshape(-1, 10).mean(axis=1))
    np.testing.assert_allclose(losses.validation - losses.train, 1.0)
    assert "10,000 checkpoints averaged to 1,000" in losses.window


def test_numbers_that_are_not_finite():
    values = FALL.copy()
    values[3] = np.nan
    losses = align(
        run(t=series(values, epoch=np.arange(T)), v=series(FALL, epoch=np.arange(T))), JOINT
    )
    assert 3 not in losses.at.tolist()
    assert "1 of 12 values of 't'" in next(f.text for f in losses.flags if f.kind == "not finite")
    with pytest.raises(LogError, match="no finite value"):
        align(
            run(t=series(FALL * np.nan, epoch=np.arange(T)), v=series(FALL, epoch=np.arange(T))),
            JOINT,
        )


def test_what_is_missing():
    with pytest.raises(LogError, match="no series 'v'.*it has 't'"):
        align(run(t=series(FALL)), JOINT)
    with pytest.raises(
        LogError, match="no checkpoint of 'joint' has a train and a validation loss"
    ):
        align(run(t=series([1.0], step=[99]), v=series([1.0, 2.0], step=[1, 2])), JOINT)


# What speaks against the comparison


def flagged(train, validation):
    return align(
        run(
            t=series(train, epoch=np.arange(len(train))),
            v=series(validation, epoch=np.arange(len(train))),
        ),
        JOINT,
    )


def test_clean_curves_have_no_flag():
    assert flagged(0.9 * FALL + 0.1, FALL + 0.12).flags == ()


@pytest.mark.parametrize("tau", [0.7, 1.5, 3.0, 10.0])
def test_an_average_over_a_fast_epoch_is_no_sum(tau):
    """The mean over an epoch of a loss that falls by e in tau epochs, beside the loss at the end of each."""
    fine = np.exp(-np.arange(T * 100) / (100 * tau)) + 0.05
    averages = fine.reshape(T, 100).mean(axis=1)
    assert "sum" not in kinds(flagged(averages, fine[99::100]))


@pytest.mark.parametrize("factor", [3.0, 8.0, 400.0])
@pytest.mark.parametrize("tau", [1.5, 4.0, 10.0])
def test_sums_beside_means(factor, tau):
    fall = np.exp(-np.arange(T) / tau) + 0.2
    losses = flagged(factor * fall, 1.02 * fall)
    assert losses.unusable == {"joint"} and kinds(losses) == {"sum"}
    if factor > 10:
        assert flagged(fall, factor * fall).unusable == {"joint"}


def test_other_scales_and_training_mode_are_rough_and_not_wrong():
    scaled = flagged(FALL + 0.5, 2.5 * (FALL + 0.5))
    assert kinds(scaled) == {"scale"} and not scaled.unusable
    dropout = flagged(1.3 * FALL + 0.2, FALL + 0.1)
    assert kinds(dropout) == {"training mode"} and not dropout.unusable


def test_few_and_negative():
    assert kinds(flagged(FALL[:4], FALL[:4])) == {"few checkpoints"}
    assert kinds(flagged(FALL - 0.5, FALL - 0.4)) == {"negative"}


def test_a_test_set():
    mapped = read_map({"heads": {"joint": {"train": "train_loss", "validation": "test_loss"}}})
    found = {
        "train_loss": series(FALL, epoch=np.arange(T)),
        "test_loss": series(FALL, epoch=np.arange(T)),
    }
    assert kinds(align(run(**found), mapped)) == {"test set"}


def three(seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    at = np.arange(30)

    def fall(level, tau):
        return level + 1.5 * np.exp(-at / tau) + noise * rng.normal(size=30)

    return {name: (fall(level, tau), fall(level + 0.05, tau)) for name, level, tau in
            (("audio", 0.5, 4), ("image", 0.6, 6), ("fusion", 0.3, 5))}  # fmt: skip


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("weights", [(1, 1), (0.5, 0.5)])
def test_a_fusion_loss_that_is_a_sum(noise, weights):
    """The train loss of the whole is logged: those of the modalities and the fusion's own, which is not."""
    pairs = three(noise=noise)
    whole = pairs["fusion"][0] + weights[0] * pairs["audio"][0] + weights[1] * pairs["image"][0]
    pairs["joint"] = (whole, pairs.pop("fusion")[1])
    losses = align(run(**curves(**pairs)), heads("audio", "image", "joint"))
    assert losses.unusable == {"joint"}
    assert "sum" in next(flag.text for flag in losses.flags if flag.unusable)


def test_a_sum_whose_parts_are_all_logged_is_named_with_its_weights():
    pairs = three()
    whole = pairs["fusion"][0] + 0.5 * pairs["audio"][0] + 0.25 * pairs["image"][0]
    found = curves(audio=pairs["audio"], image=pairs["image"], joint=(whole, pairs["fusion"][1]))
    found["train_fusion_loss"] = series(pairs["fusion"][0], epoch=np.arange(30))
    losses = align(run(**found), heads("audio", "image", "joint"))
    (flag,) = [flag for flag in losses.flags if flag.unusable]
    assert "0.5 x 'audio'" not in flag.text and "0.5 x 't_audio'" in flag.text
    assert "'train_fusion_loss'" in flag.text and "its validation loss is not" in flag.text


def test_a_sum_in_both_is_told_and_usable():
    pairs = three()
    pairs["joint"] = tuple(sum(pair[i] for pair in pairs.values()) for i in (0, 1))
    del pairs["fusion"]
    losses = align(run(**curves(**pairs)), heads("audio", "image", "joint"))
    (flag,) = [flag for flag in losses.flags if flag.kind == "sum"]
    assert not losses.unusable and "OGR is not that of the prediction" in flag.text


@pytest.mark.parametrize("seed", range(5))
def test_three_plain_heads_are_no_sums(seed):
    pairs = three(seed, noise=0.02)
    pairs["joint"] = pairs.pop("fusion")
    losses = align(run(**curves(**pairs)), heads("audio", "image", "joint"))
    assert not losses.unusable and "sum" not in kinds(losses)


def test_evaluation_sets_are_no_heads():
    mapped = read_map({"heads": {n: {"train": "t", "validation": f"v_{n}"} for n in "ab"}})
    found = {name: series(FALL, epoch=np.arange(T)) for name in ("t", "v_a", "v_b")}
    losses = align(run(**found), mapped)
    assert losses.evaluation_sets and kinds(losses) == {"evaluation sets"}


def test_steps_beside_epochs_are_told():
    found = align(
        run(
            t_joint=series(np.linspace(2, 1, 450), step=range(450)),
            v_joint=series(np.linspace(2, 1.2, 15), step=range(15)),
        ),
        heads("joint"),
    )
    assert found.unusable == {"joint"}
    assert any("435 of 450" in flag.text for flag in found.flags)


def named(train, validation="val_loss"):
    found = run(**{train: series(FALL, epoch=np.arange(T)), validation: series(FALL + 0.1, epoch=np.arange(T))})  # fmt: skip
    return align(found, read_map({"heads": {"joint": {"train": train, "validation": validation}}}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train_loss_epoch", "is an average"), ("train/running_loss", "is an average"), ("train_loss_avg", "is an average"),
        ("trainRunningLoss", "is an average"), ("loss", "is probably an average"), ("audio_loss", "is probably an average"),
        ("train_loss", None), ("train/clean_loss_epoch", None), ("eval/train_loss", None),
    ],
)  # fmt: skip
def test_averages_over_an_epoch_are_known_by_their_names(name, said):
    texts = [f.text for f in named(name).flags if f.kind == "window"]
    assert len(texts) == (said is not None) and all(said in text for text in texts)


@pytest.mark.parametrize("batches", [4, 8, 40])
def test_a_validation_sum_over_few_batches_is_wrong_and_not_rough(batches):
    losses = align(run(t=series(FALL, epoch=np.arange(T)), v=series(batches * (FALL + 0.05), epoch=np.arange(T))), JOINT)  # fmt: skip
    assert losses.unusable == {"joint"} and "looks like a sum" in losses.flags[0].text


def test_memorising_fast_is_no_sum():
    at = np.arange(T)
    losses = align(run(t=series(2.0 * np.exp(-at), epoch=at), v=series(2 + 0.1 * at, epoch=at)), JOINT)  # fmt: skip
    assert not losses.unusable


def test_a_loss_that_was_logged_twice_is_no_sum_and_hides_none():
    a, b = FALL + 0.3, 1.7 * FALL**0.5
    found = curves(a=(a, a + 0.1), b=(b, b + 0.1), joint=(a + b, FALL + 0.2))
    found["train_loss_copy"] = series(a + b, epoch=np.arange(T))
    found["train_loss_half"] = series((a + b) / 2, epoch=np.arange(T))
    losses = align(run(**found), heads("a", "b", "joint"))
    (flag,) = [f for f in losses.flags if f.kind == "sum"]
    assert flag.unusable and "the sum 't_a' + 't_b'" in flag.text


def test_shares_that_cannot_be_told_apart_are_not_named():
    rng = np.random.default_rng(0)
    n = 30
    a = np.exp(-np.arange(n) / 9) + 0.3
    b = a * 1.4 + 1e-6 * rng.normal(size=n)
    losses = align(run(**curves(a=(a, a), b=(b, b), joint=(a + b + 1e-7, a))), heads("a", "b", "joint"))  # fmt: skip
    (flag,) = [f for f in losses.flags if f.kind == "sum"]
    assert " x " not in flag.text


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.3, 0.3, 1), (0.5, 0.5, 0.5), (0.25, 0.25, 1)])
def test_a_weighted_sum_is_known_by_where_it_begins(weights):
    at = np.arange(14)
    parts = [2.3 * np.exp(-at / tau) + 0.05 for tau in (5, 9, 4)]
    total = sum(w * part for w, part in zip(weights, parts, strict=True))
    a, b, f = ((part, 0.6 * part + 0.9) for part in parts)
    losses = align(run(**curves(a=a, b=b, joint=(total, f[1]))), heads("a", "b", "joint"))
    assert losses.unusable == {"joint"}
    clean = align(run(**curves(a=a, b=b, joint=f)), heads("a", "b", "joint"))
    assert not clean.unusable


def test_a_plain_sum_is_told_before_other_weights_that_fit():
    a = FALL + 0.3
    b = 1.4 * a + 0.004 * np.sin(np.arange(T))
    both = tuple(x + y for x, y in zip((a, a + 0.1), (b, b + 0.1), strict=True))
    losses = align(run(**curves(a=(a, a + 0.1), b=(b, b + 0.1), joint=both)), heads("a", "b", "joint"))  # fmt: skip
    (flag,) = [f for f in losses.flags if f.kind == "sum"]
    assert "the sum 't_a' + 't_b', and so is its validation loss" in flag.text and not flag.unusable


def test_rows_in_any_order_are_sorted_and_none_is_lost():
    rng = np.random.default_rng(0)
    order = rng.permutation(15)
    values = np.exp(-np.arange(15) / 4)
    found = run(t=series(values[order], epoch=order), v=series(values[order] + 0.1, epoch=order))
    losses = align(found, JOINT)
    assert losses.at.tolist() == list(range(15)) and kinds(losses) == {"order"}
    stray = np.array([0, 1, 2, 3, 4, -5, 6, 7, 8, 9])
    losses = align(run(t=series(values[:10], epoch=stray), v=series(values[:10], epoch=stray)), JOINT)  # fmt: skip
    assert len(losses.at) == 10 and "restart" not in kinds(losses)


def test_what_comes_before_the_first_train_loss_is_noted():
    losses = align(run(t=series([1, 2], step=[5, 10]), v=series([9, 8, 7], step=[0, 5, 10])), JOINT)
    assert losses.notes == (
        "1 validation before the first train loss left out: there is nothing to compare with.",
    )


def test_a_validation_within_the_first_epoch_is_no_check():
    at = np.arange(4)
    train = series([4, 3, 2, 1], step=10 * at + 9, epoch=at)._replace(order=3 * at + 2)
    held = series(np.arange(8), step=[4, 9, 14, 19, 24, 29, 34, 39], epoch=np.repeat(at, 2))
    held = held._replace(order=np.array([0, 1, 3, 4, 6, 7, 9, 10]))
    losses = align(run(t=train, v=held), JOINT)
    assert not any("a check of the code" in flag.text for flag in losses.flags)
    assert losses.at.tolist() == [9, 19, 29, 39]


def test_batches_and_epochs_are_told_apart_by_what_was_written_when():
    train, held, order = [], [], 0
    for epoch in range(6):
        for batch in range(10):
            train.append((10 * epoch + batch, 2.0 - epoch / 10, order))
            order += 1
        held.append((epoch, 2.1 - epoch / 10, order))
        order += 1
    (steps, values, orders), (places, losses_held, written) = (
        zip(*rows, strict=True) for rows in (train, held)
    )
    t = series(values, step=steps)._replace(order=np.array(orders))
    v = series(losses_held, step=places)._replace(order=np.array(written))
    losses = align(run(t=t, v=v), JOINT)
    assert losses.train[0] == pytest.approx([2.0 - e / 10 for e in range(6)])
    assert not losses.unusable and "different units" in losses.flags[0].text
    # of two files nobody knows what was written when
    apart = align(run(t=t._replace(order=np.arange(60)), v=v._replace(order=np.arange(6))), JOINT)
    assert apart.unusable == {"joint"}


def test_what_a_trainer_logs_each_epoch_is_an_average():
    found = run(train_loss=series(FALL, epoch=np.arange(T)), val_loss=series(FALL + 0.1, epoch=np.arange(T)))  # fmt: skip
    names = read_map({"heads": {"joint": {"train": "train_loss", "validation": "val_loss"}}})
    assert "window" not in kinds(align(found, names))
    lightning = Run("r", "Lightning CSV", (), found.series)
    (flag,) = align(lightning, names).flags
    assert flag.kind == "window" and "probably" in flag.text


def shifted(first_train, first_held, names=("a", "joint"), n=12, held=None):
    found = {}
    for k, name in enumerate(names):
        fall = np.exp(-np.arange(n) / (3 + k))
        found[f"t_{name}"] = series(fall, epoch=first_train + np.arange(n))
        found[f"v_{name}"] = series(fall + 0.1, epoch=first_held + np.arange(n))
    return align(run(**found), heads(*names))


def test_epochs_that_are_shifted_by_one_are_told_and_not_moved():
    losses = shifted(0, 1)
    (flag,) = [f for f in losses.flags if f.kind == "shifted"]
    assert flag.head is None and not flag.unusable
    assert "epochs 0 to 11" in flag.text and "1 to 12" in flag.text
    assert "counted from 0 and from 1" in flag.text and "the epoch after it" in flag.text
    assert losses.at.tolist() == list(range(1, 12))
    assert losses.train[0] == pytest.approx(np.exp(-np.arange(1, 12) / 3))
    assert "the epoch before it" in next(f.text for f in shifted(1, 0).flags if f.kind == "shifted")


@pytest.mark.parametrize(
    ("trained", "held"),
    [
        (np.arange(12), np.arange(12)), (np.arange(1, 13), np.arange(13)), (np.arange(12), np.arange(2, 14)), (np.arange(12), np.arange(1, 12)),
        (np.arange(0, 60, 5), np.arange(5, 65, 5)), (np.arange(0, 60, 5), np.arange(1, 61, 5)), ([0], [1]),
    ],
)  # fmt: skip
def test_other_epochs_are_not_called_shifted(trained, held):
    found = run(
        t=series(np.linspace(2, 1, len(trained)), epoch=trained),
        v=series(np.linspace(2, 1, len(held)), epoch=held),
    )
    assert "shifted" not in kinds(align(found, JOINT))


def test_a_shift_is_told_of_the_heads_that_have_it():
    found = curves(a=(FALL, FALL + 0.1), b=(FALL, FALL + 0.1), c=(FALL, FALL + 0.1))
    for name in "bc":
        found[f"v_{name}"] = found[f"v_{name}"]._replace(epoch=np.arange(1, T + 1.0))
    losses = align(run(**found), heads("a", "b", "c"))
    (flag,) = [f for f in losses.flags if f.kind == "shifted"]
    assert flag.head is None and "of 'b', 'c' are of epochs" in flag.text
    broken = found | {
        "v_c": found["v_b"]._replace(value=np.where(np.arange(T) == 3, np.nan, FALL)),
        "v_b": found["v_a"],
    }
    (flag,) = [f for f in align(run(**broken), heads("a", "b", "c")).flags if f.kind == "shifted"]
    assert flag.head == "c"


def unalike(seed, K, trained, *, n=25, noise=0.01, weights=None):
    """Independent heads that begin at chance, or well trained; with weights, the joint losses are sums."""
    rng = np.random.default_rng(seed)
    at, pairs = np.arange(n), {}
    for name in ("a", "b", "joint"):
        begin, end = (0.6, 0.4) if name in trained else (np.log(K), rng.uniform(0.1, 0.6))
        tau = rng.uniform(2, 9)
        train = end + (begin - end) * np.exp(-(at + 0.5) / tau)
        held = end + 0.1 + (begin - end) * np.exp(-(at + 1) / tau)
        pairs[name] = [loss * (1 + noise * rng.normal(size=n)) for loss in (train, held)]
    if weights is not None:
        sums = [sum(w * pairs[name][i] for name, w in zip(("a", "b", "joint"), weights, strict=True)) for i in (0, 1)]  # fmt: skip
        pairs["joint"] = [loss * (1 + noise * rng.normal(size=n)) for loss in sums]
    return align(run(**curves(**pairs)), heads("a", "b", "joint"))


@pytest.mark.parametrize("trained", [(), ("a",), ("a", "b"), ("joint",)])
@pytest.mark.parametrize("n", [8, 25])
def test_a_joint_head_that_learns_slowly_beside_trained_ones_is_no_sum(trained, n):
    for seed in range(25):
        for K in (10, 101):
            assert "sum" not in kinds(unalike(seed, K, trained, n=n))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 1, 0.5), (1, 1, 0)])
@pytest.mark.parametrize("trained", [(), ("a",), ("joint",)])
def test_sums_in_both_are_known_by_their_size(weights, trained):
    found = [unalike(seed, 10, trained, weights=weights) for seed in range(20)]
    assert sum("sum" in kinds(losses) for losses in found) >= 18
    assert not any(losses.unusable for losses in found)


def test_a_train_loss_above_may_be_an_average_too():
    (rough,) = flagged(1.3 * FALL + 0.2, FALL + 0.1).flags
    level = np.linspace(2.0, 1.5, T)
    (early,) = flagged(1.5 * level, np.where(np.arange(T) < 8, 1, 1.6) * level).flags
    assert rough.kind == early.kind == "training mode"
    assert "a running one" in rough.text and "a running one" in early.text
