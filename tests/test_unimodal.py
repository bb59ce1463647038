"""Reference models: the same encoder without competition, from fresh weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from mmaudit.evidence.masks import Masks
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.masking.build import build_maskers
from mmaudit.masking.spec import AuditSpec, MaskingSpec
from mmaudit.measures.intervals import wilson
from mmaudit.training import Recipe, read_history
from mmaudit.training.task import Task
from mmaudit.unimodal import UnimodalResult, build, reinitialise, train_unimodal
from tests.remedies.nets import CLASSES, NETS, data, spec
from tests.remedies.running import batch_of

RECIPE = Recipe(optimizer="sgd", lr=0.1, momentum=0.0, epochs=8, batch_size=16, seed=3)


def reference(
    model: nn.Module,
    out: Path,
    modality: str = "m1",
    *,
    described: dict[str, Any] | None = None,
    samples: list[Any] | None = None,
    recipe: Recipe = RECIPE,
    **options: Any,
) -> UnimodalResult:
    samples = samples or data(2, 128)
    read = MaskingSpec.model_validate(described or spec(2))
    example = batch_of(samples[:8], read)
    task = Task(model, read, Masks(build_maskers(read), {}, ()), example.data)
    return train_unimodal(
        model,
        task,
        modality,
        recipe,
        train_data=samples[:80],
        validation_data=samples[80:96],
        test_data=samples[96:],
        collate=lambda rows: batch_of(rows, read),
        example=example,
        out=out,
        device="cpu",
        **options,
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["concat", "sum", "film", "gated", "cross-attention"])
def test_an_encoder_of_its_own_is_trained_with_a_linear_head(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NETS[kind](2, norm=True).eval()
    before = state(model)
    result = reference(model, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in state(model).items())
    assert not any(module.training for module in model.modules())
    assert result.own_encoder and result.notes == ()
    # It sees its modality alone, and it learns something of it.
    test = batch_of(data(2, 128)[96:], MaskingSpec.model_validate(spec(2))).data
    result.model.eval()
    with torch.no_grad():
        logits = result.model(test["x0"], test["x1"])
        assert torch.equal(logits, result.model(torch.randn_like(test["x0"]), test["x1"]))
    hits = float((logits.argmax(1) == test["y"]).float().mean())
    assert result.accuracy.value == pytest.approx(hits) and hits > 0.4
    assert result.accuracy.n == 32 and result.accuracy.method == "Wilson over samples"
    low, high = wilson(torch.tensor([hits]).numpy(), torch.tensor([32.0]).numpy())
    assert (result.accuracy.low, result.accuracy.high) == (
        pytest.approx(low[0], rel=1e-5),
        pytest.approx(high[0], rel=1e-5),
    )
    # Only what lies before its features has moved; batch statistics of its own encoder have.
    drawn = reference(model, tmp_path / "still", recipe=RECIPE.model_copy(update={"lr": 1e-12}))
    moved = {
        key.split(".")[1] + key.split(".")[2]
        for key, value in drawn.model.named_parameters()
        if key.startswith("model.") and not torch.allclose(value, result.model.get_parameter(key))
    }
    assert moved == {"encoders1"} | ({"heads1"} if kind == "sum" else set())


def test_it_starts_from_fresh_weights_whatever_the_model_has_learnt(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = NETS["concat"](2, norm=True)
    second = copy.deepcopy(first)
    with torch.no_grad():
        for tensor in second.state_dict().values():
            tensor.add_(5)
    ends = [
        load_file(reference(model, tmp_path / str(i)).training.weights)
        for i, model in enumerate((first, second))
    ]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_it_equals_the_encoder_trained_alone_by_hand(tmp_path: Path) -> None:
    from mmaudit.training.order import epoch_batches

    torch.manual_seed(0)
    model, samples = NETS["concat"](2, norm=True), data(2, 128)
    still = reference(model, tmp_path / "still", recipe=RECIPE.model_copy(update={"lr": 1e-30}))
    mine = copy.deepcopy(still.model)
    for module in mine.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
    encoder, head = mine.model.encoders[1].train(), mine.head
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], 0.1)
    for epoch in range(1, 9):
        for places in epoch_batches(80, 16, seed=3, epoch=epoch):
            x = torch.stack([samples[i]["x1"] for i in places])
            y = torch.stack([samples[i]["y"] for i in places])
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(encoder(x)), y).backward()
            optimizer.step()
    reference(model, tmp_path / "run")
    stored = load_file(tmp_path / "run" / "last.safetensors")
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(
            stored[f"model/model.encoders.1.{key}"], value, rtol=1e-4, atol=1e-5
        )


def test_without_an_encoder_the_whole_network_sees_one_modality(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, samples = NETS["early"](2, norm=True).eval(), data(2, 128)
    result = reference(model, tmp_path)
    assert not result.own_encoder
    assert any("the whole network was trained and tested" in note for note in result.notes)
    test = batch_of(samples[96:], MaskingSpec.model_validate(spec(2))).data
    result.model.eval()
    with torch.no_grad():
        alone = result.model(torch.zeros_like(test["x0"]), test["x1"])
    hits = float((alone.argmax(1) == test["y"]).float().mean())
    assert result.accuracy.value == pytest.approx(hits)
    # The other modality was masked in training, too: its weights never met anything but zeros.
    silent = reference(model, tmp_path / "still", recipe=RECIPE.model_copy(update={"lr": 1e-30}))
    columns = result.model.model.net[0].weight[:, :6], silent.model.model.net[0].weight[:, :6]
    assert torch.equal(*columns)
    other = result.model.model.net[0].weight[:, 6:], silent.model.model.net[0].weight[:, 6:]
    assert not torch.allclose(*other)


class Probable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(11, CLASSES)

    def forward(self, x0: Tensor, x1: Tensor) -> dict[str, Tensor]:
        return {"p": self.net(torch.cat([x0, x1], 1)).softmax(1)}


def test_outputs_are_found_where_the_spec_says(tmp_path: Path) -> None:
    described = {**spec(2), "outputs": {"path": "p", "kind": "probabilities"}}
    result = reference(Probable(), tmp_path, described=described)
    batch = batch_of(data(2, 8), MaskingSpec.model_validate(described)).data
    logits = result.model(batch["x0"], batch["x1"])
    torch.testing.assert_close(
        logits.softmax(1),
        result.model.model.net(torch.cat([batch["x0"], batch["x1"]], 1)).softmax(1),
    )


@pytest.mark.parametrize("kind", ["film", "early"])
def test_it_is_built_again_from_names_and_numbers(kind: str, tmp_path: Path) -> None:
    result = reference(NETS[kind](2, norm=True), tmp_path, "m0")
    name = {"film": "FiLM", "early": "Early"}[kind]
    audited = AuditSpec.model_validate(
        {
            **spec(2),
            "data": "a:b",
            "model": {"factory": f"tests.remedies.nets:{name}", "args": {"norm": True}},
        }
    )
    entry = result.factory(audited).model_dump(mode="json")
    assert entry["factory"] == "mmaudit.unimodal:build"
    again = build(**entry["args"])
    again.load_state_dict(load_file(result.training.weights))
    batch = batch_of(data(2, 8), audited).data
    again.eval(), result.model.eval()
    assert torch.equal(again(batch["x0"], batch["x1"]), result.model(batch["x0"], batch["x1"]))


def test_samples_without_the_modality_do_not_count(tmp_path: Path) -> None:
    samples = data(2, 128)
    for i, sample in enumerate(samples):
        sample["has"] = torch.tensor(i % 4 != 0)
        if i % 4 == 0:
            sample["x1"] = torch.full_like(sample["x1"], torch.nan)
            sample["y"] = torch.zeros_like(sample["y"])  # would be learnt, and count as right
    described = spec(2)
    described["modalities"] = {"m0": "x0", "m1": {"inputs": "x1", "present": "has"}}
    described["group"] = "g"
    for i, sample in enumerate(samples):
        sample["g"] = i // 2
    torch.manual_seed(0)
    result = reference(NETS["concat"](2), tmp_path, described=described, samples=samples)
    assert (result.accuracy.n, result.accuracy.groups) == (24, 16)
    torch.manual_seed(0)
    for sample in samples:
        if not sample["has"]:
            sample["y"] = sample["y"] + 1
    again = reference(NETS["concat"](2), tmp_path / "b", described=described, samples=samples)
    a, b = load_file(result.training.weights), load_file(again.training.weights)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert again.accuracy == result.accuracy


def test_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return NETS["concat"](2, norm=True, dropout=0.2)

    def stop(step: Any) -> None:
        if step.epoch == 3 and step.values:
            raise KeyboardInterrupt

    whole = reference(model(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        reference(model(), tmp_path / "cut", progress=stop)
    cut = reference(model(), tmp_path / "cut", resume=True)
    a, b = load_file(whole.training.weights), load_file(cut.training.weights)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert len(read_history(tmp_path / "cut")) == len(read_history(tmp_path / "whole"))


def test_an_unknown_modality_and_a_frozen_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'audio' is no modality; there are m0, m1"):
        reference(NETS["concat"](2), tmp_path, "audio")
    with pytest.raises(ModelError, match="all of it is frozen"):
        reference(NETS["early"](2).requires_grad_(False), tmp_path)


class Deep(nn.Module):
    """Two layers of normalisation in each encoder, and one on top of both."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
        self.b = nn.Sequential(
            nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8)
        )
        self.head = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, CLASSES))

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(x0), self.b(x1)], 1))


