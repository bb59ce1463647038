"""Ways to bring modalities together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.evidence.zoo_rows import (
    CLASSES,
    HIDDEN,
    PAIR,
    Pair,
    Registry,
    integers,
    normal,
    perceptron,
)

__all__ = ["ROWS"]

ROWS = Registry()
ENCODERS = PAIR["encoders"]


@ROWS.row(**PAIR, sees={"": ("a", "v"), "enc_a.0": ("a",), "head": ("a", "v")})
class LateConcat(Pair):
    pass


@ROWS.row(**PAIR)
class LateSum(Pair):
    def __init__(self) -> None:
        super().__init__(HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(self.enc_a(a) + self.enc_v(v))


@ROWS.row(
    encoders={"a": ("enc_a", "head_a"), "v": ("enc_v", "head_v")},
    fusion=(None, ""),
    unused=("head",),
)
class LateLogits(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.head_a = nn.Linear(HIDDEN, CLASSES)
        self.head_v = nn.Linear(HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return (self.head_a(self.enc_a(a)) + self.head_v(self.enc_v(v))) / 2


@ROWS.row(encoders=ENCODERS, fusion=("head", "head.0"), head="head.4")
class DeepHead(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(2 * HIDDEN, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, CLASSES),
        )


@ROWS.row(encoders=ENCODERS, fusion=("gate",), head="head")
class Gated(Pair):
    def __init__(self) -> None:
        super().__init__(HIDDEN)
        self.gate = nn.Linear(2 * HIDDEN, HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = self.enc_a(a), self.enc_v(v)
        gate = torch.sigmoid(self.gate(torch.cat([fa, fv], 1)))
        return self.head(gate * fa + (1 - gate) * fv)


@ROWS.row(encoders={"a": ("enc_a", "film"), "v": ("enc_v",)}, fusion=("head",), head="head")
class FiLM(Pair):
    def __init__(self) -> None:
        super().__init__(HIDDEN)
        self.film = nn.Linear(HIDDEN, 2 * HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        gamma, beta = self.film(self.enc_a(a)).chunk(2, 1)
        return self.head(gamma * self.enc_v(v) + beta)


@ROWS.row(encoders=ENCODERS, fusion=("fuse",), unused=("head",))
class BilinearFusion(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.fuse = nn.Bilinear(HIDDEN, HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.fuse(self.enc_a(a), self.enc_v(v))


@ROWS.row(encoders=ENCODERS, unused=("head",))
class EinsumFusion(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.randn(HIDDEN, HIDDEN, CLASSES))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return torch.einsum("bi,bj,ijk->bk", self.enc_a(a), self.enc_v(v), self.core)


@ROWS.row(**PAIR)
class TensorFusion(Pair):
    def __init__(self) -> None:
        super().__init__((HIDDEN + 1) ** 2)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = (F.pad(f, (0, 1), value=1.0) for f in (self.enc_a(a), self.enc_v(v)))
        return self.head((fa[:, :, None] * fv[:, None, :]).flatten(1))


@ROWS.row(encoders=ENCODERS, fusion=("score",), head="head")
class AttentionPooling(Pair):
    def __init__(self) -> None:
        super().__init__(HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        tokens = torch.stack([self.enc_a(a), self.enc_v(v)], 1)
        return self.head((self.score(tokens).softmax(1) * tokens).sum(1))


@ROWS.row(encoders={"a": (), "v": ()}, fusion=("net", "net.0"), head="net.2")
class EarlyVector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron(11, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.net(torch.cat([a, v], 1))


def signals(size: int) -> dict[str, Tensor]:
    return {"a": normal(4, size, 1, 12), "v": normal(5, size, 2, 12)}


@ROWS.row(batch=signals, encoders={"a": (), "v": ()}, fusion=("conv",), head="head")
class EarlyConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, HIDDEN, 3)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(torch.cat([a, v], 1))).relu().mean(2))


class Squeeze(nn.Module):
    """Gates for both branches from what both have squeezed."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(2 * HIDDEN, 4)
        self.excite_a, self.excite_v = nn.Linear(4, HIDDEN), nn.Linear(4, HIDDEN)

    def forward(self, fa: Tensor, fv: Tensor) -> tuple[Tensor, Tensor]:
        both = self.squeeze(torch.cat([fa.mean(2), fv.mean(2)], 1)).relu()
        gates = (
            torch.sigmoid(excite(both))[:, :, None] for excite in (self.excite_a, self.excite_v)
        )
        return tuple(2 * gate * f for gate, f in zip(gates, (fa, fv), strict=True))


