"""Event files: every point, several files for a run, live and damaged ones, folders of runs."""

import struct

import numpy as np
import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import events, record
from tests.integration.shared_data import shared_file

pytest.importorskip("tensorboard")
NAME = "events.out.tfevents.{}.host"
POINTS = [("train_loss", i, 2.0 - i / 8) for i in range(8)] + [("val_loss", 7, 1.5)]


def only(path):
    (run,) = read_runs(path)
    return run


@pytest.mark.parametrize(("tensors", "dtype"), [(False, 1), (True, 1), (True, 2)])
def test_scalars_and_tensors(tmp_path, tensors, dtype):
    file = events(tmp_path / "run" / NAME.format(1), POINTS, tensors=tensors, dtype=dtype)
    for path in (file, tmp_path / "run"):
        run = only(path)
        assert run.title == "run"
        np.testing.assert_allclose(run.series["train_loss"].value, 2 - np.arange(8) / 8)
        assert run.series["train_loss"].step.tolist() == list(range(8))


def test_whole_numbers_as_tensors(tmp_path):
    events(
        tmp_path / NAME.format(1), [("n_loss", i, 3 + i) for i in range(3)], tensors=True, dtype=9
    )
    assert only(tmp_path).series["n_loss"].value.tolist() == [3, 4, 5]


def test_what_is_no_scalar_is_left_out(tmp_path):
    proto = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    event = proto.Event(wall_time=1.0, step=1)
    text = event.summary.value.add(tag="text")
    text.tensor.string_val.append(b"hello")
    vector = event.summary.value.add(tag="vector")
    vector.tensor.dtype = 1
    vector.tensor.tensor_shape.dim.add(size=2)
    vector.tensor.float_val.extend([1.0, 2.0])
    hparams = event.summary.value.add(tag="hparams")
    hparams.metadata.plugin_data.plugin_name = "hparams"
    hparams.tensor.dtype = 1
    hparams.tensor.float_val.append(0.0)
    events(tmp_path / NAME.format(1), POINTS, tail=record(event.SerializeToString()))
    assert sorted(only(tmp_path).series) == ["train_loss", "val_loss"]


def test_several_files_of_a_run_in_the_order_in_which_they_were_opened(tmp_path):
    events(tmp_path / NAME.format(1700000009), [("a_loss", i, 1.0) for i in range(5, 8)])
    events(tmp_path / NAME.format(900000000), [("a_loss", i, 0.0) for i in range(6)])
    series = only(tmp_path).series["a_loss"]
    assert series.step.tolist() == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    assert series.value.tolist() == [0.0] * 6 + [1.0] * 3
    assert series.order.tolist() == list(range(9))


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_live_run_ends_with_a_torn_record(tmp_path, cut):
    events(tmp_path / NAME.format(1), POINTS, mutate=lambda data: data[:-cut])
    run = only(tmp_path)
    assert len(run.series["train_loss"].value) == 8 and run.notes == ()


@pytest.mark.parametrize("place", [-1, -6, -20])
def test_damage_is_noted(tmp_path, place):
    def flip(data):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        return bytes(broken)

    events(tmp_path / NAME.format(1), POINTS, mutate=flip)
    run = only(tmp_path)
    assert len(run.series["train_loss"].value) == 8
    assert "damaged" in run.notes[0]


@pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1])
def test_a_length_that_is_a_lie_takes_no_memory(tmp_path, length):
    checksum = pytest.importorskip(
        "tensorboard.compat.tensorflow_stub.pywrap_tensorflow"
    ).masked_crc32c
    head = struct.pack("<Q", length)
    tail = head + struct.pack("<I", checksum(head)) + b"x" * 20
    events(tmp_path / NAME.format(1), POINTS, tail=tail)
    assert len(only(tmp_path).series["train_loss"].value) == 8


def test_many_runs_below_a_folder(tmp_path):
    for name in ("a/version_0", "a/version_1", "b"):
        events(tmp_path / name / NAME.format(1), POINTS)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / NAME.format(1)).write_bytes(b"")
    assert [run.title for run in read_runs(tmp_path)] == ["a/version_0", "a/version_1", "b"]


