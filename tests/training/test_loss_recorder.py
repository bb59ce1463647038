from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmaudit import evaluate_coalitions
from mmaudit.evidence.loss_file import map_path, recorded_map
from mmaudit.evidence.loss_map import read_map
from mmaudit.evidence.loss_names import guess_map
from mmaudit.evidence.losses import align
from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import DataError, ModelError, RecordError, SpecError
from mmaudit.masking.spec import MaskingSpec
from mmaudit.measures.mono_modal_response import summarise_responses
from mmaudit.measures.ogr import best_checkpoints, first_overfitting
from mmaudit.training import LossRecorder
from tests.training.overfitting import AWAKE, EPOCHS, HEADS, SPEC, TwoHeads, samples, train

TRAIN, VALIDATION = samples(60, 0), samples(150, 1)


def recorder(path, spec=SPEC, *, splits=(TRAIN, VALIDATION), **options):
    options = {"train_samples": "all", **options}
    return LossRecorder(path, spec, train=splits[0], validation=splits[1], **options)


def rows_of(path, split=None):
    rows = [json.loads(line) for line in path.read_text().splitlines()][1:]
    return [row for row in rows if split in (None, row["split"])]


@pytest.mark.parametrize("heads", [None, {"noise": "by_noise"}, HEADS])
def test_losses_are_those_of_heads_and_responses(tmp_path, heads):
    torch.manual_seed(1)
    model = TwoHeads()
    found = recorder(tmp_path / "losses.jsonl", heads=heads).record(model, step=0, epoch=0)
    spec = MaskingSpec.model_validate(SPEC)
    for split, data in (("train", TRAIN), ("validation", VALIDATION)):
        with torch.no_grad():
            out = model.eval()(data["signal"], data["noise"])
        coalitions = evaluate_coalitions(model, data, spec, optimize=False)
        logits = np.stack([coalitions[spec.coalition(c)].numpy() for c in range(4)])
        responses = summarise_responses(logits, data["y"].numpy(), "exact").loss
        expected = {"joint": F.cross_entropy(out["logits"], data["y"]).item()}
        for m, name in enumerate(("signal", "noise")):
            own = name in (heads or {})
            scores = F.cross_entropy(out[f"by_{name}"], data["y"]).item()
            expected[name] = scores if own else responses[m]
        for head, value in expected.items():
            assert found[f"{split}/{head}_loss"] == pytest.approx(value, rel=1e-5)


def test_the_log_says_what_it_is_and_readers_take_it(tmp_path):
    path = tmp_path / "losses.jsonl"
    log = recorder(path, heads={"noise": "by_noise"}, train_samples="matched")
    train(lambda model, step, epoch: log.record(model, step=step, epoch=epoch), epochs=6)
    about = json.loads(path.read_text().splitlines()[0])
    assert "noise: its own head, 'by_noise'" in about["heads"]
    assert "signal: its mono-modal Shapley response" in about["heads"]
    assert "60 samples" in about["train"] and "150 samples" in about["validation"]
    (run,) = read_runs(path)
    guessed = guess_map([run])
    assert guessed.map.heads == recorded_map(["signal", "noise"]).heads
    assert guessed.map.joint_head == "joint"
    assert read_map(map_path(path)) == recorded_map(["signal", "noise"])
    losses = align(run, guessed.map)
    assert losses.axis == "epoch" and losses.at.tolist() == list(range(7))
    assert losses.heads == ("signal", "noise", "joint") and not losses.unusable
    assert losses.window == "train loss as logged at each checkpoint"


def test_the_overfitting_head_is_found_at_its_epoch(tmp_path):
    path = tmp_path / "losses.jsonl"
    log = recorder(path)
    train(lambda model, step, epoch: log.record(model, step=step, epoch=epoch))
    (run,) = read_runs(path)
    losses = align(run, read_map(map_path(path)))
    first = dict(zip(losses.heads, first_overfitting(losses.train, losses.validation), strict=True))
    assert losses.at[first["noise"]] == AWAKE + 1
    assert first["signal"] is None
    assert best_checkpoints(losses.validation)[0] > AWAKE and len(losses.at) == EPOCHS + 1