@ROWS.row(
    batch=signals,
    encoders={"a": ("conv_a1",), "v": ("conv_v1",)},
    fusion=("mmtm", "mmtm.squeeze"),
    head="head",
    sees={"conv_a2": ("a", "v"), "conv_v2": ("a", "v")},
)
class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_a1, self.conv_a2 = nn.Conv1d(1, HIDDEN, 3), nn.Conv1d(HIDDEN, HIDDEN, 3)
        self.conv_v1, self.conv_v2 = nn.Conv1d(2, HIDDEN, 3), nn.Conv1d(HIDDEN, HIDDEN, 3)
        self.mmtm = Squeeze()
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = self.mmtm(self.conv_a1(a), self.conv_v1(v))
        return self.head(torch.cat([self.conv_a2(fa).mean(2), self.conv_v2(fv).mean(2)], 1))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"a": perceptron(6), "v": perceptron(5)})

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.encoders[name](value) for name, value in inputs.items()}


@ROWS.row(
    encoders={"a": ("body.inner.encoders.a",), "v": ("body.inner.encoders.v",)},
    fusion=("body", "body.inner", "head"),
    head="head",
)
class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"inner": Backbone()})
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat(list(self.body["inner"]({"a": a, "v": v}).values()), 1))


def token_sequences(size: int) -> dict[str, Tensor]:
    return {"a": normal(6, size, 4, 6), "v": normal(7, size, 3, 5)}


@ROWS.row(
    batch=token_sequences,
    encoders={"a": ("proj_a",), "v": ("proj_v",)},
    fusion=("attention",),
    head="head",
    groups={"attention.out_proj.weight": "shared", "attention.in_proj_weight": "shared"},
)
class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj_a, self.proj_v = nn.Linear(6, HIDDEN), nn.Linear(5, HIDDEN)
        self.attention = nn.MultiheadAttention(HIDDEN, 2, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        memory = self.proj_v(v)
        mixed, _ = self.attention(self.proj_a(a), memory, memory, need_weights=False)
        return self.head(mixed.mean(1))


@ROWS.row(batch=token_sequences, head="head")
class LatentQueries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj_a, self.proj_v = nn.Linear(6, HIDDEN), nn.Linear(5, HIDDEN)
        self.queries = nn.Parameter(torch.randn(2, HIDDEN))
        self.attention = nn.MultiheadAttention(HIDDEN, 2)
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        memory = torch.cat([self.proj_a(a), self.proj_v(v)], 1).transpose(0, 1)
        queries = self.queries[:, None].expand(-1, len(a), -1)
        mixed, _ = self.attention(queries, memory, memory)
        return self.head(mixed.transpose(0, 1).flatten(1))


def audio_and_text(size: int) -> dict[str, Tensor]:
    lengths = integers(8, 1, 6, size)
    padding = torch.arange(6)[None] >= lengths[:, None]
    return {"a": normal(9, size, 4, 6), "ids": integers(10, 1, 20, size, 6), "padding": padding}


@ROWS.row(
    batch=audio_and_text,
    modalities={
        "a": "a",
        "text": {"inputs": ["ids", "padding"], "mask": {"ids": {"token": 0}, "padding": "keep"}},
    },
    encoders={"a": ("proj_a",), "text": ("embed",)},
    fusion=("fuse", "fuse.layers.0", "fuse.layers.0.norm1", "fuse.layers.0.self_attn"),
    head="head",
)
class TransformerFusion(nn.Module):
    """In eval mode without gradients this takes torch's fast path, where submodules are not called."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_a, self.embed = nn.Linear(6, HIDDEN), nn.Embedding(20, HIDDEN)
        self.start = nn.Parameter(torch.randn(1, 1, HIDDEN))
        layer = nn.TransformerEncoderLayer(HIDDEN, 2, 16, dropout=0.1, batch_first=True)
        self.fuse = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, a: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        start = self.start.expand(len(a), -1, -1)
        tokens = torch.cat([start, self.proj_a(a), self.embed(ids)], 1)
        kept = torch.zeros(len(a), 1 + a.shape[1], dtype=torch.bool)
        mixed = self.fuse(tokens, src_key_padding_mask=torch.cat([kept, padding], 1))
        return self.head(mixed[:, 0])


class TokenEncoder(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, HIDDEN)
        layer = nn.TransformerEncoderLayer(HIDDEN, 2, 16, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.proj(x)).mean(1)


@ROWS.row(batch=token_sequences, **PAIR)
class TransformerEncoders(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = TokenEncoder(6), TokenEncoder(5)


@ROWS.row(
    batch=lambda size: tuple(normal(20 + m, size, 3 + m) for m in range(6)),
    modalities={f"m{m}": f"batch.{m}" for m in range(6)},
    encoders={f"m{m}": (f"encoders.{m}",) for m in range(6)},
    fusion=("mix",),
    head="head",
)
class SixModalities(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(perceptron(3 + m, 4) for m in range(6))
        self.mix = nn.Linear(24, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        features = [encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)]
        return self.head(torch.tanh(self.mix(torch.cat(features, 1))))


@ROWS.row(modalities={"a": "a"}, head="net.2", samples_interact=False)
class OneModality(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = perceptron(6, CLASSES)

    def forward(self, a: Tensor) -> Tensor:
        return self.net(a)


def three(size: int) -> dict[str, Tensor]:
    return {"a": normal(30, size, 6), "v": normal(31, size, 5), "t": normal(32, size, 4)}


@ROWS.row(
    batch=three,
    modalities={"a": "a", "v": "v", "t": "t"},
    encoders={"a": ("enc_a",), "v": ("enc_v",), "t": ("enc_t",)},
    fusion=("first",),
    head="head",
    sees={"first": ("a", "v"), "head": ("a", "v", "t")},
)
class Hierarchical(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_t, self.first = perceptron(4), nn.Linear(2 * HIDDEN, HIDDEN)

    def forward(self, a: Tensor, v: Tensor, t: Tensor) -> Tensor:
        both = torch.tanh(self.first(torch.cat([self.enc_a(a), self.enc_v(v)], 1)))
        return self.head(torch.cat([both, self.enc_t(t)], 1))


@ROWS.row(
    encoders={"a": ("enc_a",), "v": ()},
    fusion=("enc_v", "enc_v.0"),
    head="head",
    sees={"enc_v": ("a", "v")},
)
class ConditionedEncoder(Pair):
    """The encoder of ``v`` is told what ``a`` is about."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_v = perceptron(5 + HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa = self.enc_a(a)
        return self.head(torch.cat([fa, self.enc_v(torch.cat([v, fa], 1))], 1))


def equal_widths(size: int) -> dict[str, Tensor]:
    return {"a": normal(40, size, 6), "v": normal(41, size, 6)}


@ROWS.row(batch=equal_widths, head="head", sees={"enc": ("a", "v")}, calls={"enc": 2})
class SharedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = perceptron(6)
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc(a), self.enc(v)], 1))


