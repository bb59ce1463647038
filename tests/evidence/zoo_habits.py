"""Habits of authors that trip whoever intercepts, caches or packs calls: changing in place, stashing, branching, bypassing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.evidence.zoo_rows import (
    CLASSES,
    HIDDEN,
    PAIR,
    Pair,
    Registry,
    normal,
    perceptron,
)

__all__ = ["ROWS"]

ROWS = Registry()
ENCODERS = PAIR["encoders"]


@ROWS.row(**PAIR)
class ChangesFeaturesInPlace(Pair):
    def __init__(self) -> None:
        super().__init__(HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = self.enc_a(a), self.enc_v(v)
        F.relu_(fa)
        fv += fa
        return self.head(fv)


@ROWS.row(**PAIR)
class ActivationInPlace(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.act(self.enc_a(a)), self.act(self.enc_v(v))], 1))


@ROWS.row(**PAIR, differentiable=False)
class ChangesInputsInPlace(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        a.mul_(0.5).add_(1)
        v[:, 0] = 3
        return super().forward(a, v)


@ROWS.row(spec={"call": {"args": ["batch"]}}, **PAIR)
class EmptiesTheBatch(Pair):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        batch["y"] = None
        return super().forward(batch.pop("a"), batch.pop("v"))


@ROWS.row(encoders={"v": ("enc_v",)}, fusion=("head",), head="head", differentiable=False)
class IdentityThenInPlace(Pair):
    """The encoder hands its input through, and the result is changed in place."""

    def __init__(self) -> None:
        super().__init__(6 + HIDDEN)
        self.enc_a = nn.Identity()

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        x = self.enc_a(a)
        x += 1
        return self.head(torch.cat([x, self.enc_v(v)], 1))


class Stasher(nn.Module):
    """Leaves its features on itself and returns nothing."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = perceptron(inputs)
        self.features: Tensor | None = None

    def forward(self, x: Tensor) -> None:
        self.features = self.net(x)


@ROWS.row(head="head", sees={"enc_a.net": ("a",), "enc_v.net": ("v",), "head": ("a", "v")})
class StashesOnEncoders(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = Stasher(6), Stasher(5)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        self.enc_a(a)
        self.enc_v(v)
        return self.head(torch.cat([self.enc_a.features, self.enc_v.features], 1))


@ROWS.row(**PAIR)
class StashesOnItself(Pair):
    """The features of one modality travel through an attribute, those of the other through the result."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        self.remember(a)
        return self.head(torch.cat([self.memory["a"], self.enc_v(v)], 1))

    def remember(self, a: Tensor) -> None:
        self.memory = {"a": self.enc_a(a)}


class ReturnsBoth(nn.Module):
    """Returns and stashes: who skips the call must bring both."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = perceptron(inputs)

    def forward(self, x: Tensor) -> Tensor:
        self.energy = x.square().mean(1, keepdim=True)
        return self.net(x)


@ROWS.row(head="head", encoders=ENCODERS)
class ReturnsAndStashes(Pair):
    def __init__(self) -> None:
        super().__init__(2 * HIDDEN + 1)
        self.enc_a, self.enc_v = ReturnsBoth(6), ReturnsBoth(5)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        features = [self.enc_a(a), self.enc_v(v)]
        return self.head(torch.cat([*features, self.enc_a.energy - self.enc_v.energy], 1))


class TupleEncoder(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = perceptron(inputs)

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        features = self.net(x)
        return None, [features, {"norm": features.norm(dim=1, keepdim=True)}], x.shape[1]


@ROWS.row(**PAIR)
class TupleEncoders(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = TupleEncoder(6), TupleEncoder(5)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        _, (fa, extra), width = self.enc_a(a)
        _, (fv, _), _ = self.enc_v(v)
        return self.head(torch.cat([fa / (1 + extra["norm"]) * width / 6, fv], 1))


@ROWS.row(**PAIR)
class RawGlue(Pair):
    """Inputs are normalised, transformed and averaged before any module sees them."""

    def __init__(self) -> None:
        super().__init__(2 * HIDDEN + 1)
        self.enc_a = perceptron(4)
        self.register_buffer("mean", torch.randn(5))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(
            (a - a.mean(1, keepdim=True)) / (a.std(1, keepdim=True) + 1)
        ).abs()
        loudness = a.square().mean(1, keepdim=True)
        return self.head(
            torch.cat([self.enc_a(spectrum), self.enc_v((v - self.mean) / 2.55), loudness], 1)
        )


@ROWS.row(**PAIR)
class RawSkip(Pair):
    """The raw inputs reach the head beside the features."""

    def __init__(self) -> None:
        super().__init__(2 * HIDDEN + 6)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a(a), a, self.enc_v(v)], 1))


@ROWS.row(**PAIR, samples_interact=True, differentiable=False)
class PythonNumber(Pair):
    """A number of the whole batch goes through Python."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = self.enc_a(a), self.enc_v(v)
        scale = 1 + float(fa.abs().mean().item())
        return self.head(torch.cat([fa * scale, fv / scale], 1))


@ROWS.row(head="head", differentiable=False)
class NumpyRoundTrip(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        features = torch.cat([self.enc_a(a), self.enc_v(v)], 1)
        return self.head(torch.from_numpy(features.detach().numpy().copy() ** 3))


@ROWS.row(head="head", differentiable=False)
class NumpyInput(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(torch.tensor(a.numpy()[:, ::-1].copy()), v)


class MissingAware(nn.Module):
    """Answers with a learned token where the whole input is zero."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net, self.token = perceptron(inputs), nn.Parameter(torch.randn(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        if x.abs().sum() == 0:
            return self.token.expand(len(x), -1)
        return self.net(x)


