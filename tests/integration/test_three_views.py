"""A stranger's trained model of three views of handwritten digits, audited beside models of single views.

Every figure of the audit is computed once more from the weights in the files, by numpy alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import mmaudit
from mmaudit.evidence.further import FURTHER
from mmaudit.evidence.references import REFERENCES, collect_references
from mmaudit.measures import MEASURES
from mmaudit.measures.capacity_gap import CapacityGap
from mmaudit.referencing import train_references
from tests.integration.shared_data import shared_file

VIEWS = ("fou", "kar", "pix")
HIDDEN = 24
_CODE = """
import torch
from torch import nn


class Digits(nn.Module):
    def __init__(self, sizes, hidden):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(size, hidden), nn.ReLU()) for name, size in sizes.items()}
        )
        self.head = nn.Sequential(nn.Linear(hidden * len(sizes), 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, fou, kar, pix):
        views = {"fou": fou, "kar": kar, "pix": pix}
        return self.head(torch.cat([part(views[name]) for name, part in self.encoders.items()], 1))
"""


def split_views(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every fifth sample is for testing; views are standardised as the training part says."""
    raw = np.load(shared_file("mfeat/mfeat.npz"))
    test = np.arange(len(raw["y"])) % 5 == 0
    splits = {}
    for name, rows in (("train", ~test), ("test", test)):
        splits[name] = {"y": raw["y"][rows].astype(np.int64)}
        for view in VIEWS:
            known = raw[view][~test].astype(np.float64)
            values = (raw[view][rows] - known.mean(0)) / (known.std(0) + 1e-6)
            # Moved, so that the mean of the training data is not zero.
            splits[name][view] = (values + 0.5).astype(np.float32)
        np.savez(folder / f"{name}.npz", **splits[name])
    return splits


def train_jointly(folder: Path, train: dict[str, np.ndarray]) -> None:
    """Plain training; one view is noised, so that the joint model comes to trust it less than it could."""
    namespace: dict[str, object] = {}
    exec(_CODE, namespace)  # noqa: S102  the test's own text
    torch.manual_seed(0)
    sizes = {view: train[view].shape[1] for view in VIEWS}
    model = namespace["Digits"](sizes, HIDDEN)
    x, y = {v: torch.from_numpy(train[v]) for v in VIEWS}, torch.from_numpy(train["y"])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(12):
        for rows in torch.randperm(len(y)).split(64):
            given = {v: x[v][rows] for v in VIEWS}
            given["kar"] = given["kar"] + 2 * torch.randn_like(given["kar"])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(**given), y[rows]).backward()
            optimizer.step()
    save_file(model.state_dict(), folder / "weights.safetensors")


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def layer(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def joint_scores(weights: dict[str, np.ndarray], views: dict[str, np.ndarray]) -> np.ndarray:
    parts = [relu(layer(weights, f"encoders.{view}.0", views[view])) for view in VIEWS]
    return layer(weights, "head.2", relu(layer(weights, "head.0", np.concatenate(parts, 1))))


def read_weights(path: Path, prefix: str = "") -> dict[str, np.ndarray]:
    found = load_file(path)
    return {k.removeprefix(prefix): v.double().numpy() for k, v in found.items()}


@pytest.mark.slow
def test_accuracies_gaps_and_drops_are_those_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FURTHER, REFERENCES, collect_references)
    monkeypatch.setitem(MEASURES, CapacityGap.key, CapacityGap)
    splits = split_views(tmp_path)
    train, test = splits["train"], splits["test"]
    (tmp_path / "digits_net.py").write_text(_CODE)
    train_jointly(tmp_path, train)
    sizes = {view: train[view].shape[1] for view in VIEWS}
    project = tmp_path / "audit.yaml"
    audit_file = {
        "model": {"factory": "digits_net:Digits", "args": {"sizes": sizes, "hidden": HIDDEN}},
        "checkpoint": "weights.safetensors",
        "data": {"test": "test.npz", "train": "train.npz"},
        "modalities": {v: {"inputs": v, "mask": "mean" if v == "fou" else "zero"} for v in VIEWS},
        "target": "y",
        "references": "runs/alone",
    }
    project.write_text(yaml.safe_dump(audit_file, sort_keys=False))
    trained = train_references(
        project,
        out=tmp_path / "runs/alone",
        without=True,
        recipe={"epochs": 10, "lr": 3e-3},
        device="cpu",
    )
    report = mmaudit.audit(project, device="cpu", replicates=200)

    # The joint model, whole and with views masked.
    weights = read_weights(tmp_path / "weights.safetensors")
    n = len(test["y"])
    masked = {v: np.zeros_like(test[v]) for v in VIEWS}
    masked["fou"] = np.broadcast_to(train["fou"].mean(0, keepdims=True), test["fou"].shape)

    def right(present: set[str]) -> np.ndarray:
        views = {v: test[v] if v in present else masked[v] for v in VIEWS}
        return joint_scores(weights, views).argmax(1) == test["y"]

    for present in ({"fou", "kar", "pix"}, {"kar", "pix"}, {"fou", "pix"}, {"fou", "kar"}, {"kar"}, set()):  # fmt: skip
        name = "+".join(v for v in VIEWS if v in present) or "none"
        value = report.estimate("coalitions", coalition=name).value
        assert value == pytest.approx(right(present).mean(), abs=5e-4), name

    # Each view alone, and everything without it.
    whole = right(set(VIEWS)).mean()
    for view in VIEWS:
        folder = tmp_path / "runs/alone" / view
        own = read_weights(folder / "model.safetensors")
        scores = layer(own, "head", relu(layer(own, f"model.encoders.{view}.0", test[view])))
        alone = (scores.argmax(1) == test["y"]).mean()
        rest = read_weights(tmp_path / f"runs/alone/without-{view}/model.safetensors", "model.")
        seen = {v: masked[v] if v == view else test[v] for v in VIEWS}
        without = (joint_scores(rest, seen).argmax(1) == test["y"]).mean()
        expected = {
            ("alone", "none"): alone,
            ("above chance", "none"): alone - 0.1,  # forty of each digit
            ("gap", "first"): alone - right({view}).mean(),
            ("joint advantage", "none"): whole - alone,
            ("drop without", "none"): whole - without,
        }
        for (quantity, mask), value in expected.items():
            found = report.estimate("capacity_gap", modality=view, quantity=quantity, mask=mask)
            assert found.value == pytest.approx(value, abs=5e-4), (view, quantity)
            assert found.n == n and found.low <= found.value <= found.high
        assert trained[view].accuracy.value == pytest.approx(alone, abs=5e-4)
        assert trained[f"without-{view}"].accuracy.value == pytest.approx(without, abs=5e-4)
    # The view that was noised while the joint model learnt says more alone than is read out of it.
    gap = report.estimate("capacity_gap", modality="kar", quantity="gap", mask="first")
    assert gap.low > 0
