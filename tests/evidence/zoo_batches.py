"""Models whose samples see each other, or that know how many there are: coalitions must not be mixed in one batch."""

from __future__ import annotations

from typing import Any

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
)

__all__ = ["ROWS"]

ROWS = Registry()
ENCODERS = PAIR["encoders"]


@ROWS.row(**PAIR, samples_interact=True)
class SoftmaxOverBatch(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        features = torch.cat([self.enc_a(a), self.enc_v(v)], 1)
        return self.head(features + features.softmax(0))


@ROWS.row(**PAIR, samples_interact=True)
class CentredOnBatch(Pair):
    """A raw input is centred on the batch before any module sees it."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a - a.mean(0) / 2, v)


@ROWS.row(encoders=ENCODERS, fusion=("norm",), head="head", samples_interact=True, sizes=(2, 5, 33))
class BatchStatistics(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * HIDDEN, track_running_stats=False)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return self.head(self.norm(torch.cat([self.enc_a(a), self.enc_v(v)], 1)))


@ROWS.row(encoders=ENCODERS, samples_interact=True, unused=("head",))
class SimilarityMatrix(Pair):
    """Each sample's audio against each sample's video: as many columns as samples."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        fa, fv = (F.normalize(f, dim=1) for f in (self.enc_a(a), self.enc_v(v)))
        return fa @ fv.T


@ROWS.row(**PAIR, samples_interact=None)
class DividesByBatchSize(Pair):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        return super().forward(a, v) * (1 + 1 / len(a))


@ROWS.row(**PAIR, samples_interact=None)
class KnowsPositions(Pair):
    """What a sample gets depends on its place in the batch."""

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        places = torch.arange(len(a), dtype=torch.float32)[:, None]
        return super().forward(a, v) + torch.sin(places)


@ROWS.row(
    batch=lambda size: {"a": normal(90, size, 6), "v": normal(91, size, 5)}, samples_interact=True
)
class Neighbours(Pair):
    """Attention between samples, as in a set transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2 * HIDDEN, 2)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        x = torch.cat([self.enc_a(a), self.enc_v(v)], 1)
        return self.head(x + self.attention(x, x, x)[0])


def graph(size: int) -> dict[str, Any]:
    links = (integers(92, 0, 3, size, size) == 0).float() + torch.eye(size)
    return {
        "x": normal(93, size, 5),
        "links": links / links.sum(1, keepdim=True),
        "a": normal(94, size, 6),
    }


def sparse_graph(size: int) -> dict[str, Any]:
    values = graph(size)
    return {**values, "links": values["links"].to_sparse_coo()}


GRAPH = {
    "a": "a",
    "graph": {"inputs": ["x", "links"], "mask": {"x": "zero", "links": "keep"}},
}


class GraphConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        return links @ self.linear(x)


class GraphEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(5, HIDDEN), GraphConvolution(HIDDEN, HIDDEN)

    def forward(self, x: Tensor, links: Tensor) -> Tensor:
        return self.second(self.first(x, links).relu(), links)


@ROWS.row(
    batch=graph,
    modalities=GRAPH,
    encoders={"a": ("enc_a",), "graph": ("enc_g",)},
    head="head",
    fusion=("head",),
    samples_interact=True,
)
class DenseGraph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc_a, self.enc_g = nn.Linear(6, HIDDEN), GraphEncoder()
        self.head = nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, a: Tensor, x: Tensor, links: Tensor) -> Tensor:
        return self.head(torch.cat([self.enc_a(a), self.enc_g(x, links)], 1))


@ROWS.row(
    batch=graph,
    modalities={**GRAPH, "graph": {"inputs": ["x", "links"], "mask": "zero"}},
    encoders={"a": ("enc_a",), "graph": ("enc_g",)},
    head="head",
    fusion=("head",),
    samples_interact=True,
)
class GraphWithoutLinks(DenseGraph):
    """The links go with the features when the modality is masked."""


@ROWS.row(
    batch=sparse_graph,
    modalities=GRAPH,
    encoders={"a": ("enc_a",), "graph": ("enc_g",)},
    head="head",
    fusion=("head",),
    samples_interact=True,
)
class SparseGraph(DenseGraph):
    pass


@ROWS.row(batch=sparse_graph, modalities=GRAPH, head="head", samples_interact=None)
class FewerAnswersThanRows(DenseGraph):
    """Only the first half of the nodes is asked for; the others are there for their neighbours."""

    def forward(self, a: Tensor, x: Tensor, links: Tensor) -> Tensor:
        return super().forward(a, x, links)[: max(1, len(a) // 2)]


@ROWS.row(
    batch=graph,
    modalities={
        "a": {"inputs": {"a": "a", "links_a": "links"}, "mask": {"a": "zero", "links_a": "keep"}},
        "graph": {"inputs": ["x", "links"], "mask": {"x": "zero", "links": "keep"}},
    },
    spec={"call": {"args": ["a", "x", "links"]}},
    head="head",
    samples_interact=True,
)
class SharedLinks(DenseGraph):
    """Both modalities live on one graph; the fused features are spread over it once more."""

    def forward(self, a: Tensor, x: Tensor, links: Tensor) -> Tensor:
        return links @ super().forward(links @ a, x, links)
