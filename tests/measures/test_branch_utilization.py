from __future__ import annotations

import numpy as np
import pytest

from mmaudit.evidence.extra_table import write_table
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures.base import NOT_HERE
from mmaudit.measures.branch_utilization import BranchUtilization, branch_rates
from mmaudit.measures.evidence import Evidence
from tests.measures.table import columns_from_games
from tests.measures.table import write_table as write_coalitions

AV, AVT = ("audio", "video"), ("audio", "video", "text")


def exactly(n, *accuracies, seed=0):
    """Correct flags (n, len) with exactly these accuracies, in random places."""
    rng = np.random.default_rng(seed)
    ranks = np.stack([rng.permutation(n) for _ in accuracies], axis=1)
    return (ranks < np.round(n * np.asarray(accuracies))).astype(np.float32)


def evidence_of(folder, names, uncut, cut, pair=None, *, groups=None, present=None, **bits):
    """An audit's tables with the given correct flags of branches."""
    n, M = uncut.shape
    grouped = groups is not None
    groups = [None] * n if groups is None else [str(g) for g in groups]
    write_coalitions(
        folder / "coalitions",
        columns_from_games(np.ones((n, 2**M)), groups=groups if grouped else None, present=present),
    )
    everyone = 2**M - 1
    columns = {
        "sample_id": [str(i) for i in range(n)],
        "group": groups if grouped else ["" for _ in range(n)],
        "present": np.full(n, everyone) if present is None else np.asarray(present),
        "branches": np.full(n, bits.get("branches", everyone)),
        "telling": np.full(n, bits.get("telling", everyone)),
        "correct_uncut": uncut,
        "correct_cut": cut,
    }
    if M > 2:
        columns["correct_pair"] = np.zeros((n, M * M), np.float32) if pair is None else pair
    write_table(folder / "branches", columns)
    return Evidence(folder / "coalitions", names, ("x", "y"), grouped, seed=0, replicates=400)


def find(result, **labels):
    (row,) = [row for row in result.rows if labels.items() <= row.labels.items()]
    return row.estimate


def test_rates_by_hand():
    # GR-1 of the methods
    assert branch_rates([0.8, 0.7], [0.6, 0.63]) == pytest.approx([0.25, 0.10])
    assert branch_rates([0.2], [0.5]) == pytest.approx([-1.5])  # never clipped
    with pytest.raises(UndefinedMeasureError, match="accuracy of the branch"):
        branch_rates([0.8, 0.0], [0.6, 0.0])


def test_the_measure_by_hand(tmp_path):
    uncut, cut = exactly(200, 0.8, 0.7), exactly(200, 0.6, 0.63, seed=1)
    evidence = evidence_of(tmp_path, AV, uncut, cut)
    measure = BranchUtilization()
    assert measure.available(evidence)
    result = measure.of(evidence)
    assert "by cutting branches" in result.title and "by cutting branches" in result.reference
    gained = find(result, quantity="u", modality="video", given="audio")
    assert gained.value == pytest.approx(0.25) and gained.low < 0.25 < gained.high <= 1
    assert gained.n == 200 and "log ratio" in gained.method
    assert find(result, quantity="u", modality="audio", given="video").value == pytest.approx(0.10)
    spread = find(result, quantity="d_util")
    assert spread.value == pytest.approx(0.15) and spread.low < 0.15 < spread.high
    labels = [row.labels for row in result.rows if row.labels["quantity"] == "d_util"]
    assert labels == [{"quantity": "d_util", "modality": "video - audio", "given": "audio - video"}]
    for m, (name, other) in enumerate(((AV), (AV[::-1]))):
        for quantity, values in (("accuracy", uncut), ("accuracy cut", cut)):
            found = find(result, quantity=quantity, given=name, modality=other)
            assert found.value == pytest.approx(values[:, m].mean())
            assert found.method.startswith("Wilson")


def test_cutting_may_help_and_an_accuracy_of_nothing_has_no_rate(tmp_path):
    uncut, cut = exactly(100, 0.2, 0.0), exactly(100, 0.5, 0.1, seed=1)
    result = BranchUtilization().of(evidence_of(tmp_path, AV, uncut, cut))
    assert find(result, quantity="u", given="audio").value == pytest.approx(-1.5)
    nothing = find(result, quantity="u", given="video")
    assert nothing.undefined == "the accuracy of the branch of video is 0"
    assert find(result, quantity="accuracy", given="video").value == 0
    assert find(result, quantity="d_util").undefined == nothing.undefined


def test_a_branch_that_gains_nothing_has_an_interval_around_0(tmp_path):
    uncut = exactly(200, 0.8, 0.7)
    result = BranchUtilization().of(evidence_of(tmp_path, AV, uncut, uncut))
    for name in AV:
        found = find(result, quantity="u", given=name)
        assert found.value == 0 and found.low < 0 < found.high
    assert find(result, quantity="d_util").value == 0


