"""Models to compare with: wherever they come from, they say of every sample what they would say called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

import mmaudit
from mmaudit.evidence.further import FURTHER
from mmaudit.evidence.references import REFERENCES, collect_references
from mmaudit.exceptions import DataError, MMAuditError, ModelError, SpecError
from mmaudit.measures import MEASURES
from mmaudit.measures.capacity_gap import CapacityGap
from mmaudit.report import AuditReport
from mmaudit.report.tables import read_chunks
from tests.projects import make_project
from tests.subjects import SPEC, Data, Late

N = 100
DATA = Data(N, 16)


@pytest.fixture(autouse=True)
def _entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FURTHER, REFERENCES, collect_references)
    monkeypatch.setitem(MEASURES, CapacityGap.key, CapacityGap)


def everything() -> dict[str, Any]:
    batches = list(DATA)
    return {
        name: torch.cat([batch[name] for batch in batches])
        if isinstance(batches[0][name], Tensor)
        else [item for batch in batches for item in batch[name]]
        for name in batches[0]
    }


def audited(given: Any = None, model: Any = None, **changed: Any) -> AuditReport:
    return mmaudit.audit(
        model or Late(),
        changed.pop("data", DATA),
        {**SPEC, **changed},
        references=given,
        replicates=100,
        device="cpu",
    )


def table(report: AuditReport) -> dict[str, np.ndarray]:
    chunks = list(read_chunks(report.folder / REFERENCES))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def seeded(module: type[nn.Module], *args: Any) -> nn.Module:
    torch.manual_seed(7)
    return module(*args)


def judged(logits: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    logp = logits.double().log_softmax(1)
    return (logits.argmax(1) == y).numpy(), logp.gather(1, y[:, None])[:, 0].numpy()


# In memory.


def test_modules_are_called_with_their_modality_alone_or_as_the_audited_model() -> None:
    data, alone, whole = everything(), seeded(nn.Linear, 6, 4), Late()
    with torch.no_grad():
        whole.head.weight.mul_(-1)
    alone.train(), whole.train()
    stream = torch.get_rng_state()
    report = audited({"audio": alone, "image": whole})
    assert torch.equal(stream, torch.get_rng_state())
    assert alone.training and all(module.training for module in whole.modules())
    assert all(p.grad is None and p.requires_grad for p in whole.parameters())
    rows = table(report)
    assert rows["sample_id"].tolist() == data["id"]
    assert rows["group"].tolist() == data["clip"]
    assert rows["position"].tolist() == list(range(N))
    assert rows["target"].tolist() == data["label"].tolist()
    whole.eval()
    with torch.no_grad():
        outputs = alone(data["audio"]), whole(torch.zeros(N, 6), data["image"])
    for m, output in enumerate(outputs):
        correct, loglik = judged(output, data["label"])
        assert (rows["alone_correct"][:, m] == correct).all()
        np.testing.assert_allclose(rows["alone_loglik"][:, m], loglik, atol=1e-5)
    assert "without_correct" not in rows
    found = report.estimate("capacity_gap", modality="audio", quantity="alone", mask="none")
    assert found.value == pytest.approx(rows["alone_correct"][:, 0].mean())
    assert found.groups == 50


def test_models_without_a_modality_see_the_others() -> None:
    data, rest, whole = everything(), seeded(nn.Linear, 5, 4), Late()
    rows = table(audited({"without": {"audio": rest, "image": whole}}))
    whole.eval()
    with torch.no_grad():
        outputs = rest(data["image"]), whole(data["audio"], torch.zeros(N, 5))
    for m, output in enumerate(outputs):
        assert (rows["without_correct"][:, m] == judged(output, data["label"])[0]).all()
    assert "alone_correct" not in rows


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.eyes = nn.Linear(5, 4)

    def forward(self, *, image: Tensor, scale: float = 2.0) -> dict[str, Tensor]:
        return {"y": scale * self.eyes(image)}


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ears = nn.Linear(6, 4)

    def forward(self, audio: Tensor, image: Tensor | None = None) -> Tensor:
        return self.ears(audio) if image is None else torch.full((len(audio), 4), torch.nan)


class Anything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.eyes = nn.Linear(5, 4)

    def forward(self, *args: Tensor, **named: Tensor) -> Tensor:
        return self.eyes(named["image"] if named else args[-1])


class Wrapped(nn.Module):
    """An audited model that takes the batch whole, and gives its scores under a name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Late()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.inner(batch["audio"], batch["image"])}


def one_layer() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4))


