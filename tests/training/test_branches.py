"""Features of a user's encoders: equal to calling the encoders, whatever is around them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import find_structure, inspect_structure
from mmaudit.exceptions import ModelError
from mmaudit.masking.calling import Caller
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import MaskingSpec
from mmaudit.training.branches import (
    Branch,
    Branched,
    Tap,
    branch_features,
    find_branches,
    pooled,
    trainable_behind,
)
from tests.remedies.nets import NETS, WIDTHS, ConvConcat, data, spec


def branches_of(model: nn.Module, batch: Any, described: dict[str, Any]) -> dict[str, Branch]:
    read = MaskingSpec.model_validate(described)
    with left_as_it_came(model), torch.no_grad():
        prepared = in_memory_batch(batch, read, torch.device("cpu"))
        structure = find_structure(model, Caller(model, read), prepared)
        return find_branches(model, structure, Caller(model, read), prepared)


def stacked(modalities: int, n: int = 12, *, image: bool = False) -> dict[str, Tensor]:
    samples = data(modalities, n, image=image)
    return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


def by_hand(kind: str, net: Any, inputs: list[Tensor]) -> list[Tensor]:
    features = [encoder(x) for encoder, x in zip(net.encoders, inputs, strict=True)]
    if kind == "sum":
        return [head(h) for head, h in zip(net.heads, features, strict=True)]
    return [net.film(features[0]), *features[1:]] if kind == "film" else features


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("kind", ["concat", "sum", "film", "gated", "cross-attention"])
def test_features_gradients_and_buffers_are_those_of_the_encoders(
    kind: str, modalities: int
) -> None:
    torch.manual_seed(0)
    net = NETS[kind](modalities, norm=True, dropout=0.4).train()
    batch = stacked(modalities)
    inputs = [batch[f"x{m}"] for m in range(modalities)]
    branches = branches_of(net, batch, spec(modalities))
    mine, theirs = net, copy.deepcopy(net)
    torch.manual_seed(1)
    expected = by_hand(kind, theirs, inputs)
    torch.manual_seed(1)
    found = branch_features(mine, branches, inputs, {})
    assert list(found) == [f"m{m}" for m in range(modalities)]
    for (name, features), wanted in zip(found.items(), expected, strict=True):
        assert torch.equal(features, wanted)
        assert features.shape[1] == branches[name].width
    torch.stack([f.square().sum() for f in found.values()]).sum().backward()
    torch.stack([f.square().sum() for f in expected]).sum().backward()
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(mine.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b), name
        assert "tracked" not in name or int(a) == 1
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_convolutional_encoders() -> None:
    net, batch = ConvConcat().train(), stacked(2, image=True)
    branches = branches_of(net, batch, spec(2))
    mine = branch_features(net, branches, [batch["x0"], batch["x1"]], {})
    copied = copy.deepcopy(net)
    assert torch.equal(mine["m1"], copied.encoders[1](batch["x1"]))
    assert branches["m0"].width == 16


def test_early_fusion_has_no_branches() -> None:
    assert branches_of(NETS["early"](2), stacked(2), spec(2)) == {}


class Fused(nn.Module):
    """Encoders given by the test; the fusion has batch statistics, draws random numbers and counts its calls."""

    def __init__(self, a: nn.Module, b: nn.Module, width: int) -> None:
        super().__init__()
        self.a, self.b = a, b
        self.norm, self.head = nn.BatchNorm1d(width), nn.Linear(width, 3)
        self.fusions = 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        parts = [part.flatten(1) for part in (self.a(x), self.b(y))]
        self.fusions += 1
        return self.head(nn.functional.dropout(self.norm(torch.cat(parts, 1)), 0.5, self.training))


TWO = {"modalities": {"a": "x", "b": "y"}, "call": {"args": ["x", "y"]}}


def test_the_fusion_neither_runs_nor_draws_nor_moves_its_statistics() -> None:
    net = Fused(nn.Linear(4, 2), nn.Linear(5, 2), 4).train()
    batch = {"x": torch.randn(6, 4), "y": torch.randn(6, 5)}
    branches = branches_of(net, batch, TWO)
    before, net.fusions = copy.deepcopy(net.state_dict()), 0
    stream = torch.get_rng_state()
    branch_features(net, branches, [batch["x"], batch["y"]], {})
    assert net.fusions == 0 and torch.equal(stream, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Sequence(nn.Module):
    """A recurrent encoder whose output runs (T, n, C) or (n, T, C)."""

    def __init__(self, wide: int, *, batch_first: bool) -> None:
        super().__init__()
        self.rnn = nn.GRU(wide, 7, bidirectional=True, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x if self.batch_first else x.transpose(0, 1))[0]


class Permuted(nn.Module):
    def __init__(self, module: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.module, self.order = module, order

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).permute(self.order)


CASES: dict[str, tuple[nn.Module, tuple[int, ...], tuple[int, ...]]] = {
    # encoder, shape of a sample, dimensions of its output that are averaged
    "vectors": (nn.Linear(4, 5), (4,), ()),
    "sequence": (nn.Linear(4, 5), (6, 4), (1,)),
    "sequence as long as wide": (nn.Linear(4, 5), (5, 4), (1,)),
    "recurrent": (Sequence(4, batch_first=True), (6, 4), (1,)),
    "convolution over time": (nn.Conv1d(4, 5, 1), (4, 6), (2,)),
    "tokens of a convolution": (Permuted(nn.Conv1d(4, 5, 1), (0, 2, 1)), (4, 6), (1,)),
    "maps": (nn.Sequential(nn.Conv2d(2, 5, 1), nn.BatchNorm2d(5), nn.ReLU()), (2, 4, 3), (2, 3)),
    "maps of one size": (nn.Conv2d(2, 5, 1), (2, 5, 5), (2, 3)),
    "channels last": (
        nn.Sequential(Permuted(nn.Conv2d(2, 5, 1), (0, 2, 3, 1)), nn.LayerNorm(5)),
        (2, 4, 3),
        (1, 2),
    ),
    "volumes": (nn.Conv3d(2, 5, 1), (2, 3, 4, 2), (2, 3, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_averaged(name: str) -> None:
    encoder, shape, averaged = CASES[name]
    torch.manual_seed(0)
    batch = {"x": torch.randn(8, *shape), "y": torch.randn(8, 4)}
    with torch.no_grad():
        width = encoder(batch["x"]).flatten(1).shape[1]
    net = Fused(encoder, nn.Linear(4, 2), width + 2).eval()
    branches = branches_of(net, batch, TWO)
    found = branch_features(net, branches, [batch["x"], batch["y"]], {})["a"]
    raw = encoder(batch["x"])
    torch.testing.assert_close(found, raw.mean(averaged) if averaged else raw)
    assert branches["a"].width == found.shape[1]


def test_time_may_come_before_samples() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Sequence(4, batch_first=False), nn.Linear(4, 2)
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(torch.cat([self.a(x)[-1], self.b(y)], 1))

    net, batch = Late().eval(), {"x": torch.randn(8, 6, 4), "y": torch.randn(8, 4)}
    branches = branches_of(net, batch, TWO)
    found = branch_features(net, branches, [batch["x"], batch["y"]], {})["a"]
    torch.testing.assert_close(found, net.a(batch["x"]).mean(0))


def test_axes_are_averaged_whatever_their_order() -> None:
    x = torch.randn(3, 4, 5)  # features, samples, time
    tap = Tap(module="m", samples=1, features=0)
    torch.testing.assert_close(pooled(x, tap), x.mean(2).T)
    assert pooled(torch.ones(4), Tap(module="m")).shape == (4, 1)


class Containers(nn.Module):
    """Returns tensors in a container: some are read by the fusion, one is no feature, one comes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(4, 5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = self.layer(x)
        return {
            "last": h,
            "all": [h, x.sum(1)],
            "unread": self.other(x),
            "valid": x[:, 0] > 0,
        }


class ReadsContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = Containers(), nn.Linear(4, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.a(x)
        kept = out["last"] * out["valid"][:, None]
        total = out["all"][1][:, None]
        return self.head(torch.cat([kept.relu_(), total, self.b(y)], 1))


def test_only_what_the_fusion_reads_counts_and_once() -> None:
    net, batch = ReadsContainers(), {"x": torch.randn(8, 4), "y": torch.randn(8, 4)}
    branches = branches_of(net, batch, TWO)
    assert [tap.tensor for tap in branches["a"].taps] == [1, 2]  # 0 and 1 are one tensor
    found = branch_features(net, branches, [batch["x"], batch["y"]], {})["a"]
    expected = torch.cat([net.a.layer(batch["x"]), batch["x"].sum(1, keepdim=True)], 1)
    torch.testing.assert_close(found, expected)


class Overwrites(nn.Module):
    """What one encoder returned is changed in place before the next runs; inputs are, too; everything is caught."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.b, self.head = nn.Linear(4, 5), nn.Linear(4, 2), nn.Linear(12, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        try:
            first, second = self.frame(x[:, 0]), self.frame(x[:, 1])
            first.zero_()
            y.mul_(2)
            return self.head(torch.cat([first + 1, second, self.b(y)], 1))
        except Exception:
            return torch.zeros(len(x), 3)


def test_features_are_what_was_returned_and_calls_of_one_module_lie_side_by_side() -> None:
    net, batch = Overwrites(), {"x": torch.randn(8, 2, 4), "y": torch.randn(8, 4)}
    net.requires_grad_(False)
    kept = {key: value.clone() for key, value in batch.items()}
    described = {
        "modalities": {"a": {"inputs": "x", "encoders": "frame"}, "b": "y"},
        "call": {"args": ["x", "y"]},
    }
    branches = branches_of(net, batch, described)
    assert all(torch.equal(batch[key], value) for key, value in kept.items())
    assert [(tap.module, tap.call) for tap in branches["a"].taps] == [("frame", 0), ("frame", 1)]
    found = branch_features(net, branches, [batch["x"], batch["y"]], {})
    expected = torch.cat([net.frame(kept["x"][:, i]) for i in (0, 1)], 1)
    torch.testing.assert_close(found["a"], expected)
    torch.testing.assert_close(found["b"], net.b(2 * kept["y"]))


def test_encoders_that_the_spec_names_are_taken() -> None:
    net, batch = NETS["sum"](2), stacked(2)
    described = spec(2)
    described["modalities"] = {"m0": {"inputs": "x0", "encoders": "encoders.0"}, "m1": "x1"}
    branches = branches_of(net, batch, described)
    assert [tap.module for tap in branches["m0"].taps] == ["encoders.0"]
    assert [tap.module for tap in branches["m1"].taps] == ["heads.1"]
    described["modalities"] = {"m0": {"inputs": "x0", "encoders": "encoders.1"}, "m1": "x1"}
    with pytest.raises(ModelError, match="'encoders.1' an encoder of m0, and it sees m1: name"):
        branches_of(net, batch, described)


class Frames(nn.Module):
    """As many encoder calls as there are frames."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 5), nn.Linear(4, 2), nn.Linear(7, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        frames = torch.stack([self.a(frame) for frame in x.unbind(1)]).sum(0)
        return self.head(torch.cat([frames, self.b(y)], 1))


def test_another_number_of_calls_is_refused_in_a_sentence() -> None:
    net, batch = Frames(), {"x": torch.randn(8, 3, 4), "y": torch.randn(8, 4)}
    branches = branches_of(net, batch, TWO)
    assert branches["a"].width == 15
    with pytest.raises(ModelError, match="'a' was called 2 times where 3 calls"):
        branch_features(net, branches, [batch["x"][:, :2], batch["y"]], {})
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_a_modality_left_out_of_the_call_has_no_features() -> None:
    class Optional(Fused):
        def forward(self, x: Tensor | None, y: Tensor) -> Tensor:
            a = torch.zeros(len(y), 2) if x is None else self.a(x)
            return self.head(torch.cat([a, self.b(y)], 1))

    net, batch = Optional(nn.Linear(4, 2), nn.Linear(4, 2), 4), {"x": torch.randn(8, 4)}
    batch["y"] = torch.randn(8, 4)
    branches = branches_of(net, batch, TWO)
    assert list(branch_features(net, branches, [None, batch["y"]], {})) == ["b"]


def test_an_error_of_the_models_own_comes_through_and_leaves_it_as_it_came() -> None:
    net, batch = NETS["concat"](2), stacked(2)
    branches = branches_of(net, batch, spec(2))
    with pytest.raises(RuntimeError, match="shapes"):
        branch_features(net, branches, [batch["x0"], batch["x1"][:, :2]], {})
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_a_branch_survives_json() -> None:
    branch = branches_of(NETS["concat"](2), stacked(2), spec(2))["m0"]
    assert Branch.model_validate(branch.model_dump(mode="json")) == branch


def test_leaves_are_found_without_a_backward_pass() -> None:
    net = NETS["concat"](2)
    frozen = net.encoders[0][0].bias.requires_grad_(False)
    features = net.encoders[0](torch.randn(3, WIDTHS[0]))
    found = {id(leaf) for leaf in trainable_behind(features)}
    assert found == {id(p) for p in net.encoders[0].parameters()} - {id(frozen)}
    assert trainable_behind(torch.ones(2)) == []


def test_a_module_built_on_branches_holds_the_model() -> None:
    net, batch = NETS["concat"](2), stacked(2)
    built = Branched(net, branches_of(net, batch, spec(2)))
    assert set(built.state_dict()) == {f"model.{key}" for key in net.state_dict()}
    features = built.features(batch["x0"], batch["x1"])
    assert torch.equal(features["m1"], net.encoders[1](batch["x1"]))
    assert inspect_structure(net, batch, spec(2)).record.encoders["m1"] == ("encoders.1",)
