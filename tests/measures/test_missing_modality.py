from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mmaudit.measures.coalition_scores import CoalitionScores
from mmaudit.measures.intervals import FEWEST_SUCCESSES, proportion_intervals
from mmaudit.measures.missing_modality import (
    MissingModality,
    keep_probability,
    missing_rates,
    pattern_weights,
    worst_end,
)
from mmaudit.measures.resampling import bootstrap_weights
from tests.measures.evidence_tables import evidence_of, find, regression_of, wrong_and_right


def measured(evidence):
    return MissingModality().of(evidence)


def exact_accuracies(n, accuracies):
    """Answers (n, 2**M) with exactly these accuracies, in no relation to each other."""
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(n) for _ in accuracies], axis=1)
    return ranks < np.round(n * np.asarray(accuracies))


def draw_protocol(rng, present, rate):
    """Which cells are kept, by the protocol itself: one for each sample, then others without replacement."""
    n, M = present.shape
    kept = np.zeros((n, M), bool)
    for i in range(n):
        kept[i, rng.choice(np.flatnonzero(present[i]))] = True
    free = np.argwhere(present & ~kept)
    more = round((1 - rate) * n * M) - n
    chosen = free[rng.permutation(len(free))[:more]]
    kept[chosen[:, 0], chosen[:, 1]] = True
    return kept


def test_two_modalities_by_hand(tmp_path):
    evidence = evidence_of(tmp_path, exact_accuracies(200, [0.1, 0.4, 0.6, 0.9]))
    result = measured(evidence)
    assert [tuple(row.labels.values()) for row in result.rows] == [
        ("0.00", "expected"),
        ("0.00", "worst"),
        ("0.25", "expected"),
        ("0.50", "expected"),
        ("0.50", "worst"),
        ("all", "area"),
    ]
    # a quarter missing: half of the samples have both, the others one or the other
    values = [row.estimate.value for row in result.rows]
    assert values == pytest.approx([0.9, 0.9, 0.7, 0.5, 0.4, 0.7])
    for row in result.rows:
        e = row.estimate
        assert e.low < e.value < e.high
        assert e.n == 200
        assert e.warning is None


