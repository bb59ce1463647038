"""R2 and everything made of it, against scikit-learn, brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import r2_score

from mmaudit.measures import compute_measures
from mmaudit.measures.contribution import Contribution
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.plain_score import accuracy_estimate, r2_estimate
from mmaudit.measures.resampling import collect_sums
from mmaudit.measures.shapley import shapley_interactions, shapley_values
from mmaudit.report.labels import coalition_names
from tests.measures.table import columns_from_numbers, write_table

NAMES = ("a", "b", "c")


def world(rng, n=120, D=1, M=2, offset=0.0):
    """Predictions (2**M, n * D) of numbers with different spreads, their cells and groups."""
    truth = rng.normal(size=(n, D)) * 10.0 ** np.arange(D) + offset
    parts = rng.normal(size=(M, n, D)) * 0.3 * 10.0 ** np.arange(D)
    predictions = np.stack(
        [
            0.3 * truth * bin(c).count("1") + sum(parts[m] for m in range(M) if c >> m & 1)
            for c in range(2**M)
        ]
    )
    cells = np.tile(np.arange(D), n)
    groups = np.repeat(np.arange(n), D)
    return predictions.reshape(2**M, -1), truth.ravel(), cells, groups


def sums_of(folder, predictions, truth, cells=None, groups=None, D=1, present=None, **more):
    columns = columns_from_numbers(
        predictions, truth, cells=cells, groups=groups if D > 1 else None, present=present
    )
    M = len(predictions).bit_length() - 1
    write_table(folder, columns, task="regression", shards=3)
    return collect_sums(
        folder,
        modalities=NAMES[:M],
        classes=[f"y{d}" for d in range(D)],
        grouped=D > 1,
        seed=0,
        task="regression",
        **more,
    )


def rows_of(folder, D=1, M=2, grouped=None, key="coalitions"):
    results, failures = compute_measures(
        folder,
        modalities=NAMES[:M],
        classes=tuple(f"y{d}" for d in range(D)),
        grouped=D > 1 if grouped is None else grouped,
        seed=0,
        replicates=200,
        task="regression",
    )
    assert not failures
    return {tuple(row.labels.values()): row.estimate for row in results[key].rows}, results


@pytest.mark.parametrize("D", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_values_are_those_of_scikit_learn(tmp_path, D, offset):
    predictions, truth, cells, groups = world(np.random.default_rng(0), D=D, M=3, offset=offset)
    predictions = predictions + 0.7 * offset
    sums = sums_of(tmp_path, predictions, truth, cells, groups, D)
    means = sums.means()
    grid = truth.reshape(-1, D)
    for c in range(8):
        expected = r2_score(grid, predictions[c].reshape(-1, D))
        assert means["R2"][c] == pytest.approx(expected, rel=1e-9)
        assert means["negative squared error"][c] == pytest.approx(
            -((predictions[c] - truth) ** 2).mean(), rel=1e-9
        )
    for d in range(D):
        assert sums.means(d)["R2"][7] == pytest.approx(
            r2_score(grid[:, d], predictions[7].reshape(-1, D)[:, d]), rel=1e-9
        )


@pytest.mark.parametrize("D", [1, 4])
def test_contributions_are_shapley_values_of_r2(tmp_path, D):
    predictions, truth, cells, groups = world(np.random.default_rng(1), D=D, M=3)
    sums = sums_of(tmp_path, predictions, truth, cells, groups, D)
    for index in (None, *range(D)):
        games = sums.means(index)["R2"]
        weight = sums.weight("R2", index).sum()
        found = sums.contributions("R2", index).sum(0) / weight
        assert found == pytest.approx(shapley_values(games), abs=1e-10)
        assert found.sum() == pytest.approx(games[-1] - games[0], abs=1e-10)
        pairs = sums.interactions("R2", index).sum(0) / weight
        both = shapley_interactions(games)
        assert pairs == pytest.approx([both[0, 1], both[0, 2], both[1, 2]], abs=1e-10)


def test_by_hand(tmp_path):
    """y = 0, 2, 4; both: 0, 2, 3; a alone: 1, 2, 3; b alone and none: 2."""
    truth = [0.0, 2.0, 4.0]
    predictions = [[2, 2, 2], [1, 2, 3], [2, 2, 2], [0, 2, 3]]
    sums_of(tmp_path, np.array(predictions, float), truth)
    found, results = rows_of(tmp_path)
    values = [found[name, "R2", "all"].value for name in coalition_names(("a", "b"))]
    assert values == pytest.approx([0.0, 0.75, 0.0, 0.875])
    shapley = {
        tuple(row.labels.values()): row.estimate.value for row in results["contributions"].rows
    }
    assert shapley["a", "R2", "value", "all"] == pytest.approx(0.8125)
    assert shapley["b", "R2", "value", "all"] == pytest.approx(0.0625)
    assert results["coalitions"].unit.startswith("1 (R2)")
    # a adds (-1, 0, 1) to the empty prediction alone and (-2, 0, 1) to that of b: on average (-1.5, 0, 1).
    responses = {
        tuple(row.labels.values()): row.estimate.value for row in results["responses"].rows
    }
    assert responses["R2", "a", "exact", "all"] == pytest.approx(1 - (0.25 + 0 + 1) / 8)
    assert responses["s", "a", "exact", "all"] == pytest.approx((0.25 + 0 + 1) / 3)


def test_units_bring_what_they_change_the_value_by(tmp_path):
    """The influence of each unit, against leaving it out with weight 1 - h and differentiating."""
    D = 3
    predictions, truth, cells, groups = world(np.random.default_rng(2), n=40, D=D)
    sums = sums_of(tmp_path, predictions, truth, cells, groups, D)
    worths, weight = sums.worths("R2", None), sums.weight("R2", None)
    value = worths.sum(0) / weight.sum()
    influence = (worths - value * weight) / weight.sum()

    def weighted(weights):
        found = []
        for d in range(D):
            own = cells == d
            w, y = weights[groups[own]], truth[own]
            mean = (w * y).sum() / w.sum()
            errors = (w * (predictions[:, own] - y) ** 2).sum(1)
            found.append(1 - errors / (w * (y - mean) ** 2).sum())
        return np.mean(found, axis=0)

    step, slopes = 1e-5, []
    for unit in range(40):
        more, less = np.ones(40), np.ones(40)
        more[unit] += step
        less[unit] -= step
        slopes.append((weighted(more) - weighted(less)) / (2 * step))
    order = np.lexsort(influence.T)
    expected = np.array(slopes)
    assert influence[order] == pytest.approx(expected[np.lexsort(expected.T)], abs=1e-8)


def test_several_numbers_with_gaps(tmp_path):
    rng = np.random.default_rng(3)
    predictions, truth, cells, groups = world(rng, n=80, D=3)
    keep = rng.random(240) < 0.7
    sums = sums_of(tmp_path, predictions[:, keep], truth[keep], cells[keep], groups[keep], 3)
    expected = [
        r2_score(truth[keep & (cells == d)], predictions[3][keep & (cells == d)]) for d in range(3)
    ]
    assert sums.means()["R2"][3] == pytest.approx(np.mean(expected), rel=1e-9)
    assert sums.counts(None).sum() == keep.sum()


def test_a_number_that_does_not_vary_is_left_out(tmp_path):
    predictions, truth, cells, groups = world(np.random.default_rng(4), D=2)
    truth[cells == 1] = 7.5
    sums = sums_of(tmp_path, predictions, truth, cells, groups, 2)
    own = cells == 0
    assert sums.means()["R2"][3] == pytest.approx(r2_score(truth[own], predictions[3][own]))
    assert sums.nothing("R2", None) is None and "the same" in sums.nothing("R2", 1)
    found, results = rows_of(tmp_path, 2)
    assert "the same" in found["a", "R2", "y1"].undefined
    for key in ("responses", "contributions", "interactions", "utilization"):
        for row in results[key].rows:
            if row.labels["class"] == "y1" and "squared" not in row.labels.get("score", "R2"):
                assert row.labels.get("quantity") == "s" or row.estimate.undefined


def test_nothing_varies(tmp_path):
    sums_of(tmp_path, np.ones((4, 60)) * np.arange(4)[:, None], np.full(60, 2.0))
    found, results = rows_of(tmp_path)
    assert "the same" in found["a+b", "R2", "all"].undefined
    assert found["a+b", "negative squared error", "all"].value == pytest.approx(-1.0)
    for key in ("contributions", "interactions", "utilization"):
        primary = [r for r in results[key].rows if r.labels.get("score", "R2") == "R2"]
        assert primary and all(row.estimate.undefined for row in primary)


def test_blocks_give_the_same_values(tmp_path):
    predictions, truth, cells, groups = world(np.random.default_rng(5), n=900, D=2)
    exact = sums_of(tmp_path / "1", predictions, truth, cells, groups, 2)
    blocks = sums_of(tmp_path / "2", predictions, truth, cells, groups, 2, most_units=200)
    assert len(blocks.counts(None)) < 201 < len(exact.counts(None))
    for name, value in exact.means().items():
        assert blocks.means()[name] == pytest.approx(value, rel=1e-9)


def test_responses_of_modalities_that_not_all_samples_have(tmp_path):
    rng = np.random.default_rng(6)
    predictions, truth, *_ = world(rng, n=200)
    present = np.where(rng.random(200) < 0.4, 1, 3)
    lacks = present == 1
    predictions[2, lacks], predictions[3, lacks] = predictions[0, lacks], predictions[1, lacks]
    sums_of(tmp_path, predictions, truth, present=present)
    phi = 0.5 * (predictions[2] - predictions[0] + predictions[3] - predictions[1])
    expected = r2_score(truth[~lacks], (predictions[0] + phi)[~lacks])
    found, results = rows_of(tmp_path, key="responses")
    assert found["R2", "b", "exact", "all"].value == pytest.approx(expected)
    assert found["R2", "b", "exact", "all"].n == (~lacks).sum()


def test_utilization_and_where_it_has_no_value(tmp_path):
    rng = np.random.default_rng(7)
    predictions, truth, *_ = world(rng, n=300)
    predictions[1] = truth + rng.normal(size=300)  # R2 of a about 0
    sums = sums_of(tmp_path, predictions, truth)
    games = sums.means()["R2"]
    found, _ = rows_of(tmp_path, key="utilization")
    u = found["u", "a", "b", "all"]
    assert u.value == pytest.approx((games[3] - games[2]) / games[3])
    assert u.low < u.value < u.high and "Fieller" in u.method
    assert "R2 of a" in found["u", "a", "none", "all"].undefined
    spread = found["d_util", "b - a", "rest", "all"]
    assert spread.value == pytest.approx((games[2] - games[1]) / games[3])


def test_an_ignored_modality_is_worth_exactly_nothing(tmp_path):
    predictions, truth, *_ = world(np.random.default_rng(8), n=100)
    predictions[2:] = predictions[:2]
    sums_of(tmp_path, predictions, truth)
    found, results = rows_of(tmp_path, key="contributions")
    none = found["b", "R2", "value", "all"]
    assert (none.value, none.low, none.high) == (0, 0, 0)
    assert "no response" in next(
        row.estimate.undefined for row in results["responses"].rows if row.labels["modality"] == "b"
    )
    rate = next(
        row.estimate
        for row in results["utilization"].rows
        if row.labels["modality"] == "b" and row.labels["given"] == "a"
    )
    assert (rate.value, rate.low, rate.high) == (0, 0, 0)


def test_one_modality_and_few_samples(tmp_path):
    predictions, truth, *_ = world(np.random.default_rng(9), n=3, M=1)
    sums_of(tmp_path, predictions, truth)
    found, results = rows_of(tmp_path, M=1)
    assert found["a", "R2", "all"].value == pytest.approx(r2_score(truth, predictions[1]))
    assert "3 samples" in found["a", "R2", "all"].warning
    assert results["interactions"].undefined


def test_rows_that_are_not_finite(tmp_path):
    predictions, truth, *_ = world(np.random.default_rng(10))
    columns = columns_from_numbers(predictions, truth)
    columns["loglik"][5, 2] = np.nan
    write_table(tmp_path, columns, task="regression")
    sums = collect_sums(
        tmp_path, modalities=NAMES[:2], classes=["y"], grouped=False, seed=0, task="regression"
    )
    keep = np.arange(120) != 5
    assert sums.left_out_ids == ("5",)
    assert sums.means()["R2"][3] == pytest.approx(
        r2_score(truth[keep], predictions[3][keep]), rel=1e-9
    )


def test_the_unit_of_the_target_is_no_matter(tmp_path):
    predictions, truth, cells, groups = world(np.random.default_rng(14), D=2)
    unit = np.where(cells == 0, 1e-9, 1e9)
    sums_of(tmp_path / "1", predictions, truth, cells, groups, 2)
    sums_of(tmp_path / "2", predictions * unit, truth * unit, cells, groups, 2)
    for key in ("coalitions", "contributions", "interactions", "utilization", "responses"):
        one, _ = rows_of(tmp_path / "1", 2, key=key)
        other, _ = rows_of(tmp_path / "2", 2, key=key)
        for labels, estimate in one.items():
            squared = "squared" in str(labels) or "s" in labels
            if squared and "share" not in labels and labels[-1] == "all":
                continue  # mixes the units of both numbers
            factor = 1.0
            if squared and "share" not in labels:
                factor = 1e-18 if labels[-1] == "y0" else 1e18
            if squared and "share" in labels and labels[-1] == "all":
                continue
            for end in ("value", "low", "high"):
                expected, found = getattr(estimate, end), getattr(other[labels], end)
                if expected is None:
                    assert found is None
                else:
                    assert found / factor == pytest.approx(expected, rel=1e-4, abs=1e-6), labels


def test_there_is_no_accuracy_to_be_mistaken_for_one(tmp_path):
    predictions, truth, *_ = world(np.random.default_rng(13))
    sums = sums_of(tmp_path, predictions, truth)
    with pytest.raises(ValueError, match="has the scores"):
        sums.correct(None)


def test_evidence_passes_the_task_on(tmp_path):
    predictions, truth, *_ = world(np.random.default_rng(11))
    write_table(tmp_path, columns_from_numbers(predictions, truth), task="regression")
    evidence = Evidence(tmp_path, NAMES[:2], ("y",), False, 0, 200, "regression")
    assert evidence.sums.scores == ("R2", "negative squared error")
    assert Contribution().of(evidence).bounds == (None, None)


class TestPlainScore:
    def test_it_is_the_estimate_of_the_sums(self, tmp_path):
        predictions, truth, cells, groups = world(np.random.default_rng(12), D=3)
        sums = sums_of(tmp_path, predictions, truth, cells, groups, 3)
        off = (predictions[3] - truth) ** 2
        found = r2_estimate(off, truth, cells, groups)
        recorded, _ = rows_of(tmp_path, 3)
        assert found.value == pytest.approx(sums.means()["R2"][3])
        assert found.low == pytest.approx(recorded["a+b", "R2", "all"].low, abs=0.02)
        assert found.groups == 120

    def test_accuracy(self):
        found = accuracy_estimate(np.array([1.0, 0, 1, 1]), np.array([0, 0, 1, 1]))
        assert found.value == 0.75 and found.groups == 2 and found.n == 4

    def test_no_spread(self):
        assert "the same" in r2_estimate(np.ones(3), np.ones(3), np.zeros(3, int)).undefined
