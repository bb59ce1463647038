"""Adaptive gradient modulation: formulas, gradients against the authors' mechanism, and what a training does with them."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.exceptions import ModelError
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.remedies.agm import (
    modulation_coefficients,
    strength_ratios,
    surplus_coefficients,
)
from mmaudit.training.order import MicroBatch
from mmaudit.training.recorder import read_history
from tests.remedies.nets import NETS, Concat, ConvConcat, Early, data, spec
from tests.remedies.running import batch_of, remedy_for, run, weights


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_oracles_1_to_3_over_three_steps_of_two_modalities() -> None:
    history = f64(0, 0)
    expected = [
        ((0.5, 1.2), (0.362855, 1.654361), (0.5, 1.2)),
        ((0.4, 1.5), (0.371423, 1.177878), (0.45, 1.35)),
        ((1.0, 0.9), (4.733977, 0.497280), (0.633333, 1.2)),
    ]
    for step, (losses, kappa, after) in enumerate(expected, start=1):
        found = modulation_coefficients(f64(*losses), history, alpha=1.0)
        torch.testing.assert_close(found, f64(*kappa), atol=1e-6, rtol=0)
        history = history + (f64(*losses) - history) / step
        torch.testing.assert_close(history, f64(*after), atol=1e-6, rtol=0)


def test_oracle_4_three_modalities() -> None:
    losses = f64(0.3, 0.9, 1.5)
    torch.testing.assert_close(
        strength_ratios(losses), f64(2.459603, 1, 0.406570), atol=1e-6, rtol=0
    )
    kappa = modulation_coefficients(losses, f64(1, 1, 1), alpha=0.5)
    torch.testing.assert_close(kappa, f64(0.482005, 1, 1.345432), atol=1e-6, rtol=0)


def test_the_ratios_multiply_to_one_and_follow_a_permutation() -> None:
    losses = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ratios = strength_ratios(losses)
    assert math.isclose(float(ratios.prod()), 1.0, rel_tol=1e-12)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(strength_ratios(losses[order]), ratios[order])
    # A second form of the same formula: against the mean over all modalities.
    torch.testing.assert_close(ratios, torch.exp((losses.mean() - losses) * 5 / 4))


def test_the_cap_limits_how_much_a_weak_modality_is_sped_up() -> None:
    losses, history = f64(9.0, 0.0), f64(0.0, 9.0)
    free = modulation_coefficients(losses, history, alpha=1.0)
    capped = modulation_coefficients(losses, history, alpha=1.0, cap=10.0)
    assert float(free.log().max()) > 700
    assert float(capped.max()) == pytest.approx(math.exp(10))


def test_oracle_5_gradients_that_reach_the_responses() -> None:
    """The surplus form, put back together, is the gradient of every response times its kappa."""
    kappa, targets = f64(0.5, 2.0), torch.tensor([0])
    weights_ = torch.as_tensor(shapley_matrix(2)[:, 1:])
    # Passes whose responses are phi^1 = [1, 2] and phi^2 = [0.5, -1]: phi(1), phi(2), phi(12).
    passes = [f64(1, 2), f64(0.5, -1), f64(1.5, 1.0)]
    outputs = [p.clone()[None].requires_grad_() for p in passes]
    loss = F.cross_entropy(outputs[-1], targets)
    (g,) = torch.autograd.grad(loss, outputs[-1])
    torch.testing.assert_close(g[0], f64(-0.377541, 0.377541), atol=1e-6, rtol=0)
    multiples = surplus_coefficients(kappa, weights_) + f64(0, 0, 1)
    expected = [(kappa[0] - kappa[1]) / 2, (kappa[1] - kappa[0]) / 2, kappa.sum() / 2]
    torch.testing.assert_close(multiples, torch.stack(expected))


def authors_gradients(
    model: nn.Module, batch: list[Tensor], targets: Tensor, kappas: list[float]
) -> dict[str, Tensor]:
    """The released mechanism, for any number of modalities: identity nodes whose gradient is scaled by a hook."""
    M = len(batch)
    model.zero_grad()
    phi: dict[frozenset[int], Tensor] = {frozenset(range(M)): model(*batch)}
    model.eval()
    for size in range(1, M):
        for chosen in itertools.combinations(range(M), size):
            muted = [x if m in chosen else torch.zeros_like(x) for m, x in enumerate(batch)]
            phi[frozenset(chosen)] = model(*muted)
    model.train()
    responses = []
    for m in range(M):
        others = [j for j in range(M) if j != m]
        response: Any = 0
        for size in range(M):
            weight = math.factorial(size) * math.factorial(M - size - 1) / math.factorial(M)
            for chosen in itertools.combinations(others, size):
                without = phi.get(frozenset(chosen), 0.0)
                response = response + weight * (phi[frozenset({*chosen, m})] - without)
        node = response * 1.0
        node.register_hook(lambda gradient, kappa=kappas[m]: gradient * kappa)
        responses.append(node)
    F.cross_entropy(torch.stack(responses).sum(0), targets).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


class FakeRun:
    """What hooks see, without a training around it."""

    def __init__(self, model: nn.Module) -> None:
        from mmaudit.training import Recipe

        self.model, self.recipe = model, Recipe(optimizer="sgd")
        self.device, self.processes = torch.device("cpu"), 1

    def share(self, losses: Tensor, micro: MicroBatch) -> Tensor:
        return losses.sum() / micro.total

    def reduce(self, tensor: Tensor) -> Tensor:
        return tensor


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("kind", ["concat", "early", "film", "gated", "cross-attention"])
def test_gradients_and_buffers_are_those_of_the_authors_mechanism(
    kind: str, modalities: int
) -> None:
    torch.manual_seed(1)
    model = NETS[kind](modalities, norm=True, dropout=0.3).train()
    samples, kappas = data(modalities, 16), [0.4, 1.7, 2.5][:modalities]
    theirs, ours = copy.deepcopy(model), copy.deepcopy(model)
    remedy = remedy_for("agm", ours, spec(modalities), samples, coalitions="separate")
    inputs = [torch.stack([s[f"x{m}"] for s in samples]) for m in range(modalities)]
    targets = torch.stack([s["y"] for s in samples])
    torch.manual_seed(7)  # the same dropout in both
    expected = authors_gradients(theirs, inputs, targets, kappas)
    fake = FakeRun(ours)
    remedy.prepare(fake)  # type: ignore[arg-type]
    torch.manual_seed(7)
    found = _gradients(ours, remedy, samples, kappas, fake)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4, msg=name)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer)


def _gradients(
    model: nn.Module, remedy: Any, samples: list[Any], kappas: list[float], fake: FakeRun
) -> dict[str, Tensor]:
    import mmaudit.remedies.agm as module

    batch = remedy.task.place(batch_of(samples, remedy.task.spec), torch.device("cpu"))
    places = tuple(range(len(samples)))
    micro = MicroBatch(places, places, len(samples), last=True)
    original = module.modulation_coefficients
    module.modulation_coefficients = lambda *a, **k: f64(*kappas)  # type: ignore[assignment]
    try:
        model.zero_grad()
        remedy.loss(fake, batch, micro, 0).backward()
    finally:
        module.modulation_coefficients = original
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("kind", sorted(NETS))
def test_reused_encoder_outputs_give_the_same_gradients_without_batch_statistics(
    kind: str, modalities: int
) -> None:
    torch.manual_seed(2)
    model = NETS[kind](modalities).train()
    samples, kappas = data(modalities, 12), [0.3, 1.9, 1.2][:modalities]
    found = {}
    for coalitions in ("reuse", "separate"):
        mine = copy.deepcopy(model)
        remedy = remedy_for("agm", mine, spec(modalities), samples, coalitions=coalitions)
        fake = FakeRun(mine)
        remedy.prepare(fake)  # type: ignore[arg-type]
        found[coalitions] = _gradients(mine, remedy, samples, kappas, fake)
    for name, gradient in found["separate"].items():
        torch.testing.assert_close(found["reuse"][name], gradient, atol=1e-6, rtol=1e-4)


def test_a_linear_bias_free_late_model_gets_kappa_times_the_plain_gradient() -> None:
    """Section 2.2's exact consequence, by hand: W_m and encoder m get kappa^m, the head's bias the mean of the kappas."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 3, bias=False), nn.Linear(5, 3, bias=False)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(torch.cat([self.a(x), self.b(y)], 1))

    torch.manual_seed(0)
    model, samples = Linear(), data(2, 10)
    inputs = [torch.stack([s[f"x{m}"] for s in samples]) for m in range(2)]
    F.cross_entropy(model(*inputs), torch.stack([s["y"] for s in samples])).backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    remedy, fake = remedy_for("agm", model, spec(2), samples), FakeRun(model)
    remedy.prepare(fake)  # type: ignore[arg-type]
    found = _gradients(model, remedy, samples, [0.5, 2.0], fake)
    torch.testing.assert_close(found["a.weight"], 0.5 * plain["a.weight"])
    torch.testing.assert_close(found["b.weight"], 2.0 * plain["b.weight"])
    torch.testing.assert_close(found["head.weight"][:, :3], 0.5 * plain["head.weight"][:, :3])
    torch.testing.assert_close(found["head.bias"], 1.25 * plain["head.bias"])


