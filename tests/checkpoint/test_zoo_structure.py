"""The structure found in the zoo's models against what is known about them."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import mmaudit
from mmaudit.masking.spec import MaskingSpec
from mmaudit.report.schema import StructureRecord
from tests.evidence.zoo import ZOO, assert_unchanged, dependence, plain, snapshot
from tests.evidence.zoo_rows import Architecture, Pair, vectors

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
]

MODULES = [row for row in ZOO if isinstance(row.model(), nn.Module)]
every_row = pytest.mark.parametrize("row", ZOO, ids=lambda row: row.name)
every_module = pytest.mark.parametrize("row", MODULES, ids=lambda row: row.name)

PAIR_SPEC = MaskingSpec.model_validate({"modalities": {"a": "a", "v": "v"}})


def rows_with(fact: str) -> Any:
    rows = [row for row in MODULES if getattr(row, fact) not in (None, {}, ())]
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def inspected(row: Architecture) -> StructureRecord:
    return inspected_by_name(row.name)


@functools.cache
def inspected_by_name(name: str) -> StructureRecord:
    row = next(row for row in ZOO if row.name == name)
    return mmaudit.inspect_structure(row.model(), row.batch(6), row.spec).record


def unwrapped(model: nn.Module) -> nn.Module:
    return getattr(model, "_orig_mod", getattr(model, "module", model))


@rows_with("encoders")
def test_encoders(row: Architecture) -> None:
    record = inspected(row)
    sizes = {module.name: module.parameters for module in record.modules}
    for modality, names in row.encoders.items():
        found = {name for name in record.encoders.get(modality, ()) if sizes[name] > 0}
        assert found == set(names), (modality, record.encoders)


@rows_with("fusion")
def test_fusion(row: Architecture) -> None:
    assert inspected(row).fusion in row.fusion


@rows_with("head")
def test_head(row: Architecture) -> None:
    assert inspected(row).head == row.head


@rows_with("head")
def test_latent_is_the_input_of_the_head_where_the_head_is_called_once(row: Architecture) -> None:
    record = inspected(row)
    assert record.latent is None or row.head in record.latent


@rows_with("sees")
def test_modalities_of_modules(row: Architecture) -> None:
    found = {module.name: module.modalities for module in inspected(row).modules}
    assert {name: found[name] for name in row.sees} == dict(row.sees)


@every_module
def test_modalities_of_modules_cover_those_found_by_perturbation(row: Architecture) -> None:
    """A module whose output moves with a modality depends on it, whatever else may be said."""
    if row.stochastic:
        pytest.skip("perturbation says nothing about a model that draws numbers")
    record = inspected(row)
    # The fast path hides a transformer's layers from hooks on the outside and shows them with hooks inside.
    found = {module.name: set(module.modalities) for module in record.modules}
    moved = dependence(unwrapped(row.model()), row.batch(6), row.spec)
    too_few = {name: seen for name, seen in moved.items() if not set(seen) <= found[name]}
    assert not too_few, {name: (seen, found[name]) for name, seen in too_few.items()}


@rows_with("calls")
def test_calls(row: Architecture) -> None:
    found = {module.name: module.calls for module in inspected(row).modules}
    assert {name: found[name] for name in row.calls} == dict(row.calls)


@rows_with("unused")
def test_unused_modules(row: Architecture) -> None:
    roles = {module.name: (module.role, module.calls) for module in inspected(row).modules}
    assert {name: roles[name] for name in row.unused} == dict.fromkeys(row.unused, ("unused", 0))


@rows_with("groups")
def test_groups_of_parameters(row: Architecture) -> None:
    groups = inspected(row).parameter_groups
    home = {name: group for group, names in groups.items() for name in names}
    assert {name: home[name] for name in row.groups} == dict(row.groups)


@every_module
def test_every_parameter_is_in_one_group(row: Architecture) -> None:
    groups = inspected(row).parameter_groups
    assert set(groups) <= {*row.spec.names, "shared", "constant", "unused"}
    counts = Counter(name for names in groups.values() for name in names)
    assert counts == Counter(name for name, _ in unwrapped(row.model()).named_parameters())


@every_module
def test_modules_are_all_there_under_their_own_names(row: Architecture) -> None:
    model = unwrapped(row.model())
    record = inspected(row)
    assert [module.name for module in record.modules] == [name for name, _ in model.named_modules()]
    sizes = {
        name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()
    }
    assert {module.name: module.parameters for module in record.modules} == sizes


@every_row
def test_stochastic_models_are_named_as_such(row: Architecture) -> None:
    assert inspected(row).stochastic == row.stochastic


@pytest.mark.parametrize(
    "row",
    [row for row in ZOO if row.samples_interact is not None and not row.stochastic],
    ids=lambda row: row.name,
)
def test_samples_that_interact_are_named_as_such(row: Architecture) -> None:
    assert inspected(row).samples_interact == row.samples_interact


@every_row
def test_model_is_left_as_it_was(row: Architecture) -> None:
    model, batch = row.model(), row.batch(6)
    if isinstance(model, nn.Module):
        # What a plain call leaves behind is the model's own doing.
        with torch.no_grad():
            plain(model, batch, row.spec)
        for number, module in enumerate(model.modules()):
            module.training = number % 3 != 1
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
    before = snapshot(model)
    mmaudit.inspect_structure(model, batch, row.spec)
    assert_unchanged(before, snapshot(model))


def test_model_is_left_as_it_was_after_an_error() -> None:
    model = Pair()
    model.enc_v[2] = nn.Linear(3, 3)
    model.enc_a.eval()
    before = snapshot(model)
    with pytest.raises((mmaudit.MMAuditError, RuntimeError)):
        mmaudit.inspect_structure(model, vectors(4), PAIR_SPEC)
    assert_unchanged(before, snapshot(model))


@pytest.mark.parametrize("size", [1, 2, 33])
def test_structure_does_not_depend_on_the_size_of_the_batch(size: int) -> None:
    expected = mmaudit.inspect_structure(Pair(), vectors(6), PAIR_SPEC).record
    actual = mmaudit.inspect_structure(Pair(), vectors(size), PAIR_SPEC).record
    for fact in ("encoders", "fusion", "head", "parameter_groups", "samples_interact"):
        assert getattr(actual, fact) == getattr(expected, fact)


def test_a_spec_overrules_what_is_found() -> None:
    modalities = {"a": {"inputs": "a", "encoders": "enc_a.0"}, "v": "v"}
    spec = MaskingSpec.model_validate({"modalities": modalities, "head": "enc_v.2"})
    record = mmaudit.inspect_structure(Pair(), vectors(6), spec).record
    assert record.encoders["a"] == ("enc_a.0",)
    assert record.head == "enc_v.2"
