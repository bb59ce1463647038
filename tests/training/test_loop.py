from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from mmaudit.exceptions import CheckpointError, DataError, ModelError, SpecError
from mmaudit.training import Recipe, accuracy, cross_entropy, read_history, train
from mmaudit.training.order import epoch_batches
from tests.training.subject import RECIPE, build, data, run

ROOT = Path(__file__).parents[2]


def weights(path):
    return load_file(path / "last.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_losses_are_those_of_the_model_on_every_sample(tmp_path):
    model = build()
    result = run(tmp_path, model=model)
    history = read_history(tmp_path)
    assert sorted(set(history["epoch"])) == list(range(result.epochs + 1))
    assert result.steps == 8 * result.epochs == history["step"].max()
    samples = data(60, seed=1)
    x, y = torch.stack([s["x"] for s in samples]), torch.stack([s["label"] for s in samples])
    restored = build()
    restored.load_state_dict(load_file(result.weights))
    for candidate in (restored, model):
        candidate.eval()
        logits = candidate(x)
        row = history.query("epoch == @result.best_epoch and split == 'validation'")
        recorded = row.set_index("name")["value"]
        assert recorded["loss"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
        assert recorded["accuracy"] == pytest.approx((logits.argmax(1) == y).double().mean().item())


def test_the_selected_model_is_the_best_on_validation_data(tmp_path):
    model = build()
    result = run(tmp_path, RECIPE.model_copy(update={"lr": 0.2, "clip": None}), model)
    assert result.best_epoch < result.epochs
    assert same(model.state_dict(), load_file(result.weights))
    values = read_history(tmp_path).query("split == 'validation' and name == 'loss' and epoch > 0")
    assert result.best_value == values["value"].min()
    assert result.best_epoch == values["epoch"].iloc[values["value"].argmin()]
    by_score = run(tmp_path / "score", RECIPE.model_copy(update={"monitor": "accuracy"}))
    scores = read_history(tmp_path / "score").query("split == 'validation' and name == 'accuracy'")
    assert by_score.best_value == scores.query("epoch > 0")["value"].max()


def test_patience_ends_a_training_that_no_longer_gets_better(tmp_path):
    recipe = RECIPE.model_copy(update={"lr": 1.0, "epochs": 50, "patience": 2, "clip": None})
    result = run(tmp_path, recipe)
    assert result.epochs == result.best_epoch + 2 < 50


def test_plain_sgd_equals_a_loop_written_out(tmp_path):
    recipe = Recipe(
        optimizer="sgd", lr=0.1, momentum=0.5, weight_decay=0.01, epochs=2, batch_size=50, clip=0.3
    )
    model, mine = build(random_layers=False), build(random_layers=False)
    run(tmp_path, recipe, model)
    samples = data()
    x, y = torch.stack([s["x"] for s in samples]), torch.stack([s["label"] for s in samples])
    optimizer = torch.optim.SGD(mine.parameters(), 0.1, momentum=0.5, weight_decay=0.01)
    for epoch in (1, 2):
        for batch in epoch_batches(120, 50, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(mine(x[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(mine.parameters(), 0.3)
            optimizer.step()
    stored = weights(tmp_path)
    for key, value in mine.state_dict().items():
        torch.testing.assert_close(stored[f"model/{key}"], value, rtol=1e-5, atol=1e-6)


def test_accumulation_takes_the_same_steps(tmp_path):
    for name, accumulation in (("whole", 1), ("parts", 3)):
        run(
            tmp_path / name,
            RECIPE.model_copy(update={"optimizer": "sgd", "accumulation": accumulation}),
            build(random_layers=False),
        )
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-5, atol=1e-6)


@pytest.fixture(autouse=True)
def one_thread():
    """Dropout draws other numbers on other numbers of threads; the killed process runs on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class _StopError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [1, 8, 21])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, optimizer, step):
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "epochs": 4})
    whole = run(tmp_path / "whole", recipe)

    def stop(at):
        if at.step == step:
            raise _StopError

    with pytest.raises(_StopError):
        run(tmp_path / "parts", recipe, progress=stop)
    torch.rand(5)
    parts = run(tmp_path / "parts", recipe, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert same(load_file(whole.weights), load_file(parts.weights))
    assert whole.history.read_text() == parts.history.read_text()
    assert parts.best_value == whole.best_value
    again = run(tmp_path / "parts", recipe, resume=True)
    assert again == parts


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_a_state_to_go_on_from(tmp_path, kind):
    whole = run(tmp_path / "whole")
    command = [sys.executable, "-m", "tests.training.subject", str(tmp_path / "parts")]
    process = subprocess.Popen([*command, "0.02"], cwd=ROOT, stderr=subprocess.DEVNULL)
    history = tmp_path / "parts" / "history.jsonl"
    deadline = time.monotonic() + 60
    while not (history.exists() and '"epoch": 2' in history.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(kind)
    assert process.wait(30) != 0
    state = tmp_path / "parts" / "last.safetensors"
    unfinished, finished = (b'finished\\": ' + word for word in (b"false", b"true"))
    assert unfinished in state.read_bytes()
    parts = run(tmp_path / "parts", resume=True)
    assert parts.history.read_text() == whole.history.read_text()
    assert finished in state.read_bytes()
    assert not list((tmp_path / "parts").glob(".*.tmp"))
    for key, value in load_file(whole.weights).items():
        torch.testing.assert_close(load_file(parts.weights)[key], value, rtol=0, atol=0)


def test_what_belongs_to_the_caller_comes_back(tmp_path):
    model = build()
    model[1].eval()
    frozen = model[1].running_mean.clone()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = random.random(), np.random.rand(), torch.rand(3)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    model[1].momentum = 0.1
    run(tmp_path, model=model)
    assert (random.random(), np.random.rand()) == expected[:2]
    assert torch.equal(torch.rand(3), expected[2])
    assert [m.training for m in model] == [True, False, True, True, True]
    assert torch.equal(model[1].running_mean, frozen)
    assert all(p.grad is None for p in model.parameters())
    evaluated = build().eval()
    run(tmp_path / "evaluated", model=evaluated)
    assert not any(m.training for m in evaluated.modules())
    assert not torch.equal(evaluated[1].running_mean, frozen)


def test_tuples_and_tensor_datasets_train_too(tmp_path):
    samples = data()
    dataset = TensorDataset(
        torch.stack([s["x"] for s in samples]), torch.stack([s["label"] for s in samples])
    )
    result = train(
        build(),
        dataset,
        dataset,
        RECIPE.model_copy(update={"epochs": 1}),
        loss=lambda out, batch: F.cross_entropy(out, batch[1], reduction="none"),
        forward=lambda model, batch: model(batch[0]),
        out=tmp_path,
        device="cpu",
    )
    assert result.epochs == 1


def test_bf16_runs_with_float32_weights(tmp_path):
    seen = []

    class Probe(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    torch.manual_seed(0)
    recipe = RECIPE.model_copy(update={"precision": "bf16", "epochs": 2})
    result = run(tmp_path, recipe, nn.Sequential(Probe(6, 16), nn.ReLU(), nn.Linear(16, 3)))
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in load_file(result.weights).values()} == {torch.float32}


def test_bad_input_is_refused_in_a_sentence(tmp_path):
    def call(train_data=None, *, loss=cross_entropy, recipe=RECIPE, out="a", model=None, **options):
        return train(
            build() if model is None else model,
            data() if train_data is None else train_data,
            data(60),
            recipe,
            loss=loss,
            forward=lambda model, batch: model(batch["x"]),
            out=tmp_path / out,
            device="cpu",
            **options,
        )

    with pytest.raises(SpecError, match="monitors 'acuracy'; measured are loss"):
        call(recipe=RECIPE.model_copy(update={"monitor": "acuracy"}))
    with pytest.raises(DataError, match="train data is empty"):
        call([])
    with pytest.raises(DataError, match="has no length"):
        call(iter(data()))
    with pytest.raises(ModelError, match=r"shape \(16,\), and gave \(\)"):
        call(loss=lambda out, batch: out.sum(), out="scalar")
    broken = data()
    broken[3] = broken[3] | {"x": torch.full((6,), float("nan"))}
    with pytest.raises(ModelError, match="train loss is not finite after epoch 0"):
        call(broken, out="nan")
    with pytest.raises(ModelError, match="training loss is not finite in epoch 1"):
        call(
            recipe=RECIPE.model_copy(update={"lr": 1e30, "clip": None}),
            out="explodes",
            model=build(random_layers=False),
        )
    call(recipe=RECIPE.model_copy(update={"epochs": 1}), out="full")
    with pytest.raises(CheckpointError, match="holds a training: resume it"):
        call(out="full")
    with pytest.raises(CheckpointError, match="another epochs: resume"):
        call(out="full", resume=True)
    with pytest.raises(CheckpointError, match="has 60 and 60: resume with the same data"):
        call(data(60), out="full", resume=True, recipe=RECIPE.model_copy(update={"epochs": 1}))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        call(
            out="full",
            resume=True,
            model=build(random_layers=False),
            recipe=RECIPE.model_copy(update={"epochs": 1}),
        )
    state = tmp_path / "full" / "last.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not readable as a training state"):
        call(out="full", resume=True)


def test_scores_are_recorded_by_name(tmp_path):
    run(tmp_path, RECIPE.model_copy(update={"epochs": 1}))
    assert set(read_history(tmp_path)["name"]) == {"loss", "accuracy"}
    assert accuracy(torch.eye(3), {"label": torch.tensor([0, 1, 0])}).tolist() == [1, 1, 0]


@pytest.mark.slow
def test_loading_in_another_process_changes_nothing(tmp_path):
    recipe = RECIPE.model_copy(update={"epochs": 1})
    here, there = run(tmp_path / "here", recipe), run(tmp_path / "there", recipe, workers=1)
    assert same(load_file(here.weights), load_file(there.weights))


def test_a_process_that_trained_in_another_precision_is_told_so(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        Accelerator(cpu=True, mixed_precision="bf16")
        with pytest.raises(ModelError, match="in a process of its own"):
            run(tmp_path)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
