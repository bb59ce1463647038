"""A training that was resumed into a log of its own is one run; what begins at the same place is a repeat."""

from pathlib import Path

import numpy as np
import pytest

from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.losses import align
from mmaudit.evidence.readers import Run, Series, read_runs
from mmaudit.evidence.readers.resuming import join_resumed
from tests.evidence.readers.logs import events, json_lines, write

NAMES = ("train_loss", "val_loss")


def lightning(path, first, last, *, every=1, shift=0.0):
    rows = ["epoch,step,train_loss,val_loss"]
    for e in range(first, last + 1):
        rows.append(f"{e},{10 * e + 9},{2 - 0.05 * e + shift},")
        if (e + 1) % every == 0:
            rows.append(f"{e},{10 * e + 9},,{2.2 - 0.04 * e + shift}")
    return write(path / "metrics.csv", "\n".join(rows) + "\n")


def run(title, places, *, axis="epoch", folder="/logs", steps=None, form="CSV", names=NAMES):
    places = np.array(places, float)
    count = np.arange(len(places))
    step = places if axis == "step" else np.full(len(places), -1) if steps is None else np.array(steps)  # fmt: skip
    epoch = places if axis == "epoch" else np.full(len(places), np.nan)
    series = Series(step.astype(np.int64), epoch, places + 100.0, count)
    return Run(title, form, (Path(folder, title, "log.csv"),), dict.fromkeys(names, series))


def titles(*runs):
    return [found.title for found in join_resumed(runs)]


def test_a_resumed_training_is_one(tmp_path):
    lightning(tmp_path / "version_0", 0, 14)
    lightning(tmp_path / "version_1", 15, 24)
    (found,) = read_runs(tmp_path)
    assert found.title == "version_0" and len(found.files) == 2
    assert found.notes == ("version_1 goes on where version_0 ended: taken for one training.",)
    losses = align(found, guess_map([found]).map)
    assert losses.at.tolist() == list(range(25))
    assert not {flag.kind for flag in losses.flags} & {"restart", "order", "gap"}
    np.testing.assert_allclose(losses.train[0], 2 - 0.05 * np.arange(25))
    order = np.concatenate([series.order for series in found.series.values()])
    assert len(np.unique(order)) == len(order)


def test_what_was_written_again_counts_as_written_later(tmp_path):
    lightning(tmp_path / "version_0", 0, 14)
    lightning(tmp_path / "version_1", 10, 24, shift=0.5)
    (found,) = read_runs(tmp_path)
    assert found.notes == ("version_1 goes on from epoch 10 of version_0: taken for one training.",)
    losses = align(found, guess_map([found]).map)
    assert losses.at.tolist() == list(range(25))
    expected = 2 - 0.05 * np.arange(25) + np.where(np.arange(25) < 10, 0, 0.5)
    np.testing.assert_allclose(losses.train[0], expected)


def test_chains_whatever_the_order_of_their_names(tmp_path):
    lightning(tmp_path / "version_9", 0, 6, every=3)
    lightning(tmp_path / "version_10", 7, 12, every=3)
    lightning(tmp_path / "version_11", 13, 20, every=3)
    (found,) = read_runs(tmp_path)
    assert found.notes == (
        "version_10 goes on where version_9 ended: taken for one training.",
        "version_11 goes on where version_10 ended: taken for one training.",
    )
    assert found.series["val_loss"].epoch.tolist() == [2, 5, 8, 11, 14, 17, 20]


def test_event_files_are_put_together_by_their_steps(tmp_path):
    for k, steps in enumerate((range(0, 500, 50), range(500, 900, 50))):
        points = [(name, s, 1.0) for s in steps for name in ("train/loss", "val/loss")]
        events(tmp_path / f"version_{k}" / f"events.out.tfevents.{k}.x", points)
    (found,) = read_runs(tmp_path)
    assert found.series["val/loss"].step.tolist() == list(range(0, 900, 50))


def test_files_of_one_folder_and_files_given_one_by_one(tmp_path):
    paths = []
    for k, epochs in enumerate((range(5), range(5, 9))):
        rows = [{"epoch": e, "train_loss": 1.0, "val_loss": 2.0} for e in epochs]
        paths.append(write(tmp_path / f"part{k}.jsonl", json_lines(rows)))
    for found in (read_runs(tmp_path), read_runs(paths)):
        assert len(found) == 1 and len(found[0].series["val_loss"].value) == 9


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (range(15), range(15)),
        (range(15), range(1, 15)),
        (range(10, 20), range(10, 25)),
        (range(15), range(17, 25)),
        (range(0, 100, 10), range(100, 1000, 100)),
        ([0], [1]),
    ],
)
def test_repeats_stay_repeats(first, second):
    assert len(titles(run("a", first), run("b", second))) == 2
    assert len(titles(run("a", first, axis="step"), run("b", second, axis="step"))) == 2


