from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmaudit.exceptions import CheckpointError
from mmaudit.training.recipe import Recipe, build_optimizer
from mmaudit.training.state import Standing, load_state, save_state, save_weights, write_atomically


def parts(optimizer="adamw"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    chosen = build_optimizer(model.parameters(), Recipe(optimizer=optimizer))
    return model, chosen, torch.optim.lr_scheduler.LambdaLR(chosen, lambda step: 1 / (1 + step))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_state_comes_back_bit_for_bit(tmp_path, optimizer):
    model, chosen, scheduler = parts(optimizer)
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        chosen.step(), scheduler.step(), chosen.zero_grad()
    stood = Standing(epoch=2, step=3, best_epoch=1, best_value=1 / 3, samples=(7, 5))
    remedy = {"history": torch.rand(3, dtype=torch.float64), "steps": 7}
    save_state(tmp_path / "s", model, chosen, scheduler, stood, remedy)
    other, its_optimizer, its_scheduler = parts(optimizer)
    found, kept = load_state(tmp_path / "s", other, its_optimizer, its_scheduler)
    assert found == stood
    assert kept["steps"] == 7
    assert torch.equal(kept["history"], remedy["history"])
    assert its_scheduler.get_last_lr() == scheduler.get_last_lr()
    for _ in range(2):
        x = torch.randn(5, 3)
        for m, o in ((model, chosen), (other, its_optimizer)):
            m(x).square().sum().backward()
            o.step(), o.zero_grad()
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_tied_weights_are_written_out_each(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save_weights(tmp_path / "w", model)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "w")
    assert torch.equal(stored["0.weight"], stored["1.weight"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(temporary):
        temporary.write_bytes(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_other_files_are_refused(tmp_path):
    save_file({"model/0.weight": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(
        CheckpointError, match="expected a file of format 'mmaudit training state 1'"
    ):
        load_state(tmp_path / "weights", *parts())
