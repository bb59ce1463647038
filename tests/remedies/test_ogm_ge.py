"""OGM-GE: formulas, what is read as unimodal scores, what is scaled, its noise, and what a training does with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from mmaudit.exceptions import ModelError
from mmaudit.remedies.drawing import standard_normals
from mmaudit.remedies.ogm_ge import (
    OGM,
    modulate_,
    modulation_coefficients,
    sample_noise,
    score_ratios,
    true_class_scores,
)
from mmaudit.remedies.unimodal_scores import block_logits, find_unimodal_scores
from mmaudit.training.recipe import Recipe
from mmaudit.training.recorder import read_history
from tests.remedies.nets import (
    CLASSES,
    NETS,
    Concat,
    ConvConcat,
    Early,
    FiLM,
    Net,
    Sum,
    data,
    spec,
)
from tests.remedies.running import batch_of, remedy_for, run, weights
from tests.remedies.textures import accuracy_of_the_noisy_one


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Formulas.


@pytest.mark.parametrize(
    ("alpha", "rho", "k"),
    [
        (0.1, 1.5, 0.851115),
        (0.8, 1.5, 0.166345),
        (0.3, 2.0, 0.462950),
        (0.5, 2.0, 0.238406),
        (0.8, 1.0, 1.0),
        (0.8, 0.3, 1.0),
    ],
)
def test_oracle_1_coefficients(alpha: float, rho: float, k: float) -> None:
    found = modulation_coefficients(f64(rho), alpha=alpha)
    torch.testing.assert_close(found, f64(k), atol=1e-6, rtol=0)


def test_oracle_2_a_ratio_of_sums_and_no_mean_of_ratios() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.3, 0.2]], dtype=torch.float64)
    ratios = score_ratios(probabilities.sum(1), f64(2, 2))
    torch.testing.assert_close(ratios, f64(2.0, 0.5))


def test_oracle_3_blocks_of_a_concatenated_head() -> None:
    weight, bias = torch.tensor([[1.0, 0, 0, 1], [0, 1, -1, 0]]), torch.tensor([0.2, -0.2])
    features = torch.tensor([2.0, 0, 0, 0.5])
    owners = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    logits = block_logits(features * owners[:, None], weight, bias).double()
    torch.testing.assert_close(logits[:, 0], torch.stack([f64(2.1, -0.1), f64(0.6, -0.1)]))
    torch.testing.assert_close(logits.sum(0)[0].float(), F.linear(features, weight, bias))
    scores = true_class_scores(logits, torch.tensor([0]))
    torch.testing.assert_close(scores[:, 0], f64(0.900250, 0.668188), atol=1e-6, rtol=0)
    ratios = score_ratios(scores.sum(1), f64(1, 1))
    torch.testing.assert_close(ratios, f64(1.347300, 1 / 1.347300), atol=1e-6, rtol=0)
    k = modulation_coefficients(ratios, alpha=0.5)
    torch.testing.assert_close(k, f64(0.412624, 1), atol=1e-6, rtol=0)


def test_oracle_4_noise_as_large_as_the_entries_are_spread() -> None:
    gradient, k = torch.tensor([3.0, -3.0, 1.0, -1.0]), torch.tensor(0.4)
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([modulate_(gradient.clone(), k, row) for row in noise])
    torch.testing.assert_close(drawn.mean(0), 0.4 * gradient, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full((4,), 2.581989), atol=0.04, rtol=0)
    torch.testing.assert_close(modulate_(gradient.clone(), k), 0.4 * gradient)
    large = 0.3 + torch.randn(300, 300, generator=torch.Generator().manual_seed(1))
    ones = torch.ones_like(large)
    moved = modulate_(large.clone(), torch.tensor(0.0), ones)
    torch.testing.assert_close(moved, large.double().std().float() * ones, rtol=1e-4, atol=0)
    # One entry has no spread.
    assert modulate_(torch.tensor([2.0]), k, torch.tensor([1.0])).tolist() == pytest.approx([0.8])


def test_several_modalities_are_each_compared_with_the_mean_of_the_others() -> None:
    ratios = score_ratios(f64(6, 3, 3), f64(10, 10, 10))
    torch.testing.assert_close(ratios, f64(2, 2 / 3, 2 / 3))
    ratios = score_ratios(f64(9, 8, 1), f64(10, 10, 10))  # two are ahead, and both are slowed
    k = modulation_coefficients(ratios, alpha=0.8)
    assert (k[:2] < 1).all()
    assert k[2] == 1
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(score_ratios(f64(9, 8, 1)[order], f64(10, 10, 10)), ratios[order])


def test_a_tie_slows_nobody_down() -> None:
    for modalities in (2, 3, 4, 7):
        for value in (0.1, 0.25, 1 / 3, 0.7):
            sums = torch.full((modalities,), 64 * value, dtype=torch.float64)
            ratios = score_ratios(sums, torch.full_like(sums, 64))
            assert (modulation_coefficients(ratios, alpha=0.8) == 1).all()


def test_samples_that_lack_a_modality_do_not_count_in_its_score() -> None:
    torch.testing.assert_close(score_ratios(f64(1, 1), f64(2, 4)), f64(2, 0.5))
    # Nobody has the second: it takes no part, and the others are compared with each other.
    torch.testing.assert_close(score_ratios(f64(4, 0, 2), f64(8, 0, 8)), f64(2, 1, 0.5))
    torch.testing.assert_close(score_ratios(f64(4, 0), f64(8, 0)), f64(1, 1))
    assert torch.isfinite(score_ratios(f64(4, 0), f64(8, 8))).all()


def test_noise_by_samples_has_the_covariance_of_the_mini_batch_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (6,), generator=generator)
    parameters = [model[0].weight]
    losses = F.cross_entropy(model(x), y, reduction="none")
    each = torch.stack(
        [torch.autograd.grad(one, parameters, retain_graph=True)[0].flatten() for one in losses]
    )
    mean = each.mean(0)
    expected = (each.T @ each / 6 - torch.outer(mean, mean)) / 6
    draws = torch.randn(6000, 6, generator=generator, dtype=torch.float64)
    draws -= draws.mean(1, keepdim=True)
    found = torch.stack([sample_noise(losses, d, parameters, total=6)[0].flatten() for d in draws])
    error = (found.T.cov() - expected).norm() / expected.norm()
    assert error < 0.06
    assert found.mean(0).norm() < 0.06 * expected.diag().sum().sqrt()
    # Not by sampling: the noise is linear in the draws, so that its covariance is known exactly.
    basis = torch.eye(6, dtype=torch.float64) - 1 / 6
    columns = [sample_noise(losses, d, parameters, total=6)[0].flatten() for d in basis]
    map_ = torch.stack(columns)
    torch.testing.assert_close(map_.T @ map_, expected, atol=1e-12, rtol=1e-9)


def test_noise_does_not_depend_on_the_number_of_threads() -> None:
    tensors = [torch.zeros(700, 700), torch.zeros(3), torch.zeros(2, 0)]
    threads = torch.get_num_threads()
    came = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            came.append(list(standard_normals(tensors, [5, 6, 7])))
    finally:
        torch.set_num_threads(threads)
    for first, second, like in zip(*came, tensors, strict=True):
        assert torch.equal(first, second)
        assert first.shape == like.shape
    values = came[0][0].flatten()
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01
    assert len(values.unique()) > 0.9 * len(values)  # pieces of one tensor are not copies


# Unimodal scores.


class FakeRun:
    """What hooks see, without a training around it."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.recipe = model, Recipe(optimizer="sgd")
        self.device, self.processes = torch.device("cpu"), 1


