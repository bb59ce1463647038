from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mmaudit.evidence.branched_model import BranchedModel, as_it_is
from mmaudit.evidence.branches import collect_branches
from mmaudit.evidence.cutting import Key, Layout, Squeezes
from mmaudit.exceptions import ModelError, SpecError
from mmaudit.report.tables import read_chunks
from tests.evidence.branched import (
    MMTM,
    Named,
    Pictures,
    ScalarModel,
    batches,
    surroundings,
)

AB = ("a", "b")


def spec_of(names, modules, outputs=None, path="fused", **more):
    return {
        "modalities": {name: name for name in names},
        "target": "label",
        "call": {"args": list(names)},
        "outputs": {"path": path},
        "branches": {
            "outputs": outputs or {name: f"branch{m}" for m, name in enumerate(names)},
            "modules": modules,
        },
        **more,
    }


def pictures(n, dims=(2, 2), seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6,) * d for d in dims]
    inputs = [torch.randn(n, 1, *shape, generator=generator) for shape in shapes]
    return inputs, torch.randint(0, 3, (n,), generator=generator)


def picture_model(dims=(2, 2), seed=0, **options):
    torch.manual_seed(seed)
    return Pictures(dims, **options).eval()


def table_of(folder):
    chunks = list(read_chunks(folder / "branches"))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def column(names):
    return {name: {m: str(i) for i, m in enumerate(names)} for name in ("early", "late")}


def told_cut(model, inputs, branch, train, held):
    """The same cut made inside the modules: their squeezes of the held modalities are those told."""
    inside = copy.deepcopy(model)
    seen = {"early": [], "late": []}
    hooks = [
        getattr(model, name).register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append(
                [f.flatten(2).double().mean(2).mean(0) for f in args]
            )
        )
        for name in seen
    ]
    with torch.no_grad():
        model(*train)
        for hook in hooks:
            hook.remove()
        for name, (means,) in seen.items():
            getattr(inside, name).told = {place: means[place] for place in held}
        return inside(*inputs)[f"branch{branch}"]


def test_the_scalar_mmtm_by_hand(tmp_path):
    # S = (0.5, 2.0), means (1.0, 1.0): see GR-4 of the methods
    train = batches(
        torch.tensor([[0.5], [1.5]]), torch.tensor([[0.0], [2.0]]), names=AB, labels=torch.ones(2)
    )
    train = [{**batch, "label": batch["label"].long()} for batch in train]
    test = [{"a": torch.tensor([[0.5]]), "b": torch.tensor([[2.0]]), "label": torch.tensor([0])}]
    spec = spec_of(AB, {"mmtm": {"a": 0, "b": 1}}, {"a": "1", "b": "2"}, path="0")
    around = surroundings(ScalarModel(), test, spec, tmp_path, train=train)
    assert collect_branches(around) == ()
    row = table_of(tmp_path)
    for scores, gates in (
        ("loglik_uncut", (0.622459, 0.182426)),
        ("loglik_cut", (0.377541, 0.119203)),
    ):
        expected = [np.log(np.exp(gate) / (np.exp(gate) + 1)) for gate in gates]
        assert row[scores][0] == pytest.approx(expected, abs=1e-6)
    assert row["correct_uncut"][0].tolist() == row["correct_cut"][0].tolist() == [1, 1]


@pytest.mark.parametrize("dims", [(2, 2), (1, 2), (3, 1)])
def test_cutting_outside_is_replacing_the_squeeze_inside(tmp_path, dims):
    model = picture_model(dims)
    inputs, labels = pictures(40, dims)
    train, train_labels = pictures(50, dims, seed=1)
    spec = spec_of(AB, column(AB))
    around = surroundings(
        model,
        batches(*inputs, names=AB, labels=labels),
        spec,
        tmp_path,
        train=batches(*train, names=AB, labels=train_labels, size=7),
    )
    assert collect_branches(around) == ()
    table = table_of(tmp_path)
    assert len(table["sample_id"]) == 40
    assert set(table["branches"]) == set(table["telling"]) == {3}
    with torch.no_grad():
        uncut = model(*inputs)
    for m in range(2):
        cut = told_cut(model, inputs, m, train, [1 - m])
        for name, scores in (("uncut", uncut[f"branch{m}"]), ("cut", cut)):
            logp = scores.double().log_softmax(1)
            expected = logp.gather(1, labels[:, None])[:, 0]
            assert np.allclose(table[f"loglik_{name}"][:, m], expected, atol=1e-5)
            right = (scores.argmax(1) == labels).numpy()
            assert (table[f"correct_{name}"][:, m] == right).all()
        assert not torch.allclose(uncut[f"branch{m}"], cut, atol=1e-4)


