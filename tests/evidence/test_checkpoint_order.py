from __future__ import annotations

import json

import pytest

from mmaudit.evidence.checkpoint_order import find_checkpoints
from mmaudit.exceptions import SpecError


def places(folder, names, pattern="*"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return find_checkpoints(str(folder / pattern))


@pytest.mark.parametrize(
    ("names", "ordered", "order"),
    [
        (["epoch10.pt", "epoch2.pt", "epoch1.pt"], [(1, None), (2, None), (10, None)], "epochs"),
        (
            ["epoch=0-step=30.ckpt", "epoch=1-step=60.ckpt", "epoch=0-step=15.ckpt"],
            [(0, 15), (0, 30), (1, 60)],
            "epochs",
        ),
        (["model_step_500.pt", "model_step_60.pt"], [(None, 60), (None, 500)], "steps"),
        (["net-3.safetensors", "net-20.safetensors"], [(3, None), (20, None)], "last numbers"),
        (
            ["mlp2_epoch_3_acc_0.91.pt", "mlp2_epoch_12_acc_0.88.pt"],
            [(3, None), (12, None)],
            "epochs",
        ),
        (["first.pt", "second.pt"], [(0, None), (1, None)], "order of the names"),
        (["Epoch 3.pt", "Epoch 11.pt"], [(3, None), (11, None)], "epochs"),
        (["epoch=0.5.ckpt", "epoch=1.25.ckpt"], [(0.5, None), (1.25, None)], "epochs"),
        # A score with a point, and a number that all names have, order nothing.
        (["e1_loss0.53.pt", "e2_loss0.43.pt"], [(1, None), (2, None)], "last numbers"),
        (["2-resnet18.pt2", "10-resnet18.pt2"], [(2, None), (10, None)], "last numbers"),
        (["part_1_of_3.pt", "part_3_of_3.pt"], [(1, None), (3, None)], "last numbers"),
        (["net.9", "net.10"], [(9, None), (10, None)], "last numbers"),
    ],
)
def test_checkpoints_come_in_the_order_of_the_training(tmp_path, names, ordered, order):
    found, said = places(tmp_path, names)
    assert [(place.epoch, place.step) for place in found] == ordered
    assert order in said


def test_folders_say_it_in_their_names_or_by_themselves(tmp_path):
    for step, epoch in ((20, 2.0), (100, 10.0), (5, 0.5)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(
            json.dumps({"epoch": epoch, "global_step": step})
        )
    found, _ = find_checkpoints(tmp_path / "checkpoint-*")
    assert [(place.epoch, place.step) for place in found] == [(0.5, 5), (2, 20), (10, 100)]
    nested, _ = places(tmp_path / "run", ["epoch_2/w.pt", "epoch_10/w.pt"], "**/*.pt")
    assert [place.epoch for place in nested] == [2, 10]
    assert [place.label for place in nested] == ["epoch_2/w.pt", "epoch_10/w.pt"]


def test_several_patterns_and_one_file(tmp_path):
    places(tmp_path, ["epoch1.pt", "epoch2.pt", "epoch3.pt"])
    found, _ = find_checkpoints(
        [str(tmp_path / "epoch[12].pt"), tmp_path / "epoch2.pt", tmp_path / "epoch3.pt"]
    )
    assert [place.epoch for place in found] == [1, 2, 3]
    (single,), _ = find_checkpoints(tmp_path / "epoch3.pt")
    assert single.label == "epoch3.pt"


def test_one_file_named_twice_is_one(tmp_path, monkeypatch):
    places(tmp_path, ["epoch1.pt", "epoch2.pt"])
    monkeypatch.chdir(tmp_path)
    found, _ = find_checkpoints(["epoch1.pt", str(tmp_path / "*.pt")])
    assert [place.epoch for place in found] == [1, 2]


def test_brackets_in_names_are_letters_where_such_a_file_is_there(tmp_path):
    places(tmp_path, ["run[1]/ep[2].pt", "run[1]/ep[10].pt"], "**/*.pt")
    found, _ = find_checkpoints([tmp_path / "run[1]" / "ep[10].pt", tmp_path / "run[1]" / "ep[2].pt"])  # fmt: skip
    assert [place.path.name for place in found] == ["ep[2].pt", "ep[10].pt"]


def test_numbers_of_folders_count(tmp_path):
    found, _ = places(tmp_path, ["9/model.pt", "10/model.pt"], "*/model.pt")
    assert [place.epoch for place in found] == [9, 10]


def test_a_folder_of_checkpoints_is_none(tmp_path):
    places(tmp_path, ["run/a.ckpt", "run/b.ckpt"], "**/*.ckpt")
    with pytest.raises(SpecError, match=r"folder of 2 checkpoints.*run/\*\.ckpt'"):
        find_checkpoints(tmp_path / "run")
    with pytest.raises(SpecError, match="no checkpoints are named"):
        find_checkpoints([])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["epoch1.pt", "last.pt"], "'last.pt' says no epoch in its name where 'epoch1.pt' does"),
        (["epoch=1.ckpt", "epoch=1-v1.ckpt"], "say the same epoch"),
        ([], "no checkpoint matches"),
        (["model_1.pt", "model_2.pt", "model_final.pt"], "are not named alike"),
        (["a1b2.pt", "a2b1.pt"], "several numbers that would order them differently"),
        (["seed1_5.pt", "seed1_6.pt", "seed2_5.pt"], "no number of their own"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, names, said):
    with pytest.raises(SpecError, match=said):
        places(tmp_path, names)
