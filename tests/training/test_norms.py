from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmaudit import learning_speeds, ogr
from mmaudit.exceptions import LogError, ModelError, SpecError
from mmaudit.training import LossRecorder
from tests.training.overfitting import SPEC, TwoHeads, samples


class Transfer(nn.Module):
    """An MMTM on vectors (Joze et al. 2020), for any number of branches."""

    def __init__(self, widths):
        super().__init__()
        self.squeeze = nn.Linear(sum(widths), 4)
        self.excite = nn.ModuleList([nn.Linear(4, width) for width in widths])

    def forward(self, *features):
        z = torch.relu(self.squeeze(torch.cat(features, 1)))
        gates = [torch.sigmoid(excite(z)) for excite in self.excite]
        return tuple(f * gate for f, gate in zip(features, gates, strict=True))


class Branches(nn.Module):
    def __init__(self, inputs=(4, 64)):
        super().__init__()
        self.first = nn.ModuleList(
            [nn.Sequential(nn.Linear(d, 6), nn.BatchNorm1d(6)) for d in inputs]
        )
        self.second = nn.ModuleList([nn.Linear(6, 5) for _ in inputs])
        self.heads = nn.ModuleList([nn.Linear(5, 3) for _ in inputs])
        self.early, self.late = Transfer([6] * len(inputs)), Transfer([5] * len(inputs))
        self.unused = nn.Linear(2, 2)

    def forward(self, *inputs):
        features = self.early(*(layer(x) for layer, x in zip(self.first, inputs)))
        features = [f.mul_(1.0) for f in features]  # what a module returned is written to
        features = self.late(*(torch.relu_(layer(f)) for layer, f in zip(self.second, features)))
        scores = [head(f) for head, f in zip(self.heads, features)]
        return {"logits": sum(scores) / len(scores), **{f"by_{i}": s for i, s in enumerate(scores)}}


BRANCHED = {
    **SPEC,
    "branches": {
        "outputs": {"signal": "by_0", "noise": "by_1"},
        "modules": {m: {"signal": 0, "noise": 1} for m in ("early", "late")},
    },
}


def groups_by_hand(i):
    own = (f"first.{i}.", f"second.{i}.", f"heads.{i}.")
    crossing = ("early.squeeze.", "late.squeeze.", f"early.excite.{i}.", f"late.excite.{i}.")
    return own, crossing


def mu_by_hand(model, prefixes):
    chosen = [p for name, p in model.named_parameters() if name.startswith(prefixes)]
    top = sum(float(p.grad.square().sum()) for p in chosen)
    return top / sum(float(p.detach().square().sum()) for p in chosen)


def test_speeds_of_two_steps_are_those_computed_by_hand(tmp_path):
    torch.manual_seed(0)
    model, data = Branches(), samples(30, 0)
    log = LossRecorder(tmp_path / "losses.jsonl", BRANCHED, train=data, validation=data)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    own, crossing = np.zeros((2, 2)), np.zeros((2, 2))
    for step in (1, 2):
        out = model(data["signal"], data["noise"])
        optimizer.zero_grad()
        (
            F.cross_entropy(out["by_0"], data["y"]) + F.cross_entropy(out["by_1"], data["y"])
        ).backward()
        for i in range(2):
            mine, others = groups_by_hand(i)
            own[i, step - 1] = mu_by_hand(model, mine)
            crossing[i, step - 1] = mu_by_hand(model, others)
        log.norms(model, step=step, epoch=1)
        optimizer.step()
    found = learning_speeds(tmp_path / "losses.jsonl")
    assert found.modalities == ("signal", "noise") and found.step.tolist() == [1, 2]
    np.testing.assert_allclose(found.own, own, rtol=1e-5)
    np.testing.assert_allclose(found.crossing, crossing, rtol=1e-5)
    speed = np.log10(crossing.cumsum(1) / own.cumsum(1))
    np.testing.assert_allclose(found.speed, speed, rtol=1e-4)
    np.testing.assert_allclose(found.difference, speed[0] - speed[1], rtol=1e-4)


