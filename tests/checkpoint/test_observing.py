"""Whether samples influence each other, whether two runs differ, and which dimension runs over samples."""

import math

import pytest
import torch
from torch import nn

from mmaudit.checkpoint.observing import Observer, all_same, cloned, sample_dim
from mmaudit.masking.calling import Caller
from mmaudit.masking.preparing import in_memory_batch
from mmaudit.masking.spec import MaskingSpec

CPU = torch.device("cpu")


class Late(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enc_a, self.enc_b = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, a, b):
        return self.finish(self.enc_a(a) + self.enc_b(b))

    def finish(self, out):
        return out


class OverTheBatch(Late):
    def finish(self, out):
        return out - out.mean(0)


class Drawing(Late):
    def finish(self, out):
        return nn.functional.dropout(out, 0.5)


class RowsTurned(Late):
    def finish(self, out):
        return out.sum(0)


class WholeBatchOnly(Late):
    def finish(self, out):
        if len(out) < 4:
            raise RuntimeError("too few rows")
        return out


class Routed(Late):
    """The second expert is called only where some sample asks for it."""

    def finish(self, out):
        return self.enc_a(torch.ones(len(out), 3)) + out if len(out) > 4 else out


def few(model, **more):
    spec = MaskingSpec(modalities={"a": "0", "b": "1"}, **more)
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(8, width, generator=generator) for width in (3, 2)]
    batch = in_memory_batch(data, spec, CPU)
    with torch.no_grad():
        return Observer(model.eval(), Caller(model, spec)).few_samples(batch), batch


def test_independent_samples_are_looked_at_in_twos():
    found, _ = few(Late())
    assert (found.batch.n, found.together, found.stochastic) == (2, None, False)
    assert found.called == {"", "enc_a", "enc_b"}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (OverTheBatch, "the output of one sample depends on the others in its batch"),
        (RowsTurned, "the rows of the output are not the rows of the batch"),
        (WholeBatchOnly, "the model does not run on part of a batch (RuntimeError)"),
    ],
)
def test_samples_that_belong_together_are_left_together(model, reason):
    found, batch = few(model())
    assert found.batch is batch
    assert (found.together, found.stochastic) == (reason, False)


def test_what_the_spec_says_is_not_looked_into():
    found, batch = few(Late(), batching="keep")
    assert found.batch is batch
    assert found.together == "the spec says 'batching: keep'"
    assert not found.stochastic and few(Drawing(), batching="keep")[0].stochastic


def test_two_runs_of_a_stochastic_model_differ():
    found, _ = few(Drawing())
    assert (found.batch.n, found.together, found.stochastic) == (2, None, True)


def test_calls_are_told_in_their_order_and_apart():
    model, spec = Routed().eval(), MaskingSpec(modalities={"a": "0", "b": "1"})
    observer = Observer(model, Caller(model, spec))
    with torch.no_grad():
        seen = observer.observe([torch.ones(5, 3), torch.ones(5, 2)])
    assert seen.order == [("", 0), ("enc_a", 0), ("enc_b", 0), ("enc_a", 1)]
    assert torch.equal(seen.calls["", 0][0], seen.output)
    assert torch.equal(seen.calls["enc_a", 0][0], seen.calls["enc_a", 1][0])


@pytest.mark.parametrize(
    ("one", "other", "dim"),
    [((2, 5), (3, 5), 0), ((5, 2), (5, 3), 1), ((2, 2), (3, 3), None), ((2,), (2,), None),
     ((2, 5), (3,), None), ((4, 2), (6, 2), None)],
)  # fmt: skip
def test_the_dimension_of_the_samples_is_the_one_that_follows_their_number(one, other, dim):
    assert sample_dim(torch.zeros(one), torch.zeros(other), 2, 3) == dim


def test_not_a_number_is_the_same_as_itself():
    gap = torch.tensor([1.0, math.nan])
    assert all_same([gap], [gap.clone()])
    assert not all_same([gap], [gap, gap])
    assert not all_same([gap], [torch.tensor([1.5, math.nan])])
    ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    assert all_same([ragged], [ragged.clone()])
    sparse = torch.eye(3).to_sparse()
    assert all_same([sparse], [torch.eye(3).to_sparse()])
    assert not all_same([sparse], [2 * sparse])


def test_a_copy_shares_no_storage():
    one = torch.zeros(3)
    a, b = cloned([one, one])
    a += 1
    assert not one.any() and not b.any()
