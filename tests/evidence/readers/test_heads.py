"""Runs that are called after modalities are heads of one model; any others stay repeats."""

import pytest

from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.readers import read_runs
from tests.evidence.readers.logs import csv_text, events, write


def logs(folder, *names):
    return [write(folder / f"{name}.csv", csv_text()) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("audio", "image", "fusion"),
        ("audio/log", "image/log", "multimodal/log"),
        ("audio_only", "text_only", "joint"),
        ("exp_a", "exp_v", "exp_av"),
        ("audio/version_3/metrics", "image/version_4/metrics", "fusion/version_9/metrics"),
    ],
)
def test_a_log_for_each_head(tmp_path, names):
    paths = logs(tmp_path / "logs", *names)
    for given in (paths, tmp_path / "logs"):
        (run,) = read_runs(given)
        assert "taken for heads of one model" in run.notes[-1]
        found = guess_map([run]).map
        assert len(found.heads) == 3 and found.joint_head == "joint"


def test_heads_of_several_runs_and_of_event_files(tmp_path):
    for seed in (0, 1):
        for head in ("audio", "image", "fusion"):
            points = [(tag, i, seed + 0.5) for i in range(3) for tag in ("train_loss", "val_loss")]
            events(tmp_path / f"seed{seed}" / head / "events.out.tfevents.1.h", points)
    runs = read_runs(tmp_path)
    assert [run.title for run in runs] == ["seed0", "seed1"]
    assert runs[1].series["audio/val_loss"].value.tolist() == [1.5, 1.5, 1.5]
    assert set(guess_map(runs).map.heads) == {"audio", "image", "joint"}


@pytest.mark.parametrize(
    "names",
    [
        ("seed0", "seed1"),
        ("baseline", "fusion"),
        ("audio", "image"),
        ("fusion", "joint"),
        ("audio", "fusion", "other"),
        ("audio1", "audio2", "fusion"),
        ("fusion_1", "fusion_2"),
    ],
)
def test_other_runs_stay_apart(tmp_path, names):
    assert len(read_runs(logs(tmp_path, *names))) == len(names)


def test_runs_with_heads_of_their_own_stay_apart(tmp_path):
    text = csv_text().replace("train_loss", "train_x_loss").replace("val_loss", "val_x_loss")
    for name in ("audio", "fusion"):
        write(tmp_path / f"{name}.csv", text)
    assert len(read_runs(tmp_path)) == 2