@ROWS.row(**PAIR, samples_interact=None)
class TokenForMissing(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = MissingAware(6), MissingAware(5)


@ROWS.row(head="head", samples_interact=None)
class SkipsMissing(Pair):
    """The encoder of a silent modality is not called at all, so calls differ between coalitions."""

    def __init__(self) -> None:
        super().__init__(HIDDEN)
        self.empty = nn.Parameter(torch.randn(HIDDEN))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        pairs = ((self.enc_a, a), (self.enc_v, v))
        features = [encoder(x) for encoder, x in pairs if x.any()]
        return self.head(torch.stack([*features, self.empty.expand(len(a), -1)]).mean(0))


@ROWS.row(
    batch=lambda size: {"a": normal(80, size, 6), "v": 2 * normal(81, size, 6)},
    head="head",
    samples_interact=None,
)
class LouderFirst(nn.Module):
    """One encoder for both, the louder first: the order of the calls depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = perceptron(6)
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        louder, quieter = (a, v) if a.norm() > v.norm() else (v, a)
        return self.head(torch.cat([self.enc(louder), self.enc(quieter)], 1))


@ROWS.row(head="head", samples_interact=None)
class BranchesAfterFusion(Pair):
    """Which head answers depends on the fused features of the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fused = torch.cat([self.enc_a(a), self.enc_v(v)], 1)
        if fused[:, :HIDDEN].var(0, correction=0).sum() < 1e-6:
            fused = fused + self.other.weight.sum()
        return self.head(fused)


@ROWS.row(**PAIR)
class TokenPerSample(Pair):
    """Samples whose input is all zero get a learned token, each on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(HIDDEN))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        missing = (a == 0).all(1, keepdim=True)
        fa = torch.where(missing, self.token, self.enc_a(a))
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


class Encoding(nn.Module):
    """Is used through a method of its own, and through ``forward`` never."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = perceptron(inputs)

    def encode(self, x: Tensor) -> Tensor:
        return self.net(x) + x.mean(1, keepdim=True)


@ROWS.row(
    encoders={"a": ("enc_a.net",), "v": ("enc_v.net",)},
    fusion=("head",),
    head="head",
    groups={"enc_a.net.0.weight": "a", "enc_v.net.2.bias": "v"},
)
class OtherMethod(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = Encoding(6), Encoding(5)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a.encode(a), self.enc_v.encode(v)], 1))


@ROWS.row(fusion=("head",), head="head", groups={"enc_a.0.weight": "a", "enc_v.0.weight": "v"})
class FunctionalWeights(Pair):
    """The weights of one encoder are used, the module is not called."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa = F.linear(a, self.enc_a[0].weight, self.enc_a[0].bias)
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


@ROWS.row(head="head")
class UnregisteredEncoders(nn.Module):
    """The encoders are in a plain list, which no one registers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = [perceptron(6), perceptron(5)]
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.encoders[0](a), self.encoders[1](v)], 1))


@ROWS.row(**PAIR, calls={"enc_a": 2})
class TwoViews(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa = self.enc_a(a) - 2 * self.enc_a(a.flip(1))
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


@ROWS.row(head="head", sees={"head": ("a", "v")})
class TwoNames(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.audio = self.enc_a

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.audio(a), self.enc_v(v)], 1))


@ROWS.row(**PAIR)
class Checkpointed(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa = checkpoint(self.enc_a, a, use_reentrant=False)
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


@ROWS.row(**PAIR)
class FrozenEncoder(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            fa = self.enc_a(a)
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


@ROWS.row(**PAIR)
class CountsItsCalls(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(a, v)


class Doubling(nn.Sequential):
    def __call__(self, x: Tensor) -> Tensor:
        return 2 * super().__call__(x)


@ROWS.row(**PAIR)
class OverriddenCall(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a = Doubling(nn.Linear(6, HIDDEN), nn.Tanh())


class Workspace(nn.Module):
    """Answers in a buffer of its own, which the next call overwrites."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = perceptron(inputs)
        self.register_buffer("space", torch.zeros(4096, HIDDEN), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.space[: len(x)].copy_(self.net(x))


@ROWS.row(**PAIR, differentiable=False)
class OverwritesItsAnswer(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = Workspace(6), Workspace(5)


@ROWS.row(head="head", differentiable=False)
class AnswersInItsBuffer(Pair):
    """The scores themselves are a view of a buffer, which the next call overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("answer", torch.zeros(4096, CLASSES))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.answer[: len(a)].copy_(super().forward(a, v).detach())


@ROWS.row(**PAIR, differentiable=False)
class InferenceEncoder(Pair):
    """The features are inference tensors, which have no version to look at."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        with torch.inference_mode():
            fa = self.enc_a(a)
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


@ROWS.row(**PAIR)
class CountsInAParameter(Pair):
    """Writes to a parameter in each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            self.calls.add_(1)
        return super().forward(a, v)


@ROWS.row(**PAIR, stochastic=True)
class DropoutAlwaysOn(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return F.dropout(super().forward(a, v), 0.5, training=True)


@ROWS.row(**PAIR, stochastic=True)
class NoisyFeatures(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa = self.enc_a(a)
        return self.head(torch.cat([fa + torch.randn_like(fa), self.enc_v(v)], 1))
