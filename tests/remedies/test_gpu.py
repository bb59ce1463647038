"""Every remedy takes on a GPU the steps that it takes on the CPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from mmaudit.training import Recipe, train
from tests.remedies.distributed_subject import VARIANTS
from tests.remedies.nets import NETS, data, spec
from tests.remedies.running import batch_of, remedy_for, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.mark.parametrize("name", [n for n in VARIANTS if "ogm_ge" not in n])
def test_a_gpu_takes_the_steps_of_the_cpu(name: str, tmp_path: Path) -> None:
    key, net, options = VARIANTS[name]
    torch.manual_seed(0)
    model, samples = NETS[net](3), data(3, 64)
    found = []
    for device in ("cpu", "auto"):
        mine = copy.deepcopy(model)
        remedy = remedy_for(key, mine, spec(3), samples, **options)
        task = remedy.task
        train(
            mine, samples, samples[:16],
            Recipe(optimizer="sgd", lr=0.05, momentum=0.9, epochs=2, batch_size=16),
            loss=task.loss, forward=task.forward, collate=lambda rows, t=task: batch_of(rows, t.spec),
            place=task.place, hooks=remedy, out=tmp_path / device, device=device,
        )  # fmt: skip
        found.append(weights(mine))
    for key_, value in found[0].items():
        torch.testing.assert_close(found[1][key_].cpu(), value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in VARIANTS if "ogm_ge" in n])
def test_noise_is_drawn_on_the_gpu_and_repeats(name: str, tmp_path: Path) -> None:
    key, net, options = VARIANTS[name]
    torch.manual_seed(0)
    model, samples = NETS[net](3), data(3, 64)
    found = []
    for number in range(2):
        mine = copy.deepcopy(model)
        remedy = remedy_for(key, mine, spec(3), samples, **options)
        task = remedy.task
        train(
            mine, samples, samples[:16], Recipe(optimizer="sgd", lr=0.05, epochs=2, batch_size=16),
            loss=task.loss, forward=task.forward, collate=lambda rows, t=task: batch_of(rows, t.spec),
            place=task.place, hooks=remedy, out=tmp_path / str(number),
        )  # fmt: skip
        found.append(weights(mine))
    for key_, value in found[0].items():
        assert torch.equal(found[1][key_], value), key_