def test_three_branches_are_cut_from_all_and_from_each(tmp_path):
    names, dims = ("a", "b", "c"), (2, 1, 2)
    model = picture_model(dims)
    inputs, labels = pictures(20, dims)
    train, train_labels = pictures(30, dims, seed=1)
    around = surroundings(
        model,
        batches(*inputs, names=names, labels=labels),
        spec_of(names, column(names)),
        tmp_path,
        train=batches(*train, names=names, labels=train_labels, size=30),
    )
    assert collect_branches(around) == ()
    table = table_of(tmp_path)
    for m in range(3):
        others = [j for j in range(3) if j != m]
        for held, found in [
            (others, table["loglik_cut"][:, m]),
            *(([j], table["loglik_pair"][:, m * 3 + j]) for j in others),
        ]:
            scores = told_cut(model, inputs, m, train, held).double()
            expected = scores.log_softmax(1).gather(1, labels[:, None])[:, 0]
            assert np.allclose(found, expected, atol=1e-5), (m, held)


def test_each_call_of_a_module_has_means_of_its_own(tmp_path):
    torch.manual_seed(0)
    model = Named().eval()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 12, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (12,), generator=generator)
    names = ("sound", "sight")
    # handed over by position and by keyword; named the other way round
    modules = {"gate": {"sound": "heard", "sight": 1}}
    spec = spec_of(names, modules, {"sound": "by.sound", "sight": "by.sight"})
    around = surroundings(model, batches(x, y, names=names, labels=labels), spec, tmp_path)
    (note,) = collect_branches(around)
    assert note.kind == "fallback" and "means over the audited data" in note.text
    seen = []
    hook = model.gate.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append([args[0], kwargs["seen"]]), with_kwargs=True
    )
    table = table_of(tmp_path)
    with torch.no_grad():
        model(x, y)
        hook.remove()
        assert len(seen) == 3
        for m, name in enumerate(names):
            model.gate.calls = 0
            model.gate.told = {
                (call, 1 - m): features[1 - m].double().mean(0)
                for call, features in enumerate(seen)
            }
            scores = model(x, y)["by"][name].double()
            expected = scores.log_softmax(1).gather(1, labels[:, None])[:, 0]
            assert np.allclose(table["loglik_cut"][:, m], expected, atol=1e-5)


def test_a_path_that_no_module_of_the_spec_has_is_noticed(tmp_path):
    inputs, labels = pictures(20)
    data = batches(*inputs, names=AB, labels=labels)
    spec = spec_of(AB, {"late": {"a": 0, "b": 1}})
    found = collect_branches(surroundings(picture_model(), data, spec, tmp_path, train=data))
    assert [note.kind for note in found] == ["warning", "warning"]
    assert "branch of b still depends on a" in found[0].text
    assert "branch of a still depends on b" in found[1].text


def test_a_module_that_uses_more_than_the_mean_is_named(tmp_path):
    inputs, labels = pictures(20)
    data = batches(*inputs, names=AB, labels=labels)
    model = picture_model()
    model.late = MMTM((4, 5), kind="max").eval()
    found = collect_branches(
        surroundings(model, data, spec_of(AB, column(AB)), tmp_path, train=data)
    )
    assert [note.kind for note in found] == ["warning", "warning"]
    for note, name in zip(found, AB):
        assert f"module late uses more of {name} than the mean" in note.text


