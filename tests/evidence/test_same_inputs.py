"""Two modalities that hold the same values, whatever else they look like."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmaudit
from mmaudit.evidence.same_inputs import count_same, identical_pairs
from mmaudit.masking.batches import BatchParser
from mmaudit.masking.spec import MaskingSpec

SPEC = MaskingSpec.model_validate(
    {"modalities": {"a": "a", "b": "b", "c": {"inputs": ["c", "d"]}}, "target": "y"}
)


def counted(**values):
    n = len(values["a"])
    batch = {"c": torch.rand(n, 2), "d": torch.rand(n, 2), "y": torch.zeros(n, dtype=torch.long)}
    return count_same(BatchParser(SPEC, lambda note: None).parse(batch | values, 0, 0), SPEC)


def test_equal_and_different_values():
    x = torch.rand(6, 3)
    assert counted(a=x, b=x.clone()) == {"0,1": [6, 6], "0,2": [6, 0], "1,2": [6, 0]}
    late = x.clone()
    late[5, 2] += 1
    assert counted(a=x, b=late)["0,1"] == [6, 0]
    assert counted(a=x, b=x.double())["0,1"] == [6, 0]
    assert counted(a=x, b=x[:, :2])["0,1"] == [6, 0]


def test_missing_samples_and_gaps_do_not_count():
    x = torch.rand(6, 3)
    other = x.clone()
    other[2] = torch.nan
    assert counted(a=x, b=other)["0,1"] == [5, 5]
    gap = x.clone()
    gap[1, 1] = torch.nan
    assert counted(a=gap, b=gap.clone())["0,1"] == [6, 6]
    assert "0,1" not in counted(a=x, b=torch.full((6, 3), torch.nan))


def test_a_pair_must_be_equal_in_every_batch():
    names = ("a", "b")
    assert identical_pairs(names, [{"0,1": [4, 4]}, {}]) == (("a", "b"),)
    assert identical_pairs(names, [{"0,1": [4, 4]}, {"0,1": [4, 0]}]) == ()
    assert identical_pairs(names, []) == ()


class Both(nn.Module):
    """Two encoders that were initialised differently, as in any model."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(32, 4)

    def forward(self, a, b):
        return self.head(torch.cat([self.a(a).relu(), self.b(b).relu()], 1))


@pytest.mark.parametrize("twins", [True, False])
def test_an_audit_tells_copies_from_two_views(twins, tmp_path):
    drawn = torch.Generator().manual_seed(1)
    centres = torch.randn(4, 6, generator=drawn)
    y = torch.randint(4, (400,), generator=drawn)
    a = centres[y] + torch.randn(400, 6, generator=drawn)
    b = a.clone() if twins else centres[y] + torch.randn(400, 6, generator=drawn)
    data = [{"a": a[i : i + 50], "b": b[i : i + 50], "y": y[i : i + 50]} for i in range(0, 400, 50)]
    spec = {"modalities": {"a": "a", "b": "b"}, "target": "y"}
    report = mmaudit.audit(Both().eval(), data, spec, replicates=100, out=tmp_path / "out")
    assert report.record.data.identical == ((("a", "b"),) if twins else ())
    rules = [finding.rule for finding in report.record.findings]
    assert ("identical modalities" in rules) == twins