@pytest.mark.parametrize("kind", sorted(NETS))
def test_without_strength_or_outside_the_window_it_is_plain_training_bit_for_bit(
    kind: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = NETS[kind](2, norm=True, dropout=0.2)
    results = {}
    for name, key, options in (
        ("plain", "joint", {}),
        ("weak", "agm", {"alpha": 0.0}),
        ("later", "agm", {"first_epoch": 9}),
    ):
        mine = copy.deepcopy(model)
        run(key, mine, spec(2), data(2, 64), tmp_path / name, **options)
        results[name] = weights(mine)
    for name, value in results["plain"].items():
        assert torch.equal(results["weak"][name], value), name
        assert torch.equal(results["later"][name], value), name


def test_after_the_window_the_scale_is_1_again_while_the_history_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run("agm", Concat(2), spec(2), data(2, 64), tmp_path, recipe={"epochs": 3}, last_epoch=1)
    history = read_history(tmp_path)
    kappa = history[(history.split == "remedy") & history.name.str.startswith("kappa")]
    assert (kappa[kappa.epoch == 1].value != 1).any()
    assert (kappa[kappa.epoch > 1].value == 1).all()
    losses = history[history.name == "response loss m0"]
    assert losses.epoch.tolist() == [1, 2, 3]
    assert losses.value.nunique() == 3


def test_listing_the_modalities_in_another_order_changes_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model, samples = Concat(3), data(3, 64)
    results = []
    for order in ((0, 1, 2), (2, 0, 1)):
        mine = copy.deepcopy(model)
        out = tmp_path / "".join(map(str, order))
        run("agm", mine, spec(3, order), samples, out, alpha=1.5)
        results.append((weights(mine), read_history(out)))
    for name, value in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], value, atol=1e-6, rtol=1e-5)
    first, second = (
        h[h.split == "remedy"].sort_values(["epoch", "name"]).value.to_numpy() for _, h in results
    )
    assert len(first)
    assert abs(first - second).max() < 1e-5