def test_a_training_does_not_notice(tmp_path):
    class Shuffled(Dataset):
        def __len__(self):
            return 60

        def __getitem__(self, i):
            # Augmentation that draws from every global generator.
            drawn = torch.rand(()) + random.random() + np.random.random()
            return {k: v[i] + 0.01 * drawn if k != "y" else v[i] for k, v in TRAIN.items()}

    def weights(watch):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        model = TwoHeads(dropout=0.4)
        model.signal.eval()  # frozen on purpose
        loader = DataLoader(Shuffled(), 16, shuffle=True)
        log = None
        if watch:
            log = recorder(tmp_path / "losses.jsonl", splits=(loader, VALIDATION), every=1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for step, batch in enumerate([b for _ in range(3) for b in loader], 1):
            optimizer.zero_grad()
            F.cross_entropy(model(batch["signal"], batch["noise"])["logits"], batch["y"]).backward()
            if log is not None:
                before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
                log.record(model, step=step)
                log.norms(model, step=step)
                after = [p.grad for p in model.parameters() if p.grad is not None]
                assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
                assert not model.signal.training and model.noise.training
            optimizer.step()
        return model.state_dict(), torch.rand(1), random.random(), np.random.random()

    plain, *streams = weights(False)
    watched, *same = weights(True)
    assert all(torch.equal(plain[key], watched[key]) for key in plain)
    assert streams == same


def test_a_restarted_run_goes_on_where_it_starts_again(tmp_path):
    path, model = tmp_path / "losses.jsonl", TwoHeads()
    log = recorder(path)
    for epoch in range(4):
        log.record(model, step=10 * epoch, epoch=epoch)
    with path.open("a") as file:
        file.write('{"step": 31, "epo')
    with pytest.raises(RecordError, match="resume=True"):
        recorder(path)
    with pytest.raises(RecordError, match="another 'heads'"):
        recorder(path, heads=HEADS, resume=True)
    with pytest.raises(RecordError, match="another 'train'"):
        recorder(path, resume=True, train_samples=20)
    again = recorder(path, resume=True)
    again.record(model, step=20, epoch=2)
    assert [row["step"] for row in rows_of(path, "train")] == [0] * 3 + [10] * 3 + [20] * 3
    again.record(model, step=30, epoch=3)
    assert [row["epoch"] for row in rows_of(path, "cost")][::3] == [0, 1, 2, 3]


def test_foreign_files_are_not_written_over(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "value": 2}\n')
    with pytest.raises(RecordError, match="no log that a recorder wrote"):
        recorder(path, resume=True)
    path.write_text("epoch,loss\n1,2\n3,4\n")
    with pytest.raises(RecordError, match="line 1"):
        recorder(path, resume=True)


def test_only_some_epochs_and_samples(tmp_path):
    path = tmp_path / "losses.jsonl"
    log = recorder(path, every=2, train_samples=20, validation_samples=30)
    told = [log.record(TwoHeads(), step=epoch, epoch=epoch) for epoch in range(4)]
    assert [value is not None for value in told] == [True, False, True, False]
    about = json.loads(path.read_text().splitlines()[0])
    assert about["train"].startswith("20 of 60 samples of arrays in memory")
    assert about["validation"].startswith("30 of 150 samples")
    assert log.cost.records == 2 and 0 < log.cost.share <= 1 and log.cost.seconds > 0
    assert 1 <= log.cost.passes < 3
    named = {row["name"] for row in rows_of(path, "cost")}
    assert named == {"passes", "seconds", "share"}


def test_own_heads_of_all_modalities_take_one_pass(tmp_path):
    model, calls = TwoHeads(), []
    model.register_forward_hook(lambda module, args, out: calls.append(len(out["logits"])))
    log = recorder(tmp_path / "losses.jsonl", heads=HEADS)
    log.record(model, step=0)
    assert sum(calls) == 60 + 150 and log.cost.passes == 1


def test_responses_take_little_more_than_a_pass(tmp_path):
    model, rows = TwoHeads(), []
    model.noise[0].register_forward_hook(lambda module, args, out: rows.append(len(out)))
    log = recorder(tmp_path / "losses.jsonl", heads={"noise": "by_noise"})
    log.record(model, step=0)
    first = sum(rows)
    rows.clear()
    log.record(model, step=1)
    # Every sample once, and a few rows for masked inputs and the comparison with brute force.
    assert 210 <= sum(rows) <= 210 + 30 < 2 * 210
    assert first <= 210 + 80


@pytest.mark.parametrize("kind", ["loader", "stream", "batches", "iterator"])
def test_data_of_every_kind(tmp_path, kind):
    rows = [{k: v[i] for k, v in TRAIN.items()} for i in range(60)]

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(rows)

    batches = [{k: v[i : i + 20] for k, v in TRAIN.items()} for i in (0, 20, 40)]
    data = {
        "loader": DataLoader(rows, 16, shuffle=True),
        "stream": DataLoader(Stream(), 16),
        "batches": batches,
        "iterator": iter(batches),
    }[kind]
    torch.manual_seed(0)
    model = TwoHeads()
    expected = recorder(tmp_path / "a.jsonl").record(model, step=0)
    log = recorder(tmp_path / "b.jsonl", splits=(data, VALIDATION))
    for step in range(2):  # a second time, too
        assert log.record(model, step=step) == pytest.approx(expected, rel=1e-5)
    few = recorder(tmp_path / "c.jsonl", splits=(batches, VALIDATION), train_samples=20)
    assert few.record(model, step=0)["train/joint_loss"] != expected["train/joint_loss"]


def test_other_processes_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    log = LossRecorder(tmp_path / "losses.jsonl", SPEC, train=None, validation=None)
    assert log.record(TwoHeads(), step=0) is None
    log.norms(TwoHeads(), step=1)
    assert not list(tmp_path.iterdir())


def test_a_diverged_model_is_recorded_as_such(tmp_path):
    path, model = tmp_path / "losses.jsonl", TwoHeads()
    log = recorder(path)
    log.record(model, step=0, epoch=0)
    with torch.no_grad():
        model.noise[0].weight.fill_(float("nan"))
    found = log.record(model, step=1, epoch=1)
    assert math.isnan(found["train/joint_loss"]) and math.isnan(found["validation/noise_loss"])
    left_out = [row for row in rows_of(path) if row["name"] == "nonfinite_samples"]
    assert [(row["split"], row["value"]) for row in left_out] == [
        ("train", 60),
        ("validation", 150),
    ]
    (run,) = read_runs(path)
    assert np.isnan(run.series["train/joint_loss"].value).tolist() == [False, True]


class Summed(nn.Module):
    def __init__(self, M, outputs=3):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(2, outputs) for _ in range(M)])

    def forward(self, batch):
        return sum(part(batch[f"x{m}"]) for m, part in enumerate(self.parts))