def test_three_branches_have_pairs_and_a_spread(tmp_path):
    n = 300
    uncut, cut = exactly(n, 0.9, 0.8, 0.6), exactly(n, 0.45, 0.56, 0.6, seed=1)
    pair = np.zeros((n, 9), np.float32)
    pair[:, [1, 2, 3, 5, 6, 7]] = exactly(n, 0.63, 0.72, 0.72, 0.8, 0.6, 0.54, seed=2)
    result = BranchUtilization().of(evidence_of(tmp_path, AVT, uncut, cut, pair))
    assert find(result, quantity="u", modality="video+text", given="audio").value == pytest.approx(
        0.5
    )
    for modality, given, value in [
        ("video", "audio", 0.3),
        ("text", "audio", 0.2),
        ("audio", "video", 0.1),
        ("text", "video", 0.0),
        ("audio", "text", 0.0),
        ("video", "text", 0.1),
    ]:
        found = find(result, quantity="u", modality=modality, given=given)
        assert found.value == pytest.approx(value, abs=1e-6), (modality, given)
    spread = find(result, quantity="d_util")
    assert spread.value == pytest.approx(0.5) and spread.warning is None
    (labels,) = [row.labels for row in result.rows if row.labels["quantity"] == "d_util"]
    assert labels["given"] == "audio - text" and labels["modality"] == "video+text - audio+video"
    assert len({tuple(row.labels.values()) for row in result.rows}) == len(result.rows)


def test_a_spread_between_branches_alike_is_said_to_be_overstated(tmp_path):
    n = 300
    uncut, cut = exactly(n, 0.8, 0.8, 0.8), exactly(n, 0.6, 0.61, 0.6, seed=1)
    result = BranchUtilization().of(evidence_of(tmp_path, AVT, uncut, cut))
    assert "overstated" in find(result, quantity="d_util").warning


def test_one_branch_has_no_spread(tmp_path):
    uncut, cut = exactly(100, 0.8, 0.0), exactly(100, 0.6, 0.0, seed=1)
    result = BranchUtilization().of(evidence_of(tmp_path, AV, uncut, cut, branches=1))
    assert [row.labels["given"] for row in result.rows if row.labels["quantity"] == "u"] == [
        "audio"
    ]
    assert "at least two branches" in find(result, quantity="d_util").undefined


def test_nothing_is_gained_from_what_no_sample_has(tmp_path):
    n = 200
    uncut, cut = exactly(n, 0.9, 0.8, 0.6), exactly(n, 0.5, 0.7, 0.5, seed=1)
    result = BranchUtilization().of(
        evidence_of(tmp_path, AVT, uncut, cut, present=np.full(n, 0b101), telling=0b011)
    )
    assert find(result, quantity="u", modality="video", given="audio").undefined == NOT_HERE
    assert find(result, quantity="u", modality="audio", given="video").value is not None


def test_groups_are_resampled_together(tmp_path):
    uncut, cut = np.repeat(exactly(60, 0.8, 0.7), 4, 0), np.repeat(exactly(60, 0.6, 0.6), 4, 0)
    alone = BranchUtilization().of(evidence_of(tmp_path / "a", AV, uncut, cut))
    together = BranchUtilization().of(
        evidence_of(tmp_path / "b", AV, uncut, cut, groups=np.repeat(np.arange(60), 4))
    )
    for quantity in ("u", "accuracy", "accuracy cut", "d_util"):
        labels = {"quantity": quantity}
        if quantity != "d_util":
            labels["given"] = "audio"
        one, two = find(alone, **labels), find(together, **labels)
        assert one.value == pytest.approx(two.value) and two.groups == 60
        assert two.high - two.low > 1.5 * (one.high - one.low)


def test_few_samples_are_said(tmp_path):
    uncut, cut = exactly(20, 0.8, 0.7), exactly(20, 0.6, 0.6)
    result = BranchUtilization().of(evidence_of(tmp_path, AV, uncut, cut))
    assert "20 samples, fewer than 50" in find(result, quantity="u", given="audio").warning


def test_there_is_none_without_the_table(tmp_path):
    write_coalitions(tmp_path / "coalitions", columns_from_games(np.ones((10, 4))))
    evidence = Evidence(tmp_path / "coalitions", AV, ("x", "y"), False, seed=0)
    assert not BranchUtilization().available(evidence)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("groups", "size", "kept", "gained"),
    [(200, 1, 0.55, 0.25), (1000, 1, 0.9, 0.02), (100, 5, 0.6, 0.2), (40, 8, 0.5, 0.0)],
)
def test_intervals_cover(tmp_path, groups, size, kept, gained):
    """The share of data sets whose interval of u holds the truth; flags of a group are alike to a degree."""
    rng = np.random.default_rng(0)
    runs, truth = 400, gained / (kept + gained)
    inside = 0
    for run in range(runs):
        owner = np.repeat(np.arange(groups), size)
        shared = rng.random(len(owner)) < 0.3 if size > 1 else np.zeros(len(owner), bool)
        level = np.where(shared, rng.random(groups)[owner], rng.random(len(owner)))
        uncut = np.repeat(level[:, None] < kept + gained, 2, 1).astype(np.float32)
        cut = np.repeat(level[:, None] < kept, 2, 1).astype(np.float32)
        swap = rng.random(len(owner)) < 0.1  # cutting also mends some and spoils others
        cut[swap] = (rng.random((swap.sum(), 1)) < kept).astype(np.float32)
        folder = tmp_path / str(run)
        evidence = evidence_of(folder, AV, uncut, cut, groups=owner if size > 1 else None)
        found = find(BranchUtilization().of(evidence), quantity="u", given="audio")
        inside += found.low <= truth <= found.high
    assert 0.925 <= inside / runs <= 0.978, inside / runs