@pytest.mark.parametrize(("gap", "number"), [(1.0, 1), (1.9, 1), (2.1, 2)])
def test_a_gap_of_two_spacings(gap, number):
    second = [14 + gap + i for i in range(5)]
    assert len(titles(run("a", range(15)), run("b", second))) == number


def test_runs_of_other_folders_formats_or_losses_stay():
    first, later = run("a", range(9)), run("b", range(9, 15))
    assert titles(first, later) == ["a"]
    assert titles(first, run("b", range(9, 15), folder="/other")) == ["a", "b"]
    assert titles(first, run("b", range(9, 15), form="JSON lines")) == ["a", "b"]
    assert titles(first, run("b", range(9, 15), names=("train_loss", "val_a_loss"))) == ["a", "b"]
    assert titles(first, run("b", range(9, 15), axis="step")) == ["a", "b"]
    extra = run("b", range(9, 15), names=(*NAMES, "lr"))
    (both,) = join_resumed([first, extra])
    assert len(both.series["lr"].value) == 6 and len(both.series["val_loss"].value) == 15


def test_repeats_by_their_names_stay_and_their_own_parts_do_not():
    folds = [run(f"fold_{k}", range(10 * k, 10 * k + 10), axis="step") for k in range(3)]
    assert titles(*folds) == ["fold_0", "fold_1", "fold_2"]
    parts = [
        run(f"seed{s}_{p}", places) for s in (0, 1) for p, places in (("a", range(9)), ("b", range(9, 14)))
    ]  # fmt: skip
    assert titles(*parts) == ["seed0_a", "seed1_a"]


def test_a_table_says_itself_which_rows_are_of_which_run(tmp_path):
    rows = [f"{r},{e},1.0,2.0" for r, es in (("x", range(9)), ("y", range(9, 14))) for e in es]
    path = write(tmp_path / "a.csv", "run,epoch,train_loss,val_loss\n" + "\n".join(rows) + "\n")
    assert len(read_runs(path)) == 2


def test_seeds_that_were_all_resumed_are_paired_in_their_order():
    first, later = range(15), range(15, 25)
    together = join_resumed([run("v0", first), run("v1", first), run("v2", later), run("v3", later)])  # fmt: skip
    assert [found.title for found in together] == ["v0", "v1"]
    assert ["v2 goes on" in together[0].notes[0], "v3 goes on" in together[1].notes[0]] == [True, True]  # fmt: skip
    in_turn = join_resumed([run("v0", first), run("v1", later), run("v2", first), run("v3", later)])
    assert ["v1 goes on" in in_turn[0].notes[0], "v3 goes on" in in_turn[1].notes[0]] == [True, True]  # fmt: skip
    last = join_resumed([run("v0", first), run("v1", first), run("v2", later)])
    assert [found.title for found in last] == ["v0", "v1"] and "v2 goes on" in last[1].notes[0]


def test_several_that_go_on_from_one_are_not_put_together():
    found = join_resumed([run("v0", range(15)), run("v1", range(15, 25)), run("v2", range(15, 25))])
    assert [one.title for one in found] == ["v0", "v1", "v2"]
    assert (
        "'v1', 'v2' may each go on with the same run: they were not put together with it."
        in found[1].notes
    )


def test_steps_that_were_counted_anew_are_not_used():
    first = run("a", range(10), steps=np.arange(10) * 5)
    anew = run("b", range(10, 20), steps=np.arange(10) * 5)
    on = run("b", range(10, 20), steps=np.arange(10, 20) * 5)
    (found,) = join_resumed([first, anew])
    assert (found.series["val_loss"].step == -1).all()
    losses = align(found, guess_map([found]).map)
    assert losses.axis == "epoch" and losses.at.tolist() == list(range(20))
    (found,) = join_resumed([first, on])
    assert found.series["val_loss"].step.tolist() == (np.arange(20) * 5).tolist()


def test_many_runs_that_begin_everywhere_take_no_time():
    runs = [run(f"r{i}", [3.0 * i, 3.0 * i + 0.1]) for i in range(300)]
    assert len(join_resumed(runs)) == 300