def test_folders_of_one_training_are_one_run(tmp_path):
    """Keras writes a folder for each split."""
    for split in ("train", "validation"):
        events(
            tmp_path / "one" / split / NAME.format(1), [("epoch_loss", i, 1.0) for i in range(3)]
        )
    run = only(tmp_path)
    assert run.title == "one"
    assert sorted(run.series) == ["train/epoch_loss", "validation/epoch_loss"]
    assert "parts of one run" in run.notes[-1]


def test_add_scalars_writes_folders_below_its_run(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"exp{number}"
        events(folder / NAME.format(1), [("lr", i, 0.1) for i in range(3)])
        for name in ("loss_audio_train", "loss_audio_val"):
            events(folder / name / NAME.format(1), [("loss", i, 1.0 * number) for i in range(3)])
    runs = read_runs(tmp_path)
    assert [run.title for run in runs] == ["exp1", "exp2"]
    assert sorted(runs[1].series) == ["loss_audio_train/loss", "loss_audio_val/loss", "lr"]
    assert sorted(only(tmp_path / "exp1").series) == sorted(runs[0].series)


def test_lightnings_epochs_and_rows_after_the_training(tmp_path):
    points = []
    for e in range(3):
        points += [
            (tag, 10 * e + 9, v)
            for tag, v in (("train_loss", 1.0), ("val_loss", 1.1), ("epoch", e))
        ]
    points += [("val_loss", 30, 9.0), ("epoch", 30, 3.0)]
    events(tmp_path / NAME.format(1), points)
    run = only(tmp_path)
    assert run.series["val_loss"].epoch.tolist() == [0, 1, 2]
    assert "1 row after the training" in run.notes[0]


def test_steps_that_were_never_told_count_nothing(tmp_path):
    events(tmp_path / NAME.format(1), [("a_loss", 0, float(i)) for i in range(4)])
    assert (only(tmp_path).series["a_loss"].step == -1).all()


def test_all_points_of_a_real_log():
    folder = shared_file(
        "logs/tensorboard/labeled_contrastive/events.out.tfevents.1713773043.host.0"
    ).parent
    run = only(folder)
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert len(run.series["train_loss"].value) == 7738 and len(run.series["val_loss"].value) == 100
    for tag in ("train_loss", "val_loss"):
        theirs = accumulator.Scalars(tag)
        assert run.series[tag].value.tolist() == [point.value for point in theirs]
        assert run.series[tag].step.tolist() == [point.step for point in theirs]


@pytest.mark.parametrize("data", [b"", b"x" * 500])
def test_no_scalars(tmp_path, data):
    (tmp_path / NAME.format(1)).write_bytes(data)
    with pytest.raises(LogError, match="no scalars"):
        read_runs(tmp_path)


def test_folders_of_splits_of_several_runs_have_the_same_series(tmp_path):
    for seed in (0, 1):
        for split in ("train", "val"):
            events(
                tmp_path / f"seed{seed}_{split}" / NAME.format(1), [("loss", i, 1.0) for i in range(3)]
            )  # fmt: skip
    runs = read_runs(tmp_path)
    assert [run.title for run in runs] == ["seed0", "seed1"]
    assert all(sorted(run.series) == ["train/loss", "val/loss"] for run in runs)


def test_a_damaged_file_is_named_and_hides_no_other_run(tmp_path):
    for name in ("a", "b", "c"):
        events(tmp_path / name / NAME.format(1), POINTS)
    (tmp_path / "a" / NAME.format(1)).write_bytes(b"\x07" * 3000)
    whole = (tmp_path / "b" / NAME.format(1)).read_bytes()
    (tmp_path / "b" / NAME.format(1)).write_bytes(whole[:300] + b"\xff" * 40 + whole[340:])
    runs = read_runs(tmp_path)
    assert [run.title for run in runs] == ["b", "c"]
    assert all(any("is damaged" in note for note in run.notes) for run in runs)
    runs = read_runs([tmp_path / "a", tmp_path / "c"])
    assert [run.title for run in runs] == ["c"] and "1 log that cannot be read" in runs[0].notes[-1]
