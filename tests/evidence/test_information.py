import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmaudit.evidence import gathering, information
from tests.evidence.probe_data import MODALITIES, Late, Probed, audio_and_image, spec, split


def test_a_modality_that_says_something_and_one_that_does_not(tmp_path):
    found = Probed(Late(), audio_and_image(), spec(), tmp_path)
    for kind in ("inputs", "encoder", "best"):
        assert 0.3 < found.gain("audio", kind) < 0.8
        assert abs(found.gain("image", kind)) < 0.005
        rows = found.of("image", kind)
        assert (rows["score"] == rows["constant"]).mean() > 0.9
    rows = found.of("audio")
    assert len(set(rows["sample_id"])) == len(rows["sample_id"]) == 300
    assert set(rows["group"]) == set(rows["sample_id"])
    assert found.probe("audio")["said"] in ("inputs", "encoder", "inputs and encoder")
    assert found.probe("audio", "inputs")["learnt_from"] == "other audited samples"
    assert not found.notes
    before = (tmp_path / "information" / "part-000-000000.parquet").read_bytes()
    assert information.collect_information(found.surroundings) == ()
    assert (tmp_path / "information" / "part-000-000000.parquet").read_bytes() == before


def test_neither_batch_size_nor_order_changes_it(tmp_path):
    found = [
        Probed(Late(), data, spec(), tmp_path / str(i))
        for i, data in enumerate(
            [audio_and_image(200), audio_and_image(200, size=13), _reversed(audio_and_image(200))]
        )
    ]
    for other in found[1:]:
        assert list(other.rows["sample_id"]) == list(found[0].rows["sample_id"])
        for name in ("score", "gain", "entropy"):
            assert np.allclose(found[0].rows[name], other.rows[name], atol=1e-4)


def _reversed(batches):
    return [
        {name: values.flip(0) if isinstance(values, Tensor) else values[::-1] for name, values in batch.items()}
        for batch in batches[::-1]
    ]  # fmt: skip


def test_it_is_the_same_every_time(tmp_path):
    a, b = (Probed(Late(), audio_and_image(120), spec(), tmp_path / x) for x in "ab")
    assert all(np.array_equal(a.rows[name], b.rows[name]) for name in a.rows)


def test_some_samples_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(information, "_MOST_SAMPLES", 100)
    found = [
        Probed(Late(), audio_and_image(900, size=size), spec(), tmp_path / str(size))
        for size in (64, 100)
    ]
    ids = [set(part.of("audio")["sample_id"]) for part in found]
    assert ids[0] == ids[1] and len(ids[0]) == 100
    places = sorted(int(name[1:]) for name in ids[0])
    assert places[0] < 90 and places[-1] > 810  # spread over the data
    assert "probed on 100 samples, spread over the data" in found[0].notes[0].text


def test_of_very_much_data_some_batches_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "_MOST_READ", 256)
    columns = {
        name: torch.cat([batch[name] for batch in audio_and_image(1200)])
        for name in ("audio", "image", "label")
    }
    found = Probed(Late(), columns, {"modalities": MODALITIES, "target": "label"}, tmp_path)
    assert 200 < len(found.of("audio")["sample_id"]) <= 256
    assert "spread over 1,200" in found.notes[0].text


def test_samples_that_lack_a_modality_are_left_out(tmp_path):
    found = Probed(Late(), audio_and_image(400, lacking=0.4), spec(), tmp_path)
    rows = found.of("audio")
    assert 200 < len(rows["sample_id"]) < 280
    assert len(found.of("image")["sample_id"]) == 400
    assert 0.3 < found.gain("audio") < 0.8


def test_a_modality_that_hardly_any_sample_has(tmp_path):
    data = audio_and_image(100, lacking=0.9)
    found = Probed(Late(), data, spec(), tmp_path)
    n = sum(int((~torch.isnan(batch["audio"][:, 0])).sum()) for batch in data)
    expected = f"{n} of the samples looked at have it: a probe needs 20"
    assert found.probe("audio")["reason"] == expected
    assert len(found.of("audio")["score"]) == 0
    assert found.probe("image")["reason"] is None


