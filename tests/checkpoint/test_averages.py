"""Averaged weights in every layout that trainers use; the model's own beside them always stay selectable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmaudit
from mmaudit.checkpoint.loader import load_checkpoint, read_weights
from mmaudit.exceptions import CheckpointError
from tests.checkpoint.files import save_safetensors, torch_bytes


class Net(nn.Module):
    """With running statistics, which averages leave out."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)


def states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The model's own weights, and their average; running statistics are the same in both."""
    torch.manual_seed(0)
    model = Net()
    own = {k: v.clone() for k, v in model.state_dict().items()}
    names = dict(model.named_parameters())
    return own, {k: v + 1 if k in names else v for k, v in own.items()}


OWN, AVERAGE = states()
PARAMETERS = {name: AVERAGE[name] for name, _ in Net().named_parameters()}


def under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in tensors.items()}


def without_dots(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.replace(".", ""): value for key, value in tensors.items()}


COUNTERS = {"decay": torch.tensor(0.999), "num_updates": torch.tensor(7)}
LAYOUTS = {
    "ema_state_dict": {"model": OWN, "ema_state_dict": AVERAGE},
    "state_dict_ema (timm)": {"state_dict": OWN, "state_dict_ema": AVERAGE, "epoch": 3},
    "model_ema": {"model": OWN, "model_ema": AVERAGE, "optimizer": {"state": {}}},
    "ema_model": {"net": OWN, "ema_model": AVERAGE},
    "ema, wrapped": {"model": OWN, "ema": {"module": AVERAGE, "decay": 0.99, "updates": 3}},
    "ema, shadow by name": {"model": OWN, "ema": {"shadow": PARAMETERS, "decay": 0.99}},
    "ema, data parallel": {"model": under("module.", OWN), "ema": under("module.", AVERAGE)},
    "ema, AveragedModel": {"model": OWN, "ema": {**under("module.", AVERAGE), "n_averaged": torch.tensor(5)}},
    "params_ema (BasicSR)": {"params": OWN, "params_ema": AVERAGE},
    "nested": {"model": {"state_dict": OWN, "ema_state_dict": AVERAGE}},
    "Lightning callback": {"state_dict": OWN, "callbacks": {"EMACallback{'decay': 0.999}": {"ema_state_dict": AVERAGE}}},
    "Lightning callback, shadow": {"state_dict": OWN, "callbacks": {"ExponentialMovingAverage": {"shadow": PARAMETERS}}},
    "Lightning WeightAveraging": {"state_dict": AVERAGE, "current_model_state": OWN, "averaging_state": {"n_averaged": torch.tensor(5)}},
    "Lightning module, prefix": {"state_dict": {**under("model.", OWN), **under("ema_model.", AVERAGE)}},
    "prefix, wrapped": {"state_dict": {**under("model.", OWN), **under("ema.module.", AVERAGE)}},
    "prefix without dots (LitEma)": {"state_dict": {**under("model.", OWN), **under("model_ema.", without_dots(PARAMETERS)), **under("model_ema.", COUNTERS)}},
    "ema_pytorch": {"model": OWN, "ema": {"initted": torch.tensor(True), "step": torch.tensor(9), **under("ema_model.", AVERAGE), **under("online_model.", OWN)}},
    "torch_ema, list": {"model": OWN, "ema": {"decay": 0.99, "num_updates": 3, "shadow_params": list(PARAMETERS.values()), "collected_params": None}},
    "by parts": {"model": OWN, "ema": {part: {k.removeprefix(f"{part}."): v for k, v in AVERAGE.items() if k.startswith(part)} for part in ("body", "head")}},
    "swa_model (torch AveragedModel)": {"model": OWN, "swa_model": {**under("module.", AVERAGE), "n_averaged": torch.tensor(5)}},
    "swa_state_dict": {"state_dict": OWN, "swa_state_dict": AVERAGE},
    "ema_shadow": {"model": OWN, "ema_shadow": PARAMETERS},
    "avg_model": {"model": OWN, "avg_model": AVERAGE},
    "averaged": {"model": OWN, "averaged": AVERAGE},
    "polyak": {"net": OWN, "polyak": {"params": AVERAGE}},
    "a name of its own": {"model": OWN, "net_polyak_weights": AVERAGE},
    "prefix swa_model.": {"state_dict": {**under("model.", OWN), **under("swa_model.module.", AVERAGE)}},
    "list alone": {"state_dict": OWN, "shadow_params": list(PARAMETERS.values())},
}  # fmt: skip


def head_of(path, weights: str) -> torch.Tensor:
    model = load_checkpoint(path, Net, weights=weights).model
    for name, value in model.named_buffers():
        assert torch.equal(value, OWN[name])
    for name, value in model.named_parameters():
        expected = AVERAGE if weights == "ema" else OWN
        assert torch.equal(value, expected[name]), name
    return model.head.weight


@pytest.mark.parametrize("name", LAYOUTS)
def test_averages_are_found(tmp_path, name):
    path = tmp_path / "best.ckpt"
    path.write_bytes(torch_bytes(LAYOUTS[name]))
    assert not torch.equal(head_of(path, "ema"), OWN["head.weight"])
    notes = load_checkpoint(path, Net, weights="ema").notes
    assert "averaged weights" in notes[0]
    if "shadow" in name or "list" in name or "LitEma" in name:
        assert any("are the model's own" in note for note in notes), "running statistics"