@pytest.mark.parametrize(
    ("models", "modality", "reference", "direct"),
    [
        ([Wrapped], "image", ByName, lambda model, data: model(image=data["image"])["y"]),
        ([Late, Wrapped], "audio", Optional, lambda model, data: model(data["audio"])),
        ([Late, Wrapped], "image", Anything, lambda model, data: model(data["image"])),
        ([Late, Wrapped], "image", one_layer, lambda model, data: model(data["image"])),
        ([Wrapped], "audio", Wrapped, lambda m, data: m({**data, "image": torch.zeros(N, 5)})["y"]),
    ],
)
def test_how_a_reference_is_called_shows_in_its_signature(
    models: list[Any], modality: str, reference: Any, direct: Any
) -> None:
    torch.manual_seed(3)
    made = reference()
    for model in models:
        outputs = {"path": "y"} if model is Wrapped else {}
        rows = table(audited({modality: made}, model(), outputs=outputs))
        with torch.no_grad():
            expected = direct(made.eval(), everything())
        m = list(SPEC["modalities"]).index(modality)
        assert (rows["alone_correct"][:, m] == judged(expected, everything()["label"])[0]).all()


def test_a_function_is_a_reference_too_and_a_stochastic_one_repeats_itself() -> None:
    def noisy(audio: Tensor) -> Tensor:
        return torch.randn(len(audio), 4) + audio[:, :4]

    first, again = (table(audited({"audio": noisy}))["alone_loglik"][:, 0] for _ in range(2))
    assert (first == again).all()


def test_samples_that_lack_the_modality_and_broken_outputs_are_left_out() -> None:
    data = everything()
    data["has"] = torch.arange(N) % 4 != 0

    def broken(audio: Tensor) -> Tensor:
        scores = audio[:, :4].clone()
        scores[:3, 1] = torch.nan
        return scores

    modalities = {"audio": {"inputs": "audio", "present": "has"}, "image": "image"}
    report = audited({"audio": broken}, data=data, modalities=modalities)
    rows = table(report)
    here = data["has"].numpy().copy()
    here[[1, 2, 64, 65, 66]] = False  # batches of 64 each lose their first three
    assert (np.isfinite(rows["alone_correct"][:, 0]) == here).all()
    assert np.isnan(rows["alone_correct"][:, 1]).all()
    assert report.estimate("capacity_gap", modality="audio").n == here.sum()
    assert any("4 outputs of the reference model of audio are not" in n.text for n in report.notes)


# Files.


def stored(folder: Path, kind: str, ids: list[Any], scores: np.ndarray) -> Path:
    path = folder / f"outputs.{kind}"
    if kind == "npz":
        np.savez(path, id=np.array(ids), scores=scores)
    else:
        pq.write_table(pa.table({"id": ids, "scores": list(scores)}), path)
    return path


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_stored_outputs_are_joined_by_sample_id(tmp_path: Path, kind: str) -> None:
    data, model = everything(), seeded(nn.Linear, 6, 4)
    with torch.no_grad():
        scores = model(data["audio"]).numpy()
    order = np.random.default_rng(0).permutation(N)
    path = stored(tmp_path, kind, [data["id"][i] for i in order] + ["other"], np.vstack([scores[order], scores[:1]]))  # fmt: skip
    report = audited(references={"alone": {"audio": str(path)}})
    direct = table(audited({"audio": model}))
    np.testing.assert_allclose(
        table(report)["alone_loglik"], direct["alone_loglik"], atol=1e-5, equal_nan=True
    )
    assert report.subject.files[-1].role == "reference model of audio"
    # In memory a path does as well, and wins over what the spec names.
    again = audited({"audio": path}, references={"alone": {"audio": "not/there.npz"}})
    assert (table(again)["alone_correct"] == table(report)["alone_correct"])[:, 0].all()


def test_samples_without_ids_are_known_by_their_number(tmp_path: Path) -> None:
    data = everything()
    path = stored(tmp_path, "npz", list(range(N)), np.eye(4, dtype=np.float32)[data["label"]])
    rows = table(audited({"audio": path}, ids=None))
    assert (rows["alone_correct"][:, 0] == 1).all()
    short = stored(tmp_path, "npz", list(range(N - 1)), np.zeros((N - 1, 4), np.float32))
    with pytest.raises(DataError, match=r"no outputs for sample '99'.* running number from 0"):
        audited({"audio": short}, ids=None)


