from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sample_models.synthetic
from sample_models.synthetic import batches, build
from sample_models.synthetic.cases import CASES
from sample_models.synthetic.data import Samples
from sample_models.synthetic.model import construct

FOLDER = Path(sample_models.synthetic.__file__).parent


@pytest.mark.parametrize("case", CASES)
def test_shipped_weights_are_the_constructed_ones(case):
    shipped, constructed = (
        load_file(FOLDER / case / "model.safetensors"),
        construct(case).state_dict(),
    )
    assert shipped.keys() == constructed.keys() == build(case).state_dict().keys()
    assert all(torch.equal(shipped[key], constructed[key]) for key in shipped)


@pytest.mark.parametrize("case", CASES)
def test_sources_are_right_exactly_as_often_as_declared(case):
    data, declared = Samples(case), CASES[case]
    if declared.parity:
        assert data.label.double().mean() == 0.5
        return
    counts = torch.bincount(data.label)
    assert len(counts) == declared.classes and len(set(counts.tolist())) == 1
    for name, told in declared.modalities.items():
        source = declared.sources[told.source]
        says = data.inputs[name][:, 0] > 0
        right = (says == (data.label >> source.bit & 1).bool()).double().mean().item()
        assert right == pytest.approx(float(source.right), abs=1e-12)


def test_the_seed_changes_order_and_noise_only():
    first, again, other = Samples("five"), Samples("five"), Samples("five", seed=1)
    assert all(torch.equal(first.inputs[m], again.inputs[m]) for m in first.inputs)
    assert not torch.equal(first.label, other.label)
    assert torch.equal(first.label.sort().values, other.label.sort().values)
    batch = next(iter(batches("five", batch_size=3)))
    assert batch["a"].shape == (3, 6) and len(set(batch["id"])) == 3
