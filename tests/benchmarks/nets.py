"""Models whose cost is known, for measuring what an audit adds to a plain pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


class _Block(nn.Module):
    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.down = None
        if stride != 1 or wide_in != wide:
            self.down = nn.Sequential(
                nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(y + (x if self.down is None else self.down(x)), inplace=True)


class ResNet18(nn.Module):
    """He et al. 2016, without the classifier: ``(B, C, H, W) -> (B, 512)``."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [
            (64, 64, 1),
            (64, 64, 1),
            (64, 128, 2),
            (128, 128, 1),
            (128, 256, 2),
            (256, 256, 1),
            (256, 512, 2),
            (512, 512, 1),
        ]
        self.blocks = nn.Sequential(*(_Block(*w) for w in widths))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean((2, 3))


class Late(nn.Module):
    """An encoder per modality and a head on the concatenation."""

    def __init__(self, modalities: int, hidden: int = 0) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(ResNet18() for _ in range(modalities))
        wide = 512 * modalities
        self.head = (
            nn.Sequential(nn.Linear(wide, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
            if hidden
            else nn.Linear(wide, CLASSES)
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(torch.cat([e(x) for e, x in zip(self.encoders, inputs, strict=True)], 1))


class FiLM(nn.Module):
    """The first modality scales and shifts the others (Perez et al. 2018)."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(ResNet18() for _ in range(modalities))
        self.film = nn.Linear(512, 1024)
        self.head = nn.Linear(512, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *rest = (e(x) for e, x in zip(self.encoders, inputs, strict=True))
        gamma, beta = self.film(first).chunk(2, 1)
        return self.head(gamma * sum(rest) + beta)


class Gated(nn.Module):
    """Modalities weighted by learnt gates."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(ResNet18() for _ in range(modalities))
        self.gate = nn.Linear(512 * modalities, modalities)
        self.head = nn.Linear(512, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        h = torch.stack([e(x) for e, x in zip(self.encoders, inputs, strict=True)], 1)
        weights = self.gate(h.flatten(1)).softmax(1)
        return self.head((weights.unsqueeze(2) * h).sum(1))


class FusionTransformer(nn.Module):
    """Recurrent encoders of variable-length sequences and a two-layer transformer over all their tokens."""

    def __init__(self, modalities: int, width: int = 64, features: int = 40) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.GRU(features, width // 2, 2, batch_first=True, bidirectional=True)
            for _ in range(modalities)
        )
        self.kind = nn.Parameter(torch.randn(modalities, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
        self.fusion = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, inputs: list[Tensor], lengths: list[Tensor]) -> Tensor:
        tokens, padding = [], []
        for m, (encoder, x, n) in enumerate(zip(self.encoders, inputs, lengths, strict=True)):
            tokens.append(encoder(x)[0] + self.kind[m])
            padding.append(torch.arange(x.shape[1], device=x.device) >= n[:, None])
        pad = torch.cat(padding, 1)
        mixed = self.fusion(torch.cat(tokens, 1), src_key_padding_mask=pad)
        keep = (~pad).unsqueeze(2).float()
        return self.head((mixed * keep).sum(1) / keep.sum(1))


class FunctionalGlue(nn.Module):
    """Normalisation, activations and pooling written out in the top-level forward."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(3, 32, 3, padding=1) for _ in range(modalities))
        self.second = nn.ModuleList(nn.Conv2d(32, 64, 3, padding=1) for _ in range(modalities))
        self.third = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(modalities))
        self.head = nn.Linear(64 * modalities, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        pooled = []
        for m, x in enumerate(inputs):
            h = (x - 0.5) / 0.25
            h = F.relu(self.first[m](h))
            h = F.max_pool2d(F.relu(self.second[m](h)), 2)
            pooled.append(F.adaptive_avg_pool2d(F.relu(self.third[m](h)), 1).flatten(1))
        return self.head(torch.cat(pooled, 1))


class Early(nn.Module):
    """All modalities as channels of one network."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.net = ResNet18(3 * modalities)
        self.head = nn.Linear(512, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(self.net(torch.cat(inputs, 1)))