def scores_of(
    model: nn.Module, samples: list[Any], how: str = "auto", settings: Any = None
) -> tuple[str, Tensor, Tensor]:
    """What was found, the class scores and those of every modality alone, of one step in training mode."""
    hooks = remedy_for("ogm", model, settings or spec(2), samples)
    running: Any = FakeRun(model)
    super(OGM, hooks).prepare(running)
    found = find_unimodal_scores(hooks, running, how)  # type: ignore[arg-type]
    model.train()
    batch = hooks.task.place(batch_of(samples, hooks.task.spec), torch.device("cpu"))
    whole, alone = found.forward(running, batch)
    assert whole.requires_grad
    assert not alone.requires_grad
    assert alone.dtype is torch.float64
    return hooks.notes[0], whole.detach().double(), alone


class Swapped(Concat):
    """The second modality's features come first."""

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.head(torch.cat(features[::-1], 1))


class Squashed(Concat):
    """Something happens between encoders and head."""

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.head(torch.cat([f.sigmoid() for f in features], 1))


class SumOfFeatures(Net):
    def build(self, modalities: int) -> None:
        self.head = nn.Linear(8, CLASSES)

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.head(torch.stack(features).sum(0))


class MeanOfFeatures(SumOfFeatures):
    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.head(torch.stack(features).mean(0))


