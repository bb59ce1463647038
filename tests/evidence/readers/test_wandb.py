"""Exports of Weights & Biases: panels, which hold one number each, and histories."""

import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import write


def panel(metric, runs=("sweep-1", "sweep-2")):
    head = ["Step"]
    for run in runs:
        head += [f"{run} - {metric}", f"{run} - {metric}__MIN", f"{run} - {metric}__MAX"]
    lines = [",".join(f'"{name}"' for name in head)]
    for i in range(4):
        lines.append(
            ",".join(
                f'"{v}"' for v in [10 * i, *[2 - i / 10] * 3, *([1] * 3 if i < 3 else [""] * 3)]
            )
        )
    return "\n".join(lines) + "\n"


def test_panels_of_one_run_are_put_together(tmp_path):
    first = write(tmp_path / "train.csv", panel("train/loss"))
    second = write(tmp_path / "val.csv", panel("val/loss"))
    runs = read_runs([first, second])
    assert [run.title for run in runs] == ["sweep-1", "sweep-2"]
    assert sorted(runs[0].series) == ["train/loss", "val/loss"]
    assert runs[0].series["val/loss"].value.tolist() == [2.0, 1.9, 1.8, 1.7]
    assert runs[1].series["val/loss"].step.tolist() == [0, 10, 20]


def test_a_history(tmp_path):
    text = ",_step,_runtime,_timestamp,epoch,train/loss,val/loss\n" + "".join(
        f"{i},{i},1,2,{i},{2 - i},{'' if i % 2 else 1}\n" for i in range(4)
    )
    (run,) = read_runs(write(tmp_path / "history.csv", text))
    assert run.format == "W&B history" and sorted(run.series) == ["train/loss", "val/loss"]
    assert run.series["val/loss"].step.tolist() == [0, 2]


def test_no_numbers(tmp_path):
    with pytest.raises(LogError, match="no run has numbers"):
        read_runs(write(tmp_path / "a.csv", '"Step","a - loss","a - loss__MIN"\n1,,\n'))
