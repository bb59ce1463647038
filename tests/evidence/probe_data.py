"""Models and data for probes: what each modality says is planted, and all tasks can be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from mmaudit.evidence.information import collect_information
from mmaudit.evidence.latents import collect_competition
from mmaudit.report.tables import read_chunks, shard_paths
from tests.evidence.branched import surroundings

MODALITIES = {"audio": {"inputs": "audio"}, "image": {"inputs": "image"}}


class Late(nn.Module):
    """Two linear encoders and a head; ``outputs`` numbers."""

    def __init__(self, outputs: int = 2, widths=(6, 5), hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.ears, self.eyes = (nn.Linear(width, hidden) for width in widths)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], -1))


def audio_and_image(n: int = 300, *, seed: int = 0, size: int = 64, lacking: float = 0.0):
    """Batches in which audio says the label to some degree and image nothing."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (n,), generator=rng)
    audio, image = (torch.randn(n, width, generator=rng) for width in (6, 5))
    audio[:, 0] += 2.0 * label
    has = torch.rand(n, generator=rng) >= lacking
    audio[~has] = torch.nan
    return split({"audio": audio, "image": image, "label": label}, size)


def split(columns: dict[str, object], size: int = 64) -> list[dict[str, object]]:
    """Columns as batches, with ids."""
    n = len(next(iter(columns.values())))
    columns = {**columns, "id": [f"s{i}" for i in range(n)]}
    return [
        {name: values[at : at + size] for name, values in columns.items()}
        for at in range(0, n, size)
    ]


def spec(**more) -> dict[str, object]:
    """For the two modalities."""
    return {"modalities": MODALITIES, "target": "label", "ids": "id", **more}


def read(folder: Path) -> dict[str, np.ndarray]:
    """A whole table."""
    chunks = list(read_chunks(folder))
    if not chunks:
        return {name: np.empty(0) for name in pq.read_schema(shard_paths(folder)[0]).names}
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


class Probed:
    """What probes of information found."""

    def __init__(self, model, data, wanted, work: Path, **more) -> None:
        self.surroundings = surroundings(model, data, wanted, work, **more)
        with torch.no_grad():
            self.notes = collect_information(self.surroundings)
        self.rows = read(work / "information")
        self.probes = read(work / "information_probes")

    def of(self, modality: str, features: str = "best") -> dict[str, np.ndarray]:
        """Rows of one probe."""
        here = (self.rows["modality"] == modality) & (self.rows["features"] == features)
        return {name: values[here] for name, values in self.rows.items()}

    def gain(self, modality: str, features: str = "best") -> float:
        """Share of the entropy."""
        rows = self.of(modality, features)
        return float(rows["gain"].sum() / rows["entropy"].sum())

    def probe(self, modality: str, features: str = "best") -> dict[str, object]:
        """How a probe came about."""
        here = (self.probes["modality"] == modality) & (self.probes["features"] == features)
        return {name: values[here][0] for name, values in self.probes.items()}


class Competed:
    """What probes of the latent found."""

    def __init__(self, model, data, wanted, work: Path, references=None, **more) -> None:
        self.surroundings = surroundings(model, data, wanted, work, **more)
        self.surroundings.references = references or {}
        with torch.no_grad():
            self.notes = collect_competition(self.surroundings)
        self.there = (work / "competition").exists()
        if self.there:
            self.rows = read(work / "competition")
            self.probes = read(work / "competition_probes")

    def probe(self, modality: str, penalty: str = "cross-validated") -> dict[str, object]:
        """How a probe came about."""
        here = (self.probes["modality"] == modality) & (self.probes["penalty"] == penalty)
        return {name: values[here][0] for name, values in self.probes.items()}

    def pooled(self, modality: str, place: int = 0) -> float:
        """Competition strength under the penalty at a place."""
        m = self.surroundings.spec.names.index(modality)
        penalties = len(dict.fromkeys(self.probes["penalty"]))
        error, scatter = self.rows["error"][:, m * penalties + place], self.rows["scatter"][:, m]
        return float(np.nansum(error) / np.nansum(scatter))
