"""Alternating unimodal adaptation: formulas, the authors' order of steps, missing modalities, and the model it leaves.

Run as a module it trains on however many processes there are.
"""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from mmaudit.checkpoint.loader import load_checkpoint
from mmaudit.checkpoint.model import left_as_it_came
from mmaudit.checkpoint.structure import find_structure
from mmaudit.evidence.coalitions import CoalitionEvaluator, evaluate_coalitions
from mmaudit.evidence.masks import Masks
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.calling import Caller
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import AuditSpec, CallSpec
from mmaudit.remedies.mla import MLA, MLAModel, MLAOptions, absorb, absorption_strength
from mmaudit.remedies.mla_model import confidence_weights, fused_logits
from mmaudit.training.order import epoch_batches
from mmaudit.training.recorder import read_history
from mmaudit.training.task import Task
from tests.remedies.nets import CLASSES, NETS, WIDTHS, Concat, ConvConcat, data, encoder, spec
from tests.remedies.running import batch_of, remedy_for, run, weights

ROOT = Path(__file__).parents[2]


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mla(model: nn.Module, described: Any, samples: list[Any], **options: Any) -> Kept:
    joint = remedy_for("joint", model, described, samples)
    return Kept(joint.task, MLAOptions(**options), joint.example)


class Kept(MLA):
    """Remembers the model as it was built, and what was done to head gradients."""

    def prepare(self, run: Any) -> nn.Module:
        model = super().prepare(run)
        self.start = copy.deepcopy(model)
        self.stops_at = getattr(self, "stops_at", None)
        return model

    def step(self, run: Any, micros: Any) -> None:
        if self.stops_at == micros[0][0].step:
            raise KeyboardInterrupt
        super().step(run, micros)


# Formulas.


def test_oracles_1_and_2_absorption() -> None:
    P = absorb(torch.eye(2, dtype=torch.float64), f64([1, 0]), 0.1)
    torch.testing.assert_close(P, f64([[0.090909, 0], [0, 1]]), atol=1e-6, rtol=0)
    found = f64([[2, 3], [-2, -3]]) @ P
    expected = f64([[0.181818, 3], [-0.181818, -3]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    P = absorb(P, f64([1, 1]), 0.1)
    expected = f64([[0.083969, -0.076336], [-0.076336, 0.160305]])
    torch.testing.assert_close(P, expected, atol=1e-6, rtol=0)
    means = [f64([1, 0]), f64([1, 1])]
    closed = torch.linalg.inv(torch.eye(2) + 10 * sum(torch.outer(h, h) for h in means))
    torch.testing.assert_close(P, closed)


def test_oracle_3_the_denominator_is_a_scalar() -> None:
    P = absorb(torch.eye(2, dtype=torch.float64), f64([1, 0.5]), 0.1)
    expected = f64([[0.259259, -0.370370], [-0.370370, 0.814815]])
    torch.testing.assert_close(P, expected, atol=1e-6, rtol=0)


def test_what_is_left_of_a_direction_follows_from_alpha() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(5, generator=generator, dtype=torch.float64)
    P = torch.eye(5, dtype=torch.float64)
    for n in range(1, 4):
        P = absorb(P, h, 0.3)
        torch.testing.assert_close(P @ h, 0.3 / (0.3 + n * h.square().sum()) * h)
    torch.testing.assert_close(P, P.T)
    across = torch.randn(5, generator=generator, dtype=torch.float64)
    across -= h * (across @ h) / h.square().sum()
    torch.testing.assert_close(P @ across, across)


def test_alpha_falls_over_an_epoch() -> None:
    for batches in (1, 7, 40):
        for b in range(batches):
            found = absorption_strength(b, batches)
            assert found == pytest.approx(0.1 ** (1 + b / batches), rel=1e-12)


def test_oracle_4_fusion() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 0.5], [3.0, 0.0]]])
    found = confidence_weights(logits)
    expected = torch.tensor([[0.573835, 0.403395], [0.426165, 0.596605]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    fused = fused_logits(logits, found)[0]
    torch.testing.assert_close(fused, torch.tensor([1.147669, 0.213083]), atol=1e-6, rtol=0)
    # Other samples of the batch change nothing, the order of modalities only the order of weights.
    torch.testing.assert_close(confidence_weights(logits[:, :1]), found[:, :1])
    torch.testing.assert_close(confidence_weights(logits.flip(0)), found.flip(0))


def test_fusion_survives_certainty_and_impossible_classes() -> None:
    sure = torch.tensor([[[200.0, 0.0]], [[0.0, -torch.inf]], [[0.5, 0.0]]])
    found = confidence_weights(sure)
    assert torch.isfinite(found).all() and found[0] == found[1] > found[2]
    assert fused_logits(sure[:2], found[:2]).isneginf().tolist() == [[False, True]]


def test_an_absent_modality_gives_its_weight_to_the_others() -> None:
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.5]], [[torch.nan, 9.0]]])
    present = torch.tensor([[True], [True], [False]])
    found = confidence_weights(logits, present)
    torch.testing.assert_close(found[:2], confidence_weights(logits[:2]))
    assert found[2] == 0
    fused = fused_logits(logits, found)
    torch.testing.assert_close(fused, fused_logits(logits[:2], found[:2]))
    nothing = confidence_weights(logits[:2], torch.zeros(2, 1, dtype=torch.bool))
    assert nothing.tolist() == [[0.5], [0.5]]


