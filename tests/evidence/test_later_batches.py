"""What the first batch does not show: later batches with other shapes, other calls, other values beside the tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mmaudit
from mmaudit.checkpoint.structure import find_structure
from mmaudit.evidence.coalitions import CoalitionEvaluator, MismatchError
from mmaudit.evidence.data import open_source
from mmaudit.masking.build import build_maskers
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.spec import MaskingSpec

SPEC = {"modalities": {"a": "a", "b": "b"}, "target": "y"}


def batches(*shapes: tuple[int, int], **more: Any) -> list[dict[str, Any]]:
    """Batches of n samples with T frames of ``a``."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i, (n, frames) in enumerate(shapes):
        batch = {
            "a": torch.randn(n, frames, 5, generator=generator),
            "b": torch.randn(n, 4, generator=generator),
            "y": torch.randint(0, 3, (n,), generator=generator),
        }
        made.append({**batch, **{name: values[i] for name, values in more.items()}})
    return made


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc_a, self.enc_b, self.head = nn.Linear(5, 6), nn.Linear(4, 6), nn.Linear(12, 3)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([a, b], 1).tanh())


class FrameByFrame(Base):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        frames = [self.enc_a(a[:, t]) for t in range(a.shape[1])]
        return self.join(torch.stack(frames).mean(0), self.enc_b(b))


class ShapeOfTheOther(Base):
    """What the masked encoder of b gives depends on how many frames a has."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.join(self.enc_a(a).mean(1), _Scaled(self.enc_b)(b, a.shape[1]))


class _Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, b: Tensor, frames: int) -> Tensor:
        return self.inner(b) * frames


class Scaled(Base):
    def __init__(self) -> None:
        super().__init__()
        self.scaled = _Scaled(self.enc_b)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.join(self.enc_a(batch["a"]).mean(1), self.scaled(batch["b"], batch["scale"]))


class ScaledByShape(Base):
    def __init__(self) -> None:
        super().__init__()
        self.scaled = _Scaled(self.enc_b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.join(self.enc_a(a).mean(1), self.scaled(b, a.shape[1]))


class Prompts(Base):
    """A table without samples goes along in every batch."""

    def forward(self, a: Tensor, b: Tensor, table: Tensor) -> Tensor:
        return self.join(self.enc_a(a).mean(1), self.enc_b(b)) + table.sum(0)


CASES = {
    "frames": (FrameByFrame, batches((8, 4), (8, 6), (8, 9), (8, 4), (3, 7)), {}),
    "module made in forward": (ShapeOfTheOther, batches((8, 4), (8, 6), (8, 9)), {}),
    "shape of the other": (ScaledByShape, batches((8, 4), (8, 6), (8, 9)), {}),
    "number in the batch": (
        Scaled,
        batches((8, 4), (8, 4), (8, 4), scale=[0.5, 2.0, 0.25]),
        {"call": {"args": ["batch"]}},
    ),
    "table of the size of the last batch": (
        Prompts,
        batches((8, 4), (8, 4), (6, 4), table=[torch.randn(6, 3)] * 3),
        {"call": {"args": ["a", "b", "table"]}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_batch_equals_brute_force(name: str) -> None:
    kind, data, more = CASES[name]
    model, spec = kind().eval(), MaskingSpec.model_validate({**SPEC, **more})
    source, maskers, caller = open_source(data, spec), build_maskers(spec), Caller(model, spec)

    def prepared(batch: Any) -> MaskedBatch:
        return MaskedBatch(batch.data, spec, maskers, batch.ids, dims=batch.dims)

    with torch.no_grad():
        structure = find_structure(model, caller, prepared(source.first()))
        evaluator = CoalitionEvaluator(model, spec, structure)
        for batch in source.batches():
            whole = prepared(batch)
            try:
                outputs = evaluator.evaluate(whole)
            except MismatchError:
                pytest.fail("noticed, but too late: earlier batches would be evaluated again")
            for index, output in enumerate(outputs):
                expected = caller(whole.coalition(index))
                torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def test_a_resumed_audit_with_lengths_is_bit_equal(tmp_path: Any) -> None:
    """Masked rows are remembered over batches, but give the same bits whichever batch showed them first."""

    class WithLengths(Base):
        def __init__(self) -> None:
            super().__init__()
            self.pool = _Masked(self.enc_a)

        def forward(self, a: Tensor, b: Tensor, length: Tensor) -> Tensor:
            return self.join(self.pool(a, length), self.enc_b(b))

    generator = torch.Generator().manual_seed(1)
    data = batches(*[(500, 9)] * 20)
    for batch in data:
        batch["length"] = torch.randint(1, 10, (500,), generator=generator)
    model = WithLengths().eval()
    options: dict[str, Any] = {"device": "cpu", "replicates": 100}

    def interrupted(stage: str, done: int, total: int | None) -> None:
        if done >= 6000:
            raise KeyboardInterrupt

    spec = {**SPEC, "call": {"args": ["a", "b", "length"]}}
    mmaudit.audit(model, data, spec, out=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        mmaudit.audit(model, data, spec, out=tmp_path / "parts", progress=interrupted, **options)
    resumed = mmaudit.audit(model, data, spec, out=tmp_path / "parts", resume=True, **options)
    whole = mmaudit.AuditReport.load(tmp_path / "whole")
    assert resumed.evidence.method == "packed"
    assert resumed.evidence.verified_rows >= whole.evidence.verified_rows > 0
    assert resumed.measures == whole.measures


class _Masked(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, a: Tensor, length: Tensor) -> Tensor:
        keep = (torch.arange(a.shape[1]) < length[:, None]).unsqueeze(2).float()
        return (self.inner(a) * keep).sum(1) / keep.sum(1)