def test_a_file_that_is_not_what_was_asked_for_is_named(tmp_path: Path) -> None:
    ids, scores = everything()["id"], np.zeros((N, 4), np.float32)
    cases = [
        (ids[:-1] + ids[:1], scores, DataError, f"id '{ids[0]}' occurs twice"),
        (ids[:-1], scores[:-1], DataError, f"has no outputs for sample '{ids[-1]}'"),
        (ids, scores[:, :3], ModelError, "reference model of audio .*3 class scores where 4"),
        (ids, scores[:, 0], ModelError, "reference model of audio .*expects"),
    ]
    for number, (given, values, error, sentence) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(error, match=sentence):
            audited({"audio": stored(folder, "npz", given, values)})
    np.savez(tmp_path / "other.npz", ids=np.array(ids), scores=scores)
    with pytest.raises(DataError, match="no array 'id'; it has ids, scores"):
        audited({"audio": tmp_path / "other.npz"})


@pytest.mark.parametrize(
    ("references", "error", "sentence"),
    [
        ({"smell": nn.Linear(6, 4)}, SpecError, "'smell' is no modality; there are audio, image"),
        ({"audio": nn.Linear}, SpecError, "is a class; expected a module or callable"),
        ({"audio": 3}, SpecError, "is a int; expected a module"),
        ({"audio": "nothing.npz"}, SpecError, "nothing.npz is not there"),
        ({"audio": __file__}, SpecError, "neither an audit file"),
        ({"audio": lambda: None}, SpecError, "takes neither the inputs of the audited model nor"),
        ({"audio": nn.Linear(9, 4)}, ModelError, "reference model of audio raised RuntimeError"),
        ({"audio": nn.Linear(6, 3)}, ModelError, "3 class scores where 4 classes are known"),
        ({"audio": lambda audio: audio[:5, :4]}, ModelError, "5 rows for 64 samples"),
        ({"audio": lambda audio: [1]}, ModelError, "returned a list, not a tensor"),
        ({"without": {"audio": nn.Linear(6, 4)}}, ModelError, "the model without audio raised"),
    ],
)
def test_wrong_references_get_one_sentence(references: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        audited(references, data=everything())
    assert isinstance(caught.value, MMAuditError)
    assert len(str(caught.value).splitlines()) == 1


# Audit files.

_ALONE = """
import torch
from torch import nn


class Ears(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(7, 3)

    def forward(self, x, loud):
        return self.net(torch.cat([x, loud], 1)).softmax(1)
"""


def other_reference(project: Path, **changed: Any) -> Path:
    """A model of another make: other paths, another call, probabilities, a mask with training data."""
    home = project.parent / "theirs"
    home.mkdir()
    (home / "theirs_net.py").write_text(_ALONE)
    torch.manual_seed(5)
    net = nn.Linear(7, 3)
    save_file({f"net.{k}": v for k, v in net.state_dict().items()}, home / "w.safetensors")
    text = {
        "model": "theirs_net:Ears",
        "checkpoint": "w.safetensors",
        "data": {"test": "nothing.npz", "train": "../train.npz"},
        "modalities": {"sound": {"inputs": {"x": "sound"}}, "eyes": {"inputs": {"loud": "loud"}, "mask": "mean"}},
        "call": {"args": ["sound", "loud"]},
        "outputs": {"kind": "probabilities"},
        "target": "y",
    } | changed  # fmt: skip
    (home / "audit.yaml").write_text(yaml.safe_dump(text))
    return home / "audit.yaml"


def with_column(project: Path) -> None:
    for split in ("train", "test"):
        arrays = dict(np.load(project.parent / f"{split}.npz"))
        arrays["loud"] = np.arange(len(arrays["y"]), dtype=np.float32)[:, None] / 100
        np.savez(project.parent / f"{split}.npz", **arrays)


def test_an_audit_file_says_how_its_model_is_called_and_masked(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    with_column(project)
    other_reference(project)
    project.write_text(project.read_text() + "references: {alone: {sound: theirs/audit.yaml}}\n")
    report = mmaudit.audit(project, device="cpu", replicates=100)
    torch.manual_seed(5)
    net, test = nn.Linear(7, 3), np.load(tmp_path / "test.npz")
    mean = np.load(tmp_path / "train.npz")["loud"].mean()
    with torch.no_grad():
        x = torch.cat([torch.from_numpy(test["sound"]), torch.full((150, 1), float(mean))], 1)
        loglik = judged(net(x), torch.from_numpy(test["y"]))[1]
    np.testing.assert_allclose(table(report)["alone_loglik"][:, 0], loglik, atol=1e-5)
    roles = [file.role for file in report.subject.files]
    assert (
        "reference model of sound" in roles and "weights of the reference model of sound" in roles
    )
    assert sum(role.startswith("checkpoint") for role in roles) == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"modalities": {"a": "sound", "b": "loud"}}, "has no modality 'sound', only a, b"),
        ({"task": "segments"}, "is about task 'segments', the audit about 'multiclass'"),
        ({"checkpoint": "gone.safetensors"}, "gone.safetensors"),
    ],
)
def test_an_audit_file_of_something_else_is_refused(
    tmp_path: Path, changed: dict[str, Any], sentence: str
) -> None:
    project = make_project(tmp_path)
    with_column(project)
    other_reference(project, **changed)
    project.write_text(project.read_text() + "references: {alone: {sound: theirs}}\n")
    with pytest.raises(MMAuditError, match=sentence):
        mmaudit.audit(project, device="cpu", replicates=100)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_text(project.read_text() + "references: alone\n")
    with pytest.raises(SpecError, match="alone holds no reference models; expected alone/sound/a"):
        mmaudit.audit(project, device="cpu", replicates=100)


