"""Coalition outputs of the zoo against brute force, and the state in which models are left."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmaudit
from mmaudit.evidence.coalitions import CoalitionEvaluator
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import MaskingSpec
from tests.evidence.zoo import (
    ZOO,
    assert_equal_games,
    assert_unchanged,
    brute_force,
    in_eval_mode,
    plain,
    snapshot,
    tensors,
)
from tests.evidence.zoo_rows import CLASSES, HIDDEN, Architecture, Pair, vectors

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
]

every_row = pytest.mark.parametrize("row", ZOO, ids=lambda row: row.name)
every_certain_row = pytest.mark.parametrize(
    "row", [row for row in ZOO if not row.stochastic], ids=lambda row: row.name
)
on_and_off = pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])

PAIR_SPEC = MaskingSpec.model_validate({"modalities": {"a": "a", "v": "v"}})


class TestOutputs:
    @on_and_off
    @every_certain_row
    def test_agree_with_brute_force(self, row: Architecture, optimize: bool) -> None:
        model = row.model()
        for size in row.sizes:
            batch = row.batch(size)
            with torch.no_grad():
                expected = brute_force(model, batch, row.spec)
            untouched = copy.deepcopy(batch)
            for _ in range(2):
                actual = mmaudit.evaluate_coalitions(model, batch, row.spec, optimize=optimize)
                assert_equal_games(actual, expected, row.tolerance)
                assert not any(x.requires_grad for x in actual.values())
            for left, right in zip(tensors(batch), tensors(untouched), strict=True):
                assert torch.equal(left.to_dense(), right.to_dense()), (
                    "the caller's batch was changed"
                )

    @every_certain_row
    def test_agree_on_another_batch_after_the_first(self, row: Architecture) -> None:
        """Nothing found out about one batch may be carried over to one of another size."""
        model, sizes = row.model(), row.sizes[::-1]
        for size in sizes:
            batch = row.batch(size)
            with torch.no_grad():
                expected = brute_force(model, batch, row.spec)
            assert_equal_games(
                mmaudit.evaluate_coalitions(model, batch, row.spec), expected, row.tolerance
            )

    @pytest.mark.parametrize("name", ["LateConcat", "Gated", "PackedGRU", "SixModalities"])
    def test_agree_with_batches_kept_whole(self, name: str) -> None:
        row = next(row for row in ZOO if row.name == name)
        spec = row.spec.model_copy(update={"batching": "keep"})
        model, batch = row.model(), row.batch(5)
        with torch.no_grad():
            expected = brute_force(model, batch, spec)
        assert_equal_games(mmaudit.evaluate_coalitions(model, batch, spec), expected, 1e-5)

    def test_agree_after_the_weights_change(self) -> None:
        model, batch = Pair(), vectors(5)
        mmaudit.evaluate_coalitions(model, batch, PAIR_SPEC)
        with torch.no_grad():
            model.enc_a[0].weight.add_(1)
            expected = brute_force(model, batch, PAIR_SPEC)
        assert_equal_games(mmaudit.evaluate_coalitions(model, batch, PAIR_SPEC), expected, 1e-5)

    def test_agree_after_the_values_change_in_place(self) -> None:
        model, batch = Pair(), vectors(5)
        mmaudit.evaluate_coalitions(model, batch, PAIR_SPEC)
        batch["a"].mul_(-2)
        with torch.no_grad():
            expected = brute_force(model, batch, PAIR_SPEC)
        assert_equal_games(mmaudit.evaluate_coalitions(model, batch, PAIR_SPEC), expected, 1e-5)

    @on_and_off
    @pytest.mark.parametrize(
        "row", [row for row in ZOO if row.stochastic], ids=lambda row: row.name
    )
    def test_of_stochastic_models_come_out(self, row: Architecture, optimize: bool) -> None:
        actual = mmaudit.evaluate_coalitions(row.model(), row.batch(5), row.spec, optimize=optimize)
        assert len(actual) == 4
        assert all(x.shape == (5, CLASSES) and x.isfinite().all() for x in actual.values())

    @pytest.mark.parametrize("size", [5, 33])
    @pytest.mark.parametrize(
        "mask", ["mean", "marginal", "noise", {"noise": {"mean": 0, "std": 2}}], ids=str
    )
    @pytest.mark.parametrize("name", ["LateConcat", "Gated", "EarlyVector", "OneLogitFlat"])
    def test_under_drawn_masks_are_consistent(self, name: str, mask: Any, size: int) -> None:
        row = next(row for row in ZOO if row.name == name)
        modalities = {"a": {"inputs": "a", "mask": mask}, "v": {"inputs": "v", "mask": mask}}
        spec = MaskingSpec.model_validate({"modalities": modalities})
        model, batch = row.model(), row.batch(size)
        first = mmaudit.evaluate_coalitions(model, batch, spec)
        with torch.no_grad():
            whole = plain(model, batch, spec)
        torch.testing.assert_close(first[frozenset("av")], whole, atol=1e-5, rtol=1e-5)
        torch.rand(7)
        random.random()
        np.random.rand()
        assert_equal_games(mmaudit.evaluate_coalitions(model, batch, spec), first, 1e-6)
        assert_equal_games(
            mmaudit.evaluate_coalitions(model, batch, spec, optimize=False), first, 1e-5
        )
        for present in ("", "a", "v"):
            assert (first[frozenset(present)] - whole).abs().max() > 1e-3


class TestState:
    @on_and_off
    @every_row
    def test_is_left_as_it_was(self, row: Architecture, optimize: bool) -> None:
        model, batch = row.model(), row.batch(row.sizes[1])
        if isinstance(model, nn.Module):
            # What a plain call leaves behind is the model's own doing.
            with torch.no_grad():
                plain(model, batch, row.spec)
            for number, parameter in enumerate(model.parameters()):
                parameter.requires_grad_(number % 3 != 1)
                if number % 2:
                    parameter.grad = torch.ones_like(parameter)
            for number, module in enumerate(model.modules()):
                module.training = number % 4 != 2
        before = snapshot(model)
        mmaudit.evaluate_coalitions(model, batch, row.spec, optimize=optimize)
        assert_unchanged(before, snapshot(model))

    @on_and_off
    def test_is_left_as_it_was_with_gradients(self, optimize: bool) -> None:
        model = Pair()
        before = snapshot(model)
        outputs = mmaudit.evaluate_coalitions(
            model, vectors(5), PAIR_SPEC, optimize=optimize, differentiable=True
        )
        assert all(x.requires_grad for x in outputs.values())
        assert_unchanged(before, snapshot(model))

    @on_and_off
    @pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
    @pytest.mark.parametrize("broken", ["encoder", "head"])
    def test_is_left_as_it_was_after_an_error(
        self, broken: str, error: type[BaseException], optimize: bool
    ) -> None:
        failed = 0
        for last in (0, 1, 2, 3, 5, 8, 13):
            model = Breaking(broken)
            model.enc_v[0].eval()
            before = snapshot(model)
            Breaking.allowed, Breaking.error = last, error
            try:
                mmaudit.evaluate_coalitions(model, vectors(5), PAIR_SPEC, optimize=optimize)
            except (mmaudit.MMAuditError, error) as raised:
                assert "out of order" in f"{raised} {raised.__cause__}"
                failed += 1
            assert_unchanged(before, snapshot(model))
        assert failed >= 1

    @on_and_off
    def test_batch_norm_is_not_touched_by_a_muted_pass(self, optimize: bool) -> None:
        norm = nn.BatchNorm1d(1)
        spec = MaskingSpec.model_validate({"modalities": {"a": "0"}})
        outputs = mmaudit.evaluate_coalitions(norm, (torch.zeros(4, 1),), spec, optimize=optimize)
        assert norm.training
        assert norm.running_var.item() == 1.0
        assert norm.num_batches_tracked.item() == 0
        torch.testing.assert_close(outputs[frozenset()], torch.zeros(4, 1))
        norm(torch.zeros(4, 1))
        assert norm.running_var.item() == pytest.approx(0.9)

    @on_and_off
    def test_lazy_caches_of_the_caller_survive(self, optimize: bool) -> None:
        """A forward replaced on the instance by the owner stays the owner's."""
        model = Pair()
        inner = model.enc_a.forward
        model.enc_a.forward = lambda x: 3 * inner(x)  # type: ignore[method-assign]
        replaced = model.enc_a.forward
        with torch.no_grad():
            expected = brute_force(model, vectors(5), PAIR_SPEC)
        actual = mmaudit.evaluate_coalitions(model, vectors(5), PAIR_SPEC, optimize=optimize)
        assert_equal_games(actual, expected, 1e-5)
        assert model.enc_a.forward is replaced


