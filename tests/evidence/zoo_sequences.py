"""Encoders of sequences, images and texts, with what they need beside the values: lengths, masks, offsets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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


def frames(size: int) -> dict[str, Tensor]:
    return {"a": normal(50, size, 7, 6), "v": normal(51, size, 5)}


def steps_first(size: int) -> dict[str, Tensor]:
    return {"a": normal(52, 7, size, 6), "v": normal(53, size, 5)}


def padded(size: int) -> dict[str, Tensor]:
    return {**frames(size), "lengths": integers(54, 1, 8, size)}


WITH_LENGTHS = {
    "a": {"inputs": {"a": "a", "lengths": "lengths"}, "mask": {"a": "zero", "lengths": "keep"}},
    "v": "v",
}


@ROWS.row(batch=frames, **PAIR)
class GRULast(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a = nn.GRU(6, HIDDEN, batch_first=True)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        states, _ = self.enc_a(a)
        return self.head(torch.cat([states[:, -1], self.enc_v(v)], 1))


@ROWS.row(batch=steps_first, **PAIR)
class LSTMStepsFirst(Pair):
    """Samples lie on dimension 1 of ``a``."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a = nn.LSTM(6, HIDDEN)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        _, (last, _) = self.enc_a(a)
        return self.head(torch.cat([last[-1], self.enc_v(v)], 1))


@ROWS.row(batch=frames, **PAIR)
class LSTMBothWays(Pair):
    def __init__(self) -> None:
        super().__init__(3 * HIDDEN)
        self.enc_a = nn.LSTM(6, HIDDEN, 2, batch_first=True, bidirectional=True, dropout=0.3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        start = torch.zeros(4, a.shape[0], HIDDEN)
        _, (last, _) = self.enc_a(a, (start, start))
        return self.head(torch.cat([last[-2], last[-1], self.enc_v(v)], 1))


@ROWS.row(batch=padded, modalities=WITH_LENGTHS, **PAIR)
class PackedGRU(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a = nn.GRU(6, HIDDEN, batch_first=True)

    def forward(self, a: Tensor, lengths: Tensor, v: Tensor) -> Tensor:
        packed = pack_padded_sequence(a, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.enc_a(packed)
        return self.head(torch.cat([last[0], self.enc_v(v)], 1))


@ROWS.row(batch=padded, modalities=WITH_LENGTHS, **PAIR)
class PackedLSTMUnpadded(Pair):
    """Unpadding trims to the longest of the batch; the mean goes over a sample's own length."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a = nn.LSTM(6, HIDDEN, batch_first=True)

    def forward(self, a: Tensor, lengths: Tensor, v: Tensor) -> Tensor:
        packed = pack_padded_sequence(a, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.enc_a(packed)[0], batch_first=True)
        mean = states.sum(1) / lengths[:, None]
        return self.head(torch.cat([mean, self.enc_v(v)], 1))


@ROWS.row(batch=padded, modalities=WITH_LENGTHS, **PAIR, samples_interact=True)
class TrimmedToLongest(Pair):
    """The mean goes over the longest sample of the batch, whoever else is in it."""

    def forward(self, a: Tensor, lengths: Tensor, v: Tensor) -> Tensor:
        kept = torch.arange(a.shape[1])[None, :, None] < lengths[:, None, None]
        trimmed = (a * kept)[:, : int(lengths.max())]
        return self.head(torch.cat([self.enc_a(trimmed).mean(1), self.enc_v(v)], 1))


def text(size: int) -> dict[str, Tensor]:
    lengths = integers(55, 1, 7, size)
    return {
        "ids": integers(56, 1, 20, size, 6) * (torch.arange(6)[None] < lengths[:, None]),
        "attention_mask": (torch.arange(6)[None] < lengths[:, None]).long(),
        "v": normal(57, size, 5),
    }


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, HIDDEN, padding_idx=0)
        self.mix = perceptron(HIDDEN)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        weights = attention_mask.float()[:, :, None]
        return (self.mix(self.embed(ids)) * weights).sum(1) / weights.sum(1).clamp_min(1)


class TextAndVector(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a = TextEncoder()

    def forward(self, ids: Tensor, attention_mask: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a(ids, attention_mask), self.enc_v(v)], 1))


def text_modalities(ids: Any, attention_mask: Any) -> dict[str, Any]:
    mask = {"ids": ids, "attention_mask": attention_mask}
    return {"a": {"inputs": ["ids", "attention_mask"], "mask": mask}, "v": "v"}


@ROWS.row(batch=text, modalities=text_modalities({"token": 3}, "keep"), **PAIR)
class TextMaskKept(TextAndVector):
    pass


@ROWS.row(batch=text, modalities=text_modalities({"token": 3}, "zero"), **PAIR)
class TextMaskMasked(TextAndVector):
    pass


@ROWS.row(batch=text, modalities=text_modalities("keep", "zero"), **PAIR)
class OnlyAttentionMasked(TextAndVector):
    pass


@ROWS.row(
    batch=text,
    modalities={"a": {"inputs": "ids", "mask": {"token": 0}}, "v": "v"},
    **PAIR,
)
class PaddingFromTokens(Pair):
    """The padding mask is read off the tokens; a text of nothing but padding keeps its first place."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a = PaddedTransformer()

    def forward(self, ids: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a(ids), self.enc_v(v)], 1))


class PaddedTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, HIDDEN)
        layer = nn.TransformerEncoderLayer(HIDDEN, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)

    def forward(self, ids: Tensor) -> Tensor:
        padding = ids == 0
        padding[:, 0] = False
        return self.layers(self.embed(ids), src_key_padding_mask=padding)[:, 0]