@pytest.mark.parametrize("M", [1, 3, 5, 12])
def test_any_number_of_modalities(tmp_path, M):
    torch.manual_seed(M)
    n = 12
    data = {f"x{m}": torch.randn(n, 2) for m in range(M)} | {"y": torch.arange(n) % 3}
    spec = {"modalities": {f"m{m}": f"x{m}" for m in range(M)}, "target": "y"}
    model = Summed(M)
    found = recorder(tmp_path / "losses.jsonl", spec, splits=(data, data)).record(model, step=0)
    assert len(found) == 2 * (M + 1)
    for m, part in enumerate(model.parts):
        # Of a sum, the response is what the part adds to its bias.
        response = part(data[f"x{m}"]) - part.bias
        expected = F.cross_entropy(response, data["y"]).item()
        assert found[f"train/m{m}_loss"] == pytest.approx(expected, rel=1e-4)


def test_regression_and_missing_modalities(tmp_path):
    torch.manual_seed(0)
    n = 20
    data = {"x0": torch.randn(n, 2), "x1": torch.randn(n, 2), "y": torch.randn(n)}
    data["x1"][::2] = float("nan")
    spec = {
        "modalities": {"one": "x0", "other": {"inputs": "x1", "mask": "mean"}},
        "target": "y",
        "task": "regression",
    }
    model = Summed(2, outputs=1)
    found = recorder(tmp_path / "losses.jsonl", spec, splits=(data, data)).record(model, step=0)
    mean = data["x1"][1::2].mean(0)
    with torch.no_grad():
        first, second = model.parts[0](data["x0"]), model.parts[1](data["x1"].where(~data["x1"].isnan(), mean))  # fmt: skip
        empty = model.parts[0].bias + model.parts[1](mean)
        other = (empty + second - model.parts[1](mean))[1::2, 0]
    target = data["y"]
    assert found["train/joint_loss"] == pytest.approx(F.mse_loss((first + second)[:, 0], target).item(), rel=1e-4)  # fmt: skip
    assert found["train/other_loss"] == pytest.approx(F.mse_loss(other, target[1::2]).item(), rel=1e-4)  # fmt: skip