@ROWS.row(
    batch=equal_widths,
    head="head",
    sees={"enc": ("a", "v")},
    calls={"enc": 1},
    samples_interact=None,
)
class SharedEncoderStacked(SharedEncoder):
    """Both modalities go through the encoder in one call, one above the other."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = self.enc(torch.cat([a, v], 0)).chunk(2, 0)
        return self.head(torch.cat([fa, fv], 1))


@ROWS.row(**{**PAIR, "fusion": ("router", "head")})
class Routed(Pair):
    """A router sends each sample to one of three experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(2 * HIDDEN, 3)
        self.experts = nn.ModuleList(nn.Linear(2 * HIDDEN, 2 * HIDDEN) for _ in range(3))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        x = torch.cat([self.enc_a(a), self.enc_v(v)], 1)
        choice, out = self.router(x).argmax(1), torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows = (choice == k).nonzero().squeeze(1)
            if len(rows):
                out = out.index_copy(0, rows, expert(x[rows]))
        return self.head(out)


@ROWS.row(encoders=ENCODERS, head="head", ignored=("a",), sees={"enc_a": ("a",)})
class ClosedGate(Pair):
    """``a`` is read, and multiplied by zero; whether the head sees it is a matter of words."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.gate * self.enc_a(a), self.enc_v(v)], 1))


@ROWS.row(
    ignored=("a",),
    encoders={"v": ("enc_v",)},
    unused=("enc_a",),
    sees={"head": ("v",)},
    fusion=(None,),
)
class IgnoresOne(Pair):
    def __init__(self) -> None:
        super().__init__(HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(self.enc_v(v))


@ROWS.row(**PAIR, unused=("spare", "old.0"), groups={"spare.weight": "unused"})
class UnusedModules(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(4, 4)
        self.old = nn.ModuleList([perceptron(6)])


@ROWS.row(
    encoders={"a": ("enc_a", "head_a"), "v": ("enc_v", "head_v")},
    fusion=(None, ""),
    unused=("head",),
)
class TiedWeights(LateLogits):
    def __init__(self) -> None:
        super().__init__()
        self.head_a.weight = self.head_v.weight


@ROWS.row(**PAIR)
class WeightNorm(Pair):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.enc_a[0])
        nn.utils.parametrizations.weight_norm(self.head)


@ROWS.row(**PAIR)
class SpectralNorm(Pair):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.enc_v[2])
        nn.utils.parametrizations.spectral_norm(self.head)