class AddedInPlace(Sum):
    """The first head's output is overwritten by the sum."""

    def fuse(self, features: list[Tensor]) -> Tensor:
        out = self.heads[0](features[0])
        out += self.heads[1](features[1])
        return out


class Pooled(nn.Module):
    """Feature maps are averaged outside of the encoders."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Conv2d(1, 4, 3) for _ in range(2))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, *inputs: Tensor) -> Tensor:
        maps = [e(x) for e, x in zip(self.encoders, inputs, strict=True)]
        return self.head(torch.cat([F.adaptive_avg_pool2d(m, 1).flatten(1) for m in maps], 1))


class Hidden(Concat):
    """The head's input mixes modalities."""

    def build(self, modalities: int) -> None:
        self.mix, self.head = nn.Linear(8 * modalities, 8), nn.Linear(8, CLASSES)

    def fuse(self, features: list[Tensor]) -> Tensor:
        return self.head(self.mix(torch.cat(features, 1)).tanh())


@pytest.mark.parametrize(
    ("build", "images", "words"),
    [
        (Concat, False, "'head', a linear head on concatenated features"),
        (Swapped, False, "'head', a linear head on concatenated features"),
        (Squashed, False, "'head', a linear head on concatenated features"),
        (Pooled, True, "'head', a linear head on concatenated features"),
        (ConvConcat, True, "'head', a linear head on concatenated features"),
        (SumOfFeatures, False, "'head', a linear head on added features"),
        (MeanOfFeatures, False, "'head', a linear head on added features"),
        (Sum, False, "the outputs of one module per modality"),
        (AddedInPlace, False, "the outputs of one module per modality"),
    ],
)
def test_terms_of_a_sum_are_read_off_the_step_and_add_up(
    build: Any, images: bool, words: str
) -> None:
    torch.manual_seed(0)
    model = build()
    note, whole, alone = scores_of(model, data(2, 24, image=images))
    assert words in note
    torch.testing.assert_close(alone.sum(0), whole, atol=1e-5, rtol=1e-5)


def test_terms_are_the_blocks_of_the_paper() -> None:
    torch.manual_seed(0)
    samples = data(2, 24)
    x = [torch.stack([s[f"x{m}"] for s in samples]) for m in range(2)]
    model = Swapped(2)
    h = [e(v) for e, v in zip(model.encoders, x, strict=True)]
    W, b = model.head.weight, model.head.bias
    _, _, alone = scores_of(model, samples)
    expected = torch.stack([F.linear(h[0], W[:, 8:], b / 2), F.linear(h[1], W[:, :8], b / 2)])
    torch.testing.assert_close(alone, expected.detach().double(), atol=1e-5, rtol=1e-5)

    summed = Sum(2)
    _, _, alone = scores_of(summed, samples)
    for m in range(2):  # each its own whole bias
        own = summed.heads[m](summed.encoders[m](x[m]))
        torch.testing.assert_close(alone[m], own.detach().double(), atol=1e-5, rtol=1e-5)


