"""Modality dropout: what is drawn, what is masked, and what a training does with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from mmaudit.exceptions import ModelError
from mmaudit.remedies.modality_dropout import ModalityDropout, dropped_modalities
from mmaudit.training.order import MicroBatch
from mmaudit.training.recipe import Recipe
from mmaudit.training.recorder import read_history
from tests.remedies.nets import NETS, Concat, ConvConcat, data, spec
from tests.remedies.running import batch_of, remedy_for, run, weights
from tests.remedies.textures import accuracy_of_the_noisy_one


class FakeRun:
    """What hooks see, without a training around it."""

    def __init__(self, model: nn.Module, seed: int = 3) -> None:
        self.model, self.recipe = model, Recipe(optimizer="sgd", seed=seed)
        self.device, self.processes = torch.device("cpu"), 1

    def reduce(self, tensor: Tensor) -> Tensor:
        return tensor


def prepared(
    settings: dict[str, Any], samples: list[Any], modalities: int = 2, **options: Any
) -> tuple[Any, Any, Any]:
    """Remedy, run, and all samples as one batch."""
    model = Concat(modalities)
    hooks = remedy_for("modality_dropout", model, settings, samples, **options)
    running: Any = FakeRun(model)
    hooks.prepare(running)
    batch = hooks.task.place(batch_of(samples, hooks.task.spec), torch.device("cpu"))
    return hooks, running, batch


def micro(n: int, step: int = 1) -> MicroBatch:
    return MicroBatch(tuple(range(n)), tuple(range(n)), n, last=True, epoch=1, step=step)


@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 10**6))
def test_something_that_is_present_always_stays(modalities: int, p: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(50, modalities, generator=generator) < 0.7
    draws = torch.rand(50, modalities, 2, generator=generator)
    dropped = dropped_modalities(present, draws, p=p)
    assert not (dropped & ~present).any()
    assert torch.equal((present & ~dropped).any(1), present.any(1))


def test_rates_are_those_of_the_formula_and_the_one_that_stays_is_uniform() -> None:
    draws = torch.rand(200_000, 3, 2, generator=torch.Generator().manual_seed(0))
    present = torch.ones(200_000, 3, dtype=torch.bool)
    for p in (0.3, 0.8, 1.0):
        rates = dropped_modalities(present, draws, p=p).float().mean(0)
        torch.testing.assert_close(rates, torch.full((3,), p - p**3 / 3), atol=0.005, rtol=0)
    # Without the second one, the first stays as often as the third.
    present[:, 1] = False
    rates = dropped_modalities(present, draws, p=1.0).float().mean(0)
    torch.testing.assert_close(rates, torch.tensor([0.5, 0.0, 0.5]), atol=0.005, rtol=0)


def test_each_sample_gets_its_own_masks_and_nothing_else_changes() -> None:
    samples = data(3, 64)
    settings = spec(3)
    settings["modalities"]["m1"] = {"inputs": "x1", "mask": {"constant": 7.0}}  # type: ignore[index]
    hooks, running, batch = prepared(settings, samples, 3, p=0.5)
    seen = hooks.batch(running, batch, micro(64)).data
    assert torch.equal(seen["y"], batch.data["y"])
    gone = []
    for m, filler in enumerate((0.0, 7.0, 0.0)):
        masked = (seen[f"x{m}"] == filler).all(1)
        same = (seen[f"x{m}"] == batch.data[f"x{m}"]).all(1)
        assert torch.equal(masked, ~same)
        gone.append(masked)
    lost = torch.stack(gone, 1)
    assert 0.3 < lost.float().mean() < 0.6
    assert not lost.all(1).any()
    assert len({tuple(row) for row in lost.tolist()}) == 7


def test_inputs_that_a_mask_keeps_stay_and_samples_may_run_along_any_dimension() -> None:
    samples = [{**s, "length": torch.tensor(4.0)} for s in data(2, 32)]
    settings = spec(2)
    settings["modalities"]["m1"] = {  # type: ignore[index]
        "inputs": {"values": "x1", "length": "length"},
        "mask": {"values": "zero", "length": "keep"},
    }
    hooks, running, batch = prepared(settings, samples, p=1.0)
    seen = hooks.batch(running, batch, micro(32)).data
    assert torch.equal(seen["length"], batch.data["length"])
    assert (seen["x1"] == 0).all(1).any()

    turned = batch_of(samples, hooks.task.spec)
    turned = replace(
        turned,
        data={**turned.data, "x1": turned.data["x1"].T},
        dims={**turned.dims, "x1": 1},
    )
    other = hooks.task.place(turned, torch.device("cpu"))
    torch.testing.assert_close(hooks.batch(running, other, micro(32)).data["x1"].T, seen["x1"])


def test_an_absent_modality_stays_absent_and_the_other_one_is_kept() -> None:
    samples = [{**s, "has": torch.tensor(i % 2 == 0)} for i, s in enumerate(data(2, 64))]
    settings = spec(2)
    settings["modalities"]["m0"] = {"inputs": "x0", "present": "has"}  # type: ignore[index]
    hooks, running, batch = prepared(settings, samples, p=1.0)
    seen = hooks.batch(running, batch, micro(64)).data
    has = torch.stack([s["has"] for s in samples])
    assert (seen["x0"][~has] == 0).all()
    assert torch.equal(seen["x1"][~has], batch.data["x1"][~has])
    one_left = (seen["x0"][has] != 0).all(1) ^ (seen["x1"][has] != 0).all(1)
    assert one_left.all()
    hooks.after_backward(running, micro(64))
    rates = hooks.coefficients()
    kept_x1 = (seen["x1"][has] != 0).all(1).float().mean()
    assert rates["dropped m0"] == pytest.approx(float(kept_x1))
    assert rates["dropped m1"] == pytest.approx(float((seen["x1"] == 0).all(1).float().mean()))
    assert hooks.coefficients() == {}


def test_draws_follow_places_steps_and_seeds_and_nothing_else() -> None:
    samples = data(2, 20)
    hooks, running, batch = prepared(spec(2), samples, p=0.5)
    stream = torch.get_rng_state()
    whole = hooks.batch(running, batch, micro(20)).data["x1"]
    assert torch.equal(torch.get_rng_state(), stream)
    # The rows of the second of two processes.
    mine = list(range(1, 20, 2))
    part = hooks.task.place(
        batch_of([samples[i] for i in mine], hooks.task.spec), torch.device("cpu")
    )
    places = MicroBatch(tuple(mine), tuple(mine), 20, last=True, epoch=1, step=1)
    assert torch.equal(hooks.batch(running, part, places).data["x1"], whole[mine])
    assert not torch.equal(hooks.batch(running, batch, micro(20, step=2)).data["x1"], whole)
    running.recipe = Recipe(optimizer="sgd", seed=4)
    assert not torch.equal(hooks.batch(running, batch, micro(20)).data["x1"], whole)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("name", [*NETS, "convolutional"])
def test_it_trains_every_fusion_and_p_0_is_plain_training_bit_for_bit(
    name: str, modalities: int, tmp_path: Path
) -> None:
    build, images = (ConvConcat, True) if name == "convolutional" else (NETS[name], False)
    extra = {} if images else {"dropout": 0.3}
    samples = data(modalities, 32, image=images)
    came = {}
    for key, options in (("joint", {}), ("modality_dropout", {"p": 0.0}), ("modality_dropout", {})):
        torch.manual_seed(0)
        model = build(modalities, norm=True, **extra)
        hooks = remedy_for(key, model, spec(modalities), samples, **options)
        run(hooks, model, spec(modalities), samples, tmp_path / f"{len(came)}")
        came[len(came)] = weights(model)
    assert all(torch.equal(came[0][key], came[1][key]) for key in came[0])
    assert not all(torch.equal(came[0][key], came[2][key]) for key in came[0])
    assert all(bool(torch.isfinite(value).all()) for value in came[2].values())
    history = read_history(tmp_path / "2")
    rates = history[(history.split == "remedy") & ~history.name.str.contains(r"\(")]
    assert set(rates.name) == {f"dropped m{m}" for m in range(modalities)}
    assert rates.value.between(0.05, 0.6).all()
    nothing = read_history(tmp_path / "1").query("split == 'remedy'").value
    assert len(nothing) and (nothing == 0).all()


def test_the_order_of_modalities_changes_nothing(tmp_path: Path) -> None:
    samples, came = data(3, 48), []
    for number, order in enumerate([(0, 1, 2), (2, 0, 1)]):
        torch.manual_seed(0)
        model = Concat(3)
        hooks = remedy_for("modality_dropout", model, spec(3, order), samples)
        run(hooks, model, spec(3, order), samples, tmp_path / str(number))
        history = read_history(tmp_path / str(number))
        came.append((weights(model), history.set_index(["epoch", "split", "name"]).value))
    assert all(torch.equal(came[0][0][key], came[1][0][key]) for key in came[0][0])
    np.testing.assert_allclose(came[0][1].sort_index(), came[1][1].sort_index(), atol=1e-12)


def test_a_resumed_training_is_an_uninterrupted_one(tmp_path: Path) -> None:
    def training(folder: Path, **more: Any) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model, samples = Concat(2, norm=True, dropout=0.2), data(2, 48)
        hooks = remedy_for("modality_dropout", model, spec(2), samples)
        run(hooks, model, spec(2), samples, folder, recipe={"epochs": 3}, **more)
        return weights(model)

    def stop(step: Any) -> None:
        if step.epoch == 2 and not step.values:
            raise KeyboardInterrupt

    whole = training(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "cut", progress=stop)
    resumed = training(tmp_path / "cut", resume=True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    first, second = read_history(tmp_path / "whole"), read_history(tmp_path / "cut")
    assert first.value.tolist() == second.value.tolist()


def test_accumulation_takes_the_same_steps(tmp_path: Path) -> None:
    came = []
    for accumulation in (1, 2):
        torch.manual_seed(0)
        model, samples = Concat(2), data(2, 48)
        hooks = remedy_for("modality_dropout", model, spec(2), samples)
        folder = tmp_path / str(accumulation)
        run(hooks, model, spec(2), samples, folder, recipe={"accumulation": accumulation})
        came.append((weights(model), read_history(folder).value))
    for key, value in came[0][0].items():
        torch.testing.assert_close(came[1][0][key], value, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(came[0][1], came[1][1], atol=1e-6)


def test_a_mask_that_leaves_inputs_out_is_refused(tmp_path: Path) -> None:
    settings = spec(2)
    settings["modalities"]["m1"] = {"inputs": "x1", "mask": "drop"}  # type: ignore[index]
    samples, model = data(2, 32), Concat(2)
    with pytest.raises(ModelError, match="mask 'drop' of m1 .* choose another mask"):
        run(
            remedy_for("modality_dropout", model, settings, samples),
            model,
            settings,
            samples,
            tmp_path,
        )


def test_an_input_without_rows_of_samples_is_refused() -> None:
    samples = data(2, 8)
    model = Concat(2)
    hooks = remedy_for("modality_dropout", model, spec(2), samples)
    hooks.example = replace(hooks.example, dims={**hooks.example.dims, "x0": None})
    running: Any = FakeRun(model)
    with pytest.raises(ModelError, match="'x0' of m0 is no dense tensor with a dimension over"):
        hooks.prepare(running)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_probabilities_are_checked(p: float) -> None:
    with pytest.raises(ValidationError):
        ModalityDropout.Options(p=p)


def test_the_neglected_modality_learns(tmp_path: Path) -> None:
    joint = accuracy_of_the_noisy_one("joint", tmp_path)
    assert accuracy_of_the_noisy_one("modality_dropout", tmp_path) > joint + 0.2
