from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import default_collate

import sample_models.mmtm
from sample_models.digits.data import samples
from sample_models.mmtm import batches, build
from sample_models.mmtm.model import MMTM
from sample_models.mmtm.train import sum_of_losses

FOLDER = Path(sample_models.mmtm.__file__).parent
TRUTH = json.loads((FOLDER / "truth.json").read_text())


def everything(split):
    part = samples(split)
    return default_collate([part[i] for i in range(len(part))])


@pytest.fixture(scope="module")
def model():
    made = build()
    made.load_state_dict(load_file(FOLDER / "model.safetensors"))
    return made.eval()


def test_the_gates_are_those_of_the_squeezes():
    torch.manual_seed(0)
    mmtm, audio, image = MMTM(2, 3), torch.randn(4, 2, 5, 6), torch.randn(4, 3, 2, 2)
    squeezed = torch.cat([audio.mean((2, 3)), image.mean((2, 3))], 1)
    z = torch.relu(squeezed @ mmtm.squeeze.weight.T + mmtm.squeeze.bias)
    gates = torch.sigmoid(z @ mmtm.excite_audio.weight.T + mmtm.excite_audio.bias)
    gated, other = mmtm(audio, image)
    assert torch.allclose(gated, audio * gates[:, :, None, None], atol=1e-6)
    assert gated.shape == audio.shape and other.shape == image.shape


def test_the_prediction_is_the_mean_of_the_branches(model):
    batch = next(iter(batches("test", batch_size=5)))
    with torch.no_grad():
        scores = model(batch["audio"], batch["image"])
    assert scores.logits.shape == (5, 10)
    assert torch.allclose(scores.logits, (scores.audio + scores.image) / 2)


def test_both_branches_are_trained(model):
    batch = next(iter(batches("train", batch_size=4)))
    fresh = build()
    loss = sum_of_losses(fresh(batch["audio"], batch["image"]), batch)
    assert loss.shape == (4,)
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fresh.parameters())


def test_the_audio_branch_is_carried_and_the_image_branch_is_not(model):
    """The cut made by hooks of this test, with squeezes averaged over the whole training split at once."""
    train, test = everything("train"), everything("test")
    seen = {}
    modules = {name: getattr(model, name) for name in ("mmtm2", "mmtm3")}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: [f.mean((2, 3)).mean(0) for f in args]})
        )
        for name, module in modules.items()
    ]
    with torch.no_grad():
        model(train["audio"], train["image"])
    for hook in hooks:
        hook.remove()
    for place, branch in enumerate(("audio", "image")):

        def held(name, args, place=place):
            features = list(args)
            mean = seen[name][1 - place][None, :, None, None]
            features[1 - place] = mean.expand_as(features[1 - place])
            return tuple(features)

        stated = TRUTH["branches"][branch]
        with torch.no_grad():
            whole = getattr(model(test["audio"], test["image"]), branch)
            hooks = [
                module.register_forward_pre_hook(lambda _, args, name=name: held(name, args))
                for name, module in modules.items()
            ]
            cut = getattr(model(test["audio"], test["image"]), branch)
            for hook in hooks:
                hook.remove()
        for found, key in ((whole, "accuracy"), (cut, "cut")):
            accuracy = (found.argmax(1) == test["label"]).double().mean().item()
            assert accuracy == pytest.approx(stated[key], abs=TRUTH["tolerance"]), (branch, key)
    u = {name: 1 - part["cut"] / part["accuracy"] for name, part in TRUTH["branches"].items()}
    assert u["audio"] > 0.7 and abs(u["image"]) < 0.02