class Breaking(Pair):
    """Breaks for good after so many calls of one part."""

    allowed: ClassVar[int] = 0
    error: ClassVar[type[BaseException]] = RuntimeError

    def __init__(self, part: str) -> None:
        super().__init__()
        if part == "encoder":
            self.enc_v = nn.Sequential(nn.BatchNorm1d(5), Breaker(), self.enc_v)
        else:
            self.head = nn.Sequential(Breaker(), self.head)


class Breaker(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        Breaking.allowed -= 1
        if Breaking.allowed < 0:
            raise Breaking.error("out of order")
        return x


GRADIENTS = [
    "LateConcat",
    "LateSum",
    "DeepHead",
    "Gated",
    "FiLM",
    "BilinearFusion",
    "EinsumFusion",
    "EarlyConv",
    "SqueezeExcite",
    "Nested",
    "CrossAttention",
    "TransformerFusion",
    "SixModalities",
    "SharedEncoder",
    "SharedEncoderStacked",
    "ConditionedEncoder",
    "Routed",
    "TiedWeights",
    "WeightNorm",
    "SpectralNorm",
    "GRULast",
    "LSTMBothWays",
    "PackedGRU",
    "TextMaskKept",
    "BatchNormEncoders",
    "DictInput",
    "NestedInput",
    "OneLogitFlat",
    "DroppedInput",
    "PartlyPresent",
    "ChangesFeaturesInPlace",
    "ActivationInPlace",
    "StashesOnEncoders",
    "RawGlue",
    "RawSkip",
    "TokenForMissing",
    "FunctionalWeights",
    "TwoViews",
    "Checkpointed",
    "FrozenEncoder",
    "SoftmaxOverBatch",
    "DenseGraph",
    "SimilarityMatrix",
]


class TestGradients:
    def test_names_exist(self) -> None:
        assert set(GRADIENTS) <= {row.name for row in ZOO if row.differentiable}

    @on_and_off
    @pytest.mark.parametrize(
        "row", [row for row in ZOO if row.name in GRADIENTS], ids=lambda row: row.name
    )
    def test_equal_those_of_brute_force(self, row: Architecture, optimize: bool) -> None:
        model, batch = row.model(), row.batch(5)
        expected = gradients(model, brute_force(model, batch, row.spec))
        outputs = mmaudit.evaluate_coalitions(
            model, batch, row.spec, optimize=optimize, differentiable=True
        )
        actual = gradients(model, outputs)
        assert any(x is not None and x.abs().max() > 1e-3 for x in expected.values())
        for name, gradient in expected.items():
            got = actual[name]
            if gradient is None or got is None:
                other = got if gradient is None else gradient
                assert other is None or not other.any(), name
                continue
            scale = max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(
                got / scale,
                gradient / scale,
                atol=1e-5,
                rtol=1e-5,
                msg=lambda text, name=name: f"{name}: {text}",
            )

    @on_and_off
    def test_reach_the_inputs(self, optimize: bool) -> None:
        model, batch = Pair(), vectors(5)
        batch["a"].requires_grad_()
        (expected,) = torch.autograd.grad(
            weighted(brute_force_with_inputs(model, batch)), batch["a"]
        )
        outputs = mmaudit.evaluate_coalitions(
            model, batch, PAIR_SPEC, optimize=optimize, differentiable=True
        )
        (actual,) = torch.autograd.grad(weighted(outputs), batch["a"])
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def brute_force_with_inputs(
    model: nn.Module, batch: dict[str, Tensor]
) -> dict[frozenset[str], Tensor]:
    a, v = batch["a"], batch["v"]
    with in_eval_mode(model):
        return {
            frozenset(name for name, on in (("a", i), ("v", j)) if on): model(a * i, v * j)
            for i in (0, 1)
            for j in (0, 1)
        }


def weighted(game: dict[frozenset[str], Tensor]) -> Tensor:
    """A sum in which every coalition and every entry has a weight of its own."""
    total = torch.zeros(())
    for number, coalition in enumerate(sorted(game, key=sorted)):
        values = game[coalition].flatten()
        total = total + (values * torch.linspace(0.5, 1.5, len(values))).mean() * (number + 1)
    return total


def gradients(model: nn.Module, game: dict[frozenset[str], Tensor]) -> dict[str, Tensor | None]:
    named = dict(model.named_parameters())
    found = torch.autograd.grad(weighted(game), list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


class Counted(nn.Module):
    """Counts the rows that it is given, outside of the module so that nothing of it is copied or restored."""

    rows: ClassVar[Counter[str]] = Counter()

    def __init__(self, name: str, inputs: int) -> None:
        super().__init__()
        self.name, self.net = name, nn.Linear(inputs, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        Counted.rows[self.name] += len(x)
        return torch.tanh(self.net(x))


class CountedFusion(nn.Module):
    def __init__(self, modalities: int, fuse: Callable[..., Tensor]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Counted(f"m{m}", 3 + m) for m in range(modalities))
        self.gate = nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.LazyLinear(CLASSES)
        self.fuse = fuse

    def forward(self, *inputs: Tensor) -> Tensor:
        features = [encoder(x) for encoder, x in zip(self.encoders, inputs, strict=True)]
        return self.head(self.fuse(self, features))


FUSIONS: dict[str, Callable[..., Tensor]] = {
    "concat": lambda model, f: torch.cat(f, 1),
    "sum": lambda model, f: torch.stack(f).sum(0),
    "gated": lambda model, f: torch.sigmoid(model.gate(f[0])) * sum(f[1:]),
    "tokens": lambda model, f: torch.stack([model.gate(x) for x in f], 1).relu().amax(1),
}


def counted(
    fusion: str, modalities: int, size: int
) -> tuple[CountedFusion, list[tuple[Tensor, ...]], MaskingSpec]:
    model = CountedFusion(modalities, FUSIONS[fusion])
    batches = [
        tuple(torch.randn(size, 3 + m) + shift for m in range(modalities)) for shift in (0, 1)
    ]
    model.eval()(*batches[0])
    masked = {f"m{m}": {"inputs": str(m), "mask": {"constant": m / 4}} for m in range(modalities)}
    return model, batches, MaskingSpec.model_validate({"modalities": masked})


@pytest.mark.parametrize("modalities", [2, 4, 6])
@pytest.mark.parametrize("fusion", FUSIONS)
class TestCost:
    def test_a_later_batch_goes_through_each_encoder_about_once(
        self, fusion: str, modalities: int
    ) -> None:
        size = 64
        model, (first, second), spec = counted(fusion, modalities, size)
        structure = mmaudit.inspect_structure(model, first, spec)
        evaluator = CoalitionEvaluator(model, spec, structure)
        with torch.no_grad():
            evaluator.evaluate(in_memory_batch(first, spec, torch.device("cpu")))
            Counted.rows.clear()
            outputs = evaluator.evaluate(in_memory_batch(second, spec, torch.device("cpu")))
            rows = dict(Counted.rows)
            assert all(size <= rows[f"m{m}"] <= 1.2 * size for m in range(modalities)), rows
            actual = {spec.coalition(index): output for index, output in enumerate(outputs)}
            assert_equal_games(actual, brute_force(model, second, spec), 1e-5)

    def test_a_single_batch_costs_one_pass_and_a_few_rows(
        self, fusion: str, modalities: int
    ) -> None:
        """What is spent on finding the structure and on checking does not grow with the batch."""
        size = 512
        model, (batch, _), spec = counted(fusion, modalities, size)
        Counted.rows.clear()
        actual = mmaudit.evaluate_coalitions(model, batch, spec)
        rows = dict(Counted.rows)
        assert all(size <= rows[f"m{m}"] <= 1.35 * size for m in range(modalities)), rows
        with torch.no_grad():
            assert_equal_games(actual, brute_force(model, batch, spec), 1e-5)
