"""A Trainer's state: several evaluation sets, checkpoints in folders, the summary at the end."""

import json

import pytest

from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import LogError
from tests.evidence.readers.logs import write
from tests.integration.shared_data import shared_file


def state(epochs):
    rows = []
    for e in range(1, epochs + 1):
        rows.append({"epoch": e, "step": 10 * e, "loss": 2 - e / 10, "learning_rate": 0.1})
        for name in ("a", "b"):
            rows.append(
                {"epoch": e, "step": 10 * e, f"eval_{name}_loss": 2.0, f"eval_{name}_runtime": 3}
            )
    rows.append({"epoch": epochs, "step": 10 * epochs, "train_loss": 1.4, "train_runtime": 9.0})
    return json.dumps({"best_metric": None, "log_history": rows})


def test_evaluation_sets_and_no_summary(tmp_path):
    (run,) = read_runs(write(tmp_path / "run1" / "trainer_state.json", state(3)))
    assert run.title == "run1"
    assert sorted(run.series) == ["eval_a_loss", "eval_b_loss", "learning_rate", "loss"]
    assert run.series["loss"].epoch.tolist() == [1, 2, 3]


def test_the_newest_checkpoint_of_every_run(tmp_path):
    write(tmp_path / "x" / "checkpoint-20" / "trainer_state.json", state(2))
    write(tmp_path / "x" / "checkpoint-100" / "trainer_state.json", state(5))
    write(tmp_path / "y" / "checkpoint-10" / "trainer_state.json", state(1))
    write(tmp_path / "y" / "trainer_state.json", state(4))
    runs = read_runs(tmp_path)
    assert [(run.title, len(run.series["loss"].value)) for run in runs] == [("x", 5), ("y", 4)]


def test_a_real_log():
    (run,) = read_runs(shared_file("logs/huggingface/trainer_state.json"))
    sets = [name for name in run.series if name.startswith("eval_") and name.endswith("_loss")]
    assert len(sets) == 6 and all(len(run.series[name].value) == 31 for name in sets)
    assert len(run.series["loss"].value) == 30


@pytest.mark.parametrize("text", ["{}", '{"log_history": 3}', '{"log_history": [1]}', "{", "[]"])
def test_no_state(tmp_path, text):
    with pytest.raises(LogError, match="no state of a Hugging Face Trainer"):
        read_runs(write(tmp_path / "trainer_state.json", text))


def test_a_torn_state_is_named_once(tmp_path):
    with pytest.raises(LogError, match="Trainer: it is no JSON document") as caught:
        read_runs(write(tmp_path / "trainer_state.json", state(2)[:-30]))
    assert str(caught.value).count("trainer_state.json") == 1