def test_columns_that_are_all_zero_on_the_example_are_told_apart_by_what_moves_them() -> None:
    class Asleep(Swapped):
        """Both encoders give zeros below a thousand, so that their features look alike."""

        def __init__(self) -> None:
            super().__init__(2)
            for m, encoder in enumerate(self.encoders):
                nn.init.ones_(encoder[0].weight)
                nn.init.constant_(encoder[0].bias, -1000.0)
                encoder[1], encoder[2] = nn.ReLU(), nn.Identity()
            self.head = nn.Linear(20, CLASSES)

    torch.manual_seed(0)
    model, samples = Asleep(), data(2, 24)
    settings = spec(2)
    settings["modalities"] = {
        f"m{m}": {"inputs": f"x{m}", "mask": {"constant": 1e4}} for m in range(2)
    }
    hooks = remedy_for("ogm", model, settings, samples)
    running: Any = FakeRun(model)
    super(OGM, hooks).prepare(running)
    found = find_unimodal_scores(hooks, running, "blocks")
    awake = [{**s, "x0": 1e3 * s["x0"].abs()} for s in samples]
    batch = hooks.task.place(batch_of(awake, hooks.task.spec), torch.device("cpu"))
    _, alone = found.forward(running, batch)
    assert alone[0].std(0).min() > 1
    torch.testing.assert_close(alone[1], (model.head.bias / 2).detach().double().expand(24, -1))