def test_groups_stay_whole(tmp_path):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 8)
    audio = torch.as_tensor(rng.standard_normal((40, 6))[groups], dtype=torch.float32)
    label = torch.as_tensor(rng.integers(0, 2, 40)[groups])
    columns = {
        "audio": audio + 0.05 * torch.randn(320, 6),
        "image": torch.randn(320, 5),
        "label": label,
        "clip": [f"c{g}" for g in groups],
    }
    found = Probed(Late(), split(columns), spec(group="clip"), tmp_path)
    assert found.gain("audio") < 0.1
    assert len(set(found.of("audio")["group"])) == 40
    alone = {**columns, "clip": ["one"] * 320}
    told = Probed(Late(), split(alone), spec(group="clip"), tmp_path / "alone")
    assert "all samples belong to one group" in told.probe("audio")["reason"]


def test_training_data_is_learnt_from(tmp_path):
    train = audio_and_image(400, seed=7)
    found = Probed(Late(), audio_and_image(200), spec(), tmp_path, train=train)
    assert found.probe("audio", "inputs")["learnt_from"] == "training data"
    assert found.probe("audio", "inputs")["n"] == 400
    assert found.probe("audio", "encoder")["learnt_from"] == "other audited samples"
    assert 0.3 < found.gain("audio", "inputs") < 0.8
    assert abs(found.gain("image", "inputs")) < 0.005
    little = Probed(Late(), audio_and_image(200), spec(), tmp_path / "b", train=train[:1])
    assert little.probe("audio", "inputs")["learnt_from"] == "other audited samples"


def test_training_data_that_cannot_be_read_is_no_end(tmp_path):
    train = audio_and_image(200, seed=7)
    train[2]["label"] = train[2]["label"] + 0.5
    found = Probed(Late(), audio_and_image(200), spec(), tmp_path, train=train)
    assert 0.3 < found.gain("audio") < 0.8
    assert found.notes[0].kind == "fallback" and "expected an integer" in found.notes[0].text


class _Memory(nn.Module):
    """Its eyes know the training pictures by heart: their first feature is the label of the nearest one, if it is near."""

    def __init__(self, pictures: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.ears, self.eyes = nn.Linear(6, 4), _Eyes(pictures, labels)
        self.head = nn.Linear(6, 2)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1))


class _Eyes(nn.Module):
    def __init__(self, pictures: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("pictures", pictures)
        self.register_buffer("labels", labels.float())

    def forward(self, image: Tensor) -> Tensor:
        distance, nearest = torch.cdist(image, self.pictures).min(1)
        known = (distance < 1e-3).float()
        return torch.stack([known * (2 * self.labels[nearest] - 1), image[:, 0]], 1)


def test_an_encoder_that_knows_its_training_data_is_not_believed(tmp_path):
    train = audio_and_image(400, seed=7)
    pictures, labels = (torch.cat([batch[name] for batch in train]) for name in ("image", "label"))
    model = _Memory(pictures, labels)
    inside = Probed(model, train, spec(), tmp_path / "a")
    assert inside.gain("image", "encoder") > 0.9  # the control: on its own data it would be
    found = Probed(model, audio_and_image(300), spec(), tmp_path / "b", train=train)
    assert abs(found.gain("image", "encoder")) < 0.01 and abs(found.gain("image")) < 0.01


def test_what_only_the_encoder_makes_visible(tmp_path):
    class Parity(nn.Module):
        """Its ears count signs, which small learners cannot."""

        def __init__(self) -> None:
            super().__init__()
            self.ears, self.eyes = Signs(), nn.Linear(5, 2)
            self.head = nn.Linear(3, 2)

        def forward(self, audio: Tensor, image: Tensor) -> Tensor:
            return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1))

    class Signs(nn.Module):
        def forward(self, audio: Tensor) -> Tensor:
            return audio.sign().prod(1, keepdim=True)

    data = audio_and_image(300)
    for batch in data:
        batch["audio"] = torch.randn(len(batch["label"]), 6)
        batch["label"] = (batch["audio"].sign().prod(1) > 0).long()
    found = Probed(Parity(), data, spec(), tmp_path)
    assert found.gain("audio", "encoder") > 0.9 and found.gain("audio", "best") > 0.9
    assert found.gain("audio", "inputs") < 0.2
    assert found.probe("audio")["said"] == "encoder"