def test_the_record_of_losses_has_the_speeds_of_the_same_log(tmp_path):
    torch.manual_seed(0)
    model, data, path = Branches(), samples(30, 0), tmp_path / "losses.jsonl"
    log = LossRecorder(path, BRANCHED, train=data, validation=samples(30, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    log.record(model, step=0, epoch=0)
    for step in range(1, 9):
        out = model(data["signal"], data["noise"])
        optimizer.zero_grad()
        F.cross_entropy(out["logits"], data["y"]).backward()
        log.norms(model, step=step)
        optimizer.step()
        if step % 2 == 0:
            log.record(model, step=step, epoch=step // 2)
    speeds, report = learning_speeds(path), ogr(path)
    for t, step in enumerate(speeds.step.tolist()):
        for m, branch in enumerate(speeds.modalities):
            found = report.estimate("learning_speed", branch=branch, checkpoint=str(step))
            assert found.value == pytest.approx(speeds.speed[m, t])
        found = report.estimate("learning_speed", checkpoint=str(step), quantity="difference")
        assert found.value == pytest.approx(speeds.difference[t])
    assert report.heads == ("signal", "noise", "joint")
    assert "learning_speed" in report.figures() and "## Learning speed" in report.markdown()


def test_recorded_norms_give_the_known_speeds(tmp_path):
    # mu of two steps, and the speeds that follow from them (base 10).
    mu = {
        "zero crossing": (0.02, 0.03),
        "zero own": (0.01, 0.005),
        "one crossing": (0.005, 0.01),
        "one own": (0.03, 0.01),
    }
    path = tmp_path / "losses.jsonl"
    rows = [{"about": "norms"}]
    for name, values in mu.items():
        for step, value in enumerate(values, 1):
            for what, norm in (("gradient", 4 * value), ("weight", 4.0)):
                rows.append(
                    {
                        "step": step,
                        "epoch": 1,
                        "split": "norms",
                        "name": f"{name} {what}",
                        "value": norm,
                    }
                )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = learning_speeds(path)
    expected = [[0.301030, 0.522879], [-0.778151, -0.425969]]
    np.testing.assert_allclose(found.speed, expected, atol=1e-6)
    np.testing.assert_allclose(found.difference, [1.079181, 0.948847], atol=1e-6)


def test_steps_without_norms_that_count_are_left_out(tmp_path):
    def write(path, steps):
        rows = [{"about": "norms"}]
        for step, gradients, weights in steps:
            for branch, gradient, weight in zip(("zero", "one"), gradients, weights, strict=True):
                for group in ("own", "crossing"):
                    for what, norm in (("gradient", gradient), ("weight", weight)):
                        row = {"step": step, "split": "norms", "name": f"{branch} {group} {what}"}
                        rows.append({**row, "value": norm})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    inf, nan = "Infinity", "NaN"
    steps = [(1, (1, 2), (4, 0)), (2, (inf, 2), (4, 4)), (3, (1, 3), (4, 4)), (4, (1, nan), (4, 4)), (5, (1, 1), (4, 4))]  # fmt: skip
    found = learning_speeds(write(tmp_path / "some.jsonl", steps))
    assert found.step.tolist() == [3, 5] and found.left_out.tolist() == [1, 2, 4]
    assert found.own.tolist() == [[0.25, 0.25], [0.75, 0.25]]
    assert found.speed.tolist() == [[0, 0], [0, 0]]
    frame = found.to_frame()
    assert list(frame) == ["step", "branch", "own", "crossing", "speed"]
    assert frame[frame["branch"] == "one"]["own"].tolist() == [0.75, 0.25]
    with pytest.raises(LogError, match="no norms that count: at all 2 recorded steps"):
        learning_speeds(write(tmp_path / "none.jsonl", [steps[0], steps[1]]))


def test_three_branches_and_frozen_parameters(tmp_path):
    torch.manual_seed(0)
    model = Branches((4, 64, 2))
    model.second[2].requires_grad_(False)
    data = {**samples(20, 0), "third": torch.randn(20, 2)}
    names = ("signal", "noise", "third")
    spec = {
        "modalities": {name: name for name in names},
        "target": "y",
        "call": {"args": list(names)},
        "outputs": {"path": "logits"},
        "branches": {
            "outputs": {name: f"by_{i}" for i, name in enumerate(names)},
            "modules": {m: {name: i for i, name in enumerate(names)} for m in ("early", "late")},
        },
    }
    log = LossRecorder(tmp_path / "losses.jsonl", spec, train=data, validation=data)
    out = model(*(data[name] for name in names))
    sum(F.cross_entropy(out[f"by_{i}"], data["y"]) for i in range(3)).backward()
    log.norms(model, step=1)
    found = learning_speeds(tmp_path / "losses.jsonl")
    own, crossing = groups_by_hand(2)
    assert found.own[2, 0] == pytest.approx(mu_by_hand(model, ("first.2.", "heads.2.")), rel=1e-5)
    assert found.crossing[2, 0] == pytest.approx(mu_by_hand(model, crossing), rel=1e-5)
    assert found.difference[0] == pytest.approx(np.ptp(found.speed[:, 0]))


def test_late_fusion_has_no_conditional_speed(tmp_path):
    torch.manual_seed(0)
    model, data = TwoHeads(), samples(30, 0)
    log = LossRecorder(tmp_path / "losses.jsonl", SPEC, train=data, validation=data)
    F.cross_entropy(model(data["signal"], data["noise"])["logits"], data["y"]).backward()
    log.norms(model, step=1)
    found = learning_speeds(tmp_path / "losses.jsonl")
    assert found.crossing is None and found.speed is None and found.difference is None
    for m, name in enumerate(("signal.", "noise.")):
        assert found.own[m, 0] == pytest.approx(mu_by_hand(model, (name,)), rel=1e-5)


def test_a_group_without_gradients_is_left_out(tmp_path):
    model, data, path = TwoHeads(), samples(30, 0), tmp_path / "losses.jsonl"
    log = LossRecorder(path, SPEC, train=data, validation=data)
    log.norms(model, step=1)
    with pytest.raises(LogError, match="no norms"):
        log.record(model, step=1)
        learning_speeds(path)
    model(data["signal"], data["noise"])["by_signal"].sum().backward()
    log.norms(model, step=2)
    assert learning_speeds(path).modalities == ("signal",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outputs": {"signal": "by_0", "noise": "by_7"}}, "branches.outputs: noise"),
        ({"modules": {"middle": {"signal": 0, "noise": 1}}}, "no module 'middle'"),
        ({"modules": {"unused": {"signal": 0, "noise": 1}}}, "'unused' was not called"),
    ],
)
def test_branches_that_are_not_there(tmp_path, change, said):
    data = samples(30, 0)
    spec = {**BRANCHED, "branches": {**BRANCHED["branches"], **change}}
    log = LossRecorder(tmp_path / "losses.jsonl", spec, train=data, validation=data)
    with pytest.raises((SpecError, ModelError), match=said):
        log.norms(Branches(), step=1)
