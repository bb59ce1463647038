"""Samples of the closed-form subjects: every combination of label and errors equally often, in an order by seed.

Because combinations are enumerated and not drawn, the accuracies of card.md hold exactly and not just on average; the seed
decides the order and the noise in the coordinates that nobody reads.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sample_models.synthetic.cases import CASES, Case

__all__ = ["FEATURES", "Samples", "batches"]

FEATURES = 6


class Samples(Dataset[dict[str, Any]]):
    """Samples of one case: per modality ``(6,)`` float32, ``label``, ``id``.

    Args:
        case: Name of the case.
        seed: Of order and noise.
    """

    def __init__(self, case: str, seed: int = 0) -> None:
        self.inputs, self.label = _enumerate(CASES[case], np.random.default_rng(seed))
        self.prefix = f"{case}-{seed}"

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {name: values[index] for name, values in self.inputs.items()}
        return sample | {"label": int(self.label[index]), "id": f"{self.prefix}-{index:05d}"}


def batches(case: str, seed: int = 0, batch_size: int = 64) -> DataLoader[dict[str, Any]]:
    """The samples of one case in a fixed order."""
    return DataLoader(Samples(case, seed), batch_size=batch_size)


def _enumerate(case: Case, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and labels, every combination ``case.repeats`` times."""
    labels = range(2**case.bits)
    outcomes = [
        [level < source.right.numerator for level in range(source.right.denominator)]
        for source in case.sources.values()
    ]
    combinations = itertools.product(labels, *outcomes)
    table = np.array([row for row in combinations for _ in range(case.repeats)], dtype=int)
    table = rng.permutation(table)
    bits = table[:, :1] >> np.arange(case.bits) & 1
    says = {
        name: np.where(table[:, column] == 1, 1, -1) * (2 * bits[:, source.bit] - 1)
        for column, (name, source) in enumerate(case.sources.items(), start=1)
    }
    inputs = {}
    for name, told in case.modalities.items():
        values = rng.normal(0, 0.5, (len(table), FEATURES)).astype(np.float32)
        values[:, 0] = says[told.source]
        if told.proxy is not None:
            values[:, 1] = says[told.proxy]
        inputs[name] = torch.from_numpy(values)
    label = bits.sum(axis=1) % 2 if case.parity else table[:, 0]
    return inputs, torch.from_numpy(label)