def test_models_without_encoders(tmp_path):
    class Early(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Linear(11, 2)

        def forward(self, audio: Tensor, image: Tensor) -> Tensor:
            return self.both(torch.cat([audio, image], 1))

    found = Probed(Early(), audio_and_image(200), spec(), tmp_path)
    assert (
        found.probe("audio", "encoder")["reason"]
        == "no module of the model sees this modality alone"
    )
    assert found.gain("audio") == found.gain("audio", "inputs") > 0.3


def test_one_modality(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    wanted = spec(modalities={"audio": {"inputs": "audio"}})
    found = Probed(model, audio_and_image(200), {**wanted, "call": {"args": ["audio"]}}, tmp_path)
    assert 0.3 < found.gain("audio") < 0.8


def test_twelve_modalities(tmp_path):
    class Twelve(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoders = nn.ModuleList([nn.Linear(2, 3) for _ in range(12)])
            self.head = nn.Linear(36, 2)

        def forward(self, *inputs: Tensor) -> Tensor:
            return self.head(torch.cat([e(x) for e, x in zip(self.encoders, inputs)], 1))

    label = torch.randint(0, 2, (60,), generator=torch.Generator().manual_seed(0))
    columns = {f"m{i}": torch.randn(60, 2) for i in range(12)}
    columns["m7"][:, 0] += 5 * label
    wanted = {"modalities": {name: name for name in columns}, "target": "label", "ids": "id"}
    found = Probed(Twelve(), split({**columns, "label": label}), wanted, tmp_path)
    gains = {name: found.gain(name) for name in columns}
    assert max(gains, key=gains.get) == "m7" and gains["m7"] > 0.6
    assert sum(gain < 0.1 for gain in gains.values()) == 11


def test_a_target_that_does_not_vary(tmp_path):
    data = [{**batch, "label": torch.ones_like(batch["label"])} for batch in audio_and_image(60)]
    found = Probed(Late(), data, spec(), tmp_path)
    assert "the target does not vary" in found.probe("audio")["reason"]
    assert len(found.rows["score"]) == 0


@pytest.mark.parametrize(("classes", "gain"), [(3, 0.8), (80, 0.05)])
def test_more_classes(tmp_path, classes, gain):
    """80 classes are more than trees are asked about, and most have a sample or two."""
    data = audio_and_image(200)
    generator = torch.Generator().manual_seed(3)
    for batch in data:
        batch["label"] = torch.randint(0, classes, batch["label"].shape, generator=generator)
        batch["audio"] = nn.functional.one_hot(batch["label"] % 6, 6).float()
    found = Probed(Late(classes), data, spec(), tmp_path)
    assert found.gain("audio") > gain and abs(found.gain("image")) < 0.02


def test_segments(tmp_path):
    """Audio has values for each segment, image none; three of five segments have a label."""

    class Steps(Late):
        def forward(self, audio: Tensor, image: Tensor) -> Tensor:
            eyes = self.eyes(image).unsqueeze(1).expand(-1, audio.shape[1], -1)
            return self.head(torch.cat([self.ears(audio), eyes], -1))

    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (80, 5), generator=generator)
    audio = torch.randn(80, 5, 6, generator=generator)
    audio[..., 0] += 3 * label
    label[:, 3:] = -1
    columns = {"audio": audio, "image": torch.randn(80, 5), "label": label}
    found = Probed(Steps(), split(columns), spec(task="segments"), tmp_path)
    rows = found.of("audio")
    assert len(rows["sample_id"]) == 240 and rows["sample_id"][0].count("#") == 1
    assert len(set(rows["group"])) == 80
    assert found.gain("audio", "inputs") > 0.4 and found.gain("audio", "encoder") > 0.4
    assert abs(found.gain("image")) < 0.03


def test_labels(tmp_path):
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(250, 6, generator=generator)
    label = torch.stack([audio[:, 0] > 0, audio[:, 1] > 1], 1).long()
    label[::9, 1] = -1
    columns = {"audio": audio, "image": torch.randn(250, 5), "label": label}
    found = Probed(Late(), split(columns), spec(task="multilabel"), tmp_path)
    rows = found.of("audio")
    assert len(rows["sample_id"]) == 250 + 250 - len(range(0, 250, 9))
    assert {name.split("#")[1] for name in rows["sample_id"]} == {"0", "1"}
    assert found.gain("audio") > 0.5 and abs(found.gain("image")) < 0.03


def test_of_many_labels_those_that_vary_most(tmp_path):
    label = (torch.rand(120, 30) < torch.linspace(0.01, 0.5, 30)).long()
    columns = {"audio": torch.randn(120, 6), "image": torch.randn(120, 5), "label": label}
    found = Probed(Late(30), split(columns), spec(task="multilabel"), tmp_path)
    rows = found.of("audio")
    assert len({name.split("#")[1] for name in rows["sample_id"]}) == 20
    assert "20 of the 30 parts of the target" in found.notes[0].text
    assert rows["entropy"].min() > 0


def test_numbers(tmp_path):
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(250, 6, generator=generator)
    noise = torch.randn(250, generator=generator)
    value = torch.stack([audio[:, 0] ** 2, 100 + noise], 1)
    value[::8, 1] = torch.nan
    columns = {"audio": audio, "image": torch.randn(250, 5), "label": value}
    found = Probed(Late(), split(columns), spec(task="regression"), tmp_path)
    rows = found.of("audio")
    assert len(rows["sample_id"]) == 250 + 250 - len(range(0, 250, 8))
    assert 0.2 < found.gain("audio") < 0.55  # one number of two
    assert abs(found.gain("image")) < 0.02
    single = {**columns, "label": value[:, 0]}
    one = Probed(Late(1), split(single), spec(task="regression"), tmp_path / "one")
    assert "#" not in one.of("audio")["sample_id"][0] and one.gain("audio") > 0.5


def test_token_sequences_of_any_length(tmp_path):
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(40, 8)
            self.eyes = nn.Linear(5, 8)
            self.head = nn.Linear(16, 2)

        def forward(self, text: Tensor, image: Tensor) -> Tensor:
            return self.head(torch.cat([self.words(text).mean(1), self.eyes(image)], 1))

    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (200,), generator=generator)
    rows = []
    for y in label.tolist():
        length = int(torch.randint(3, 12, (1,), generator=generator))
        rows.append(torch.randint(1, 40, (length,), generator=generator))
        rows[-1][0] = 5 if y else 6

    def batches(size):
        return [
            {
                "text": nn.utils.rnn.pad_sequence(rows[at : at + size], batch_first=True),
                "image": torch.zeros(len(rows[at : at + size]), 5),
                "label": label[at : at + size],
                "id": [f"s{i}" for i in range(at, min(at + size, 200))],
            }
            for at in range(0, 200, size)
        ]

    modalities = {"text": {"inputs": "text", "mask": {"token": 0}}, "image": "image"}
    wanted = {"modalities": modalities, "target": "label", "ids": "id"}
    found = [Probed(Reader(), batches(size), wanted, tmp_path / str(size)) for size in (20, 33)]
    assert found[0].gain("text", "inputs") > 0.6
    assert np.allclose(found[0].of("text", "inputs")["gain"], found[1].of("text", "inputs")["gain"])
    assert found[0].probe("text", "encoder")["reason"] is None
    assert found[0].gain("image") == 0


def test_a_callable_and_what_is_no_tensor(tmp_path):
    def model(audio, words):
        return torch.stack([audio.sum(1), -audio.sum(1)], 1)

    data = [{**batch, "words": ["a"] * len(batch["label"])} for batch in audio_and_image(120)]
    modalities = {"audio": "audio", "words": {"inputs": "words", "mask": "drop"}}
    wanted = {"modalities": modalities, "target": "label", "ids": "id"}

    class Called(nn.Module):
        def forward(self, audio, words):
            return model(audio, words)

    found = Probed(Called(), data, wanted, tmp_path)
    assert found.gain("audio", "inputs") > 0.2
    assert found.probe("words", "inputs")["reason"] == "input 'words' is a list, no tensor"
    assert found.probe("words", "best")["reason"] is not None


def test_shared_encoders_and_pictures(tmp_path):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eye = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(2 * 4 * 6 * 6, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.head(torch.cat([self.eye(left), self.eye(right)], 1))

    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (150,), generator=generator)
    left, right = torch.randn(2, 150, 1, 8, 8, generator=generator)
    left[label == 1, 0, :3, :3] += 1.5
    columns = {"left": left.to(torch.float64).float(), "right": right, "label": label}
    wanted = {"modalities": {"left": "left", "right": "right"}, "target": "label", "ids": "id"}
    found = Probed(Shared(), split(columns), wanted, tmp_path)
    for kind in ("inputs", "encoder"):
        assert found.gain("left", kind) > 0.3 and abs(found.gain("right", kind)) < 0.05
