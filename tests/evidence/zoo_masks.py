"""Kinds of masks, several to a modality, and modalities that some samples or whole batches lack."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.evidence.zoo_rows import HIDDEN, PAIR, Pair, Registry, integers, vectors

__all__ = ["ROWS", "mirrored"]

ROWS = Registry()


@ROWS.row(modalities={"a": {"inputs": "a", "mask": "drop"}, "v": "v"}, **PAIR)
class DroppedInput(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.randn(HIDDEN))

    def forward(self, a: Tensor | None, v: Tensor) -> Tensor:
        fa = self.missing.expand(len(v), -1) if a is None else self.enc_a(a)
        return self.head(torch.cat([fa, self.enc_v(v)], 1))


@ROWS.row(
    modalities={"a": {"inputs": "a", "mask": "drop"}, "v": {"inputs": "v", "mask": "drop"}},
    head="head",
)
class DroppedBoth(Pair):
    """With both gone, not even the number of samples is known: one row answers."""

    def forward(self, a: Tensor | None = None, v: Tensor | None = None) -> Tensor:
        size = next((len(x) for x in (a, v) if x is not None), 1)
        fa = torch.zeros(size, HIDDEN) if a is None else self.enc_a(a)
        fv = torch.ones(size, HIDDEN) if v is None else self.enc_v(v)
        return self.head(torch.cat([fa, fv], 1))


ABSENT = {"modalities": {"a": {"inputs": "a", "mask": "drop"}, "v": "v"}}


@ROWS.row(
    batch=lambda size: {"a": None, "v": vectors(size)["v"]}, **ABSENT, ignored=("a",), head="head"
)
class AbsentInBatch(DroppedInput):
    pass


def partly_present(size: int) -> dict[str, Tensor]:
    return {**vectors(size), "has_a": integers(74, 0, 2, size) == 1}


@ROWS.row(
    batch=partly_present,
    modalities={"a": {"inputs": "a", "mask": {"constant": 0.25}, "present": "has_a"}, "v": "v"},
    sizes=(2, 5, 33),
    **PAIR,
)
class PartlyPresent(Pair):
    pass


def several(size: int) -> dict[str, Tensor]:
    values = vectors(size)
    return {
        "low": values["a"][:, :2],
        "high": values["a"][:, 2:],
        "scale": 1 + integers(75, 0, 3, size, 1).float(),
        "v": values["v"],
    }


@ROWS.row(
    batch=several,
    modalities={
        "a": {
            "inputs": {"low": "low", "high": "high", "scale": "scale"},
            "mask": {"low": "zero", "high": {"constant": 0.5}, "scale": "keep"},
        },
        "v": {"inputs": "v", "mask": {"constant": -1}},
    },
    **PAIR,
)
class SeveralTensors(Pair):
    def forward(self, low: Tensor, high: Tensor, scale: Tensor, v: Tensor) -> Tensor:
        return super().forward(torch.cat([low, high], 1) * scale, v)


def mirrored(values: Tensor, ids: list[str], generator: torch.Generator) -> Tensor:
    """A mask of the owner: each sample's entries in reverse order, with the sign changed."""
    return -values.flip(1)


@ROWS.row(
    modalities={
        "a": {"inputs": "a", "mask": {"custom": "tests.evidence.zoo_masks:mirrored"}},
        "v": {"inputs": "v", "mask": {"constant": 0.5}},
    },
    **PAIR,
)
class CustomMasked(Pair):
    pass


def partly_present_text(size: int) -> dict[str, Tensor]:
    return {
        "ids": integers(77, 1, 20, size, 6),
        "mask": integers(78, 0, 2, size, 6) == 1,
        "has_text": integers(79, 0, 3, size) > 0,
        "v": vectors(size)["v"],
        "has_v": integers(80, 0, 3, size) > 0,
    }


@ROWS.row(
    batch=partly_present_text,
    modalities={
        "text": {
            "inputs": ["ids", "mask"],
            "mask": {"ids": {"token": 3}, "mask": "zero"},
            "present": "has_text",
        },
        "v": {"inputs": "v", "mask": {"constant": 2}, "present": "has_v"},
    },
    sizes=(2, 5, 33),
    encoders={"text": ("embed",), "v": ("enc_v",)},
    head="head",
)
class BothPartlyPresent(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, HIDDEN)

    def forward(self, ids: Tensor, mask: Tensor, v: Tensor) -> Tensor:
        text = (self.embed(ids) * mask[:, :, None]).mean(1)
        return self.head(torch.cat([text, self.enc_v(v)], 1))
