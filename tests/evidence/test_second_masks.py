"""The second mask gives what an audit with that mask gives, on samples spread over the data."""

import numpy as np
import pytest
import torch
from torch import nn

import mmaudit
from mmaudit.evidence.mask_distance import nearest
from mmaudit.evidence.second_masks import second_spec, spread
from mmaudit.exceptions import SpecError
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.tables import read_chunks


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ears, self.eyes, self.head = nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(8, 3)

    def forward(self, audio, image):
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1))


def batches(n=300, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(n, 3, generator=generator) + 1
    image = torch.randn(n, 5, generator=generator)
    y = Late()(audio, image).argmax(1)
    return [
        {"audio": audio[i : i + size], "image": image[i : i + size], "y": y[i : i + size]}
        for i in range(0, n, size)
    ]


def spec(mask="zero", **more):
    modalities = {name: {"inputs": name, "mask": mask} for name in ("audio", "image")}
    return {"modalities": modalities, "target": "y", **more}


def table(report, name):
    chunks = list(read_chunks(report.table(name)))
    return {key: np.concatenate([c[key] for c in chunks]) for key in chunks[0]}


def test_it_is_the_audit_with_the_other_mask():
    report = mmaudit.audit(Late(), batches(), spec("zero"))
    other = mmaudit.audit(Late(), batches(), spec("marginal"))
    assert report.record.second_masks["audio"].startswith("marginal")
    assert other.record.second_masks == {"audio": "zero", "image": "zero"}
    for mine, theirs in ((report, other), (other, report)):
        seen, expected = table(mine, "second"), table(theirs, "coalitions")
        np.testing.assert_array_equal(seen["sample_id"], expected["sample_id"])
        np.testing.assert_allclose(seen["loglik"], expected["loglik"], atol=1e-5)
    for quantity in ("contribution", "drop", "utilization"):
        one = report.estimate(
            "mask_sensitivity", modality="audio", quantity=quantity, mask="second"
        )
        two = other.estimate("mask_sensitivity", modality="audio", quantity=quantity, mask="first")
        assert one == two
    contribution = other.estimate("contributions", modality="audio")
    assert other.estimate("mask_sensitivity", modality="audio") == contribution


def test_drop_is_what_accuracy_loses():
    report = mmaudit.audit(Late(), batches(), spec())
    frame = report.to_frame("coalitions")
    frame = frame[(frame.score == "accuracy") & (frame["class"] == "all")].set_index("coalition")
    drop = report.estimate("mask_sensitivity", modality="image", quantity="drop")
    assert drop.value == pytest.approx(frame.value["audio+image"] - frame.value["audio"])


def test_large_data_are_sampled_evenly():
    given = batches(1200, size=20)
    report = mmaudit.audit(Late(), given, spec(second_mask={"samples": 100}))
    positions = table(report, "second")["position"]
    assert report.evidence.second_samples == len(positions) == 100
    assert positions.max() > 900 and positions.min() < 300
    assert np.unique(positions // 20).tolist() == list(range(0, 60, 12))


@pytest.mark.parametrize("wanted", ["off", False])
def test_it_can_be_switched_off(wanted):
    report = mmaudit.audit(Late(), batches(64), spec(second_mask=wanted))
    assert report.record.second_masks == {} and "second" not in report.record.tables
    masks = set(report.to_frame("mask_sensitivity")["mask"])
    assert masks == {"first"}


def test_a_named_mask_is_taken():
    report = mmaudit.audit(Late(), batches(64), spec(second_mask={"constant": 0.5}))
    assert set(report.record.second_masks.values()) == {"constant 0.5"}


def test_a_named_mask_that_cannot_be_made_is_refused():
    given = [{k: v[:1] for k, v in batches(8)[0].items()}]
    with pytest.raises(SpecError, match="at least 2 samples"):
        mmaudit.audit(Late(), given, spec(second_mask="marginal"))
    report = mmaudit.audit(Late(), given, spec())
    assert any("second mask" in note.text for note in report.record.notes)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(2, 3)

    def forward(self, a, b):
        return self.left(a.mean((1, 2))) + self.right(b)


def test_data_that_the_mask_does_not_fit_go_without():
    torch.manual_seed(1)
    given = [
        {"a": torch.randn(8, 4, w, 2), "b": torch.randn(8, 2), "y": torch.arange(8) % 3}
        for w in (3, 5, 3)
    ]
    plain = {"modalities": {"a": "a", "b": "b"}, "target": "y"}
    report = mmaudit.audit(Words(), given, plain)
    assert report.record.second_masks == {} or "second" not in report.record.tables
    assert any("second mask" in note.text for note in report.record.notes)
    assert report.estimate("mask_sensitivity", modality="a").value is not None


def test_kept_inputs_stay_kept():
    given = MaskingSpec.model_validate(
        {
            "modalities": {
                "text": {
                    "inputs": {"ids": "ids", "mask": "mask"},
                    "mask": {"ids": {"token": 0}, "mask": "keep"},
                },
                "image": {"inputs": "image", "mask": "marginal"},
            }
        }
    )
    masks = {
        key: mask.kind
        for part in second_spec(given).modalities.values()
        for key, mask in part.mask.items()
    }
    assert masks == {"ids": "marginal", "mask": "keep", "image": "zero"}


@pytest.mark.parametrize(
    ("samples", "count", "wanted", "every"),
    [(100, 4, 2000, 1), (2001, 100, 2000, 2), (1_000_000, 15_625, 2000, 500), (5000, 1, 50, 1)],
)
def test_spread(samples, count, wanted, every):
    assert spread(samples, count, wanted) == every


def test_nearest_by_hand():
    data = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert nearest(data, data).tolist() == [1.0, pytest.approx(18**0.5), 1.0]
    # a donor's values are no distance of 0
    assert nearest(data[[1, 1, 1]], data)[0] == pytest.approx(18**0.5)


def test_distance_tells_a_mask_within_the_data_from_one_outside():
    report = mmaudit.audit(Late(), batches(), spec({"constant": 25.0}))
    outside = report.estimate("mask_sensitivity", modality="audio", quantity="distance")
    inside = report.estimate(
        "mask_sensitivity", modality="audio", quantity="distance", mask="second"
    )
    assert outside.value > 10
    assert inside.low < 1 < inside.high


class Rows(torch.utils.data.Dataset):
    def __init__(self, n=700):
        self.batch = batches(n, size=n)[0]

    def __len__(self):
        return len(self.batch["y"])

    def __getitem__(self, i):
        return {key: values[i] for key, values in self.batch.items()}


def distances(data, given, **more):
    report = mmaudit.audit(Late(), data, given, **more)
    return table(report, "mask_distance")


@pytest.mark.parametrize("kind", ["loader", "arrays", "batches"])
def test_distances_are_those_of_the_same_samples_whatever_the_batch_size(kind):
    rows = Rows()

    def read(size):
        if kind == "loader":
            return distances(torch.utils.data.DataLoader(rows, batch_size=size), spec())
        if kind == "arrays":
            return distances(rows.batch, spec(), batch_size=size)
        return distances(batches(700, size=size), spec())

    few = read(32)
    assert len(few["sample_id"]) == 256
    for size in (64, 100, 700):
        other = read(size)
        assert other["sample_id"].tolist() == few["sample_id"].tolist()
        for view in ("real", "first", "second"):
            np.testing.assert_allclose(other[view], few[view], rtol=1e-5)


def test_distances_are_of_samples_from_all_of_the_data_by_their_own_ids():
    rows = Rows()
    rows.batch["name"] = torch.arange(700)
    loader = torch.utils.data.DataLoader(rows, batch_size=64)
    numbered, named = distances(loader, spec()), distances(loader, spec(ids="name"))
    ids = numbered["sample_id"].astype(int)
    assert numbered["sample_id"].tolist() == named["sample_id"].tolist()
    assert (np.diff(ids) > 0).all() and ids[0] < 20 and ids[-1] > 680
    # Donors are drawn by id, so that they are the same too.
    np.testing.assert_allclose(numbered["second"], named["second"], rtol=1e-5)
    with torch.no_grad():
        points = Late().ears(rows.batch["audio"][ids]).numpy()
    np.testing.assert_allclose(numbered["real"][:, 0], nearest(points, points), rtol=1e-4)


class Uneven(torch.utils.data.Dataset):
    """Two kinds of samples, which only a sampler keeps apart."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        return {
            "a": torch.randn(4, 3 if i < 30 else 5, 2, generator=generator),
            "b": torch.randn(2, generator=generator),
            "y": i % 3,
        }


def test_samples_that_only_fit_together_in_their_own_batches_are_read_in_those():
    sampler = [list(range(i, i + 10)) for i in range(0, 60, 10)]
    loader = torch.utils.data.DataLoader(Uneven(), batch_sampler=sampler)
    plain = {"modalities": {"a": "a", "b": "b"}, "target": "y", "second_mask": "off"}
    report = mmaudit.audit(Words(), loader, plain)
    found = table(report, "mask_distance")
    assert found["sample_id"].tolist() == [str(i) for i in range(60)]
    assert np.isfinite(found["first"][:, 1]).all()