def test_a_failed_collection_leaves_nothing_behind(tmp_path: Path) -> None:
    seen = []

    def gives_up(audio: Tensor) -> Tensor:
        seen.append(len(audio))
        if len(seen) > 3:
            raise RuntimeError("no more\nof this")
        return audio[:, :4]

    with pytest.raises(ModelError, match=r"raised RuntimeError on batch 3 \(samples s48 to s63\)"):
        mmaudit.audit(
            Late(), DATA, SPEC, references={"audio": gives_up}, out=tmp_path / "a", device="cpu"
        )
    assert not list((tmp_path / "a").rglob("*.parquet"))
    assert not list((tmp_path / "a").rglob("*.tmp"))


def test_large_data_is_written_in_pieces() -> None:
    data = Data(10_000, 500)
    report = audited({"audio": seeded(nn.Linear, 6, 4)}, data=data)
    (path,) = (report.folder / REFERENCES).glob("part-*.parquet")
    file = pq.ParquetFile(path)
    assert file.metadata.num_rows == 10_000 and file.metadata.num_row_groups == 3
    assert table(report)["sample_id"].tolist() == [f"s{i}" for i in range(10_000)]


# Other tasks.


class Two(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shape = shape
        self.a, self.b = (nn.Linear(4, int(np.prod(shape))) for _ in range(2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.a(a) + self.b(b)).unflatten(1, self.shape)


def samples(target: Tensor) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(2)
    a, b = (torch.randn(len(target), 4, generator=drawn) for _ in range(2))
    return {"a": a, "b": b, "y": target}


@pytest.mark.parametrize("task", ["segments", "multilabel", "regression"])
def test_every_task_has_the_rows_of_its_coalition_table(task: str) -> None:
    n, drawn = 90, torch.Generator().manual_seed(1)
    if task == "segments":
        shape, target = (5, 3), torch.randint(-1, 3, (n, 5), generator=drawn)
    elif task == "multilabel":
        shape, target = (4,), torch.randint(0, 2, (n, 4), generator=drawn)
    else:
        shape, target = (2,), torch.randn(n, 2, generator=drawn)
    model, other = Two(*shape), Two(*shape)
    with torch.no_grad():
        other.a.weight.add_(0.5)
    data = samples(target)
    spec = {"modalities": {"a": "a", "b": "b"}, "target": "y", "task": task}
    if task == "regression":
        spec["outputs"] = {"kind": "values"}

    def alone(a: Tensor) -> Tensor:
        return other(a, torch.zeros(len(a), 4))

    references = {"a": alone, "without": {"b": other}}
    report = mmaudit.audit(model, data, spec, references=references, replicates=100, device="cpu")
    rows = table(report)
    joint = [c["sample_id"] for c in read_chunks(report.folder / "coalitions", ["sample_id"])]
    assert rows["sample_id"].tolist() == np.concatenate(joint).tolist()
    assert rows["group"][0] == "0"
    # Both references see the same here, so they say the same of every row that is judged.
    for key in ("loglik",) if task == "regression" else ("loglik", "correct"):
        assert np.isfinite(rows[f"alone_{key}"][:, 0]).all()
        same = rows[f"without_{key}"][:, 1] == rows[f"alone_{key}"][:, 0]
        assert same.all()
    with torch.no_grad():
        output = alone(data["a"])
    if task == "segments":
        known = target >= 0
        expected = float((output.argmax(-1) == target)[known].float().mean())
    elif task == "multilabel":
        expected = float(((output > 0).long() == target).float().mean())
    else:
        spread = ((target - target.mean(0)) ** 2).sum(0)
        expected = float((1 - ((output - target) ** 2).sum(0) / spread).mean())
    found = report.estimate("capacity_gap", modality="a", quantity="alone", mask="none")
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert found.groups == n
    gap = report.estimate("capacity_gap", modality="a", quantity="gap", mask="first")
    inside = report.estimate("coalitions", coalition="a", **{"class": "all"})
    assert gap.value == pytest.approx(expected - (inside.value or 0), abs=1e-5)
