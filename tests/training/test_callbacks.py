from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mmaudit import learning_speeds
from mmaudit.evidence.loss_map import read_map
from mmaudit.evidence.losses import align
from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import SpecError
from mmaudit.training import LossRecorder, lightning_callback, trainer_callback
from tests.training.overfitting import HEADS, SPEC, TwoHeads, samples


class Rows(Dataset):
    def __init__(self, n=60, seed=0):
        self.data = samples(n, seed)

    def __len__(self):
        return len(self.data["y"])

    def __getitem__(self, i):
        return {name: values[i] for name, values in self.data.items()}


def recorder(path, spec=SPEC, **options):
    return LossRecorder(
        path, spec, train=Rows(), validation=Rows(150, 1), train_samples="all", **options
    )


def losses_of(path):
    (run,) = read_runs(path)
    return align(run, read_map(path.with_name(f"{path.stem}.map.yaml")))


class TestLightning:
    @staticmethod
    def fit(name, callbacks, folder, epochs=3, **options):
        lightning = pytest.importorskip(name, reason=f"{name} is not installed")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = TwoHeads(dropout=0.3)

            def forward(self, batch):
                return self.net(batch["signal"], batch["noise"])

            def training_step(self, batch, number):
                out = self(batch)
                return sum(F.cross_entropy(scores, batch["y"]) for scores in out.values())

            def validation_step(self, batch, number):
                self.log("val_loss", F.cross_entropy(self(batch)["logits"], batch["y"]))

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), 0.01)

        lightning.seed_everything(0, verbose=False)
        module = Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library, about workers and loggers
            trainer = lightning.Trainer(
                max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **options,
            )  # fmt: skip
            trainer.fit(module, DataLoader(Rows(), 20, shuffle=True), DataLoader(Rows(150, 1), 50))
        return module

    @pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
    def test_it_records_every_epoch_and_changes_nothing(self, tmp_path, name):
        plain = self.fit(name, [], tmp_path)
        streams = torch.rand(1)
        log = recorder(tmp_path / "losses.jsonl", heads=HEADS)
        watched = self.fit(name, [lightning_callback(log, norms=2)], tmp_path)
        assert torch.equal(streams, torch.rand(1))
        for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
            assert torch.equal(one, other)
        losses = losses_of(tmp_path / "losses.jsonl")
        assert losses.at.tolist() == [0, 1, 2, 3] and losses.heads == ("signal", "noise", "joint")
        watched.eval()
        data = samples(150, 1)
        with torch.no_grad():
            expected = F.cross_entropy(watched(data)["by_noise"], data["y"]).item()
        assert losses.validation[1, -1] == pytest.approx(expected, rel=1e-5)
        assert learning_speeds(tmp_path / "losses.jsonl").step.tolist() == [2, 4, 6, 8]

    def test_a_part_of_the_module_every_few_steps(self, tmp_path):
        pytest.importorskip("lightning", reason="lightning is not installed")
        log = recorder(tmp_path / "losses.jsonl")
        callback = lightning_callback(log, module="net", steps=4)
        self.fit("lightning.pytorch", [callback], tmp_path, accumulate_grad_batches=1)
        (run,) = read_runs(tmp_path / "losses.jsonl")
        assert run.series["train/joint_loss"].step.tolist() == [0, 4, 8]
        with pytest.raises(SpecError, match="no module 'network'; its parts are net"):
            self.fit("lightning.pytorch", [lightning_callback(recorder(tmp_path / "b.jsonl"), module="network")], tmp_path)  # fmt: skip


class TestTransformers:
    @staticmethod
    def fit(callbacks, folder, **options):
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")

        class Net(TwoHeads):
            def forward(self, signal, noise, y=None):
                out = super().forward(signal, noise)
                if y is not None:
                    out = {"loss": sum(F.cross_entropy(s, y) for s in out.values()), **out}
                return out

        transformers.set_seed(0)
        model = Net(dropout=0.3)
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), num_train_epochs=3, per_device_train_batch_size=20, report_to=[], save_strategy="no",
            disable_tqdm=True, use_cpu=True, logging_strategy="no", remove_unused_columns=False, label_names=["y"], **options,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library
            transformers.Trainer(
                model, arguments, train_dataset=Rows(), callbacks=callbacks
            ).train()
        return model

    def test_it_records_every_epoch_and_changes_nothing(self, tmp_path):
        plain = self.fit([], tmp_path)
        streams = torch.rand(1)
        log = recorder(tmp_path / "losses.jsonl")
        watched = self.fit([trainer_callback(log, norms=3)], tmp_path)
        assert torch.equal(streams, torch.rand(1))
        for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
            assert torch.equal(one, other)
        losses = losses_of(tmp_path / "losses.jsonl")
        assert losses.at.tolist() == [0, 1, 2, 3]
        data = samples(60, 0)
        with torch.no_grad():
            scores = watched.eval()(data["signal"], data["noise"])["logits"]
        assert losses.train[2, -1] == pytest.approx(
            F.cross_entropy(scores, data["y"]).item(), rel=1e-5
        )
        assert learning_speeds(tmp_path / "losses.jsonl").step.tolist() == [3, 6, 9]

    def test_every_few_steps(self, tmp_path):
        pytest.importorskip("transformers", reason="transformers is not installed")
        log = recorder(tmp_path / "losses.jsonl")
        self.fit([trainer_callback(log, steps=5)], tmp_path, gradient_accumulation_steps=1)
        (run,) = read_runs(tmp_path / "losses.jsonl")
        assert run.series["validation/noise_loss"].step.tolist() == [0, 5]


@pytest.mark.parametrize("make", [lightning_callback, trainer_callback])
def test_numbers_are_checked(tmp_path, make):
    with pytest.raises(SpecError, match="norms is 0"):
        make(recorder(tmp_path / "losses.jsonl"), norms=0)


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        (lightning_callback, ("lightning", "lightning.pytorch", "pytorch_lightning")),
        (trainer_callback, ("transformers",)),
    ],
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, make, missing):
    log = recorder(tmp_path / "losses.jsonl")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in missing:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SpecError, match="pip install"):
        make(log)


def test_nothing_foreign_is_loaded_before_it_is_asked_for():
    code = "import sys, mmaudit.training; print([m for m in ('lightning', 'pytorch_lightning', 'transformers') if m in sys.modules])"  # fmt: skip
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