class Stop(Exception):
    """A run is cut off."""


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model, samples = Concat(2, norm=True, dropout=0.2), data(2, 64)
    whole, cut = copy.deepcopy(model), copy.deepcopy(model)
    run("agm", whole, spec(2), samples, tmp_path / "whole", recipe={"epochs": 4}, alpha=1.5)

    def stop(step: Any) -> None:
        if step.step == 10:
            raise Stop

    with pytest.raises(Stop):
        run("agm", cut, spec(2), samples, tmp_path / "cut", recipe={"epochs": 4}, alpha=1.5, progress=stop)  # fmt: skip
    run(
        "agm", cut, spec(2), samples, tmp_path / "cut", recipe={"epochs": 4}, alpha=1.5, resume=True
    )
    for name, value in weights(whole).items():
        assert torch.equal(weights(cut)[name], value), name


def test_coalition_passes_touch_neither_batch_statistics_nor_the_random_stream() -> None:
    torch.manual_seed(6)
    model, samples = Concat(2, norm=True, dropout=0.5).train(), data(2, 16)
    plain = copy.deepcopy(model)
    remedy, fake = remedy_for("agm", model, spec(2), samples), FakeRun(model)
    remedy.prepare(fake)  # type: ignore[arg-type]
    batch = remedy.task.place(batch_of(samples, remedy.task.spec), torch.device("cpu"))
    places = tuple(range(16))
    torch.manual_seed(0)
    remedy.loss(fake, batch, MicroBatch(places, places, 16, last=True), 0)  # type: ignore[arg-type]
    after = torch.rand(1)
    torch.manual_seed(0)
    remedy.task.forward(plain, batch)
    assert torch.equal(torch.rand(1), after)
    for (name, ours), (_, theirs) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(module.training for module in model.modules())


def test_it_slows_the_dominant_modality_and_speeds_the_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run("agm", Concat(2), spec(2), data(2, 256), tmp_path, recipe={"epochs": 6, "lr": 0.2})
    history = read_history(tmp_path)
    kappa = history[(history.split == "remedy") & history.name.isin(["kappa m0", "kappa m1"])]
    means = kappa.groupby("name").value.mean()
    assert means["kappa m0"] < 0.97 < 1.0 < means["kappa m1"]


def test_parameters_are_scaled_where_that_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, samples = ConvConcat(2), data(2, 32, image=True)
    run("agm", model, spec(2), samples, tmp_path / "a", routing="parameters")
    with pytest.raises(ModelError, match="nothing sees m0 alone"):
        run("agm", Early(2), spec(2), data(2, 32), tmp_path / "b", routing="parameters")


def test_one_modality_is_refused_in_a_sentence(tmp_path: Path) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    with pytest.raises(ModelError, match="nothing to balance"):
        run("agm", One(), spec(1), data(1, 32), tmp_path)


def test_outputs_that_are_not_finite_stop_the_training(tmp_path: Path) -> None:
    class Divides(Concat):
        def forward(self, *inputs: Tensor) -> Tensor:
            # Only a masked second modality is all zeros.
            return super().forward(*inputs) / inputs[1].abs().sum(1, keepdim=True)

    torch.manual_seed(0)
    with pytest.raises(ModelError, match="not finite"):
        run("agm", Divides(2), spec(2), data(2, 32), tmp_path)
