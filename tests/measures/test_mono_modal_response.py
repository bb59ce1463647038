from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import ShapleyValues
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.mono_modal_response import (
    logit_scale,
    mono_modal_responses,
    response_logliks,
    response_scores,
    response_sizes,
    summarise_responses,
)
from mmaudit.measures.shapley import shapley_matrix
from mmaudit.report.tables import LEAST_LOGLIK
from tests import toys


def test_responses_by_hand():
    game = toys.TWO_MODALITIES
    assert mono_modal_responses(game.logits, "exact") == pytest.approx(game.exact)
    assert mono_modal_responses(game.logits, "zero") == pytest.approx(game.zero)


@pytest.mark.parametrize(("case", "losses"), toys.TWO_MODALITIES_LOSS.items())
def test_losses_by_hand(case, losses):
    empty, target = case
    found = summarise_responses(toys.TWO_MODALITIES.logits, np.array([target]), empty)
    assert found.loss == pytest.approx(losses, abs=1e-6)


def test_reversed_masking_flips_the_sign():
    dual = toys.TWO_MODALITIES.logits[::-1]
    responses = mono_modal_responses(dual, "exact")
    assert responses[:, 0, 0] == pytest.approx([-2.15, -0.65])


logits = st.integers(1, 4).flatmap(
    lambda M: arrays(np.float64, (2**M, 5, 3), elements=st.floats(-20, 20, width=32))
)


@given(logits)
@settings(max_examples=60, deadline=None)
def test_responses_sum_to_the_output(values):
    exact = mono_modal_responses(values, "exact").sum(axis=0)
    assert exact == pytest.approx(values[-1] - values[0], abs=1e-8)
    zero = mono_modal_responses(values, "zero")
    assert zero.sum(axis=0) == pytest.approx(values[-1], abs=1e-8)
    shared = values[0] / len(zero)
    difference = zero - mono_modal_responses(values, "exact")
    assert difference == pytest.approx(np.broadcast_to(shared, zero.shape), abs=1e-8)


def test_a_tie_counts_one_over_its_size():
    responses = np.array([[[0.75, 0.75, 0.1], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]])
    scale = np.ones(3)
    assert response_scores(responses, np.array([0, 2, 1]), scale).tolist() == [[0.5, 1 / 3, 1.0]]
    assert response_scores(responses, np.array([2, 0, 0]), scale).tolist() == [[0.0, 1 / 3, 0.0]]


def test_differences_below_rounding_tie_and_larger_ones_do_not():
    responses = np.array([[[10.0, 10.0 + 1e-6]]])
    assert response_scores(responses, np.array([0]), np.array([10.0])) == pytest.approx(0.5)
    responses = np.array([[[10.0, 10.0 + 1e-4]]])
    assert response_scores(responses, np.array([0]), np.array([10.0])) == pytest.approx(0.0)


def test_losses_are_clamped():
    logliks = response_logliks(np.array([[[0.0, 500.0], [0.0, 10.0]]]), np.array([0, 0]))
    assert logliks[0, 0] == LEAST_LOGLIK
    assert logliks[0, 1] == pytest.approx(-10.0, abs=1e-4)
    assert pytest.approx(-np.log(1e-8), abs=1e-6) == -LEAST_LOGLIK


def test_an_ignored_modality_says_nothing():
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(40, 4)).astype(np.float32) * 5
    bias = np.array([1.0, 0, 0, 0], np.float32)
    values = np.stack([np.tile(bias, (40, 1)), audio + bias, np.tile(bias, (40, 1)), audio + bias])
    noise = rng.normal(size=values.shape).astype(np.float32) * 1e-6
    found = summarise_responses(values + noise, rng.integers(0, 4, 40), "exact")
    assert found.nothing.tolist() == [False, True]
    assert np.isnan(found.accuracy[1])
    assert not np.isnan(found.accuracy[0])
    assert (response_sizes(values + noise)[1] == 0).all()


def test_absent_samples_are_left_out():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 30, 3))
    present = rng.random((2, 30)) < 0.7
    values[3, ~present[1]] = values[1, ~present[1]]
    values[2, ~present[1]] = values[0, ~present[1]]
    targets = rng.integers(0, 3, 30)
    found = summarise_responses(values, targets, "exact", present=present)
    assert found.n.tolist() == present.sum(axis=1).tolist()
    only = summarise_responses(values[:, present[1]], targets[present[1]], "exact")
    assert found.loss[1] == pytest.approx(only.loss[1])
    assert found.accuracy[1] == pytest.approx(only.accuracy[1])


def test_the_matrix_serves_torch_too():
    values = torch.randn(8, 6, 3, dtype=torch.float64)
    matrix = torch.from_numpy(shapley_matrix(3))
    assert torch.einsum("ms,snk->mnk", matrix, values).numpy() == pytest.approx(
        mono_modal_responses(values.numpy(), "exact")
    )


def test_shapes_and_rules_are_checked():
    with pytest.raises(UndefinedMeasureError, match="shape"):
        mono_modal_responses(np.zeros((3, 2, 2)), "exact")
    with pytest.raises(UndefinedMeasureError, match="'half'"):
        mono_modal_responses(np.zeros((4, 2, 2)), "half")
    assert logit_scale(np.full((4, 2, 2), -3.0)).tolist() == [3.0, 3.0]


class _Fusion(torch.nn.Module):
    """Three inputs of different widths that interact."""

    def __init__(self):
        super().__init__()
        self.encoders = torch.nn.ModuleList(torch.nn.Linear(d, 5) for d in (3, 2, 4))
        self.head = torch.nn.Sequential(
            torch.nn.Linear(15, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        )

    def forward(self, *inputs):
        return self.head(torch.cat([e(x) for e, x in zip(self.encoders, inputs)], dim=1))


def test_agrees_with_captum():
    torch.manual_seed(0)
    model = _Fusion().double().eval()
    inputs = tuple(torch.randn(7, d, dtype=torch.float64) for d in (3, 2, 4))
    with torch.no_grad():
        coalitions = torch.stack(
            [
                model(*(x if c >> m & 1 else torch.zeros_like(x) for m, x in enumerate(inputs)))
                for c in range(8)
            ]
        ).numpy()
    ours = mono_modal_responses(coalitions, "exact")
    masks = tuple(torch.full((1, d), m) for m, d in enumerate((3, 2, 4)))
    method = ShapleyValues(model)
    for target in range(3):
        theirs = method.attribute(inputs, target=target, feature_mask=masks)
        for m in range(3):
            assert theirs[m][:, 0].numpy() == pytest.approx(ours[m, :, target], abs=1e-6)
