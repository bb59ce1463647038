"""Small models of every kind of fusion, for M modalities of widths 6, 5, 4, ...: what remedies have to run on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 4
WIDTHS = (6, 5, 4)


def encoder(wide_in: int, wide: int = 8, *, norm: bool = False, dropout: float = 0.0) -> nn.Module:
    parts: list[nn.Module] = [nn.Linear(wide_in, 10)]
    if norm:
        parts.append(nn.BatchNorm1d(10))
    parts.append(nn.Tanh())
    if dropout:
        parts.append(nn.Dropout(dropout))
    return nn.Sequential(*parts, nn.Linear(10, wide))


class Net(nn.Module):
    """Encoders, and a fusion that subclasses write."""

    def __init__(self, modalities: int = 2, *, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            encoder(WIDTHS[m], norm=norm, dropout=dropout) for m in range(modalities)
        )
        self.build(modalities)

    def build(self, modalities: int) -> None:
        """Make the modules of the fusion."""

    def fuse(self, features: list[Tensor]) -> Tensor:
        """Features of every modality, each ``(n, 8)``, to logits."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.fuse([e(x) for e, x in zip(self.encoders, inputs, strict=True)])


class Concat(Net):
    def build(self, modalities: int) -> None:
        self.head = nn.Linear(8 * modalities, CLASSES)

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.head(torch.cat(features, 1))


class Sum(Net):
    """A linear head per modality, logits added, as in the released OGM-GE."""

    def build(self, modalities: int) -> None:
        self.heads = nn.ModuleList(nn.Linear(8, CLASSES) for _ in range(modalities))

    def fuse(self, features: list[Tensor]) -> Tensor:
        return torch.stack([head(h) for head, h in zip(self.heads, features, strict=True)]).sum(0)


class FiLM(Net):
    def build(self, modalities: int) -> None:
        self.film, self.head = nn.Linear(8, 16), nn.Linear(8, CLASSES)

    def fuse(self, features: list[Tensor]) -> Tensor:
        gamma, beta = self.film(features[0]).chunk(2, 1)
        return self.head(gamma * torch.stack(features[1:]).sum(0) + beta)


class Gated(Net):
    def build(self, modalities: int) -> None:
        self.gate, self.head = nn.Linear(8 * modalities, modalities), nn.Linear(8, CLASSES)

    def fuse(self, features: list[Tensor]) -> Tensor:
        weights = self.gate(torch.cat(features, 1)).softmax(1)
        return self.head((weights.unsqueeze(2) * torch.stack(features, 1)).sum(1))


class CrossAttention(Net):
    def build(self, modalities: int) -> None:
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def fuse(self, features: list[Tensor]) -> Tensor:
        tokens = torch.stack(features, 1)
        mixed, _ = self.attention(tokens[:, :1], tokens, tokens)
        return self.head(mixed.squeeze(1))


class Early(nn.Module):
    """One network over the concatenated inputs: no encoder sees one modality alone."""

    def __init__(self, modalities: int = 2, *, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = encoder(sum(WIDTHS[:modalities]), CLASSES, norm=norm, dropout=dropout)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(torch.cat(inputs, 1))


NETS: dict[str, Callable[..., nn.Module]] = {
    "concat": Concat,
    "sum": Sum,
    "film": FiLM,
    "gated": Gated,
    "cross-attention": CrossAttention,
    "early": Early,
}


class ConvConcat(nn.Module):
    """Two convolutional encoders over images, with batch normalisation, and a head on their concatenation."""

    def __init__(self, modalities: int = 2, *, norm: bool = True) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.BatchNorm2d(4) if norm else nn.Identity(),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
            )
            for _ in range(modalities)
        )
        self.head = nn.Linear(16 * modalities, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(torch.cat([e(x) for e, x in zip(self.encoders, inputs, strict=True)], 1))


def data(
    modalities: int = 2, n: int = 96, *, seed: int = 0, image: bool = False
) -> list[dict[str, Tensor]]:
    """Samples whose class every modality knows something of, the first one most."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    shapes = [(1, 6, 6) if image else (WIDTHS[m],) for m in range(modalities)]
    means = [torch.randn(CLASSES, *shape, generator=generator) for shape in shapes]
    noise = [0.3 + 0.7 * m for m in range(modalities)]
    inputs = [
        means[m][labels] + noise[m] * torch.randn(n, *shapes[m], generator=generator)
        for m in range(modalities)
    ]
    return [
        {**{f"x{m}": inputs[m][i] for m in range(modalities)}, "y": labels[i]} for i in range(n)
    ]


def spec(modalities: int = 2, order: tuple[int, ...] | None = None) -> dict[str, object]:
    """Modalities m0, m1, ... with zero masks, listed in any order."""
    listed = order if order is not None else tuple(range(modalities))
    return {
        "modalities": {f"m{m}": f"x{m}" for m in listed},
        "target": "y",
        "call": {"args": [f"x{m}" for m in range(modalities)]},
    }
