from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mmaudit import learning_speeds
from mmaudit.evidence.loss_map import read_map
from mmaudit.evidence.losses import align
from mmaudit.evidence.readers import read_runs
from mmaudit.exceptions import RecordError, SpecError
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
    def fit(
        name, callbacks, folder, epochs=3, *, optimizers=1, checkpoint=None, save=None, **options
    ):
        lightning = pytest.importorskip(name, reason=f"{name} is not installed")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = TwoHeads(dropout=0.3)

            def forward(self, batch):
                return self.net(batch["signal"], batch["noise"])

            def training_step(self, batch, number):
                out = self(batch)
                loss = sum(F.cross_entropy(scores, batch["y"]) for scores in out.values())
                if not self.automatic_optimization:
                    self.manual_backward(loss)
                    for optimizer in self.optimizers():
                        optimizer.step()
                        optimizer.zero_grad()
                return loss

            def validation_step(self, batch, number):
                self.log("val_loss", F.cross_entropy(self(batch)["logits"], batch["y"]))

            def configure_optimizers(self):
                if optimizers == 1:
                    return torch.optim.Adam(self.parameters(), 0.01)
                return [torch.optim.SGD(part.parameters(), 0.01) for part in (self.net.signal, self.net.noise)]  # fmt: skip

        lightning.seed_everything(0, verbose=False)
        module = Module()
        module.automatic_optimization = optimizers == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library, about workers and loggers
            trainer = lightning.Trainer(
                max_epochs=epochs, accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **options,
            )  # fmt: skip
            loaders = DataLoader(Rows(), 20, shuffle=True), DataLoader(Rows(150, 1), 50)
            trainer.fit(module, *loaders, ckpt_path=checkpoint)
            if save is not None:
                trainer.save_checkpoint(save)
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
        # Two optimisers take two steps a batch, so that not every number comes by.
        log = recorder(tmp_path / "two.jsonl")
        self.fit("lightning.pytorch", [lightning_callback(log, module="net", steps=5)], tmp_path, optimizers=2)  # fmt: skip
        (run,) = read_runs(tmp_path / "two.jsonl")
        assert run.series["train/joint_loss"].step.tolist() == [0, 6, 10, 16]
        with pytest.raises(SpecError, match="no module 'network'; its parts are net"):
            self.fit("lightning.pytorch", [lightning_callback(recorder(tmp_path / "b.jsonl"), module="network")], tmp_path)  # fmt: skip

    def test_a_training_that_goes_on_keeps_what_was_recorded(self, tmp_path):
        pytest.importorskip("lightning", reason="lightning is not installed")
        path, saved = tmp_path / "losses.jsonl", tmp_path / "half.ckpt"
        name = "lightning.pytorch"
        self.fit(name, [lightning_callback(recorder(path))], tmp_path, 2, save=saved)
        before = losses_of(path)
        again = lightning_callback(recorder(path, resume=True))
        self.fit(name, [again], tmp_path, 4, checkpoint=saved)
        after = losses_of(path)
        assert after.at.tolist() == [0, 1, 2, 3, 4]
        assert after.train[:, :3].tolist() == before.train.tolist()

    def test_a_second_training_is_not_mixed_with_the_first(self, tmp_path):
        pytest.importorskip("lightning", reason="lightning is not installed")
        path = tmp_path / "losses.jsonl"
        callback = lightning_callback(recorder(path))
        self.fit("lightning.pytorch", [callback], tmp_path, 2)
        held = path.read_text()
        with pytest.raises(RecordError, match="every training needs a recorder"):
            self.fit("lightning.pytorch", [callback], tmp_path, 2)
        assert path.read_text() == held

    def test_a_part_of_an_epoch_is_one(self, tmp_path):
        pytest.importorskip("lightning", reason="lightning is not installed")
        callback = lightning_callback(recorder(tmp_path / "losses.jsonl"))
        self.fit("lightning.pytorch", [callback], tmp_path, max_steps=4)
        assert losses_of(tmp_path / "losses.jsonl").at == pytest.approx([0, 1, 4 / 3])


class TestTransformers:
    @pytest.fixture(autouse=True)
    def _own_state(self):
        """The precision of a training, which accelerate keeps for the whole process."""
        yield
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.pop("ACCELERATE_MIXED_PRECISION", None)

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
        options = {"num_train_epochs": 3, **options}
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=20, report_to=[], save_strategy="no",
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

    def test_a_part_of_an_epoch_is_one(self, tmp_path):
        pytest.importorskip("transformers", reason="transformers is not installed")
        self.fit([trainer_callback(recorder(tmp_path / "losses.jsonl"))], tmp_path, max_steps=4)
        assert losses_of(tmp_path / "losses.jsonl").at == pytest.approx([0, 1, 4 / 3])

    def test_losses_are_in_the_models_own_precision(self, tmp_path):
        pytest.importorskip("transformers", reason="transformers is not installed")
        log = recorder(tmp_path / "losses.jsonl", heads=HEADS)
        model = self.fit([trainer_callback(log)], tmp_path, bf16=True)
        wrapped, data = model.forward, samples(60, 0)
        found = log.record(model, step=9, epoch=3)
        assert model.forward == wrapped
        with torch.no_grad():
            scores = model.noise.eval()(data["noise"])
        assert found["train/noise_loss"] == pytest.approx(
            F.cross_entropy(scores, data["y"]).item(), rel=1e-6
        )


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
