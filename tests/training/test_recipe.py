from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from mmaudit.training.recipe import Recipe, build_optimizer, learning_rate_factor


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_a_recipe_names_its_optimiser(name, kind):
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(
        model.parameters(), Recipe(optimizer=name, lr=0.3, weight_decay=0.1)
    )
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.3 and group["weight_decay"] == 0.1
    assert [p.shape for p in group["params"]] == [model.weight.shape]


def test_schedules_start_at_one_and_end_at_zero():
    for name in ("cosine", "linear"):
        recipe = Recipe(scheduler=name)
        factors = [learning_rate_factor(recipe, step, 10) for step in range(11)]
        assert factors[0] == 1.0 and factors[10] == pytest.approx(0)
        assert factors == sorted(factors, reverse=True)
        assert factors[5] == pytest.approx(0.5)
    assert learning_rate_factor(Recipe(), 7, 10) == 1.0


@pytest.mark.parametrize(
    "fault", [{"optimizer": "lion"}, {"lr": 0}, {"epocs": 3}, {"precision": "fp8"}, {"patience": 0}]
)
def test_a_wrong_recipe_is_refused(fault):
    with pytest.raises(ValidationError):
        Recipe(**fault)