@pytest.mark.parametrize("build", [FiLM, NETS["gated"], NETS["cross-attention"], Early, Hidden])
def test_every_other_fusion_is_asked_by_masking(build: Any) -> None:
    torch.manual_seed(0)
    model, samples = build(2), data(2, 24)
    note, whole, alone = scores_of(model, samples)
    assert "masked passes" in note
    x = [torch.stack([s[f"x{m}"] for s in samples]) for m in range(2)]
    model.eval()
    with torch.no_grad():
        first, second = model(x[0], torch.zeros_like(x[1])), model(torch.zeros_like(x[0]), x[1])
        expected = torch.stack([whole - second + first, whole - first + second]) / 2
    torch.testing.assert_close(alone, expected.double(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ModelError, match="take scores 'masking'"):
        scores_of(model, samples, "blocks")


@pytest.mark.parametrize("build", [Concat, SumOfFeatures, Sum])
def test_blocks_equal_masking_where_a_masked_encoder_gives_nothing(build: Any) -> None:
    torch.manual_seed(0)
    model, samples = build(2), data(2, 24)
    for encoder in model.encoders:
        for layer in encoder:
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
    if build is Sum:  # masking shares the biases equally
        nn.init.zeros_(model.heads[0].bias)
        nn.init.zeros_(model.heads[1].bias)
    note, _, blocks = scores_of(model, samples)
    assert "own pass" in note
    note, _, responses = scores_of(model, samples, "masking")
    assert "masked passes" in note
    torch.testing.assert_close(blocks, responses, atol=1e-5, rtol=1e-5)


def test_outputs_that_are_no_logits_are_read_in_logit_space() -> None:
    class Probabilities(Concat):
        def fuse(self, features: list[Tensor]) -> Tensor:
            return super().fuse(features).softmax(1)

    class OneLogit(Concat):
        def build(self, modalities: int) -> None:
            self.head = nn.Linear(8 * modalities, 1)

    samples = data(2, 24)
    torch.manual_seed(0)
    settings = {**spec(2), "outputs": {"kind": "probabilities"}}
    note, whole, alone = scores_of(Probabilities(2), samples, settings=settings)
    assert "own pass" in note
    torch.testing.assert_close(alone.sum(0).log_softmax(1), whole, atol=1e-5, rtol=1e-5)

    binary = [{**s, "y": s["y"] % 2} for s in samples]
    settings = {**spec(2), "task": "binary", "outputs": {"kind": "one_logit"}}
    note, whole, alone = scores_of(OneLogit(2), binary, settings=settings)
    assert "own pass" in note
    assert alone.shape == (2, 24, 2)
    torch.testing.assert_close(alone.sum(0), whole, atol=1e-5, rtol=1e-5)


def test_modules_called_otherwise_in_training_are_noticed() -> None:
    class Auxiliary(Concat):
        def fuse(self, features: list[Tensor]) -> Tensor:
            if self.training:
                self.head(torch.cat(features[::-1], 1))
            return super().fuse(features)

    with pytest.raises(ModelError, match="take scores 'masking'"):
        scores_of(Auxiliary(2), data(2, 24))
    assert "masked passes" in scores_of(Auxiliary(2), data(2, 24), "masking")[0]


# Trainings.


def train(
    key: str,
    build: Any,
    folder: Path,
    *,
    modalities: int = 2,
    samples: list[Any] | None = None,
    settings: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    resume: bool = False,
    progress: Any = None,
    **options: Any,
) -> tuple[Any, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = build()
    rows = samples if samples is not None else data(modalities, 32)
    hooks = remedy_for(key, model, settings or spec(modalities), rows, **options)
    run(
        hooks,
        model,
        settings or spec(modalities),
        rows,
        folder,
        recipe=recipe,
        resume=resume,
        progress=progress,
    )
    return hooks, weights(model)


def coefficients(folder: Path) -> dict[str, list[float]]:
    """Name -> value of every epoch."""
    history = read_history(folder)
    rows = history[(history.split == "remedy") & ~history.name.str.contains(r"\(")]
    return {name: part.value.tolist() for name, part in rows.groupby("name")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("name", [*NETS, "convolutional"])
def test_every_fusion_trains_and_k_1_without_noise_is_plain_training_bit_for_bit(
    name: str, modalities: int, tmp_path: Path
) -> None:
    images = name == "convolutional"

    def build() -> nn.Module:
        if images:
            return ConvConcat(modalities)
        return NETS[name](modalities, norm=True, dropout=0.3)

    more = {"modalities": modalities, "samples": data(modalities, 32, image=images)}
    _, plain = train("joint", build, tmp_path / "joint", **more)
    # Masked passes included: they touch neither batch statistics nor the stream that dropout draws from.
    for number, scores in enumerate(["auto", "masking"]):
        _, neutral = train(
            "ogm", build, tmp_path / f"k1-{number}", alpha=0.0, scores=scores, **more
        )
        assert equal(plain, neutral)
    hooks, trained = train("ogm_ge", build, tmp_path / "ge", **more)
    assert not equal(plain, trained)
    assert all(bool(torch.isfinite(value).all()) for value in trained.values())
    expected = "own pass" if name in ("concat", "sum", "convolutional") else "masked passes"
    assert expected in hooks.notes[0]
    found = coefficients(tmp_path / "ge")
    assert set(found) == {f"{what} m{m}" for what in ("k", "rho") for m in range(modalities)}
    assert all(
        0 < value <= 1 for name, values in found.items() if name[0] == "k" for value in values
    )
    assert min(found[f"k m{m}"][-1] for m in range(modalities)) < 1


@pytest.mark.parametrize("scores", ["auto", "masking"])
def test_one_step_scales_the_convolutions_of_the_leading_modality_and_nothing_else(
    scores: str, tmp_path: Path
) -> None:
    samples = data(2, 32, image=True)
    recipe = {"epochs": 1, "batch_size": 32}
    torch.manual_seed(0)
    before = weights(ConvConcat(2))
    _, plain = train("joint", lambda: ConvConcat(2), tmp_path / "a", samples=samples, recipe=recipe)
    hooks, came = train(
        "ogm", lambda: ConvConcat(2), tmp_path / "b", samples=samples, recipe=recipe, scores=scores
    )
    assert not any("not convolutions only" in note for note in hooks.notes)
    found = coefficients(tmp_path / "b")
    (slow,) = [m for m in range(2) if found[f"k m{m}"][0] < 1]
    k, rho = found[f"k m{slow}"][0], found[f"rho m{slow}"][0]
    assert k == pytest.approx(1 - math.tanh(0.8 * rho))
    for key, value in plain.items():
        if key == f"encoders.{slow}.0.weight":
            value = before[key] + k * (value - before[key])
            torch.testing.assert_close(came[key], value, atol=1e-6, rtol=1e-5)
            assert not torch.equal(came[key], plain[key])
        else:
            assert torch.equal(came[key], value), key


def test_concatenated_inputs_are_slowed_by_the_columns_that_carry_them(tmp_path: Path) -> None:
    recipe = {"epochs": 1, "batch_size": 32}
    torch.manual_seed(0)
    before = weights(Early(2))
    _, plain = train("joint", Early, tmp_path / "a", recipe=recipe)
    hooks, came = train("ogm", Early, tmp_path / "b", recipe=recipe)
    assert any("input channels of net.0.weight" in note for note in hooks.notes)
    found = coefficients(tmp_path / "b")
    expected = plain["net.0.weight"].clone()
    for m, columns in enumerate([slice(0, 6), slice(6, 11)]):
        old = before["net.0.weight"][:, columns]
        expected[:, columns] = old + found[f"k m{m}"][0] * (expected[:, columns] - old)
    torch.testing.assert_close(came["net.0.weight"], expected, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(came[key], plain[key]) for key in came if key != "net.0.weight")


def test_stacked_images_are_slowed_by_the_channels_that_carry_them(tmp_path: Path) -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
            self.head = nn.Linear(4, CLASSES)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(self.net(torch.cat([b, a], 1)).mean((2, 3)))

    samples, recipe = data(2, 32, image=True), {"epochs": 1, "batch_size": 32}
    torch.manual_seed(0)
    before = weights(Stacked())["net.0.weight"]
    _, plain = train("joint", Stacked, tmp_path / "a", samples=samples, recipe=recipe)
    _, came = train(
        "ogm", Stacked, tmp_path / "b", samples=samples, recipe=recipe, parameters="conv"
    )
    found = coefficients(tmp_path / "b")
    k = torch.tensor([found["k m1"][0], found["k m0"][0]]).view(1, 2, 1, 1)
    assert (k < 1).any()
    moved = k * (plain["net.0.weight"] - before)
    torch.testing.assert_close(came["net.0.weight"], before + moved, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(came[key], plain[key]) for key in came if key != "net.0.weight")


def test_a_modality_without_weights_is_slowed_where_it_meets_the_others(tmp_path: Path) -> None:
    class Half(nn.Module):
        """Numbers beside an encoded image."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(5, 8), nn.Linear(14, CLASSES)

        def forward(self, numbers: Tensor, image: Tensor) -> Tensor:
            return self.head(torch.cat([numbers, self.encoder(image)], 1))

    recipe = {"epochs": 1, "batch_size": 32}
    _, plain = train("joint", Half, tmp_path / "a", recipe=recipe)
    hooks, came = train("ogm", Half, tmp_path / "b", recipe=recipe)
    assert any("No weight sees m0 alone: its input channels of head" in n for n in hooks.notes)
    assert torch.equal(came["head.weight"][:, 6:], plain["head.weight"][:, 6:])
    found = coefficients(tmp_path / "b")
    same = torch.equal(came["head.weight"][:, :6], plain["head.weight"][:, :6])
    assert same == (found["k m0"][0] == 1)
    same = torch.equal(came["encoder.weight"], plain["encoder.weight"])
    assert same == (found["k m1"][0] == 1)
    assert min(found["k m0"][0], found["k m1"][0]) < 1


def test_a_shared_encoder_leaves_the_blocks_of_the_head(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(36, 8), nn.Linear(16, CLASSES)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(torch.cat([self.encoder(x.flatten(1)).tanh() for x in (a, b)], 1))

    hooks, _ = train("ogm_ge", Shared, tmp_path, samples=data(2, 32, image=True))
    assert "own pass" in hooks.notes[0]
    assert any("m0 or m1 alone: its input channels of head.weight" in n for n in hooks.notes)


def test_frozen_encoders_are_slowed_at_the_head(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = Concat(2)
        model.encoders.requires_grad_(False)
        return model

    hooks, _ = train("ogm_ge", build, tmp_path)
    assert any("input channels of head.weight" in note for note in hooks.notes)


@pytest.mark.parametrize("remedy", ["ogm", "ogm_ge"])
def test_the_order_of_modalities_changes_nothing(remedy: str, tmp_path: Path) -> None:
    for name in ("concat", "gated", "early"):
        came = []
        for number, order in enumerate([(0, 1, 2), (2, 0, 1)]):
            folder = tmp_path / f"{name}-{number}"
            _, found = train(
                remedy, lambda: NETS[name](3), folder, settings=spec(3, order), modalities=3
            )
            came.append((found, coefficients(folder)))
        for key, value in came[0][0].items():
            torch.testing.assert_close(came[1][0][key], value, atol=1e-6, rtol=1e-5)
        assert came[0][1].keys() == came[1][1].keys()
        for key, values in came[0][1].items():
            np.testing.assert_allclose(came[1][1][key], values, atol=1e-6)


@pytest.mark.parametrize("noise", ["tensor_spread", "sample_covariance", "none"])
def test_accumulation_takes_the_same_steps(noise: str, tmp_path: Path) -> None:
    for name in ("concat", "film", "early"):
        came = []
        for accumulation in (1, 2):
            folder = tmp_path / f"{name}-{accumulation}"
            recipe = {"accumulation": accumulation}
            _, found = train("ogm_ge", lambda: NETS[name](2), folder, recipe=recipe, noise=noise)
            came.append((found, coefficients(folder)))
        for key, value in came[0][0].items():
            torch.testing.assert_close(came[1][0][key], value, atol=1e-6, rtol=1e-5)
        for key, values in came[0][1].items():
            np.testing.assert_allclose(came[1][1][key], values, atol=1e-6)


@pytest.mark.parametrize("noise", ["tensor_spread", "sample_covariance"])
def test_a_resumed_training_is_an_uninterrupted_one(noise: str, tmp_path: Path) -> None:
    def stop(step: Any) -> None:
        if step.epoch == 2 and not step.values:
            raise KeyboardInterrupt

    def build() -> nn.Module:
        return NETS["gated"](2, norm=True, dropout=0.2)

    recipe = {"epochs": 3, "momentum": 0.9}
    _, whole = train("ogm_ge", build, tmp_path / "whole", recipe=recipe, noise=noise)
    with pytest.raises(KeyboardInterrupt):
        train("ogm_ge", build, tmp_path / "cut", recipe=recipe, noise=noise, progress=stop)
    _, resumed = train("ogm_ge", build, tmp_path / "cut", recipe=recipe, noise=noise, resume=True)
    assert equal(whole, resumed)
    first, second = read_history(tmp_path / "whole"), read_history(tmp_path / "cut")
    assert first.value.tolist() == second.value.tolist()


def test_noise_goes_to_all_modalities_weights_and_is_large_as_said(tmp_path: Path) -> None:
    samples, recipe = data(2, 32, image=True), {"epochs": 1, "batch_size": 32, "lr": 1.0}
    torch.manual_seed(0)
    before = weights(ConvConcat(2))
    more = {"samples": samples, "recipe": recipe}
    _, quiet = train("ogm_ge", lambda: ConvConcat(2), tmp_path / "a", noise="none", **more)
    _, plain = train("joint", lambda: ConvConcat(2), tmp_path / "b", **more)
    found = {}
    for noise in ("tensor_spread", "sample_covariance"):
        _, loud = train("ogm_ge", lambda: ConvConcat(2), tmp_path / noise, noise=noise, **more)
        for key, value in quiet.items():
            own = key in ("encoders.0.0.weight", "encoders.1.0.weight")
            assert torch.equal(loud[key], value) != own, key
        found[noise] = loud
    for m in range(2):
        key = f"encoders.{m}.0.weight"
        gradient = before[key] - plain[key]
        spread = (found["tensor_spread"][key] - quiet[key]).std() / gradient.std()
        assert 0.6 < spread < 1.5  # of 36 entries
    a, b = (found["tensor_spread"][f"encoders.{m}.0.weight"] for m in range(2))
    noise_a, noise_b = a - quiet["encoders.0.0.weight"], b - quiet["encoders.1.0.weight"]
    correlation = torch.corrcoef(torch.stack([noise_a.flatten(), noise_b.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.5


def test_samples_that_all_say_the_same_give_no_noise(tmp_path: Path) -> None:
    samples = data(2, 1) * 32
    _, quiet = train("ogm", Concat, tmp_path / "a", samples=samples)
    more = {"samples": samples, "noise": "sample_covariance"}
    _, same = train("ogm_ge", Concat, tmp_path / "b", **more)
    for name, value in quiet.items():
        torch.testing.assert_close(same[name], value, atol=1e-6, rtol=1e-6)


def test_outside_its_epochs_it_is_plain_training(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return Concat(2)

    _, plain = train("joint", build, tmp_path / "a", recipe={"epochs": 3})
    _, never = train("ogm_ge", build, tmp_path / "b", recipe={"epochs": 3}, first_epoch=4)
    assert equal(plain, never)
    assert coefficients(tmp_path / "b") == {}
    train("ogm_ge", build, tmp_path / "c", recipe={"epochs": 3}, first_epoch=2, last_epoch=2)
    assert len(coefficients(tmp_path / "c")["k m0"]) == 1
    history = read_history(tmp_path / "c")
    assert set(history[history.split == "remedy"].epoch) == {2}


def test_samples_that_lack_a_modality_are_left_out(tmp_path: Path) -> None:
    samples = [{**s, "has": torch.tensor(i % 4 == 0)} for i, s in enumerate(data(2, 32))]
    settings = spec(2)
    settings["modalities"]["m1"] = {"inputs": "x1", "present": "has"}  # type: ignore[index]
    recipe = {"epochs": 1, "batch_size": 32}
    train("ogm", Concat, tmp_path, samples=samples, settings=settings, recipe=recipe)
    torch.manual_seed(0)
    model = Concat(2)
    x = [torch.stack([s[f"x{m}"] for s in samples]) for m in range(2)]
    y, has = (torch.stack([s[name] for s in samples]) for name in ("y", "has"))
    W, b = model.head.weight, model.head.bias
    p = [
        F.linear(model.encoders[m](x[m]), W[:, 8 * m : 8 * m + 8], b / 2).softmax(1)[range(32), y]
        for m in range(2)
    ]
    expected = float((p[0].mean() / p[1][has].mean()).detach())
    found = coefficients(tmp_path)
    assert found["rho m0"][0] == pytest.approx(expected, rel=1e-5)
    assert found["rho m1"][0] == pytest.approx(1 / expected, rel=1e-5)


def test_an_optimiser_that_takes_factors_back_is_named(tmp_path: Path) -> None:
    hooks, _ = train("ogm", Concat, tmp_path / "a", recipe={"optimizer": "adamw", "lr": 1e-3})
    assert any("With adamw a constant factor" in note for note in hooks.notes)
    hooks, _ = train("ogm", Concat, tmp_path / "b")
    assert not any("constant factor" in note for note in hooks.notes)


def test_bf16_trains(tmp_path: Path) -> None:
    for build in (Concat, FiLM):
        folder = tmp_path / build.__name__
        train("ogm_ge", build, folder, recipe={"precision": "bf16"})
        assert all(map(math.isfinite, coefficients(folder)["rho m0"]))


# Refusals.


class AddedInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(5, CLASSES)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.net(a[:, :5] + b)


class NothingLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.scale * (a[:, :4] + b[:, :4])


def test_inputs_added_before_any_weight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'net', gets it on the same channels .* use agm"):
        train("ogm_ge", AddedInputs, tmp_path / "a")
    with pytest.raises(ModelError, match="nor does a trainable Linear or Conv mix it .* use agm"):
        train("ogm", NothingLinear, tmp_path / "b")


def test_convolutions_are_asked_for_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none sees m0 or m1 alone: take parameters 'weights'"):
        train("ogm", Concat, tmp_path, parameters="conv")


def test_scores_that_are_not_finite_stop_the_training(tmp_path: Path) -> None:
    class Divides(Concat):
        def forward(self, *inputs: Tensor) -> Tensor:
            # Only a masked second modality is all zeros.
            return super().forward(*inputs) / inputs[1].abs().sum(1, keepdim=True)

    with pytest.raises(ModelError, match="not finite"):
        train("ogm", Divides, tmp_path)


@pytest.mark.parametrize(
    "options", [{"alpha": -1}, {"scores": "guess"}, {"parameters": "all"}, {"noise": "none"}]
)
def test_settings_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OGM.Options(**options)


# What it is for.


def test_the_neglected_modality_learns(tmp_path: Path) -> None:
    joint = accuracy_of_the_noisy_one("joint", tmp_path)
    assert accuracy_of_the_noisy_one("ogm", tmp_path) > joint + 0.08
    assert accuracy_of_the_noisy_one("ogm_ge", tmp_path) > joint + 0.08