@pytest.mark.parametrize("name", [n for n in LAYOUTS if "prefix" not in n])
def test_the_model_s_own_stay_what_is_loaded_by_default(tmp_path, name):
    path = tmp_path / "best.ckpt"
    path.write_bytes(torch_bytes(LAYOUTS[name]))
    assert torch.equal(head_of(path, "model"), OWN["head.weight"])


@pytest.mark.parametrize("name", [n for n in LAYOUTS if "prefix" in n])
def test_own_weights_beside_prefixed_averages_leave_them_out(tmp_path, name):
    path = tmp_path / "best.ckpt"
    path.write_bytes(torch_bytes(LAYOUTS[name]))
    assert torch.equal(head_of(path, "model"), OWN["head.weight"])
    assert any("'weights: ema' takes them" in note for note in load_checkpoint(path, Net).notes)
    model = load_checkpoint(path, Net, strip_prefix="model.").model
    assert torch.equal(model.head.weight, OWN["head.weight"])
    # Keys that only look so are refused as before.
    own = {f"model.{k}": v for k, v in OWN.items() if k != "head.bias"}
    path.write_bytes(torch_bytes({**own, "ema.head.bias": OWN["head.bias"]}))
    with pytest.raises(CheckpointError, match=r"missing .*head\.bias"):
        load_checkpoint(path, Net)


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_bare_averaged_model_is_an_average(tmp_path, key):
    torch.manual_seed(0)
    averaged = torch.optim.swa_utils.AveragedModel(Net())
    averaged.update_parameters(Net())
    state = averaged.state_dict()
    path = tmp_path / "swa.pt"
    path.write_bytes(torch_bytes({key: state, "epoch": 3} if key else state))
    for weights in ("ema", "model"):
        loaded = load_checkpoint(path, Net, weights=weights)
        assert torch.equal(loaded.model.head.weight, averaged.module.head.weight)
    assert "averaged weights" in load_checkpoint(path, Net, weights="ema").notes[0]


def test_two_names_with_words_for_averages_leave_no_choice(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(torch_bytes({"model": OWN, "avg_of_last": AVERAGE, "avg_of_all": AVERAGE}))
    with pytest.raises(CheckpointError, match="no averaged weights under a known name"):
        read_weights(path, weights="ema")


def test_safetensors_with_a_prefix(tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(
        save_safetensors(
            {
                **under("model.", OWN),
                **under("model_ema.", {k: v.clone() for k, v in AVERAGE.items()}),
            }
        )
    )
    assert torch.equal(head_of(path, "ema"), AVERAGE["head.weight"])


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"model": OWN, "epoch": 3}, r"no averaged weights under a known name \(it holds weights under model\)"),
        (OWN, "no averaged weights under a known name"),
        ({"model": OWN, "ema": {"decay": 0.9}}, "no averaged weights"),
        ({"model": OWN, "shadow_params": [torch.ones(1)]}, r"a list of 1 tensors without names, .* the 11 weights beside it"),
        ({"shadow_params": list(PARAMETERS.values())}, "without names"),
        ({"model": OWN, "shadow_params": list(PARAMETERS.values())[::-1]}, "without names"),
        ({}, "no averaged weights"),
        ([1], "holds a list and not a mapping"),
        (torch.ones(2), "holds a single tensor"),
    ],
)  # fmt: skip
def test_where_there_are_none_the_sentence_says_what_there_is(tmp_path, saved, words):
    path = tmp_path / "best.pt"
    path.write_bytes(torch_bytes(saved))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_weights(path, weights="ema")
    text = str(caught.value)
    assert text.isprintable() and text.endswith(".") and len(text) < 400


def test_an_audit_file_chooses(tmp_path):
    import numpy as np

    (tmp_path / "best.pt").write_bytes(
        torch_bytes({"model": {"weight": torch.zeros(2, 2), "bias": torch.tensor([1.0, 0.0])},
                     "ema": {"weight": torch.zeros(2, 2), "bias": torch.tensor([0.0, 1.0])}})
    )  # fmt: skip
    np.savez(tmp_path / "test.npz", x=np.ones((40, 2), np.float32), y=np.ones(40, int))
    text = (
        "model: {factory: 'torch.nn:Linear', args: {in_features: 2, out_features: 2}}\ncheckpoint: best.pt\n"
        "data: test.npz\nmodalities: {x: x}\ntarget: y\ncall: {args: [x]}\n"
    )
    accuracies = []
    for more in ("", "weights: ema\n"):
        (tmp_path / "audit.yaml").write_text(text + more)
        report = mmaudit.audit(tmp_path / "audit.yaml", replicates=100, measures=["coalitions"])
        frame = report.to_frame("coalitions")
        row = frame[(frame["coalition"] == "x") & (frame["score"] == "accuracy")]
        accuracies.append(float(row["value"].iloc[0]))
    assert accuracies == [0, 1]
    (tmp_path / "audit.yaml").write_text(text)
    loaded = load_checkpoint(tmp_path / "audit.yaml", weights="ema")
    assert loaded.model.bias.tolist() == [0, 1]