def test_features_may_lie_inside_an_argument(tmp_path):
    class Listed(MMTM):
        def forward(self, features):
            return super().forward(*features)

    class Lists(Pictures):
        def __init__(self) -> None:
            super().__init__()
            for name in ("early", "late"):
                mine, plain = Listed((4, 5)), getattr(self, name)
                mine.load_state_dict(plain.state_dict())
                setattr(self, name, mine)

        def forward(self, *inputs):
            features = [torch.relu(layer(x)) for layer, x in zip(self.first, inputs)]
            features = self.early(features)
            features = [torch.relu(layer(x)) for layer, x in zip(self.second, features)]
            features = self.late(features=features)
            scores = [head(f.flatten(2).mean(2)) for head, f in zip(self.heads, features)]
            return {"fused": sum(scores) / 2, "branch0": scores[0], "branch1": scores[1]}

    inputs, labels = pictures(20)
    data = batches(*inputs, names=AB, labels=labels)
    tables = []
    for at, (make, places) in enumerate(((Pictures, ("0", "1")), (Lists, ("0.0", "features.1")))):
        torch.manual_seed(0)
        modules = {name: dict(zip(AB, places)) for name in ("early", "late")}
        folder = tmp_path / str(at)
        around = surroundings(make().eval(), data, spec_of(AB, modules), folder, train=data)
        assert collect_branches(around) == ()
        tables.append(table_of(folder))
    assert np.allclose(tables[0]["loglik_cut"], tables[1]["loglik_cut"], atol=1e-6)
    assert not np.allclose(tables[0]["loglik_cut"], tables[0]["loglik_uncut"], atol=1e-3)


