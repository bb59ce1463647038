"""Tasks other than classification of samples, through everything that is done with a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from sklearn.metrics import r2_score
from torch import nn
from torch.nn import functional as F

import mmaudit
from dashboard.samples import column_names, read_samples
from mmaudit.command_line.drafting import draft_audit_file
from mmaudit.command_line.previewing import preview_audit_file
from mmaudit.exceptions import ModelError, RecordError, SpecError
from mmaudit.masking.batches import Batch
from mmaudit.masking.spec import MaskingSpec
from mmaudit.measures.pairing import Table, pair_tables
from mmaudit.referencing import train_references
from mmaudit.training.task import Labelled, Task
from tests.tasks import SPEC, Two, batches, everything, inputs

PROJECT = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.ears = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
        self.eyes = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
        self.head = nn.Linear(16, outputs)

    def forward(self, audio, image):
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], -1))


def build(outputs=1):
    return Two(outputs)
"""
OUTPUTS = {"regression": 2, "multilabel": 4, "segments": 3}
RECIPE = {"epochs": 8, "lr": 0.02, "batch_size": 32}


def project(folder: Path, task: str, *, n: int = 240) -> Path:
    """A project of a model that has learnt nothing, and an audit file of it."""
    data = inputs(n, 5 if task == "segments" else None)
    teacher, student = Two(OUTPUTS[task], seed=1), Two(OUTPUTS[task], seed=2)
    told = 3 * everything(teacher, data)[3]
    if task == "regression":
        y = told + 4 + 0.3 * torch.randn(told.shape, generator=torch.Generator().manual_seed(0))
        y[3, 1] = float("nan")
    elif task == "multilabel":
        y = (told > told.median(0).values).float()
        y[:5, 1] = -1
    else:
        y = told.argmax(-1)
        y[:, 4][:60] = -100
    folder.mkdir(exist_ok=True)
    (folder / "net.py").write_text(PROJECT)
    np.savez(folder / "data.npz", y=y.numpy(), **{name: v.numpy() for name, v in data.items()})
    save_file(student.state_dict(), folder / "model.safetensors")
    spec = {
        "model": {"factory": "net:build", "args": {"outputs": OUTPUTS[task]}},
        "checkpoint": "model.safetensors",
        "data": {
            "train": {"file": "data.npz", "rows": "0:160"},
            "test": {"file": "data.npz", "rows": "160:"},
        },
        "modalities": {"audio": "audio", "image": "image"},
        "target": "y",
        "task": task,
        "second_mask": "off",
    }
    path = folder / "audit.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture(autouse=True)
def fresh_module(monkeypatch):
    """Every project has its own net."""
    import sys

    monkeypatch.delitem(sys.modules, "net", raising=False)
    yield
    sys.modules.pop("net", None)


def labelled(targets, task) -> Labelled:
    kind = torch.float32 if task == "regression" else torch.long
    return Labelled(None, None, torch.as_tensor(targets, dtype=kind), torch.ones(len(targets), 2))


def task_of(task: str) -> Task:
    spec = MaskingSpec(modalities={"audio": "audio", "image": "image"}, task=task)
    return Task(Two(2), spec, None, inputs(2))


class TestLosses:
    def test_segments(self):
        scores = torch.randn(3, 4, 5)
        batch = labelled([[0, 1, -1, 2], [-1, -1, -1, -1], [4, 4, 4, 4]], "segments")
        found = task_of("segments").loss(scores, batch)
        logp = scores.log_softmax(-1)
        first = -(logp[0, 0, 0] + logp[0, 1, 1] + logp[0, 3, 2]) / 3
        assert found.tolist() == pytest.approx([first.item(), 0.0, -logp[2, :, 4].mean().item()])
        right = task_of("segments").accuracy(scores, batch)
        said = scores.argmax(-1)
        assert right[0] == pytest.approx(((said[0] == batch.targets[0])[[0, 1, 3]]).float().mean())
        assert right[1] == 0

    def test_labels(self):
        scores = torch.randn(2, 3)
        batch = labelled([[1, -1, 0], [0, 1, 1]], "multilabel")
        found = task_of("multilabel").loss(scores, batch)
        by_hand = F.binary_cross_entropy(scores[0, [0, 2]].sigmoid(), torch.tensor([1.0, 0.0]))
        assert found[0].item() == pytest.approx(by_hand.item(), abs=1e-6)
        assert task_of("multilabel").accuracy(scores, batch)[1] == pytest.approx(
            ((scores[1] > 0) == torch.tensor([False, True, True])).float().mean()
        )

    def test_numbers(self):
        batch = labelled([[1.0, float("nan")], [2.0, 4.0]], "regression")
        scores = torch.tensor([[3.0, 9.0], [2.0, 1.0]], requires_grad=True)
        found = task_of("regression").loss(scores, batch)
        assert found.tolist() == [4.0, 4.5]
        found.sum().backward()
        assert torch.isfinite(scores.grad).all() and scores.grad[0, 1] == 0
        assert task_of("regression").measured() == {}
        with pytest.raises(ModelError, match="no accuracy"):
            task_of("regression").accuracy(scores, batch)

    def test_another_number_of_outputs(self):
        with pytest.raises(ModelError, match="expected as many"):
            task_of("regression").loss(torch.zeros(2, 3), labelled([[1.0], [2.0]], "regression"))


