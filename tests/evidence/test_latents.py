import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from mmaudit.evidence import latents
from mmaudit.evidence.latents import collect_competition
from mmaudit.exceptions import DataError, SpecError
from mmaudit.masking.base import stable_hash
from mmaudit.measures.competition import competition_strength
from tests.evidence.probe_data import MODALITIES, Competed, Late, spec, split


class Joint(nn.Module):
    """Its latent holds all of the audio (six numbers), and of the image no more than the first of five."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ears, self.eyes = nn.Linear(6, 6), nn.Linear(5, 2)
        with torch.no_grad():
            self.eyes.weight.zero_()
            self.eyes.weight[:, 0] = torch.tensor([1.0, -2.0])
        self.head = nn.Linear(8, outputs)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], -1))


class Ears(nn.Module):
    """What audio alone would say: a linear function of it, so that the latent holds it."""

    def __init__(self, width: int = 6, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(width, outputs)

    def forward(self, audio: Tensor) -> Tensor:
        return self.layer(audio)


class Eyes(Ears):
    """Of five numbers of the same weight, the latent holds one."""

    def __init__(self, outputs: int = 5) -> None:
        super().__init__(5, outputs)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(outputs, 5))

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image)


REFERENCES = {"audio": Ears(), "image": Eyes(3)}


def _data(n=400, *, seed=0, size=64, lacking=0.0):
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(n, 6, generator=generator)
    image = torch.randn(n, 5, generator=generator)
    audio[torch.rand(n, generator=generator) < lacking] = torch.nan
    label = torch.randint(0, 3, (n,), generator=generator)
    return split({"audio": audio, "image": image, "label": label}, size)


def _whole(batches, name):
    return torch.cat([batch[name] for batch in batches])


def test_what_the_latent_holds_and_what_it_does_not(tmp_path):
    found = Competed(Joint(), _data(), spec(), tmp_path, REFERENCES, train=_data(600, seed=1))
    assert found.pooled("audio") < 1e-6
    # Three numbers, centred: of their variance 2 a third belongs to the one that the latent holds.
    assert found.pooled("image") == pytest.approx(2 / 3, abs=0.06)
    probe = found.probe("image")
    assert (probe["width"], probe["outputs"], probe["rank"], probe["n"]) == (8, 3, 2, 600)
    assert probe["fitted_on"] == "training data" and probe["reason"] is None
    assert found.probe("image", "120")["value"] == 120
    assert 1e-3 <= found.probe("audio")["value"] < 1 < found.probe("audio", "120")["value"]
    assert len(found.rows["sample_id"]) == 400 and not found.notes
    before = (tmp_path / "competition" / "part-000-000000.parquet").read_bytes()
    assert collect_competition(found.surroundings) == ()
    assert (tmp_path / "competition" / "part-000-000000.parquet").read_bytes() == before


def test_the_numbers_are_those_of_scikit_learn(tmp_path):
    model, data, train = Joint(), _data(300), _data(200, seed=1)
    found = Competed(model, data, spec(), tmp_path, REFERENCES, train=train)

    def both(batches):
        with torch.no_grad():
            image = _whole(batches, "image")
            z = torch.cat([model.ears(_whole(batches, "audio")), model.eyes(image)], 1)
            c = REFERENCES["image"](image).double()
        return z.double().numpy(), (c - c.mean(1, keepdim=True)).numpy()

    ridge = Ridge(alpha=120.0).fit(*both(train))
    z, c = both(data)
    expected = competition_strength(c, ridge.predict(z))
    assert found.pooled("image", place=1) == pytest.approx(expected, abs=1e-6)
    whitened = found.rows["whitened"][:, 3]
    assert whitened.sum() == pytest.approx(
        competition_strength(c, ridge.predict(z), whitened=True), abs=1e-6
    )


def test_without_training_data_one_half_learns_for_the_other(tmp_path):
    found = [
        Competed(Joint(), _data(size=size), spec(), tmp_path / str(size), REFERENCES)
        for size in (64, 17)
    ]
    learnt_from = {f"s{i}" for i in range(400) if stable_hash(0, "half", f"s{i}") % 2 == 0}
    assert set(found[0].rows["sample_id"]) == {f"s{i}" for i in range(400)} - learnt_from
    assert found[0].probe("image")["n"] == len(learnt_from)
    assert "one half of the audited samples" in found[0].notes[0].text
    assert found[0].pooled("image") == pytest.approx(2 / 3, abs=0.08)
    for name in ("error", "scatter", "whitened", "weight", "bias"):
        assert np.allclose(found[0].rows[name], found[1].rows[name], atol=1e-5)


def test_halves_keep_groups_whole(tmp_path):
    data = [{**batch, "clip": [f"c{i // 4}" for i in range(64 * b, 64 * b + len(batch["label"]))]} for b, batch in enumerate(_data(256))]  # fmt: skip
    found = Competed(Joint(), data, spec(group="clip"), tmp_path, REFERENCES)
    learnt_from = {f"c{i}" for i in range(64) if stable_hash(0, "half", f"c{i}") % 2 == 0}
    assert set(found.rows["group"]) == {f"c{i}" for i in range(64)} - learnt_from


def test_samples_that_lack_a_modality_are_left_out(tmp_path):
    train = _data(600, seed=1, lacking=0.3)
    found = Competed(Joint(), _data(lacking=0.5), spec(), tmp_path, REFERENCES, train=train)
    has = np.isfinite(found.rows["scatter"])
    assert 150 < has[:, 0].sum() < 250 and has[:, 1].all()
    assert found.probe("audio")["n"] == int((~torch.isnan(_whole(train, "audio")[:, 0])).sum())
    assert found.probe("image")["n"] == 600
    assert found.pooled("audio") < 1e-6
    # The latent of samples without audio is like that of others in what the image's concept needs.
    assert found.pooled("image") == pytest.approx(2 / 3, abs=0.06)


def test_a_modality_without_a_reference_says_so(tmp_path):
    found = Competed(Joint(), _data(), spec(), tmp_path, {"audio": Ears()})
    assert "there is no reference model of it" in found.probe("image")["reason"]
    assert found.probe("audio")["reason"] is None
    nothing = Competed(Joint(), _data(), spec(), tmp_path / "none")
    assert not nothing.there and nothing.notes == ()


def test_models_without_a_latent(tmp_path):
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ears, self.eyes = nn.Linear(6, 3), nn.Linear(5, 3)

        def forward(self, audio: Tensor, image: Tensor) -> Tensor:
            return self.ears(audio) + self.eyes(image)

    found = Competed(Sum(), _data(), spec(), tmp_path, REFERENCES)
    assert "the model has no latent" in found.probe("audio")["reason"]
    assert len(found.rows["sample_id"]) == 0
    named = Competed(Sum(), _data(), spec(latent="ears"), tmp_path / "named", REFERENCES)
    assert named.pooled("audio") < 1e-6 and named.pooled("image") > 0.9


def test_a_concept_that_does_not_vary(tmp_path):
    dead = Ears()
    nn.init.zeros_(dead.layer.weight)
    found = Competed(Joint(), _data(), spec(), tmp_path, {**REFERENCES, "audio": dead})
    assert found.probe("audio")["reason"] == "its concept is the same for all evaluated samples"
    assert np.isnan(found.rows["error"][:, :2]).all() and found.probe("image")["reason"] is None


def test_logits_as_they_are(tmp_path):
    class Shifted(Eyes):
        """The same but for a number that is added to all logits of a sample."""

        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) + 5 * image[:, 4:]

    plain, shifted = REFERENCES, {**REFERENCES, "image": Shifted(3)}
    centred = [
        Competed(Joint(), _data(), spec(), tmp_path / str(i), refs).pooled("image")
        for i, refs in enumerate((plain, shifted))
    ]
    assert centred[0] == pytest.approx(centred[1], abs=1e-5)
    raw = Competed(Joint(), _data(), spec(probe={"concept": "logits"}), tmp_path / "raw", shifted)
    assert raw.pooled("image") > 0.9


def test_a_given_penalty(tmp_path):
    wanted = spec(probe={"penalty": 7.5})
    found = Competed(Joint(), _data(), wanted, tmp_path, REFERENCES)
    assert found.probes["penalty"].tolist() == ["7.5", "120"] * 2
    assert found.probe("audio", "7.5")["value"] == 7.5
    one = Competed(Joint(), _data(), spec(probe={"penalty": 120}), tmp_path / "b", REFERENCES)
    assert one.probes["penalty"].tolist() == ["120"] * 2


def _stored(path, data, **more):
    ids = [name for batch in data for name in batch["id"]]
    with torch.no_grad():
        concept = Eyes()(_whole(data, "image"))
    np.savez(path, **{"id": np.array(ids), "concept": concept.numpy(), **more})


@pytest.mark.parametrize("train", [None, 1])
def test_concepts_from_a_file(tmp_path, train):
    data = _data()
    _stored(tmp_path / "image.npz", data)
    wanted = spec(probe={"concepts": {"image": str(tmp_path / "image.npz")}})
    more = {} if train is None else {"train": _data(600, seed=1)}
    found = Competed(Joint(), data, wanted, tmp_path / "work", **more)
    assert found.probe("image")["fitted_on"] == "one half of the audited samples"
    assert found.pooled("image") == pytest.approx(
        4 / 5, abs=0.06
    )  # as they are: nothing is centred
    assert found.surroundings.files[0].role == "concept of image"


@pytest.mark.parametrize(
    ("concepts", "error", "text"),
    [
        ({"imag": "x.npz"}, SpecError, "'imag' is no modality; there are audio, image"),
        ({"image": "gone.npz"}, SpecError, "gone.npz is no .npz or .parquet file that is there"),
        ({"image": "twice.npz"}, DataError, "id 's0' occurs twice"),
        ({"image": "few.npz"}, DataError, "no concept of sample 's300'"),
        ({"image": "cube.npz"}, DataError, "no table of numbers"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, concepts, error, text):
    data = _data()
    _stored(tmp_path / "twice.npz", data, id=np.array(["s0"] * 400))
    few = [{name: values[:60] for name, values in batch.items()} for batch in data[:5]]
    _stored(tmp_path / "few.npz", few, id=np.array([f"s{i}" for i in range(300)]))
    np.savez(tmp_path / "cube.npz", id=np.arange(4), concept=np.zeros((4, 2, 2)))
    named = {name: str(tmp_path / path) for name, path in concepts.items()}
    with pytest.raises(error, match=text):
        Competed(Joint(), data, spec(probe={"concepts": named}), tmp_path / "work")
    assert not (tmp_path / "work" / "competition").exists()


def test_segments_are_rows(tmp_path):
    class Steps(Joint):
        def forward(self, audio: Tensor, image: Tensor) -> Tensor:
            return super().forward(audio, image.unsqueeze(1).expand(-1, audio.shape[1], -1))

    data = [{**batch, "audio": torch.randn(len(batch["label"]), 4, 6), "label": torch.zeros(len(batch["label"]), 4).long()} for batch in _data(100)]  # fmt: skip
    found = Competed(Steps(), data, spec(task="segments"), tmp_path, {"audio": Ears()})
    assert found.pooled("audio") < 1e-4
    assert len(found.rows["sample_id"]) == 4 * len(set(found.rows["group"]))
    assert found.rows["sample_id"][0].endswith("#0")


def test_numbers(tmp_path):
    data = [{**batch, "label": torch.randn(len(batch["label"]))} for batch in _data()]
    refs = {"audio": Ears(outputs=1), "image": Eyes(1)}
    found = Competed(Joint(1), data, spec(task="regression"), tmp_path, refs)
    assert found.pooled("audio") < 1e-4 and found.pooled("image") < 1e-4
    assert found.probe("audio")["rank"] == 1  # one number less its own mean would be nothing


def test_very_wide_latents_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "_MOST_SUMS", 100)
    found = Competed(Joint(), _data(), spec(), tmp_path, REFERENCES)
    assert "8 features, too many to probe" in found.probe("audio")["reason"]


def test_training_data_that_cannot_be_used_is_no_end(tmp_path):
    train = _data(300, seed=1)
    train[3]["label"] = train[3]["label"] + 0.5
    found = Competed(Joint(), _data(), spec(), tmp_path, REFERENCES, train=train)
    assert found.notes[0].kind == "fallback"
    assert found.pooled("image") == pytest.approx(2 / 3, abs=0.08)


def test_of_very_much_data_some_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "_MOST_SAMPLES", 128)
    columns = {name: _whole(_data(1000), name) for name in ("audio", "image", "label")}
    wanted = {"modalities": MODALITIES, "target": "label"}
    found = Competed(Joint(), columns, wanted, tmp_path, REFERENCES, train=columns)
    assert found.probe("audio")["n"] <= 128 and len(found.rows["sample_id"]) <= 128


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_samples(tmp_path, n):
    """Whatever falls into which half, something is missing, and that is said."""
    found = Competed(Late(3), _data(n), spec(), tmp_path, REFERENCES)
    reasons = ("cannot be fitted", "no sample to fit", "no evaluated sample", "at least 2")
    assert any(reason in found.probe("audio")["reason"] for reason in reasons)
    assert np.isnan(found.rows["error"]).all()