class Tokens(nn.Module):
    """Branches of sequences (n, T, C) with an MMTM over the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 6), nn.Linear(2, 4)])
        self.mmtm = MMTM((6, 4), last=True)
        self.heads = nn.ModuleList([nn.Linear(6, 3), nn.Linear(4, 3)])

    def forward(self, a, b):
        features = [torch.relu(layer(x)) for layer, x in zip(self.layers, (a, b))]
        features = self.mmtm(*features)
        scores = [head(f.mean(1)) for head, f in zip(self.heads, features)]
        return {"fused": sum(scores) / 2, "branch0": scores[0], "branch1": scores[1]}


def test_channels_that_come_last_are_recognised(tmp_path):
    torch.manual_seed(0)
    model = Tokens().eval()
    generator = torch.Generator().manual_seed(0)
    data = []
    for steps in (5, 5, 7):  # of varying length
        data.append(
            {
                "a": torch.randn(10, steps, 3, generator=generator),
                "b": torch.randn(10, steps, 2, generator=generator),
                "label": torch.randint(0, 3, (10,), generator=generator),
            }
        )
    spec = spec_of(AB, {"mmtm": {"a": 0, "b": 1}})
    found = collect_branches(surroundings(model, data, spec, tmp_path, train=data))
    assert [note.kind for note in found] == ["information"] * 2
    means = [
        torch.cat([torch.relu(layer(batch[name])).double().mean(1) for batch in data]).mean(0)
        for layer, name in zip(model.layers, AB)
    ]
    table = table_of(tmp_path)
    labels = torch.cat([batch["label"] for batch in data])
    with torch.no_grad():
        for m in range(2):
            model.mmtm.told = {1 - m: means[1 - m]}
            scores = torch.cat([model(batch["a"], batch["b"])[f"branch{m}"] for batch in data])
            logp = scores.double().log_softmax(1)
            expected = logp.gather(1, labels[:, None])[:, 0]
            assert np.allclose(table["loglik_cut"][:, m], expected, atol=1e-5)


def test_means_are_taken_over_training_samples_that_have_the_modality(tmp_path):
    torch.manual_seed(0)
    model = Tokens().eval()
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(12, 4, 3, generator=generator), torch.randn(12, 4, 2, generator=generator)
    labels = torch.randint(0, 3, (12,), generator=generator)
    b[:5] = float("nan")
    data = batches(a, b, names=AB, labels=labels, size=5)
    around = surroundings(
        model, data, spec_of(AB, {"mmtm": {"a": 0, "b": 1}}), tmp_path, train=data
    )
    collect_branches(around)
    table = table_of(tmp_path)
    assert (table["present"] == np.where(np.arange(12) < 5, 1, 3)).all()
    has = torch.relu(model.layers[1](b[5:])).double().mean(1).mean(0)
    with torch.no_grad():
        model.mmtm.told = {1: has}
        scores = model(a, torch.nan_to_num(b))["branch0"].double()
    expected = scores.log_softmax(1).gather(1, labels[:, None])[:, 0]
    assert np.allclose(table["loglik_cut"][:, 0], expected, atol=1e-5)


def test_an_unequal_number_of_branches_and_modalities(tmp_path):
    names, dims = ("a", "b", "c"), (2, 2, 2)
    inputs, labels = pictures(20, dims)
    data = batches(*inputs, names=names, labels=labels)
    model = picture_model(dims)
    spec = spec_of(names, column(names), {"b": "branch1"})
    collect_branches(surroundings(model, data, spec, tmp_path, train=data))
    table = table_of(tmp_path)
    assert set(table["branches"]) == {2} and set(table["telling"]) == {7}
    assert (table["loglik_cut"][:, [0, 2]] == 0).all() and (table["loglik_cut"][:, 1] < 0).all()


def test_the_model_is_called_once_for_each_thing_that_is_held(tmp_path):
    model, counts = picture_model(), []
    inputs, labels = pictures(48)
    data = batches(*inputs, names=AB, labels=labels)
    around = surroundings(model, data, spec_of(AB, column(AB)), tmp_path, train=data)
    hook = model.register_forward_hook(lambda *_: counts.append(1))
    collect_branches(around)
    hook.remove()
    # three training batches, three audited ones uncut and without either; the rest are looks at the first batch
    assert len(counts) - (3 + 3 * 3) <= 12
    before = len(counts)
    assert collect_branches(around) == () and len(counts) == before


def test_the_model_keeps_its_forward_after_an_error(tmp_path):
    model = picture_model()
    inputs, labels = pictures(20)
    data = batches(*inputs, names=AB, labels=labels)
    spec = spec_of(AB, column(AB), {"a": "branch0", "b": "nowhere"})
    around = surroundings(model, data, spec, tmp_path)
    with pytest.raises(ModelError, match="branches.outputs.b: 'nowhere' is not in what the model"):
        collect_branches(around)
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("modules", "outputs", "said"),
    [
        ({"erly": {"a": 0, "b": 1}}, None, "no module 'erly'; did you mean 'early'"),
        ({"early": {"a": 0, "d": 1}}, None, "'d' is no modality; there are a, b"),
        ({"early": {"a": 0}}, None, "at least two modalities, found 1"),
        ({"early": {"a": 0, "b": 0}}, None, "two modalities have the same argument"),
        ({"early": {"a": 0, "b": 5}}, None, "called with 2 positional arguments; there is no '5'"),
        ({"early": {"a": 0, "b": "sight"}}, None, "there is no 'sight' among them"),
        ({"early": {"a": "0.x", "b": 1}}, None, "argument '0.x' of module 'early'"),
        ({"unused": {"a": 0, "b": 1}}, None, "'unused' was not called"),
        ({}, None, "expected at least one branch"),
        ({"early": {"a": 0, "b": 1}}, {"audio": "x"}, "branches.outputs: 'audio' is no modality"),
    ],
)
def test_wrong_specs_are_refused_in_one_sentence(tmp_path, modules, outputs, said):
    model = picture_model()
    model.unused = nn.Linear(1, 1)
    inputs, labels = pictures(20)
    data = batches(*inputs, names=AB, labels=labels)
    around = surroundings(model, data, spec_of(AB, modules, outputs), tmp_path)
    with pytest.raises(SpecError, match=said):
        collect_branches(around)


def test_without_branches_there_is_nothing(tmp_path):
    inputs, labels = pictures(8)
    spec = spec_of(AB, column(AB)) | {"branches": None}
    around = surroundings(
        picture_model(), batches(*inputs, names=AB, labels=labels), spec, tmp_path
    )
    assert collect_branches(around) == () and not (tmp_path / "branches").exists()


def test_samples_without_finite_scores_are_left_out_and_counted(tmp_path):
    class Fragile(Pictures):
        def forward(self, *inputs):
            found = super().forward(*inputs)
            found["branch1"] = found["branch1"] / (inputs[0][:, 0, 0, 0] > -1).float()[:, None]
            return found

    torch.manual_seed(0)
    inputs, labels = pictures(40)
    data = batches(*inputs, names=AB, labels=labels)
    around = surroundings(Fragile().eval(), data, spec_of(AB, column(AB)), tmp_path, train=data)
    gone = int((inputs[0][:, 0, 0, 0] <= -1).sum())
    assert gone > 0
    assert f"{gone} of 40 samples were left out" in collect_branches(around)[-1].text
    assert len(table_of(tmp_path)["sample_id"]) == 40 - gone


@pytest.mark.parametrize("batch", [1, 16])
def test_batches_do_not_matter(tmp_path, batch):
    model = picture_model()
    inputs, labels = pictures(24)
    tables = []
    for at, size in enumerate((24, batch)):
        data = batches(*inputs, names=AB, labels=labels, size=size)
        around = surroundings(model, data, spec_of(AB, column(AB)), tmp_path / str(at), train=data)
        collect_branches(around)
        tables.append(table_of(tmp_path / str(at)))
    assert np.allclose(tables[0]["loglik_cut"], tables[1]["loglik_cut"], atol=1e-5)


def test_segments_make_rows_of_their_own(tmp_path):
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mmtm = MMTM((2, 2), last=True)
            self.heads = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3)])

        def forward(self, a, b):
            scores = [head(f) for head, f in zip(self.heads, self.mmtm(a, b))]
            return {"fused": sum(scores) / 2, "branch0": scores[0], "branch1": scores[1]}

    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 4, 2)
    labels = torch.randint(0, 3, (6, 4))
    labels[2, 1] = -1
    spec = spec_of(AB, {"mmtm": {"a": 0, "b": 1}}, task="segments")
    around = surroundings(Steps(), [{"a": a, "b": b, "label": labels}], spec, tmp_path)
    collect_branches(around)
    table = table_of(tmp_path)
    assert len(table["sample_id"]) == 23 and table["sample_id"][1] == "0#1"
    assert list(table["group"][:4]) == ["0"] * 4
    assert (table["target"] == labels[labels >= 0].numpy()).all()


def test_layouts_squeeze_and_spread_back():
    features = torch.randn(2, 3, 4, 5)
    for layout, mean in [
        (Layout(0, 1), features.mean((2, 3))),
        (Layout(0, 3), features.mean((1, 2))),
        (Layout(2, 0), features.mean((1, 3)).T),
    ]:
        found = layout.squeeze(features)
        assert torch.allclose(found, mean.double(), atol=1e-6)
        shifted = layout.centred(features, found[0])
        assert torch.allclose(layout.squeeze(shifted), found[:1].expand_as(found), atol=1e-6)
        held = layout.spread(found[0], features)
        assert held.shape == features.shape and held.is_contiguous()
        assert torch.allclose(layout.squeeze(held), found[:1].expand_as(found), atol=1e-6)
    assert Layout.of(torch.zeros(6), 6) == Layout(0, None)
    assert Layout.of(torch.zeros(7, 6, 3), 6, last=True) == Layout(1, 2)
    assert Layout.of(torch.zeros(12, 6), 6) == Layout(0, 1)


def test_squeezes_leave_out_what_is_not_finite_and_refuse_other_widths():
    squeezes, key = Squeezes(), Key("mmtm", 0, "a")
    squeezes.add(key, torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [3.0, 4.0]]).double())
    assert squeezes.mean(key).tolist() == [2.0, 3.0] and squeezes.left_out == 1
    with pytest.raises(ModelError, match="have 3 channels after 2"):
        squeezes.add(key, torch.zeros(1, 3).double())
    with pytest.raises(ModelError, match="at call 2 of a forward"):
        squeezes.mean(Key("mmtm", 1, "a"))


def test_only_what_is_held_changes(tmp_path):
    model = picture_model()
    inputs, labels = pictures(16)
    data = batches(*inputs, names=AB, labels=labels)
    around = surroundings(model, data, spec_of(AB, column(AB)), tmp_path)
    branched = BranchedModel(around.collector, around.spec.branches)
    batch = around.collector.prepare(around.source.first())
    with torch.no_grad():
        plain = model(*inputs)
    found = branched.outputs(batch, as_it_is)
    assert torch.equal(found["a"], plain["branch0"])
    means = Squeezes()
    branched.outputs(batch, branched.recording(means, 16))
    nothing = branched.outputs(batch, branched.holding([], means, 16))
    assert torch.equal(nothing["b"], plain["branch1"])