class TestCompared:
    def pair(self, folder, *, swap=False, n=150):
        data = inputs(n)
        y = everything(Two(2, seed=3), data)[3] * torch.tensor([1.0, 50.0]) + torch.randn(n, 2)
        reports = []
        for seed in (3, 4):
            model = Two(2, seed=seed)
            with torch.no_grad():
                model.head.weight.mul_(torch.tensor([[1.0], [50.0]]))
            loaded = batches({**data, "y": y}, 64)
            out = folder / str(seed)
            reports.append(
                mmaudit.audit(
                    model,
                    loaded,
                    {**SPEC, "task": "regression"},
                    out=out,
                    device="cpu",
                    replicates=200,
                )
            )
        return reports, y, data

    def test_a_regression(self, tmp_path):
        (before, after), y, _ = self.pair(tmp_path)
        comparison = mmaudit.compare(before, after, replicates=200)
        row = comparison.row("coalitions", coalition="audio+image")
        assert row.labels["score"] == "R2" and row.test == "paired bootstrap"
        assert row.difference.value == pytest.approx(after.score.value - before.score.value)
        assert row.difference.low < row.difference.value < row.difference.high
        assert comparison.verdict.kind == "hurts" and "R2 falls" in comparison.verdict.sentence
        assert "response R2" in comparison.verdict.sentence
        back = mmaudit.compare(after, before, replicates=200)
        assert back.row("coalitions", coalition="audio+image").difference.value == pytest.approx(
            -row.difference.value
        )
        for key, measure in comparison.measures.items():
            for found in measure.rows:
                first = before.rows(key, **found.labels)
                if first:
                    assert found.before == first[0].estimate
        same = mmaudit.compare(before, before, replicates=200)
        assert same.same_answers and same.verdict.kind == "does not help"

    def test_samples_that_one_table_lacks(self, tmp_path):
        """R2 of the common samples, by the spread of these."""
        (before, after), y, data = self.pair(tmp_path)
        model = Two(2, seed=4)
        with torch.no_grad():
            model.head.weight.mul_(torch.tensor([[1.0], [50.0]]))
        part = {name: value[:90] for name, value in {**data, "y": y}.items()}
        fewer = mmaudit.audit(
            model,
            batches(part, 64),
            {**SPEC, "task": "regression"},
            out=tmp_path / "f",
            device="cpu",
        )
        pairs = pair_tables(
            Table(before.table("coalitions"), before.modalities, 300),
            Table(fewer.table("coalitions"), fewer.modalities, 180),
            classes=before.classes,
            grouped=True,
            seed=0,
            task="regression",
            part_bytes=4000,
        )
        assert pairs.only_before == 120 and pairs.before.groups == 90
        expected = r2_score(part["y"].double(), everything(model, part)[3].double())
        assert pairs.after.means()["R2"][3] == pytest.approx(expected, abs=1e-6)
        comparison = mmaudit.compare(before, fewer, common=True, replicates=200)
        after = comparison.row("coalitions", coalition="audio+image").after
        assert after.value == pytest.approx(expected, abs=1e-6)

    def test_other_targets_are_other_data(self, tmp_path):
        (before, _), y, data = self.pair(tmp_path)
        other = mmaudit.audit(
            Two(2, seed=4),
            batches({**data, "y": y + 1}, 64),
            {**SPEC, "task": "regression"},
            out=tmp_path / "o",
            device="cpu",
        )
        with pytest.raises(RecordError, match="different data"):
            mmaudit.compare(before, other)
        with pytest.raises(RecordError, match="another target"):
            mmaudit.compare(before, other, common=True)

    def test_labels(self, tmp_path):
        data = inputs(150)
        y = (everything(Two(3, seed=3), data)[3] > 0).float()
        y[:9, 1] = -1
        spec = {**SPEC, "task": "multilabel", "classes": ["x", "y", "z"]}
        reports = [
            mmaudit.audit(
                Two(3, seed=seed),
                batches({**data, "y": y}, 64),
                spec,
                out=tmp_path / str(seed),
                device="cpu",
            )
            for seed in (3, 4)
        ]
        comparison = mmaudit.compare(*reports, replicates=200)
        row = comparison.row("coalitions", coalition="audio+image")
        outputs = [everything(Two(3, seed=seed), data)[3] > 0 for seed in (3, 4)]
        known = y >= 0
        lost = ((outputs[0] == y) & (outputs[1] != y))[known].sum()
        assert row.lost == lost and row.gained == 0
        assert "the accuracy falls" in comparison.verdict.sentence


