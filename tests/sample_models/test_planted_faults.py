"""Every subject's truth.json against its shipped weights, by plain masking: no code of the engine but the spec's reader."""

from __future__ import annotations

import importlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import r2_score
from torch.utils.data import default_collate

import sample_models
from mmaudit.exceptions import DataError
from mmaudit.masking.spec import read_spec

FOLDER = Path(sample_models.__file__).parent
TRUTHS = sorted(FOLDER.rglob("truth.json"))
CLEAR, NOTHING = 0.1, 0.02


@dataclass
class Subject:
    truth: dict
    names: list[str]
    accuracy: dict[frozenset[str], float]
    moves: dict[str, float]

    def solo(self, m):
        return self.accuracy[frozenset([m])]

    def needed(self, m):
        return self.accuracy[frozenset(self.names)] - self.accuracy[frozenset(self.names) - {m}]

    @property
    def empty(self):
        return self.accuracy[frozenset()]


def call(reference, **arguments):
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)(**arguments)


def load(folder, spec):
    model = call(spec.model.factory, **spec.model.args)
    model.load_state_dict(load_file(folder / spec.checkpoint))
    return model.eval()


def score(spec, outputs, batch):
    """Plain score of the task: accuracy (of the labels that are known), or R2."""
    if spec.outputs.path is not None:
        outputs = getattr(outputs, spec.outputs.path)
    target = batch[spec.target]
    if spec.task == "regression":
        return r2_score(target.numpy(), outputs.numpy())
    if spec.task == "multilabel":
        return ((outputs > 0) == (target == 1))[target >= 0].double().mean().item()
    return (outputs.argmax(1) == target).double().mean().item()


def largest_change(one, other):
    pairs = [(one, other)] if isinstance(one, torch.Tensor) else zip(one, other, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def every_sample(source):
    try:
        loader = call(source.factory, **source.args)
    except DataError as error:
        pytest.skip(f"data not on this machine: {error}")
    return default_collate([loader.dataset[i] for i in range(len(loader.dataset))])


@pytest.fixture(
    scope="module", params=TRUTHS, ids=lambda path: str(path.parent.relative_to(FOLDER))
)
def subject(request):
    truth = json.loads(request.param.read_text())
    folder = request.param.parent
    spec = read_spec(folder / truth["audit_file"])
    batch = every_sample(spec.data.test)
    model, names = load(folder, spec), list(spec.modalities)
    assert spec.call.args == tuple(names)
    outputs = {}
    with torch.no_grad():
        for size in range(len(names) + 1):
            for present in itertools.combinations(names, size):
                inputs = [batch[m] if m in present else torch.zeros_like(batch[m]) for m in names]
                outputs[frozenset(present)] = model(*inputs)
    accuracy = {key: score(spec, found, batch) for key, found in outputs.items()}
    grand = frozenset(names)
    moves = {m: largest_change(outputs[grand], outputs[grand - {m}]) for m in names}
    assert abs(accuracy[grand] - spec.expected.accuracy) <= spec.expected.tolerance + 1e-9
    if not truth["tolerance"]:
        assert accuracy[grand] == pytest.approx(spec.expected.accuracy, abs=1e-9)
    return Subject(truth, names, accuracy, moves)


def test_every_subject_is_here():
    folders = {str(path.parent.relative_to(FOLDER)) for path in TRUTHS}
    assert {"digits", "mmtm", "mnist_fsdd", "scenes", "sensors"} < folders
    assert {f"synthetic/{case}" for case in ("balanced2", "balanced3", "five", "xor")} < folders


def test_the_accuracy_of_every_coalition_is_as_stated(subject):
    stated = {
        frozenset(key.split("+")) - {""}: value for key, value in subject.truth["accuracy"].items()
    }
    assert stated.keys() == subject.accuracy.keys()
    for key, value in stated.items():
        assert subject.accuracy[key] == pytest.approx(
            value, abs=subject.truth["tolerance"] + 1e-9
        ), key


def test_stated_contributions_are_the_shapley_values_over_all_orders(subject):
    orders = list(itertools.permutations(subject.names))
    for m in subject.names:
        value = sum(
            subject.accuracy[frozenset(order[: order.index(m) + 1])]
            - subject.accuracy[frozenset(order[: order.index(m)])]
            for order in orders
        ) / len(orders)
        stated = subject.truth["contributions"][m]
        assert value == pytest.approx(stated, abs=subject.truth["tolerance"] + 1e-9), m


def test_each_modality_is_what_its_label_says(subject):
    alone = subject.truth["alone"]
    informative = {m: alone[m] - subject.empty > CLEAR for m in subject.names}
    for m, label in subject.truth["modalities"].items():
        needed, solo = subject.needed(m), subject.solo(m)
        holds = {
            "well used": lambda: needed > CLEAR,
            "dominant": lambda: (
                needed > CLEAR
                and all(needed > 2 * subject.needed(o) for o in subject.names if o != m)
            ),
            "under-used": lambda: (
                informative[m]
                and alone[m] - solo > CLEAR
                and needed <= CLEAR
                and subject.moves[m] > 0
            ),
            "ignored": lambda: informative[m] and subject.moves[m] == 0,
            "redundant": lambda: abs(needed) <= NOTHING and solo - subject.empty > CLEAR / 2,
            "uninformative": lambda: (
                not informative[m] and abs(needed) <= NOTHING and subject.moves[m] > 0
            ),
        }[label]
        assert holds(), (m, label, needed, solo)


@pytest.mark.parametrize("name", ["digits", "mnist_fsdd"])
def test_unimodal_models_reach_what_the_truth_says_of_them(name):
    truth = json.loads((FOLDER / name / "truth.json").read_text())
    spec = read_spec(FOLDER / name / "audit.yaml")
    batch = every_sample(spec.data.test)
    for m in spec.modalities:
        model = call(spec.model.factory, kind=m)
        model.load_state_dict(load_file(FOLDER / name / f"{m}.safetensors"))
        with torch.no_grad():
            score = (model.eval()(batch[m]).argmax(1) == batch["label"]).double().mean().item()
        assert score == pytest.approx(truth["alone"][m], abs=truth["tolerance"])


def test_early_fusion_reads_both():
    spec = read_spec(FOLDER / "digits" / "early.yaml")
    batch = every_sample(spec.data.test)
    model = load(FOLDER / "digits", spec)
    with torch.no_grad():
        score = (model(batch["audio"], batch["image"]).argmax(1) == batch["label"]).double().mean()
        deaf = model(torch.zeros_like(batch["audio"]), batch["image"]).argmax(1) == batch["label"]
    assert score.item() == pytest.approx(spec.expected.accuracy, abs=0.01)
    assert score - deaf.double().mean() > CLEAR