@pytest.mark.parametrize("at_rest", [True, False])
def test_normalisation_that_sees_only_what_is_masked_learns_nothing_from_it(
    at_rest: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Deep().train(not at_rest)
    result = reference(model, tmp_path, without=True)
    (note,) = result.notes
    assert note.startswith("Modules b.1, b.4 see nothing but what is masked")
    trained = result.model.model
    assert trained.get_submodule("b.1").running_mean.abs().max() == 0
    assert trained.get_submodule("b.4").num_batches_tracked == 0
    assert trained.get_submodule("a.1").running_mean.abs().max() > 0
    assert trained.get_submodule("head.0").num_batches_tracked > 0
    # Flags are given back, and the network that came in is as it was.
    assert result.model.training == model.training == (not at_rest)
    assert model.b[1].training == model.training and model.b[1].num_batches_tracked == 0
    kept = {key for key, value in load_file(result.training.weights).items() if "b.1" in key}
    assert "model.b.1.running_var" in kept


class Images(nn.Module):
    """Two stages of padded convolutions with normalisation: what they make of a constant differs along the border."""

    def __init__(self) -> None:
        super().__init__()
        parts = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
        parts += [nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]
        self.left, self.right = nn.Linear(6, 8), nn.Sequential(*parts, nn.Linear(8 * 5, 8))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        seen = self.right(x1[:, None, None, :])
        return self.head(torch.cat([self.left(x0), seen], 1))


def test_without_a_modality_losses_do_not_explode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = Recipe(optimizer="adamw", lr=0.01, epochs=16, batch_size=8, seed=0)
    result = reference(Images(), tmp_path, without=True, recipe=recipe)
    history = read_history(tmp_path)
    rows = history[(history["split"] == "validation") & (history["name"] == "loss")]
    losses = rows.sort_values("epoch")["value"].to_numpy()
    assert result.training.best_value == losses.min() < losses[0]
    assert losses.max() < 2 * losses[0]


def test_a_whole_network_for_one_modality_spares_the_norms_of_the_others(tmp_path: Path) -> None:
    class Added(Deep):
        """The second input enters twice, so that it has no encoder that all of it goes through."""

        def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
            return super().forward(x0 + 0 * x1.sum(1, keepdim=True), x1)

    torch.manual_seed(0)
    result = reference(Added(), tmp_path, "m0")
    assert not result.own_encoder
    assert any("b.1, b.4 see nothing but what is masked" in note for note in result.notes)


# Re-initialising.


class Odd(nn.Module):
    """A parameter of its own, which nothing draws anew."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(4))
        self.table = nn.Module()
        self.table.register_buffer("positions", torch.arange(3.0))
        self.attention = nn.MultiheadAttention(4, 2)
        self.rnn, self.norm = nn.GRU(4, 4), nn.BatchNorm1d(4)
        self.weighted = parametrizations.weight_norm(nn.Linear(4, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_everything_that_can_be_is_drawn_anew_and_the_rest_is_said() -> None:
    model = Odd()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.mul_(2).add_(torch.rand_like(tensor.float()).to(tensor.dtype))
    before = state(model)
    stream = torch.get_rng_state()
    notes = reinitialise(model, seed=0)
    assert torch.equal(stream, torch.get_rng_state())
    before.pop("norm.num_batches_tracked")  # 0 before and after
    same = {k.partition(".")[0] for k, v in before.items() if torch.equal(v, state(model)[k])}
    assert same == {"token", "table", "weighted", "frozen"}
    changed = {k for k, v in before.items() if not torch.equal(v, state(model)[k])}
    assert {"attention.in_proj_weight", "attention.out_proj.weight", "rnn.weight_hh_l0"} <= changed
    assert {"norm.weight", "norm.running_mean", "norm.running_var", "weighted.bias"} <= changed
    assert torch.equal(model.norm.running_var, torch.ones(4))
    text = " ".join(notes)
    assert "Modules Odd, weighted" in text and "could not be re-initialised" in text
    assert "Modules frozen are frozen" in text and "Modules table keep their buffers" in text
    again = Odd()
    again.load_state_dict(before, strict=False)
    reinitialise(again, seed=0)
    assert all(torch.equal(v, state(model)[k]) for k, v in state(again).items())
    reinitialise(again, seed=1)
    assert not torch.equal(again.rnn.weight_hh_l0, model.rnn.weight_hh_l0)


def test_a_fresh_model_has_nothing_to_say() -> None:
    assert reinitialise(NETS["cross-attention"](3, norm=True), seed=0) == []