def test_nothing_missing_is_the_accuracy_of_the_whole_model(tmp_path):
    correct, _ = wrong_and_right(np.random.default_rng(1), 300, 3)
    evidence = evidence_of(tmp_path, correct, groups=np.arange(300) // 6)
    whole = find(
        CoalitionScores().of(evidence),
        coalition="a+b+c",
        score="accuracy",
        **{"class": "all"},
    )
    found = find(measured(evidence), rate="0.00", quantity="expected")
    assert (found.value, found.low, found.high) == pytest.approx(
        (whole.value, whole.low, whole.high)
    )


@pytest.mark.parametrize("M", [2, 3, 5])
def test_the_weights_are_those_of_the_protocol(M):
    rng = np.random.default_rng(M)
    n = 4000
    everything = np.ones((n, M), bool)
    have = np.bincount([M] * n, minlength=M + 1)
    bits = 1 << np.arange(M)
    size = np.array([c.bit_count() for c in range(2**M)])
    for rate in missing_rates(M):
        weights = pattern_weights(keep_probability(np.array([rate]), M, have), M)[0, M, size]
        assert weights.sum() == pytest.approx(1)
        assert weights @ size == pytest.approx((1 - rate) * M)
        drawn = np.bincount(draw_protocol(rng, everything, rate) @ bits, minlength=2**M) / n
        # one draw of all samples: within five standard errors, and of a lattice of 2**M cells
        assert np.abs(drawn - weights).max() < 5 * math.sqrt(weights.max() / n) + 1 / n


def test_a_direct_simulation_gives_the_curve(tmp_path):
    rng = np.random.default_rng(0)
    correct, _ = wrong_and_right(rng, 500, 3)
    result = measured(evidence_of(tmp_path, correct))
    everything = np.ones((500, 3), bool)
    for rate in (0.0, 1 / 6, 1 / 3, 0.5, 2 / 3):
        drawn = [
            correct[np.arange(500), draw_protocol(rng, everything, rate) @ [1, 2, 4]].mean()
            for _ in range(60)
        ]
        found = find(result, rate=f"{rate:.2f}", quantity="expected").value
        error = np.std(drawn) / math.sqrt(len(drawn))
        assert found == pytest.approx(np.mean(drawn), abs=5 * error + 1e-9)


def test_a_simulation_where_samples_lack_modalities_already(tmp_path):
    rng = np.random.default_rng(0)
    n = 600
    present = rng.random((n, 3)) < [0.9, 0.7, 0.8]
    present[~present.any(axis=1), 0] = True
    bits = present @ [1, 2, 4]
    correct, _ = wrong_and_right(rng, n, 3)
    # what a sample lacks changes nothing
    correct = np.take_along_axis(correct, np.arange(8) & bits[:, None], axis=1)
    result = measured(evidence_of(tmp_path, correct, present=bits))
    lacking = 1 - present.mean()
    for rate in missing_rates(3):
        found = find(result, rate=f"{rate:.2f}", quantity="expected")
        if rate < lacking:
            assert found.value is None
            assert (
                found.undefined
                == f"{100 * lacking:.3g} % of the cells are missing in the data already"
            )
            continue
        drawn = [
            correct[np.arange(n), draw_protocol(rng, present, rate) @ [1, 2, 4]].mean()
            for _ in range(60)
        ]
        error = np.std(drawn) / math.sqrt(len(drawn))
        assert found.value == pytest.approx(np.mean(drawn), abs=5 * error + 1e-9)
    known = [r.estimate.value for r in result.rows if r.labels["quantity"] == "expected"]
    known = [value for value in known if value is not None]
    assert find(result, rate="all", quantity="area").value == pytest.approx(np.mean(known))
    for gone in range(3):
        kept = [c for c in range(8) if c.bit_count() == 3 - gone]
        worst = find(result, rate=f"{gone / 3:.2f}", quantity="worst")
        assert worst.value == pytest.approx(correct[:, kept].mean(axis=0).min())


def test_samples_with_one_modality_each_have_one_rate(tmp_path):
    n = 120
    bits = np.where(np.arange(n) % 2, 1, 2)
    correct, _ = wrong_and_right(np.random.default_rng(0), n, 2)
    correct = np.take_along_axis(correct, np.arange(4) & bits[:, None], axis=1)
    result = measured(evidence_of(tmp_path, correct, present=bits))
    for rate in ("0.00", "0.25"):
        assert "50 %" in find(result, rate=rate, quantity="expected").undefined
    assert find(result, rate="0.50", quantity="expected").value == correct[:, 3].mean()


def test_samples_with_nothing_leave_no_rate(tmp_path):
    correct = np.tile(np.arange(80)[:, None] % 2, (1, 4))
    bits = np.where(np.arange(80) < 10, 1, 0)
    result = measured(evidence_of(tmp_path, correct, present=bits))
    assert all(
        "93.8 %" in row.estimate.undefined
        for row in result.rows
        if row.labels["quantity"] != "worst"
    )


def test_more_missing_never_helps_a_model_that_only_gains(tmp_path):
    correct, _ = wrong_and_right(np.random.default_rng(3), 400, 5)
    result = measured(evidence_of(tmp_path, correct))
    rows = [r for r in result.rows if r.labels["quantity"] == "expected"]
    values = [r.estimate.value for r in rows]
    assert len(values) == 9
    assert values == sorted(values, reverse=True)
    assert find(result, rate="all", quantity="area").value == pytest.approx(np.mean(values))
    for row in rows:
        if float(row.labels["rate"]) * 5 % 1 == 0:
            worst = find(result, rate=row.labels["rate"], quantity="worst")
            assert worst.value <= row.estimate.value + 1e-12


def test_twelve_modalities(tmp_path):
    rng = np.random.default_rng(0)
    correct, _ = wrong_and_right(rng, 60, 12, strength=0.1)
    bits = rng.integers(1, 2**12, 60)
    for place, present in (("all", None), ("some", bits)):
        if present is not None:
            correct = np.take_along_axis(correct, np.arange(2**12) & bits[:, None], axis=1)
        result = measured(evidence_of(tmp_path / place, correct, present=present))
        assert len(result.rows) == 23 + 12 + 1
        last = find(result, rate="0.92", quantity="expected")
        alone = np.stack([correct[:, 1 << m] for m in range(12)], axis=1)
        has = (np.full(60, 2**12 - 1) if present is None else bits)[:, None] >> np.arange(12) & 1
        assert last.value == pytest.approx(((alone * has).sum(axis=1) / has.sum(axis=1)).mean())


def test_one_modality_cannot_be_missing(tmp_path):
    result = measured(evidence_of(tmp_path, exact_accuracies(100, [0.5, 0.9])))
    assert result.rows == ()
    assert "a sample keeps one" in result.undefined


def numbers(rng, n, M=2):
    truth = rng.normal(size=n) * 3 + 100
    parts = (
        np.stack([(truth - 100) * w for w in (0.6, 0.3, 0.1)[:M]], 1)
        + rng.normal(size=(n, M)) * 0.3
    )
    present = (np.arange(2**M)[:, None] >> np.arange(M) & 1).astype(float)
    return truth, 100 + parts @ present.T, parts


def test_a_regression_by_its_r2(tmp_path):
    rng = np.random.default_rng(0)
    truth, predictions, _ = numbers(rng, 300)
    result = measured(regression_of(tmp_path, truth, predictions))
    off = ((predictions - truth[:, None]) ** 2).sum(axis=0)
    r2 = 1 - off / ((truth - truth.mean()) ** 2).sum()
    for rate, value in (("0.00", r2[3]), ("0.25", (r2[1] + r2[2]) / 4 + r2[3] / 2)):
        found = find(result, rate=rate, quantity="expected")
        assert found.value == pytest.approx(value, rel=1e-5)
        assert found.low < found.value < found.high
    assert find(result, rate="0.50", quantity="worst").value == pytest.approx(
        r2[1:3].min(), rel=1e-5
    )
    assert result.unit == "1 (R2)"


def test_a_regression_whose_samples_lack_modalities(tmp_path):
    rng = np.random.default_rng(0)
    truth, predictions, _ = numbers(rng, 300)
    bits = np.where(rng.random(300) < 0.2, 1, 3)
    predictions = np.take_along_axis(predictions, np.arange(4) & bits[:, None], axis=1)
    result = measured(regression_of(tmp_path, truth, predictions, present=bits))
    off = (predictions - truth[:, None]) ** 2
    # at the highest rate each sample has one of its modalities
    alone = np.where(bits == 3, (off[:, 1] + off[:, 2]) / 2, off[:, 1]).sum()
    found = find(result, rate="0.50", quantity="expected").value
    assert found == pytest.approx(1 - alone / ((truth - truth.mean()) ** 2).sum(), rel=1e-5)


def test_a_target_that_does_not_vary_has_no_curve(tmp_path):
    predictions = np.random.default_rng(0).normal(size=(60, 4))
    result = measured(regression_of(tmp_path, np.full(60, 2.5), predictions))
    assert result.rows
    assert all("the same in all samples" in row.estimate.undefined for row in result.rows)


class Resampled:
    """As much of the sums as the worst pattern needs."""

    def __init__(self):
        self.kept = {}

    def bootstrap(self, columns):
        n = len(columns)
        if n not in self.kept:
            self.kept[n] = bootstrap_weights(n, 500, 0).astype(np.float32)
        return self.kept[n] @ columns.astype(np.float32)


def latent_answers(rng, n, accuracies, shared, groups=None):
    z = np.sqrt(shared) * rng.standard_normal((n, 1))
    z = z + np.sqrt(1 - shared) * rng.standard_normal((n, len(accuracies)))
    if groups is not None:
        z = np.sqrt(0.7) * z + np.sqrt(0.3) * rng.standard_normal((groups.max() + 1, 1))[groups]
    return (z < stats.norm.ppf(accuracies)).astype(np.float64)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "accuracies", [(0.5, 0.6, 0.7), (0.6, 0.6, 0.6), (0.6, 0.65, 0.65), (0.6,) * 12]
)
@pytest.mark.parametrize("groups", [None, 40])
def test_the_worst_pattern_is_covered(accuracies, groups):
    rng = np.random.default_rng(0)
    sums, hits = Resampled(), []
    of = None if groups is None else np.repeat(np.arange(groups), rng.integers(4, 17, groups))
    n = 300 if of is None else len(of)
    for _ in range(1000):
        x, counts = latent_answers(rng, n, accuracies, 0.4, of), np.ones((n, 1))
        if of is not None:
            starts = np.flatnonzero(np.diff(of, prepend=-1))
            x, counts = (np.add.reduceat(part, starts, axis=0) for part in (x, counts))
        found = proportion_intervals(x, counts, grouped=of is not None)
        place, high = worst_end(x, counts, counts, found.high, sums)
        hits.append(found.low[place] <= min(accuracies) <= high)
    assert 0.92 < np.mean(hits) < 0.985


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("n", "grouped"), [(60, False), (200, False), (400, True)])
def test_expected_scores_are_covered(tmp_path, n, grouped):
    rng = np.random.default_rng(n)
    truth = np.array([0.5, 0.6, 0.85, 0.95])
    groups = np.arange(n) // 8 if grouped else None
    expected = {"0.00": truth[3], "0.25": truth @ [0, 0.25, 0.25, 0.5], "0.50": truth[1:3].mean()}
    hits = {rate: [] for rate in expected}
    for run in range(400):
        correct = latent_answers(rng, n, truth, 0.4, groups)
        result = measured(evidence_of(tmp_path / str(run), correct, groups=groups))
        for rate, value in expected.items():
            found = find(result, rate=rate, quantity="expected")
            hits[rate].append(found.low <= value <= found.high)
    for rate, covered in hits.items():
        assert 0.91 < np.mean(covered) < 0.99, (rate, np.mean(covered))


def test_few_errors_are_warned_of(tmp_path):
    result = measured(evidence_of(tmp_path, exact_accuracies(200, [0.5, 0.9, 0.9, 0.99])))
    assert (
        f"fewer than {FEWEST_SUCCESSES}" in find(result, rate="0.00", quantity="expected").warning
    )
    assert find(result, rate="0.50", quantity="expected").warning is None