class TestTrained:
    @pytest.mark.parametrize(
        "task",
        [
            "regression",
            pytest.param("multilabel", marks=pytest.mark.slow),
            pytest.param("segments", marks=pytest.mark.slow),
        ],
    )
    def test_retrained_and_alone(self, tmp_path, task):
        path = project(tmp_path / "p", task)
        result = mmaudit.retrain(
            path, "joint", out=tmp_path / "out", recipe=RECIPE, device="cpu", replicates=200
        )
        assert result.after.score.value > result.before.score.value + 0.05
        assert result.comparison.verdict.kind == "helps"
        alone = train_references(
            path, out=tmp_path / "alone", modalities=["audio"], recipe=RECIPE, device="cpu"
        )["audio"]
        assert alone.own_encoder
        again = mmaudit.audit(
            tmp_path / "alone" / "audio" / "audit.yaml", device="cpu", replicates=200
        )
        assert again.score.value == pytest.approx(alone.accuracy.value, abs=1e-6)
        assert again.score.n == alone.accuracy.n and again.score.groups == alone.accuracy.groups
        # What it does not see is worth nothing to it.
        image = again.estimate("contributions", modality="image")
        assert image.value == 0

    @pytest.mark.parametrize("task", OUTPUTS)
    def test_remedies_that_read_class_scores_refuse(self, tmp_path, task):
        path = project(tmp_path / "p", task)
        for remedy in ("agm", "ogm_ge", "mla"):
            with pytest.raises(SpecError, match=f"not '{task}': take joint or modality_dropout"):
                mmaudit.retrain(path, remedy, out=tmp_path / remedy, device="cpu")
            assert not (tmp_path / remedy).exists()

    def test_the_whole_network_with_the_rest_masked(self, tmp_path):
        """A model without encoders of its own: the reference model is the network itself."""

        class Early(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(7, 2)

            def forward(self, audio, image):
                return self.body(torch.cat([audio, image], -1))

        from mmaudit.unimodal import UnimodalModel, given_outputs

        model = UnimodalModel(
            Early(),
            "audio",
            None,
            classes=2,
            outputs=given_outputs("regression"),
            task="regression",
        )
        data = inputs(5)
        assert torch.equal(model(**data), model.model(**data))
        assert model.settings()["task"] == "regression"


class TestDrafted:
    @pytest.mark.parametrize("task", OUTPUTS)
    def test_init_finds_the_task(self, tmp_path, task):
        path = project(tmp_path / "p", task)
        draft = draft_audit_file(
            path.parent / "model.safetensors",
            "net:build",
            str(path.parent / "data.npz"),
            directory=path.parent,
            factory_args={"outputs": OUTPUTS[task]},
        )
        spec = yaml.safe_load(draft.text)
        assert spec["task"] == task and spec["target"] == "y"
        assert spec["outputs"]["kind"] == ("values" if task == "regression" else "logits")
        (path.parent / "drafted.yaml").write_text(draft.text)
        report = mmaudit.audit(path.parent / "drafted.yaml", device="cpu", replicates=100)
        assert report.task == task and report.score.value is not None
        if task == "regression":
            assert "# expected: {R2: 0.9}" in draft.text

    def test_a_number_for_each_sample(self, tmp_path):
        data, model = inputs(40), Two(1)
        folder = tmp_path / "p"
        folder.mkdir()
        (folder / "net.py").write_text(PROJECT)
        save_file(model.state_dict(), folder / "model.safetensors")
        for name, target in (("float", torch.randn(40)), ("years", torch.arange(40) % 37 + 20)):
            arrays = {k: v.numpy() for k, v in data.items()}
            np.savez(folder / "data.npz", target=target.numpy(), **arrays)
            draft = draft_audit_file(
                folder / "model.safetensors",
                "net:build",
                str(folder / "data.npz"),
                directory=folder,
            )
            spec = yaml.safe_load(draft.text)
            assert (spec["task"], spec["outputs"]["kind"]) == ("regression", "values"), name
            whole = everything(model, data)[3][:, 0]
            assert draft.score == pytest.approx(r2_score(target.double(), whole), rel=1e-4)

    @pytest.mark.parametrize("task", OUTPUTS)
    def test_preview(self, tmp_path, task):
        path = project(tmp_path / "p", task)
        found = preview_audit_file(path, samples=2, device="cpu")
        assert found.score == ("R2" if task == "regression" else "accuracy")
        assert () in found.scores and ("audio",) in found.scores
        whole = found.samples[0].predictions[0]
        assert whole.confidence is None
        assert (whole.right is None) == (task == "regression")
        assert found.samples[0].label


class TestSamples:
    @pytest.mark.parametrize("task", OUTPUTS)
    def test_pages_of_samples(self, tmp_path, task):
        report = mmaudit.audit(
            project(tmp_path / "p", task), out=tmp_path / "r", device="cpu", replicates=100
        )
        names = column_names(report)
        page = read_samples(report, 0, 20)
        assert page.total == report.score.n and set(names) <= set(page.rows[0])
        frame = report.to_frame("samples")
        wrong = read_samples(report, 0, 1000, only_wrong=True)
        if task == "regression":
            assert names["off"] == "Off by" and "confidence" not in names
            off = (frame["prediction[audio+image]"] - frame["truth"]).abs()
            spread = frame.groupby("target")["truth"].transform(lambda y: y.std(ddof=0))
            assert wrong.total == (off > spread).sum()
            assert page.rows[0]["truth"] == f"{frame['truth'][0]:.5g}"
        else:
            assert wrong.total == (frame["correct[audio+image]"] == 0).sum()
        if task == "multilabel":
            assert {row["truth"] for row in page.rows} == {"yes", "no"}

    @pytest.mark.parametrize("task", OUTPUTS)
    def test_everything_can_be_drawn_and_written(self, tmp_path, task):
        report = mmaudit.audit(
            project(tmp_path / "p", task), out=tmp_path / "r", device="cpu", replicates=100
        )
        assert report.figures() and report.html(tmp_path / "report.html").stat().st_size > 1000
        assert mmaudit.AuditReport.load(tmp_path / "r") == report
        text = " ".join(report.summary())
        assert ("R2" in text) == (task == "regression") and text


@pytest.mark.slow
class TestTwelve:
    def test_every_coalition_of_twelve(self, tmp_path):
        """4,096 coalitions of additive sensors, of which three count: contributions by hand."""

        class Sensors(nn.Module):
            def __init__(self):
                super().__init__()
                for m in range(12):
                    encoder = nn.Linear(1, 2)
                    nn.init.constant_(encoder.weight, 1.0 if m < 3 else 0.0)
                    nn.init.zeros_(encoder.bias)
                    setattr(self, f"enc{m}", encoder)
                self.head = nn.Linear(24, 1)
                nn.init.constant_(self.head.weight, 0.5)
                nn.init.zeros_(self.head.bias)

            def forward(self, batch):
                parts = [getattr(self, f"enc{m}")(batch[f"s{m}"]) for m in range(12)]
                return self.head(torch.cat(parts, 1))

        x = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
        y = x[:, :3].sum(1)
        data = [
            {**{f"s{m}": x[at : at + 30, m : m + 1] for m in range(12)}, "y": y[at : at + 30]}
            for at in (0, 30)
        ]
        spec = {
            "modalities": {f"s{m}": f"s{m}" for m in range(12)},
            "target": "y",
            "task": "regression",
            "second_mask": "off",
        }
        report = mmaudit.audit(Sensors(), data, spec, out=tmp_path, device="cpu", replicates=100)
        assert report.evidence.method == "packed" and report.evidence.coalitions == 4096
        assert len(report.rows("coalitions", score="R2", **{"class": "all"})) == 4096
        assert len(report.rows("interactions", score="R2", **{"class": "all"})) == 66
        # The errors of a coalition are the sum of what is missing, so its game is quadratic.
        shares = [report.estimate("contributions", modality=f"s{m}").value for m in range(12)]
        missing = x[:, :3].double()
        total = ((y - y.mean()).double() ** 2).sum()
        for m in range(3):
            rest = missing.sum(1) - missing[:, m]
            expected = ((missing[:, m] ** 2).sum() + (missing[:, m] * rest).sum()) / total
            assert shares[m] == pytest.approx(expected.item(), abs=1e-5)
        assert shares[3:] == [0.0] * 9
        assert report.score.value == pytest.approx(1.0)
        assert report.html(tmp_path / "r.html").stat().st_size < 12e6
        assert len(report.summary()) <= 3
        shutil.rmtree(tmp_path)


def test_batches_of_segments_cannot_be_mistaken():
    """A batch object is enough for the rows; nothing of the user's batch is read again."""
    batch = Batch(0, 0, None, ["s"], np.zeros((1, 2), np.int32), None, {"a": np.ones(1, bool)}, 1)
    from mmaudit.evidence.scoring import value_function

    spec = MaskingSpec(modalities={"a": "a"}, task="segments")
    assert value_function(spec).rows(batch).ids == ["s#0", "s#1"]
