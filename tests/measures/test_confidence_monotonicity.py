from __future__ import annotations

import numpy as np
import pytest

from mmaudit.measures.confidence_monotonicity import ConfidenceMonotonicity, confidence_violations
from tests.measures.evidence_tables import evidence_of, find, regression_of, wrong_and_right


def measured(evidence):
    return ConfidenceMonotonicity().of(evidence)


def table(folder, confidence, **others):
    return evidence_of(folder, np.zeros(np.shape(confidence)), confidence=confidence, **others)


def test_four_samples_by_hand(tmp_path):
    confidence = np.array(
        [
            [0.5, 0.6, 0.7, 0.9],
            [0.5, 0.8, 0.7, 0.7],
            [0.9, 0.8, 0.6, 0.7],
            [0.5, 0.6, 0.6, 0.6],
        ]
    )
    result = measured(table(tmp_path, np.tile(confidence, (15, 1))))
    values = {row.labels["coalition"]: row.estimate.value for row in result.rows}
    assert values == {"any": 0.5, "none": 0.25, "a": 0.5, "b": 0.0}
    for row in result.rows:
        assert row.estimate.n == 60
        assert row.estimate.method.startswith("Wilson")


def test_rounding_is_no_violation():
    confidence = np.array([[0.5, 0.7 + 5e-7, 0.7 + 2e-6, 0.7]])
    assert confidence_violations(confidence, np.array([0, 1, 2])).tolist() == [[0, 0, 1, 1]]


def test_it_agrees_with_a_loop(tmp_path):
    rng = np.random.default_rng(0)
    confidence = rng.random((400, 8)).astype(np.float32)
    groups = np.arange(400) // 8
    result = measured(table(tmp_path, confidence, groups=groups))
    names = ("none", "a", "b", "a+b", "c", "a+c", "b+c")
    for place, name in enumerate(names):
        share = sum(row[place] > row[7] for row in confidence) / 400
        found = find(result, coalition=name)
        assert found.value == pytest.approx(share)
        assert found.groups == 50
    share = sum(max(row[:7]) > row[7] for row in confidence) / 400
    assert find(result, coalition="any").value == pytest.approx(share)


def test_any_is_at_least_each_and_at_most_their_sum(tmp_path):
    correct, confidence = wrong_and_right(np.random.default_rng(0), 300, 3)
    rows = measured(table(tmp_path, confidence)).rows
    single = [row.estimate.value for row in rows[1:]]
    assert rows[0].labels == {"coalition": "any"}
    assert max(single) <= rows[0].estimate.value <= sum(single)


def test_an_absent_modality_is_no_violation(tmp_path):
    rng = np.random.default_rng(0)
    confidence = rng.random((100, 4)).astype(np.float32)
    confidence[:, 2], confidence[:, 3] = confidence[:, 0], confidence[:, 1]
    result = measured(table(tmp_path, confidence, present=np.full(100, 1)))
    assert find(result, coalition="a").value == 0
    assert find(result, coalition="b").value == find(result, coalition="any").value > 0


@pytest.mark.parametrize(("M", "rows"), [(1, 2), (2, 4), (5, 32), (6, 14), (12, 26)])
def test_how_many_rows(tmp_path, M, rows):
    confidence = np.random.default_rng(0).random((40, 2**M))
    # with many coalitions some other one is always more confident, listed or not
    result = measured(table(tmp_path, confidence))
    assert len(result.rows) == rows
    assert find(result, coalition="any").value == (confidence.argmax(axis=1) < 2**M - 1).mean()


def test_a_regression_has_no_confidence(tmp_path):
    predictions = np.random.default_rng(0).normal(size=(60, 4))
    result = measured(regression_of(tmp_path, np.arange(60.0), predictions))
    assert "no confidence" in result.undefined


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover(tmp_path, grouped):
    rng, covered = np.random.default_rng(0), []
    for run in range(600):
        groups = np.arange(320) // 8 if grouped else None
        common = rng.random((40, 1))[groups] if grouped else rng.random((320, 1))
        alone = common + 0.5 * rng.random((320, 1))
        confidence = np.hstack(
            [np.zeros((320, 1)), alone, np.zeros((320, 1)), np.full((320, 1), 1.1)]
        )
        found = find(
            measured(table(tmp_path / str(run), confidence / 2, groups=groups)), coalition="a"
        )
        # P(U + V / 2 > 1.1) with U, V uniform: the triangle of sides .4 and .8
        covered.append(found.low <= 0.16 <= found.high)
    assert 0.92 < np.mean(covered) < 0.98