def flat_tokens(size: int) -> dict[str, Tensor]:
    return {
        "tokens": integers(58, 1, 20, 3 * size),
        "offsets": torch.arange(size) * 3,
        "v": normal(59, size, 5),
    }


@ROWS.row(
    batch=flat_tokens,
    modalities={
        "a": {"inputs": ["tokens", "offsets"], "mask": {"tokens": {"token": 0}, "offsets": "keep"}},
        "v": "v",
    },
    samples_interact=None,
    head="head",
)
class BagOfTokens(Pair):
    """Tokens of all samples in one row, with the places where samples begin."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a = nn.EmbeddingBag(20, HIDDEN, mode="mean")

    def forward(self, tokens: Tensor, offsets: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a(tokens, offsets), self.enc_v(v)], 1))


@ROWS.row(
    batch=lambda size: {"a": normal(60, 4 * size, 6), "v": normal(61, size, 5)},
    samples_interact=None,
    head="head",
)
class FlattenedClips(Pair):
    """Four rows of ``a`` belong to one sample."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        clips = self.enc_a(a).view(len(v), 4, HIDDEN).mean(1)
        return self.head(torch.cat([clips, self.enc_v(v)], 1))


@ROWS.row(batch=frames, **PAIR, calls={"enc_a": 7})
class FrameByFrame(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        seen = [self.enc_a(a[:, t]) for t in range(a.shape[1])]
        return self.head(torch.cat([torch.stack(seen, 1).amax(1), self.enc_v(v)], 1))


@ROWS.row(**PAIR)
class SampleBySample(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        rows = [
            torch.cat([self.enc_a(a[i : i + 1]), self.enc_v(v[i : i + 1])], 1)
            for i in range(len(a))
        ]
        return self.head(torch.cat(rows, 0))


def images(size: int) -> dict[str, Tensor]:
    return {"a": normal(62, size, 2, 16), "v": normal(63, size, 1, 6, 6)}


class NormedConvolutions(Pair):
    def __init__(self, norm_a: nn.Module, norm_v: nn.Module) -> None:
        super().__init__()
        self.enc_a = nn.Sequential(
            nn.Conv1d(2, HIDDEN, 3),
            norm_a,
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.enc_v = nn.Sequential(
            nn.Conv2d(1, HIDDEN, 3),
            norm_v,
            nn.ReLU(inplace=True),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )


@ROWS.row(batch=images, **PAIR)
class BatchNormEncoders(NormedConvolutions):
    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(HIDDEN), nn.BatchNorm2d(HIDDEN))
        nn.init.uniform_(self.enc_a[1].running_mean)
        nn.init.uniform_(self.enc_v[1].running_var, 0.5, 2)


@ROWS.row(batch=images, **PAIR)
class GroupNormEncoders(NormedConvolutions):
    def __init__(self) -> None:
        super().__init__(nn.GroupNorm(2, HIDDEN), nn.GroupNorm(4, HIDDEN))


@ROWS.row(batch=images, **PAIR)
class LayerNormEncoders(NormedConvolutions):
    def __init__(self) -> None:
        super().__init__(nn.LayerNorm([HIDDEN, 14]), nn.LayerNorm([HIDDEN, 4, 4]))


@ROWS.row(batch=images, **PAIR)
class FrozenBatchNorm(BatchNormEncoders):
    """Keeps its first norm in eval mode whatever is asked of it."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        super().train(mode)
        self.enc_a[1].eval()
        return self


@ROWS.row(
    batch=lambda size: {"a": normal(64, size, 20), "v": normal(65, size, 5)},
    encoders={"a": ("window", "enc_a"), "v": ("enc_v",)},
    fusion=("head",),
    head="head",
)
class SlidingWindows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.window, self.enc_a = nn.Linear(4, HIDDEN), nn.GRU(HIDDEN, HIDDEN)
        self.enc_v, self.head = perceptron(5), nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        windows = self.window(a.unfold(1, 4, 2)).transpose(0, 1)
        return self.head(torch.cat([self.enc_a(windows)[1][0], self.enc_v(v)], 1))


@ROWS.row(encoders={"a": ("enc_a",), "v": ("enc_v",)}, fusion=("join", "head"), head="head")
class JointRecurrence(nn.Module):
    """Two streams run side by side and meet at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_v = nn.Linear(2, 4), nn.Linear(1, 4)
        self.join = nn.GRUCell(8, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, a: Tensor, v: Tensor) -> Any:
        state = torch.zeros(len(a), HIDDEN)
        for step in range(3):
            fa = self.enc_a(a[:, 2 * step : 2 * step + 2])
            state = self.join(torch.cat([fa, self.enc_v(v[:, step : step + 1])], 1), state)
        return self.head(state)


@ROWS.row(batch=frames, **PAIR)
class AnswersForEachStep(Pair):
    """Scores at every step, shape (B, T, K)."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fv = self.enc_v(v)[:, None].expand(-1, a.shape[1], -1)
        return self.head(torch.cat([self.enc_a(a), fv], 2))


@ROWS.row(
    batch=text,
    modalities={"a": {"inputs": "ids", "mask": {"token": 0}}, "v": "v"},
    **PAIR,
)
class RenormalisedEmbedding(Pair):
    """The embedding rescales its own weights while it looks rows up, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_a = nn.EmbeddingBag(20, HIDDEN, max_norm=1.0)

    def forward(self, ids: Tensor, v: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a(ids), self.enc_v(v)], 1))