# Training.


def official(
    start: MLAModel,
    samples: list[Any],
    *,
    epochs: int = 2,
    size: int = 16,
    momentum: float = 0.9,
    decay: float = 0.01,
    clip: float | None = None,
    change: Any = None,
    missing: str | None = None,
) -> MLAModel:
    """The authors' step written out: all encoders once, then one modality after the other through the shared head."""
    model = copy.deepcopy(start).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=momentum, weight_decay=decay)
    batches = -(-len(samples) // size)
    for epoch in range(1, epochs + 1):
        torch.manual_seed(0)
        for b, places in enumerate(epoch_batches(len(samples), size, seed=3, epoch=epoch)):
            batch = default_collate([samples[i] for i in places])
            inputs = [batch[f"x{m}"] for m in range(len(model.modalities))]
            features = by_hand(model.model, inputs)
            for m, name in enumerate(model.modalities):
                h = model.projected(name, features[m])
                losses = F.cross_entropy(model.head(h), batch["y"], reduction="none")
                has = batch[missing][:, m] if missing else torch.ones(len(losses), dtype=torch.bool)
                if not has.any():
                    continue
                losses[has].mean().backward()
                if change is not None:
                    change(m, model.head.weight, h[has].detach().double().mean(0), b, batches)
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return model


def by_hand(net: Any, inputs: list[Tensor]) -> list[Tensor]:
    features = [part(x) for part, x in zip(net.encoders, inputs, strict=True)]
    return [net.film(features[0]), *features[1:]] if hasattr(net, "film") else features


def last(folder: Path) -> dict[str, Tensor]:
    stored = load_file(folder / "last.safetensors")
    return {k.removeprefix("model/"): v for k, v in stored.items() if k.startswith("model/")}


def assert_same(found: dict[str, Tensor], expected: nn.Module, tolerance: float = 1e-6) -> None:
    wanted = expected.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=tolerance, rtol=1e-5, msg=key)


RECIPE = {"momentum": 0.9, "weight_decay": 0.01}


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("kind", ["concat", "film", "cross-attention"])
def test_without_modification_it_is_the_released_loop(
    kind: str, modalities: int, tmp_path: Path
) -> None:
    """With batch statistics, momentum and weight decay, and a projection where widths differ."""
    torch.manual_seed(0)
    net, samples = NETS[kind](modalities, norm=True), data(modalities, 90)
    remedy = mla(net, spec(modalities), samples, memory="released")
    run(remedy, net, spec(modalities), samples, tmp_path / "out", recipe=RECIPE)
    expected = official(remedy.start, samples)
    assert bool(expected.projections) == (kind == "film")
    assert_same(last(tmp_path / "out"), expected)
    # Encoders ran once per batch, the fusion never.
    counted = {k: int(v) for k, v in last(tmp_path / "out").items() if k.endswith("tracked")}
    assert set(counted.values()) == {12}
    kept = dict(remedy.start.named_parameters())
    assert torch.equal(last(tmp_path / "out")["model.head.weight"], kept["model.head.weight"])


def test_switched_off_modification_is_the_released_loop_bit_for_bit(tmp_path: Path) -> None:
    ends = []
    for name, options in (("off", {"hgm": False}), ("released", {"memory": "released"})):
        torch.manual_seed(0)
        net, samples = Concat(2), data(2)
        remedy = mla(net, spec(2), samples, **options)
        run(remedy, net, spec(2), samples, tmp_path / name)
        ends.append(last(tmp_path / name))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