def test_a_gate_that_opens_later_is_seen(tmp_path):
    class Gated(nn.Module):
        """At its start the second modality changes nothing, so that the fusion looks like an encoder of the first."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(64, 3)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, signal, noise):
            return {"logits": self.first(signal) * (1 + self.gate * self.second(noise))}

    torch.manual_seed(0)
    model = Gated()
    log = recorder(tmp_path / "losses.jsonl")
    log.record(model, step=0)
    with torch.no_grad():
        model.gate.fill_(2.0)
    found = log.record(model, step=1)
    assert found == pytest.approx(recorder(tmp_path / "new.jsonl").record(model, step=1), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": {"sound": "x"}}, "'sound' is no modality; there are signal, noise"),
        ({"heads": {"signl": "x"}}, "did you mean 'signal'"),
        ({"heads": {"signal": 3}}, "expected the path"),
        ({"heads": ["signal"]}, "heads is a list; expected a mapping"),
        ({"empty": "none"}, "empty is 'none'; expected one of exact, zero"),
        ({"seed": -1}, "seed is -1"),
        ({"every": 0}, "every is 0"),
        ({"train_samples": "some"}, "'matched' or 'all'"),
        ({"validation_samples": 0}, "validation_samples is 0"),
        ({"precision": "int8"}, "precision 'int8' is none"),
        ({"spec": {"modalities": {"joint": "signal"}, "target": "y"}}, "'joint'"),
        ({"spec": {"modalities": {"signal": "signal"}}}, "needs labels"),
    ],
)
def test_what_cannot_be_meant(tmp_path, options, said):
    with pytest.raises(SpecError, match=said):
        recorder(tmp_path / "losses.jsonl", **options)


@pytest.mark.parametrize(
    "place",
    [
        {"step": -1},
        {"step": 1.5},
        {"step": "x"},
        {"step": True},
        {"step": 0, "epoch": math.nan},
        {"step": 0, "epoch": -1},
        {"step": 0, "epoch": "1"},
    ],
)
def test_places_that_are_none(tmp_path, place):
    log = recorder(tmp_path / "losses.jsonl")
    for measure in (log.record, log.norms):
        with pytest.raises(SpecError, match="expected the number of"):
            measure(TwoHeads(), **place)
    assert not (tmp_path / "losses.jsonl").exists()


def test_numbers_of_other_libraries_and_parts_of_epochs(tmp_path):
    path, model = tmp_path / "losses.jsonl", TwoHeads()
    log = recorder(path, every=2)
    log.record(model, step=torch.tensor(3), epoch=np.float32(2))
    assert log.record(model, step=np.int64(4), epoch=2.5) is None
    log.record(model, step=5, epoch=sum([0.1] * 40))
    assert [(row["step"], row["epoch"]) for row in rows_of(path, "train")][::3] == [
        (3, 2),
        (5, pytest.approx(4)),
    ]


def test_a_training_that_goes_back(tmp_path):
    path, model = tmp_path / "losses.jsonl", TwoHeads()
    log = recorder(path)
    log.record(model, step=20, epoch=2)
    log.norms(model, step=21)
    log.record(model, step=20, epoch=2)  # norms are a series of their own
    held = path.read_text()
    with pytest.raises(RecordError, match="step 10 lies before step 20"):
        log.record(model, step=10, epoch=1)
    assert path.read_text() == held
    again = recorder(path, resume=True)
    for epoch in (3, 4, 1, 2):
        again.record(model, step=10 * epoch, epoch=epoch)
    assert [row["step"] for row in rows_of(path, "train")][::3] == [10, 20]


def test_a_training_under_autocast_does_not_change_the_losses(tmp_path):
    torch.manual_seed(0)
    model = TwoHeads()
    plain = recorder(tmp_path / "a.jsonl", heads={"noise": "by_noise"}).record(model, step=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = recorder(tmp_path / "b.jsonl", heads={"noise": "by_noise"}).record(model, step=0)
    assert inside == plain


@pytest.mark.parametrize("heads", [HEADS, {"noise": "by_noise"}])
def test_heads_are_compared_on_the_same_samples(tmp_path, heads):
    class Broken(TwoHeads):
        """The head of the noise has no answer to two samples, which the joint output has."""

        def forward(self, signal, noise):
            out = super().forward(signal, noise)
            lost = (noise[:, :1] - lost_at).abs().min(1, keepdim=True).values < 1e-6
            return {**out, "by_noise": out["by_noise"].masked_fill(lost, float("nan"))}

    lost_at = TRAIN["noise"][[3, 40], 0]
    torch.manual_seed(0)
    path, model = tmp_path / "losses.jsonl", Broken()
    found = recorder(path, heads=heads).record(model, step=0)
    kept = [i for i in range(60) if i not in (3, 40)]
    with torch.no_grad():
        out = model(TRAIN["signal"][kept], TRAIN["noise"][kept])
    for head, name in (("joint", "logits"), ("noise", "by_noise")):
        expected = F.cross_entropy(out[name], TRAIN["y"][kept]).item()
        assert found[f"train/{head}_loss"] == pytest.approx(expected, rel=1e-5)
    (left_out,) = [row for row in rows_of(path) if row["name"] == "nonfinite_samples"]
    assert (left_out["split"], left_out["value"]) == ("train", 2)


def test_heads_and_data_that_are_not_there(tmp_path):
    log = recorder(tmp_path / "a.jsonl", heads={"signal": "by_sight"})
    with pytest.raises(ModelError, match="the scores of signal are not at 'by_sight'"):
        log.record(TwoHeads(), step=0)
    with pytest.raises(DataError):
        recorder(tmp_path / "b.jsonl", splits=({"signal": TRAIN["signal"]}, VALIDATION)).record(
            TwoHeads(), step=0
        )
    with pytest.raises(ModelError, match="no torch module"):
        recorder(tmp_path / "c.jsonl").record(lambda signal, noise: signal, step=0)


def test_sharded_models_are_refused(tmp_path):
    class FullyShardedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(ModelError, match="sharded over processes"):
        recorder(tmp_path / "losses.jsonl").record(FullyShardedDataParallel(TwoHeads()), step=0)


_DISTRIBUTED = """
import sys, torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from mmaudit.training import LossRecorder
from tests.training.overfitting import HEADS, SPEC, TwoHeads, samples

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank, folder, watched = torch.distributed.get_rank(), sys.argv[1], sys.argv[2] == "watched"
torch.manual_seed(0)
net = TwoHeads(dropout=0.2)
net.noise[1] = nn.BatchNorm1d(64)
model, data = DistributedDataParallel(net), samples(60, 0)
if watched:
    log = LossRecorder(f"{folder}/losses.jsonl", SPEC, train=data, validation=samples(40, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(1, 7):
    rows = torch.randperm(60)[rank::2]
    out = model(data["signal"][rows], data["noise"][rows])
    optimizer.zero_grad()
    F.cross_entropy(out["logits"] + 0 * out["by_noise"], data["y"][rows]).backward()
    if watched:
        log.norms(model, step=step)
    optimizer.step()
    if watched and step % 2 == 0:
        log.record(model, step=step)
if rank == 0:
    torch.save(net.state_dict(), f"{folder}/{sys.argv[2]}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_that_train_together_do_not_notice(tmp_path):
    script = tmp_path / "distributed.py"
    script.write_text(_DISTRIBUTED)
    root = Path(__file__).parents[2]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    for name in ("plain", "watched"):
        done = subprocess.run(
            [*launcher, script, tmp_path, name], cwd=root, capture_output=True, text=True, timeout=200,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    plain, watched = (torch.load(tmp_path / f"{name}.pt") for name in ("plain", "watched"))
    assert all(torch.equal(plain[key], watched[key]) for key in plain)
    (run,) = read_runs(tmp_path / "losses.jsonl")
    assert run.series["train/joint_loss"].step.tolist() == [2, 4, 6]
    assert run.series["norms/noise own gradient"].step.tolist() == [1, 2, 3, 4, 5, 6]
