"""The zoo itself, without the engine: its rows run, and what they claim is true."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmaudit.masking.spec import MaskingSpec
from tests.evidence.zoo import ZOO, assert_equal_games, brute_force, dependence, plain
from tests.evidence.zoo_rows import Architecture

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
]

every_row = pytest.mark.parametrize("row", ZOO, ids=lambda row: row.name)
every_certain_row = pytest.mark.parametrize(
    "row", [row for row in ZOO if not row.stochastic], ids=lambda row: row.name
)

DIVISIBLE = [
    row
    for row in ZOO
    if row.samples_interact is not None
    and not row.stochastic
    and isinstance(row.batch(11), dict)
    and not any(isinstance(x, list) for x in row.batch(11).values())
]
"""Rows whose batches can be made smaller: of eleven samples, since no other side is that long."""


def first(count: int, values: Tensor) -> Tensor:
    return values.to_dense()[tuple(slice(count if side == 11 else None) for side in values.shape)]


def test_is_large_and_its_names_differ() -> None:
    assert len({row.name for row in ZOO}) == len(ZOO) >= 45


@every_certain_row
def test_row_is_sound(row: Architecture) -> None:
    model = row.model()
    with torch.no_grad():
        for size in row.sizes:
            batch = row.batch(size)
            game = brute_force(model, batch, row.spec)
            grand = game[frozenset(row.spec.names)]
            assert grand.isfinite().all()
            assert grand.abs().max() < 30
            assert_equal_games(brute_force(model, batch, row.spec), game, 1e-6)
            if all(modality.present is None for modality in row.spec.modalities.values()):
                assert torch.equal(plain(model, batch, row.spec), grand)
        for name in row.spec.names:
            without = game[frozenset(row.spec.names) - {name}]
            effect = float((without - grand).abs().max())
            assert (effect < 1e-6) if name in row.ignored else (effect > 1e-2), (name, effect)


@every_row
def test_facts_are_true(row: Architecture) -> None:
    """What a row claims about its modules, by hooks and perturbation."""
    model = row.model()
    if not isinstance(model, nn.Module) or row.stochastic:
        assert not row.calls
        return
    model = getattr(model, "_orig_mod", getattr(model, "module", model))
    seen = dependence(model, row.batch(5), row.spec)
    modules = dict(model.named_modules())
    for name, modalities in row.sees.items():
        assert seen[name] == modalities
    for modality, names in (row.encoders or {}).items():
        for name in names:
            assert seen[name] == (modality,)
            parent = name.rpartition(".")[0]
            assert seen.get(parent) != (modality,) or parent == ""
    if row.encoders is not None and not row.ignored:
        inside = [f"{name}." for names in row.encoders.values() for name in names]
        inside += [name[:-1] for name in inside]
        for name, modalities in seen.items():
            if len(modalities) == 1 and any(True for _ in modules[name].parameters()):
                assert name in inside or any(name.startswith(x) for x in inside if x[-1] == "."), (
                    name
                )
    for name in row.unused:
        assert name in modules
        assert name not in seen
    assert row.head is None or isinstance(modules[row.head], nn.Linear)
    assert all(name in (None, "") or name in modules for name in row.fusion or ())
    assert set(row.groups) <= {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("row", DIVISIBLE, ids=lambda row: row.name)
def test_samples_interact_as_said(row: Architecture) -> None:
    """Whether leaving the other samples out changes the outputs of those that stay."""
    whole = row.batch(11)
    few = {key: first(4, x) if isinstance(x, Tensor) else x for key, x in whole.items()}
    with torch.no_grad():
        expected = plain(row.model(), whole, row.spec)[:4]
        actual = plain(row.model(), few, row.spec)
    same = expected.shape == actual.shape and torch.allclose(
        expected, actual, atol=max(1e-5, row.tolerance)
    )
    assert same != row.samples_interact


def test_brute_force_by_hand() -> None:
    model = nn.Bilinear(1, 1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    spec = MaskingSpec.model_validate(
        {"modalities": {"a": "0", "v": {"inputs": "1", "mask": {"constant": 0.5}}}}
    )
    game = brute_force(model, (torch.tensor([[3.0]]), torch.tensor([[4.0]])), spec)
    worth = {"".join(sorted(coalition)): float(x.detach()) for coalition, x in game.items()}
    assert worth == {"": 0.0, "a": 3.0, "v": 0.0, "av": 24.0}
