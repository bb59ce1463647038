"""Samples of a split by position, from everything that data can come as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler

from mmaudit.exceptions import DataError
from mmaudit.masking.spec import MaskingSpec, SourceSpec
from mmaudit.training.samples import open_samples, split_off

SPEC = MaskingSpec.model_validate({"modalities": {"a": "a", "b": "b"}, "target": "y"})


def arrays(n: int = 20) -> dict[str, Tensor]:
    return {
        "a": torch.arange(n * 3, dtype=torch.float32).reshape(n, 3),
        "b": torch.arange(n, dtype=torch.float32)[:, None],
        "y": torch.arange(n) % 4,
    }


class Items(Dataset[dict[str, Tensor]]):
    def __init__(self, n: int = 20) -> None:
        self.columns = arrays(n)

    def __len__(self) -> int:
        return len(self.columns["y"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def sources(tmp_path: Path) -> dict[str, Any]:
    columns = arrays()
    np.savez(tmp_path / "data.npz", **{name: value.numpy() for name, value in columns.items()})
    return {
        "loader": DataLoader(Items(), batch_size=6, shuffle=True),
        "arrays": columns,
        "file": SourceSpec(file=tmp_path / "data.npz"),
        "batches": [{k: v[at : at + 7] for k, v in columns.items()} for at in (0, 7, 14)],
    }


@pytest.mark.parametrize("kind", ["loader", "arrays", "file", "batches"])
def test_any_samples_in_any_order(kind: str, tmp_path: Path) -> None:
    samples = open_samples(sources(tmp_path)[kind], SPEC)
    assert len(samples) == 20
    batch = samples.batch([13, 2, 19, 2])
    assert batch.n == 4
    assert batch.targets is not None
    assert batch.targets.tolist() == [1, 2, 3, 2]
    assert batch.data["b"].flatten().tolist() == [13, 2, 19, 2]
    assert batch.ids == ["13", "2", "19", "2"]
    assert batch.present["a"].all()


def test_a_loader_of_some_samples_gives_those_only() -> None:
    loader = DataLoader(Items(), batch_size=4, sampler=SubsetRandomSampler([3, 5, 8]))
    samples = open_samples(loader, SPEC)
    assert len(samples) == 3
    assert sorted(samples.targets().tolist()) == [0, 1, 3]
    assert len(open_samples(DataLoader(Subset(Items(), range(5))), SPEC)) == 5


def test_the_loaders_own_collate_function_is_used() -> None:
    def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            k: torch.stack([item[k] for item in items]) * (2 if k == "b" else 1) for k in items[0]
        }

    samples = open_samples(DataLoader(Items(), collate_fn=collate), SPEC)
    assert samples.batch([4]).data["b"].item() == 8


def test_batches_of_several_lengths_cannot_be_cut() -> None:
    batches = [
        {"a": torch.zeros(2, n), "b": torch.zeros(2, 1), "y": torch.zeros(2, dtype=torch.long)}
        for n in (3, 4)
    ]
    with pytest.raises(DataError, match="DataLoader over a dataset"):
        open_samples(batches, SPEC)


def test_a_stratified_part_is_held_out_and_nothing_is_in_both() -> None:
    samples = open_samples(arrays(80), SPEC)
    left, taken = split_off(samples, 0.1, seed=3)
    assert (len(left), len(taken)) == (72, 8)
    assert np.bincount(taken.targets()).tolist() == [2, 2, 2, 2]
    ids = {*left.batch(range(len(left))).ids}
    assert not ids & {*taken.batch(range(len(taken))).ids}
    again = split_off(samples, 0.1, seed=3)[1]
    assert again.batch(range(8)).ids == taken.batch(range(8)).ids


def test_nothing_can_be_held_out_of_classes_of_one() -> None:
    columns = arrays(4)
    with pytest.raises(DataError, match="no class has two samples"):
        split_off(open_samples(columns, SPEC), 0.1, seed=0)


def test_absent_modalities_stay_absent() -> None:
    columns = arrays(6)
    columns["a"][2] = float("nan")
    samples = open_samples(columns, SPEC)
    assert samples.batch([1, 2]).present["a"].tolist() == [True, False]
    cut = open_samples([{k: v[:3] for k, v in columns.items()}], SPEC)
    assert cut.batch([2, 0]).present["a"].tolist() == [False, True]


@pytest.mark.parametrize("kind", ["loader", "arrays", "file", "batches"])
def test_one_splits_collate_function_does_not_look_into_another_split(
    kind: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    samples = open_samples(sources(first)[kind], SPEC)
    others = {k: v + 100 if k != "y" else v for k, v in arrays().items()}
    other = open_samples(others, SPEC)
    mixed = samples.collate if kind in ("arrays", "file") else other.collate
    assert mixed([other.data[3]]).data["b"].item() == 103