class Modification:
    """The head's gradient, changed as the options say; written out for the official loop."""

    def __init__(self, modalities: int, memory: str, protect: str) -> None:
        self.memory, self.protect = memory, protect
        self.means: list[Tensor | None] = [None] * modalities
        self.latest: Tensor | None = None
        self.absorbed: list[tuple[Tensor, float]] = []
        self.kept: list[float] = []

    def __call__(self, m: int, weight: Tensor, mean: Tensor, b: int, batches: int) -> None:
        alpha = 0.1 ** (1 + b / batches)
        if self.latest is not None:
            others = [h for j, h in enumerate(self.means) if j != m and h is not None]
            if self.memory == "full":
                self.absorbed.append((mean if self.protect == "current" else self.latest, alpha))
            else:
                new = [mean] if self.protect == "current" else others
                self.absorbed = [(h, alpha) for h in new]
            inverse = torch.eye(len(mean), dtype=torch.float64)
            for h, strength in self.absorbed:
                inverse = inverse + torch.outer(h, h) / strength
            changed = weight.grad.double() @ torch.linalg.inv(inverse)
            self.kept.append(float(changed.norm() / weight.grad.norm()))
            weight.grad.copy_(changed)
        self.means[m] = self.latest = mean


@pytest.mark.parametrize("protect", ["previous", "current"])
@pytest.mark.parametrize("memory", ["cycle", "full"])
def test_head_gradients_are_turned_away_from_what_is_protected(
    memory: str, protect: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, samples = Concat(3), data(3, 64)
    remedy = mla(net, spec(3), samples, memory=memory, protect=protect)
    run(remedy, net, spec(3), samples, tmp_path / "out", recipe=RECIPE)
    change = Modification(3, memory, protect)
    expected = official(remedy.start, samples, change=change)
    assert len(change.kept) == 3 * 8 - 1  # never at the very first update
    assert_same(last(tmp_path / "out"), expected, tolerance=1e-5)
    plain = official(remedy.start, samples)
    assert not torch.allclose(plain.head.weight, expected.head.weight, atol=1e-3)


def test_a_full_memory_stops_the_head_and_a_cycle_does_not(tmp_path: Path) -> None:
    kept = {}
    for memory in ("cycle", "full"):
        torch.manual_seed(0)
        net, samples = Concat(2), data(2)
        remedy = mla(net, spec(2), samples, memory=memory)
        run(remedy, net, spec(2), samples, tmp_path / memory, recipe={"epochs": 12})
        history = read_history(tmp_path / memory)
        rows = history[history["name"] == "head gradient kept m1"].set_index("epoch")["value"]
        kept[memory] = rows[1], rows[12]
    assert kept["full"][1] < 0.2 < kept["cycle"][1] <= 1
    assert kept["full"][1] < kept["full"][0] / 2
    assert kept["cycle"][1] > kept["cycle"][0] / 2


def test_what_was_applied_is_recorded(tmp_path: Path) -> None:
    net, samples = Concat(2), data(2)
    remedy = mla(net, spec(2), samples, memory="released")
    run(remedy, net, spec(2), samples, tmp_path / "out", recipe={"epochs": 1})
    history = read_history(tmp_path / "out")
    values = history[history["split"] == "remedy"].set_index("name")["value"]
    assert values["head gradient kept m0"] == 1.0
    assert values["unimodal loss m0 (min)"] <= values["unimodal loss m0"]
    assert 0 < values["unimodal loss m1"] < 2 * math.log(CLASSES)


@pytest.mark.parametrize("memory", ["cycle", "full"])
def test_accumulation_takes_the_same_steps(memory: str, tmp_path: Path) -> None:
    ends = []
    for accumulation in (1, 2):
        torch.manual_seed(0)
        net, samples = Concat(3), data(3, 90)
        remedy = mla(net, spec(3), samples, memory=memory)
        recipe = {**RECIPE, "accumulation": accumulation, "clip": 0.5}
        run(remedy, net, spec(3), samples, tmp_path / str(accumulation), recipe=recipe)
        ends.append(last(tmp_path / str(accumulation)))
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_step_by_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, samples = Concat(2), data(2)
    remedy = mla(net, spec(2), samples, memory="released")
    run(remedy, net, spec(2), samples, tmp_path / "out", recipe={**RECIPE, "clip": 0.2})
    assert_same(last(tmp_path / "out"), official(remedy.start, samples, clip=0.2))


@pytest.mark.parametrize("memory", ["cycle", "full"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(memory: str, tmp_path: Path) -> None:
    def start() -> tuple[nn.Module, list[Any], MLA]:
        torch.manual_seed(0)
        net, samples = NETS["film"](3, norm=True, dropout=0.2), data(3)
        return net, samples, mla(net, spec(3), samples, memory=memory)

    recipe = {"epochs": 4, "optimizer": "adamw", "lr": 0.01, "scheduler": "cosine"}
    net, samples, remedy = start()
    run(remedy, net, spec(3), samples, tmp_path / "whole", recipe=recipe)
    net, samples, remedy = start()
    remedy.stops_at = 15  # in the third epoch
    with pytest.raises(KeyboardInterrupt):
        run(remedy, net, spec(3), samples, tmp_path / "cut", recipe=recipe)
    net, samples, remedy = start()
    run(remedy, net, spec(3), samples, tmp_path / "cut", recipe=recipe, resume=True)
    whole, cut = last(tmp_path / "whole"), last(tmp_path / "cut")
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_preparing_touches_neither_statistics_nor_the_random_stream() -> None:
    net, samples = NETS["concat"](2, norm=True, dropout=0.3).train(), data(2)
    remedy, before = mla(net, spec(2), samples), weights(net)
    stream = torch.get_rng_state()
    remedy.structure = remedy._structure_of(net, torch.device("cpu"))
    remedy._build(_Bare(net), net)
    after_head = torch.get_rng_state()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    torch.set_rng_state(stream)
    nn.Linear(8, CLASSES)  # the only thing that may draw
    assert torch.equal(after_head, torch.get_rng_state())


class _Bare:
    def __init__(self, model: nn.Module) -> None:
        self.model, self.device = model, torch.device("cpu")


def test_bfloat16_trains_about_as_float32_does(tmp_path: Path) -> None:
    ends = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        net, samples = Concat(2), data(2)
        remedy, recipe = mla(net, spec(2), samples), {"precision": precision, "lr": 0.2}
        run(remedy, net, spec(2), samples, tmp_path / precision, recipe=recipe)
        history = read_history(tmp_path / precision).query("split == 'train' and name == 'loss'")
        ends[precision] = history["value"].iloc[[0, -1]].tolist()
    assert ends["bf16"][1] < 0.8 * ends["bf16"][0]
    assert ends["bf16"][1] == pytest.approx(ends["fp32"][1], rel=0.02)
    assert ends["bf16"] != ends["fp32"]


def test_the_weak_modality_learns_what_joint_training_leaves_unlearnt(tmp_path: Path) -> None:
    """The first modality is easy and drowns the second, which knows as much by itself."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (384,), generator=generator)
    means = [torch.randn(CLASSES, w, generator=generator) for w in WIDTHS[:2]]
    scale, noise = (3.0, 0.6), (0.3, 0.45)
    rows = [
        scale[m] * (means[m][labels] + noise[m] * torch.randn(384, WIDTHS[m], generator=generator))
        for m in range(2)
    ]
    samples = [{"x0": rows[0][i], "x1": rows[1][i], "y": labels[i]} for i in range(384)]
    train, test = samples[:256], default_collate(samples[256:])
    correct = {}
    for name in ("joint", "mla"):
        torch.manual_seed(0)
        net = Concat(2)
        remedy = (
            mla(net, spec(2), train) if name == "mla" else remedy_for(name, net, spec(2), train)
        )
        result = run(remedy, net, spec(2), train, tmp_path / name, recipe={"epochs": 6})
        outputs = evaluate_coalitions(result.model.eval(), test, remedy.task.spec)
        alone = outputs[frozenset({"m1"})].argmax(1)
        correct[name] = float((alone == test["y"]).float().mean())
    assert correct["mla"] > correct["joint"] + 0.1, correct


# Missing modalities.


def gappy(modalities: int, n: int = 96) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Samples that lack one modality here and there; the last one is in few of them."""
    generator = torch.Generator().manual_seed(5)
    samples = data(modalities, n)
    for i, sample in enumerate(samples):
        has = torch.rand(modalities, generator=generator) < 0.7
        has[-1] = i % 24 == 0
        has[0] |= not has.any()
        sample["has"] = has
        for m in range(modalities):
            sample[f"has{m}"] = has[m]
            if not has[m]:
                sample[f"x{m}"] = torch.full_like(sample[f"x{m}"], torch.nan)
    described = spec(modalities)
    described["modalities"] = {
        f"m{m}": {"inputs": f"x{m}", "present": f"has{m}"} for m in range(modalities)
    }
    return samples, described


def test_samples_and_batches_without_a_modality_are_skipped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples, described = gappy(3)
    net = Concat(3)
    remedy = mla(net, described, samples)
    run(remedy, net, described, samples, tmp_path / "out", recipe={**RECIPE, "batch_size": 8})
    filled = [
        {k: torch.nan_to_num(v) if k.startswith("x") else v for k, v in s.items()} for s in samples
    ]
    change = Modification(3, "cycle", "previous")
    expected = official(remedy.start, filled, size=8, change=change, missing="has")
    assert len(change.kept) < 3 * 24 - 1  # some batches had no sample of the last modality
    assert_same(last(tmp_path / "out"), expected, tolerance=1e-5)


def test_zero_filled_modalities_are_trained_on_where_that_is_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    samples, described = gappy(2)
    net = Concat(2)
    remedy = mla(net, described, samples, memory="released", missing="zero")
    run(remedy, net, described, samples, tmp_path / "out", recipe=RECIPE)
    filled = [
        {k: torch.nan_to_num(v) if k.startswith("x") else v for k, v in s.items()} for s in samples
    ]
    assert_same(last(tmp_path / "out"), official(remedy.start, filled))


def trained(
    kind: str = "concat",
    modalities: int = 2,
    described: dict[str, Any] | None = None,
    *,
    samples: list[Any] | None = None,
    **options: Any,
) -> tuple[MLAModel, MLA, dict[str, Tensor]]:
    """A model with weights of its own, without a training."""
    torch.manual_seed(0)
    net = NETS[kind](modalities, norm=True).eval()
    samples = samples or data(modalities, 24)
    described = described or spec(modalities)
    remedy = mla(net, described, samples, **options)
    remedy._check_weights()
    remedy.structure = remedy._structure_of(net, torch.device("cpu"))
    model = remedy._model = remedy._build(_Bare(net), net).eval()
    remedy.task.spec = remedy.task.spec.model_copy(
        update={"outputs": type(remedy.task.spec.outputs)()}
    )
    return model, remedy, default_collate(samples)


def answers(model: MLAModel, batch: dict[str, Tensor]) -> Tensor:
    inputs = [batch[f"x{m}"] for m in range(len(model.modalities))]
    features = by_hand(model.model, inputs)
    return torch.stack(
        [model.answer(name, h) for name, h in zip(model.modalities, features, strict=True)]
    )


def test_inference_fuses_what_is_there() -> None:
    model, _, batch = trained(modalities=3)
    batch["x1"][::2] = 0
    batch["x2"][::3] = 0
    for m in range(3):
        batch[f"x{m}"][5] = 0
    batch["x0"][7, 0] = 0  # one entry is no absence
    present = torch.stack([batch[f"x{m}"].abs().sum(1) > 0 for m in range(3)])
    with torch.no_grad():
        each, found = answers(model, batch), model(batch["x0"], batch["x1"], batch["x2"])
    for i in range(24):
        here = [m for m in range(3) if present[m, i]] or [0, 1, 2]
        p = each[here, i].double().softmax(-1)
        weights_ = (p * p.log()).sum(-1).softmax(0)
        if not present[:, i].any():
            weights_ = torch.full((3,), 1 / 3, dtype=torch.float64)
        expected = (weights_[:, None] * each[here, i].double()).sum(0)
        torch.testing.assert_close(found[i].double(), expected, atol=1e-6, rtol=1e-5)
    model.missing = "zero"
    with torch.no_grad():
        all_of_it = model(batch["x0"], batch["x1"], batch["x2"])
    torch.testing.assert_close(all_of_it, fused_logits(each, confidence_weights(each)))


def test_fixed_weights_are_renormalised_over_what_is_there() -> None:
    model, _, batch = trained(fusion="fixed", weights={"m1": 0.45, "m0": 0.55})
    batch["x1"][0] = 0
    with torch.no_grad():
        each, found = answers(model, batch), model(batch["x0"], batch["x1"])
    torch.testing.assert_close(found[0], each[0, 0])
    torch.testing.assert_close(found[1], 0.55 * each[0, 1] + 0.45 * each[1, 1])
    for weights_ in ({"m0": 1.0}, {"m0": 1.0, "m1": 0.0}, {"m0": 1.0, "m1": 1.0, "m2": 1.0}):
        with pytest.raises(SpecError, match="one above 0 for each of m0, m1"):
            trained(fusion="fixed", weights=weights_)
    with pytest.raises(SpecError, match="weights are for fusion 'fixed'"):
        trained(weights={"m0": 1.0, "m1": 1.0})


@pytest.mark.parametrize("mask", ["mean", {"constant": 0.5}, "marginal", "noise", "drop"])
def test_absence_is_seen_for_masks_that_give_all_samples_the_same(mask: Any) -> None:
    described = spec(2)
    described["modalities"] = {"m0": {"inputs": "x0", "mask": mask}, "m1": "x1"}
    samples = data(2, 24)
    torch.manual_seed(0)
    net = NETS["concat"](2).eval()
    batch = default_collate(samples)
    joint = remedy_for("joint", net, spec(2), samples)
    remedy = MLA(joint.task, MLAOptions(), joint.example)
    read = type(joint.task.spec).model_validate(described)
    prepared = in_memory_batch(batch, read, torch.device("cpu"))
    remedy.task.spec = read
    remedy.task.masks = remedy.task.masks._replace(maskers=prepared.maskers)
    if mask == "drop":
        remedy.structure = joint._structure_of(net, torch.device("cpu"))
        model = remedy._build(_Bare(net), net).eval()
        net.forward = lambda x0, x1: net.fuse(
            [
                torch.zeros(24, 8) if x is None else e(x)
                for e, x in zip(net.encoders, (x0, x1), strict=True)
            ]
        )
        stand_in = None
    else:
        remedy.structure = remedy._structure_of(net, torch.device("cpu"))
        model = remedy._build(_Bare(net), net).eval()
        stand_in = prepared.masked("x0")
    with torch.no_grad():
        each = answers(model, {**batch, "x0": batch["x0"] if stand_in is None else stand_in})
        found = model(stand_in, batch["x1"])
    if mask in ("marginal", "noise"):
        assert model.fills["m0"] == ()
        torch.testing.assert_close(found, fused_logits(each, confidence_weights(each)))
    else:
        torch.testing.assert_close(found, each[1])
    assert bool(dict(model.named_buffers())) == (mask == "mean")


# The model that is left.


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("kind", ["concat", "sum", "film", "gated", "cross-attention"])
def test_coalitions_equal_brute_force(kind: str, modalities: int) -> None:
    model, remedy, batch = trained(kind, modalities)
    caller = Caller(model, remedy.task.spec)
    with left_as_it_came(model), torch.no_grad():
        prepared = in_memory_batch(batch, remedy.task.spec, torch.device("cpu"))
        structure = find_structure(model, caller, prepared)
        fast = CoalitionEvaluator(model, remedy.task.spec, structure)
        found = fast.evaluate(prepared)
    assert fast.method == "packed" and not fast.notes
    assert structure.record.modules[0].role == "fusion"
    assert any(name.startswith("model.") for name in structure.record.encoders["m1"])
    assert not structure.live_inputs  # what a packed pass would have to repeat
    slow = evaluate_coalitions(model, batch, remedy.task.spec, optimize=False)
    for index, output in enumerate(found):
        masked = {f"x{m}": batch[f"x{m}"] * float(index >> m & 1) for m in range(modalities)}
        with torch.no_grad():
            expected = model(*masked.values())
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(slow[remedy.task.spec.coalition(index)], expected)


class Unequal(nn.Module):
    """Image maps, a sequence of token ids with its length, and a vector; called by keyword with a nested batch."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.words, self.rnn = nn.Embedding(20, 6), nn.GRU(6, 9, batch_first=True)
        self.flat = nn.Linear(4, 3)
        self.head = nn.Linear(17, CLASSES)

    def forward(self, batch: dict[str, Any], *, vector: Tensor) -> dict[str, Tensor]:
        image = self.cnn(batch["image"]).mean((2, 3))
        tokens, _ = self.rnn(self.words(batch["text"]["ids"]))
        text = (tokens * batch["text"]["valid"].unsqueeze(2)).sum(1)
        both = torch.cat([image, text, self.flat(vector)], 1)
        return {"probabilities": self.head(both).softmax(1)}


UNEQUAL: dict[str, Any] = {
    "modalities": {
        "image": {"inputs": "inputs.image", "mask": {"constant": 0.5}},
        "type": {  # a name that torch does not allow for a submodule
            "inputs": {"ids": "inputs.text.ids", "valid": "inputs.text.valid"},
            "mask": {"ids": {"token": 3}, "valid": "keep"},
        },
        "vec.tor": "vector",
    },
    "target": "y",
    "call": {"args": ["inputs"], "kwargs": {"vector": "vector"}},
    "outputs": {"path": "probabilities", "kind": "probabilities"},
}


def unequal(n: int = 48) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(n):
        y = torch.randint(0, CLASSES, (), generator=generator)
        valid = (torch.arange(7) < torch.randint(2, 8, (), generator=generator)).float()
        ids = torch.randint(4, 20, (7,), generator=generator)
        ids[0] = 4 + y
        image = torch.rand(1, 6, 6, generator=generator)
        image[0, :, int(y)] += 1.0
        vector = torch.randn(4, generator=generator)
        vector[y] += 1.5
        rows.append(
            {
                "inputs": {"image": image, "text": {"ids": ids, "valid": valid}},
                "vector": vector,
                "y": y,
            }
        )
    return rows


def test_unequal_widths_sequences_and_nested_calls(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, samples = Unequal(), unequal()
    remedy = mla(net, UNEQUAL, samples)
    recipe = {"epochs": 8, "optimizer": "adam", "lr": 0.02}
    result = run(remedy, net, UNEQUAL, samples, tmp_path / "out", recipe=recipe)
    model = result.model.eval()
    assert {name: branch.width for name, branch in model.branches.items()} == {
        "image": 5,
        "type": 9,
        "vec.tor": 3,
    }
    assert model.width == 3 and set(model.projections) == {"0", "1"}
    history = read_history(tmp_path / "out").query("split == 'train' and name == 'accuracy'")
    assert history["value"].max() > 0.8
    batch, read = default_collate(samples), remedy.task.spec
    fast = evaluate_coalitions(model, batch, read)
    slow = evaluate_coalitions(model, batch, read, optimize=False)
    for coalition, output in fast.items():
        torch.testing.assert_close(output, slow[coalition], atol=1e-5, rtol=0)
    # A single modality answers alone: it is fused with nothing.
    with torch.no_grad():
        alone = model.answer("vec.tor", net.flat(batch["vector"]))
    torch.testing.assert_close(fast[frozenset({"vec.tor"})], alone)


PROJECT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.ears = nn.Sequential(nn.Linear(6, wide), nn.BatchNorm1d(wide), nn.Tanh())
        self.eyes = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.head = nn.Linear(wide + 8, 1)
    def forward(self, audio, image):
        return self.head(torch.cat([self.ears(audio), self.eyes(image)], 1)).squeeze(1)

def build(wide=7):
    return Net(wide)

def batches(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    audio, image = torch.randn(n, 6, generator=generator), torch.randn(n, 5, generator=generator)
    label = (audio[:, 0] + image[:, 0] > 0).long()
    return [{"audio": audio[i:i + 32], "image": image[i:i + 32], "label": label[i:i + 32]} for i in range(0, n, 32)]
"""

AUDIT: dict[str, Any] = {
    "model": {"factory": "mla_project:build", "args": {"wide": 9}},
    "checkpoint": "model.safetensors",
    "data": {"test": {"factory": "mla_project:batches", "args": {"n": 96}}},
    "modalities": {
        "audio": {"inputs": "audio", "mask": "mean", "encoders": "ears"},
        "image": "image",
    },
    "target": "label",
    "task": "binary",
    "outputs": {"kind": "one_logit"},
    "head": "head",
    "latent": "head",
}


def test_the_audit_file_of_the_retrained_model_loads_it_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mla_project.py").write_text(PROJECT)
    net = load_checkpoint(None, "mla_project:build", args={"wide": 9}, directory=tmp_path).model
    read = AuditSpec.model_validate(AUDIT)
    project: dict[str, Any] = {}
    exec(PROJECT, project)
    raw = project["batches"](96)
    samples = [{k: v[i] for k, v in batch.items()} for batch in raw for i in range(32)]
    prepared = in_memory_batch(default_collate(samples), read, torch.device("cpu"))
    example = batch_of(samples[:8], read)
    task = Task(net, read, Masks(prepared.maskers, {}, ()), example.data)
    remedy = MLA(task, MLAOptions(), example)
    result = run(remedy, net, AUDIT, samples, tmp_path / "out", recipe={"epochs": 3})
    assert result.model.classes == 2
    changed = read.model_copy(update=remedy.audit_changes(read))
    body = yaml.safe_dump(changed.model_dump(mode="json", exclude_defaults=True))
    assert json.loads(json.dumps(yaml.safe_load(body)))["model"]["factory"].endswith("mla:build")
    (tmp_path / "audit.yaml").write_text(body)
    save_file(load_file(result.weights), tmp_path / "model.safetensors")
    batch = default_collate(samples)
    batch["audio"][3] = prepared.masked("audio")[3]
    with torch.no_grad():
        expected = result.model.eval()(batch["audio"], batch["image"])
        assert torch.equal(expected, result.model(batch["audio"], image=batch["image"]))
        alone = result.model.answer("image", result.model.model.eyes(batch["image"][3:4]))
    torch.testing.assert_close(
        expected[3:4], alone
    )  # the mean is known for absence after loading, too
    torch.save({"batch": batch, "expected": expected}, tmp_path / "expected.pt")
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "import mmaudit\n"
        "folder = Path(sys.argv[1])\n"
        "stored = torch.load(folder / 'expected.pt')\n"
        "loaded = mmaudit.load_checkpoint(folder / 'audit.yaml').model\n"
        "with torch.no_grad():\n"
        "    found = loaded(stored['batch']['audio'], stored['batch']['image'])\n"
        "assert torch.equal(found, stored['expected']), (found - stored['expected']).abs().max()\n"
        "report = mmaudit.audit(folder / 'audit.yaml', out=folder / 'record', device='cpu', replicates=100)\n"
        "assert report.evidence.method == 'packed', report.evidence.reason\n"
        "assert report.record.subject.structure.encoders['audio'] == ('model.ears',)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_model_that_it_made_is_trained_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, samples = Concat(2), data(2)
    first = run(mla(net, spec(2), samples), net, spec(2), samples, tmp_path / "one")
    again = mla(first.model, spec(2), samples, missing="zero")
    second = run(again, first.model, spec(2), samples, tmp_path / "two", recipe={"epochs": 1})
    assert second.model is first.model and first.model.missing == "zero"
    made = AuditSpec.model_validate(
        {
            **spec(2),
            "data": "a:b",
            "model": {
                "factory": "mmaudit.remedies.mla:build",
                "args": {"factory": "x:y", "args": {"z": 1}, **first.model.settings()},
            },
        }
    )
    changes = again.audit_changes(made)
    assert changes["model"].args["factory"] == "x:y" and changes["model"].args["missing"] == "zero"
    assert changes["call"] == CallSpec(args=("x0", "x1"))
    other = mla(first.model, spec(2, (1, 0)), samples)
    with pytest.raises(ModelError, match="made by MLA for m0, m1"):
        run(other, first.model, spec(2, (1, 0)), samples, tmp_path / "three")


# Refusals.


def test_a_modality_without_an_encoder_is_refused(tmp_path: Path) -> None:
    net, samples = NETS["early"](2), data(2)
    with pytest.raises(ModelError, match="no module sees m0 alone: use agm or ogm_ge, or name"):
        run(mla(net, spec(2), samples), net, spec(2), samples, tmp_path / "out")


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = encoder(6), nn.Linear(16, CLASSES)

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        return self.head(torch.cat([self.encoder(x0), self.encoder(x1)], 1))


def test_an_encoder_of_two_modalities_is_refused_unless_it_is_frozen(tmp_path: Path) -> None:
    samples = [{**s, "x1": s["x0"].flip(0)} for s in data(2)]
    net = Shared()
    with pytest.raises(ModelError, match=r"'encoder\.\S+' serves both m0 and m1: use agm"):
        run(mla(net, spec(2), samples), net, spec(2), samples, tmp_path / "out")
    assert not (tmp_path / "out" / "last.safetensors").exists()
    net.encoder.requires_grad_(False)
    before = weights(net.encoder)
    remedy = mla(net, spec(2), samples)
    result = run(remedy, net, spec(2), samples, tmp_path / "frozen")
    assert all(torch.equal(value, before[key]) for key, value in weights(net.encoder).items())
    assert any("No gradient reaches the encoders of m0" in note for note in remedy.notes)
    assert not torch.equal(result.model.head.weight, remedy.start.head.weight)


def test_one_modality_is_refused(tmp_path: Path) -> None:
    net, samples = Concat(1), data(1)
    with pytest.raises(ModelError, match="MLA balances modalities, and the spec has one"):
        run(mla(net, spec(1), samples), net, spec(1), samples, tmp_path / "out")


# Many processes.


def on_processes(folder: Path) -> None:
    """Trainings whose end must not depend on the number of processes."""
    samples, described = gappy(3, 160)
    torch.manual_seed(0)
    net = NETS["film"](3)
    recipe = {**RECIPE, "batch_size": 16, "accumulation": 2}
    run(mla(net, described, samples), net, described, samples, folder / "gappy", recipe=recipe)
    torch.manual_seed(0)
    images = data(2, 64, image=True)
    run(mla(net := ConvConcat(), spec(2), images), net, spec(2), images, folder / "norm")


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    on_processes(tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tests.remedies.test_mla", str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / n / "gappy" / "last.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-5)
    # Batch statistics are those of what a process sees; they are moved once per step there, too.
    norm = last(tmp_path / "two" / "norm")
    assert int(norm["model.encoders.1.1.num_batches_tracked"]) == 8


if __name__ == "__main__":
    torch.set_num_threads(1)
    on_processes(Path(sys.argv[1]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
