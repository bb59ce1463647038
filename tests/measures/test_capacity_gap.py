"""The capacity gap: by hand, against plain numpy and scikit-learn, and whether its intervals cover."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from mmaudit.evidence.extra_table import write_table as write_further
from mmaudit.exceptions import RecordError
from mmaudit.measures.base import NOT_HERE
from mmaudit.measures.capacity_gap import NO_REFERENCE, NO_WITHOUT, ONLY_ONE, CapacityGap
from mmaudit.measures.evidence import Evidence
from mmaudit.report.labels import LABELS
from mmaudit.report.schema import Estimate
from tests.measures.table import columns_from_games, write_table


def references(folder: Path, ids, *, alone=None, without=None, score="correct") -> None:
    columns = {"sample_id": list(ids)}
    for kind, values in (("alone", alone), ("without", without)):
        if values is not None:
            columns[f"{kind}_{score}"] = np.asarray(values, dtype=np.float64)
    write_further(folder / "references", columns)


def evidence_of(folder: Path, M: int, K: int, *, grouped=False, **settings) -> Evidence:
    names = ("audio", "image", "text", "touch")[:M]
    classes = tuple(f"c{k}" for k in range(K))
    settings = {"seed": 0, "replicates": 200, **settings}
    return Evidence(folder / "coalitions", names, classes, grouped, **settings)


def measured(evidence: Evidence) -> dict[tuple[str, str, str], Estimate]:
    rows = CapacityGap().of(evidence).rows
    assert all(tuple(row.labels) == LABELS["capacity_gap"] for row in rows)
    return {tuple(row.labels.values()): row.estimate for row in rows}


def drawn(rng, n: int, M: int, K: int = 3):
    return {
        "correct": rng.random((n, 2**M)) < 0.4 + 0.3 * rng.random(2**M),
        "targets": rng.choice(K, n, p=np.arange(1, K + 1) / np.arange(1, K + 1).sum()),
        "alone": (rng.random((n, M)) < 0.7).astype(float),
        "without": (rng.random((n, M)) < 0.6).astype(float),
    }


def test_a_case_by_hand(tmp_path: Path) -> None:
    #          none audio image both
    correct = [[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]] * 20
    targets = [0, 0, 0, 1] * 20
    alone = [[1, 0], [1, 0], [1, 1], [0, 0]] * 20
    table = columns_from_games(correct, targets=targets)
    write_table(tmp_path / "coalitions", table)
    references(tmp_path, table["sample_id"], alone=alone)
    found = measured(evidence_of(tmp_path, 2, 2))
    values = {key: e.value for key, e in found.items()}
    assert values == {
        ("audio", "alone", "none"): 0.75,
        ("audio", "above chance", "none"): 0.0,  # class 0 is three quarters of the samples
        ("audio", "gap", "first"): 0.25,
        ("audio", "joint advantage", "none"): 0.0,
        ("audio", "drop without", "none"): 0.5,  # against the image alone
        ("image", "alone", "none"): 0.25,
        ("image", "above chance", "none"): -0.5,
        ("image", "gap", "first"): 0.0,
        ("image", "joint advantage", "none"): 0.5,
        ("image", "drop without", "none"): 0.0,
    }
    assert all(e.n == 80 and e.low <= e.value <= e.high for e in found.values())
    # In all samples the image alone is right where the joint model is, given it: as far as 80 samples can tell.
    same = found["image", "gap", "first"]
    assert same.low == pytest.approx(-same.high) and 0 < same.high < 0.05


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("M", [1, 2, 3])
def test_it_is_what_numpy_makes_of_the_same_rows(tmp_path: Path, M: int, grouped: bool) -> None:
    rng = np.random.default_rng(M)
    n = 3000
    data = drawn(rng, n, M)
    present = rng.integers(1, 2**M, n) if M > 1 else np.ones(n, int)
    groups = rng.integers(0, 40, n)
    has = (present[:, None] >> np.arange(M) & 1).astype(bool)
    alone = np.where(has & (rng.random((n, M)) < 0.95), data["alone"], np.nan)
    without = np.where(has, data["without"], np.nan)
    table = columns_from_games(
        data["correct"], targets=data["targets"], present=present, groups=groups
    )
    write_table(tmp_path / "coalitions", table, shards=3)
    kept = np.flatnonzero(rng.random(n) < 0.3)
    again = {name: [values[i] for i in kept] for name, values in table.items()}
    other = np.asarray(again["correct"])
    other[:, 1] = ~other[:, 1]
    again["correct"] = other
    write_table(tmp_path / "second", {name: np.asarray(v) for name, v in again.items()} | again)
    references(tmp_path, table["sample_id"], alone=alone, without=None if M == 1 else without)
    found = measured(evidence_of(tmp_path, M, 3, grouped=grouped))
    correct = data["correct"].astype(float)
    for m, name in enumerate(("audio", "image", "text")[:M]):
        rows = np.isfinite(alone[:, m])
        own = alone[rows, m]
        counts = np.bincount(data["targets"][rows])
        expected = {
            ("alone", "none"): own.mean(),
            ("above chance", "none"): own.mean() - counts.max() / rows.sum(),
            ("gap", "first"): (own - correct[rows, 1 << m]).mean(),
            ("joint advantage", "none"): (correct[rows, -1] - own).mean(),
        }
        part = kept[rows[kept]]
        inside = other[np.isin(kept, part), 1 << m]
        expected["gap", "second"] = (alone[part, m] - inside).mean()
        for (quantity, mask), value in expected.items():
            estimate = found[name, quantity, mask]
            assert estimate.value == pytest.approx(value, abs=1e-12), (name, quantity)
            assert estimate.n == (len(part) if mask == "second" else rows.sum())
            assert estimate.groups == (40 if grouped else None)
        drop = found[name, "drop without", "none"]
        if M == 1:
            assert drop.undefined == ONLY_ONE
        else:
            difference = (correct[:, -1] - without[:, m])[has[:, m]]
            assert drop.value == pytest.approx(difference.mean(), abs=1e-12)
            assert drop.n == has[:, m].sum()


def test_what_there_is_no_model_of_is_undefined_and_says_why(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = drawn(rng, 200, 3)
    table = columns_from_games(data["correct"], targets=data["targets"], present=[3] * 200)
    write_table(tmp_path / "coalitions", table)
    alone = data["alone"] * [1, np.nan, np.nan]
    without = data["without"] * [np.nan, 1, np.nan]
    references(tmp_path, table["sample_id"], alone=alone, without=without)
    found = measured(evidence_of(tmp_path, 3, 3))
    assert ("audio", "gap", "second") not in found
    assert found["audio", "drop without", "none"].undefined == NO_WITHOUT
    assert found["image", "gap", "first"].undefined == NO_REFERENCE
    assert found["image", "drop without", "none"].value is not None
    assert {e.undefined for key, e in found.items() if key[0] == "text"} == {NOT_HERE}


def test_of_two_modalities_the_other_one_stands_in_only_where_no_model_is_named(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(1)
    data = drawn(rng, 400, 2)
    table = columns_from_games(data["correct"], targets=data["targets"])
    write_table(tmp_path / "coalitions", table)
    without = data["without"] * [1, np.nan]
    references(tmp_path, table["sample_id"], alone=data["alone"], without=without)
    found = measured(evidence_of(tmp_path, 2, 3))
    joint = data["correct"][:, -1]
    for name, model in (("audio", data["without"][:, 0]), ("image", data["alone"][:, 0])):
        value = found[name, "drop without", "none"].value
        assert value == pytest.approx((joint - model).mean(), abs=1e-12)


def test_the_order_of_shards_and_rows_that_one_table_lacks_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    n = 20_000  # several chunks of either table
    data = drawn(rng, n, 2)
    table = columns_from_games(data["correct"], targets=data["targets"])
    write_table(tmp_path / "coalitions", table)
    references(tmp_path, table["sample_id"], alone=data["alone"])
    plain = measured(evidence_of(tmp_path, 2, 3))
    # As two processes write it: every other batch of 64 each, and a few rows that were not finite are missing.
    shutil.rmtree(tmp_path / "coalitions")
    batch = np.arange(n) // 64
    order = np.concatenate([np.flatnonzero(batch % 2 == rank) for rank in (0, 1)])
    moved = {name: np.asarray(values)[order] for name, values in table.items()}
    moved |= {name: list(moved[name]) for name in ("sample_id", "group")}
    write_table(tmp_path / "coalitions", moved, shards=4)
    assert measured(evidence_of(tmp_path, 2, 3)) == plain
    fewer = {name: [values[i] for i in order[:-100]] for name, values in table.items()}
    fewer |= {name: np.asarray(v) for name, v in fewer.items() if name not in ("sample_id",)}
    fewer["group"] = [None] * (n - 100)
    write_table(tmp_path / "coalitions", fewer, shards=4)
    assert {e.n for e in measured(evidence_of(tmp_path, 2, 3)).values()} == {n - 100}


def test_tables_of_two_audits_are_no_pair(tmp_path: Path) -> None:
    data = drawn(np.random.default_rng(3), 100, 2)
    table = columns_from_games(data["correct"], targets=data["targets"])
    write_table(tmp_path / "coalitions", table)
    references(tmp_path, [f"x{i}" for i in range(100)], alone=data["alone"])
    with pytest.raises(RecordError, match="lacks sample 0; it belongs to another audit"):
        CapacityGap().of(evidence_of(tmp_path, 2, 3))


def test_without_references_there_is_nothing(tmp_path: Path) -> None:
    data = drawn(np.random.default_rng(4), 100, 2)
    write_table(tmp_path / "coalitions", columns_from_games(data["correct"]))
    assert not CapacityGap().available(evidence_of(tmp_path, 2, 3))


def test_few_samples_and_few_groups_warn(tmp_path: Path) -> None:
    data = drawn(np.random.default_rng(5), 40, 2)
    table = columns_from_games(data["correct"], targets=data["targets"], groups=np.arange(40) // 4)
    write_table(tmp_path / "coalitions", table)
    references(tmp_path, table["sample_id"], alone=data["alone"])
    for grouped in (False, True):
        for estimate in measured(evidence_of(tmp_path, 2, 3, grouped=grouped)).values():
            assert "40 samples" in estimate.warning
            assert ("10 groups" in estimate.warning) == grouped


def regression_table(folder: Path, truth, predictions, groups=None, number=None) -> list[str]:
    """A coalition table of predicted numbers: predictions ``(n, 2**M)``."""
    n, S = predictions.shape
    M = S.bit_length() - 1
    off = -((predictions - truth[:, None]) ** 2)
    ids = [str(i) for i in range(n)]
    number = np.zeros(n, np.int32) if number is None else number
    columns = {
        "sample_id": ids,
        "position": np.arange(n),
        "target": number.astype(np.int32),
        "group": [None] * n if groups is None else [str(g) for g in groups],
        "present": np.full(n, 2**M - 1, np.int32),
        "truth": truth,
        "prediction": predictions,
        "loglik": off,
        "response_size": np.ones((n, M)),
    }
    for empty in ("exact", "zero"):
        columns[f"response_prediction_{empty}"] = predictions[:, :M]
        columns[f"response_loglik_{empty}"] = off[:, :M]
    write_further(folder / "coalitions", columns)
    return ids


@pytest.mark.parametrize("D", [1, 3])
def test_of_a_regression_it_is_a_difference_of_r2(tmp_path: Path, D: int) -> None:
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(D)
    n, M = 400, 2
    truth = rng.normal(size=(n, D)) * np.arange(1, D + 1) + 10
    noise = np.arange(1, 2 ** (M + 1) + 1)[:, None, None] * 0.3
    predictions = truth + noise * rng.normal(size=(2 ** (M + 1), n, D))
    joint, alone = predictions[: 2**M], predictions[2**M : 2**M + M]
    flat = joint.transpose(1, 2, 0).reshape(n * D, -1)
    number, groups = np.tile(np.arange(D), n), np.repeat(np.arange(n) // 4, D)
    ids = regression_table(tmp_path, truth.reshape(-1), flat, groups, number)
    off = -((alone - truth) ** 2).transpose(1, 2, 0).reshape(n * D, M)
    references(tmp_path, ids, alone=off, score="loglik")
    found = measured(evidence_of(tmp_path, M, D, grouped=True, task="regression"))
    whole = r2_score(truth, joint[-1])
    for m, name in enumerate(("audio", "image")):
        mine, inside = r2_score(truth, alone[m]), r2_score(truth, joint[1 << m])
        expected = {
            ("alone", "none"): mine,
            ("above chance", "none"): mine,
            ("gap", "first"): mine - inside,
            ("joint advantage", "none"): whole - mine,
            ("drop without", "none"): whole - r2_score(truth, alone[1 - m]),
        }
        for key, value in expected.items():
            estimate = found[(name, *key)]
            assert estimate.value == pytest.approx(value, abs=1e-9), key
            assert (estimate.n, estimate.groups) == (n * D, 100)
            # The standard error is that of leaving groups out, one after the other.
        left = [r2_score(truth[k], alone[m][k]) - r2_score(truth[k], joint[1 << m][k]) for k in (np.arange(n) // 4 != g for g in range(100))]  # fmt: skip
        error = np.sqrt(99 / 100 * np.sum((np.array(left) - np.mean(left)) ** 2))
        gap = found[name, "gap", "first"]
        assert (gap.high - gap.low) / 2 / 1.984 == pytest.approx(error, rel=0.06)


def test_numbers_that_do_not_vary_have_no_r2(tmp_path: Path) -> None:
    ids = regression_table(tmp_path, np.full(60, 3.0), np.ones((60, 4)))
    references(tmp_path, ids, alone=-np.ones((60, 2)), score="loglik")
    for estimate in measured(evidence_of(tmp_path, 2, 1, task="regression")).values():
        assert estimate.undefined == "the target is the same in all samples"


def test_the_best_constant_of_a_label_is_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    n, L = 300, 5
    said = (rng.random((n, L)) < np.array([0.1, 0.5, 0.9, 0.3, 0.7])).astype(int)
    rows = n * L
    table = columns_from_games(rng.random((rows, 2)) < 0.6, targets=np.tile(np.arange(L), n))
    table["truth"] = said.reshape(-1)
    names = [name for name in table if name not in ("sample_id", "group")]
    whole = {name: np.asarray(table[name]) for name in names}
    whole["sample_id"] = [f"{i // L}#{i % L}" for i in range(rows)]
    whole["group"] = [str(i // L) for i in range(rows)]
    for name, values in whole.items():
        if isinstance(values, np.ndarray) and values.dtype == bool:
            whole[name] = values.astype(np.uint8)
    write_further(tmp_path / "coalitions", whole)
    alone = (rng.random((rows, 1)) < 0.9).astype(float)
    references(tmp_path, whole["sample_id"], alone=alone)
    found = measured(evidence_of(tmp_path, 1, L, grouped=True, task="multilabel"))
    frequency = said.mean(axis=0)
    above = alone.mean() - np.maximum(frequency, 1 - frequency).mean()
    assert found["audio", "above chance", "none"].value == pytest.approx(above, abs=1e-12)
    assert found["audio", "alone", "none"].groups == n


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover_the_truth_from_table_to_estimate(tmp_path: Path, grouped: bool) -> None:
    """400 data sets each; the band is that of coverage in 93 to 97 % widened by one and a half Monte Carlo standard errors."""
    rng = np.random.default_rng(11 + grouped)
    sims, levels = 400, np.array([0.2, 0.45, 0.5, 0.8])  # none, audio, image, both
    alone, p = np.array([0.7, 0.5]), np.array([0.5, 0.3, 0.2])
    truth = {
        ("audio", "alone", "none"): 0.7,
        ("audio", "above chance", "none"): 0.2,
        ("audio", "gap", "first"): 0.25,
        ("image", "gap", "first"): 0.0,
        ("audio", "joint advantage", "none"): 0.1,
        ("audio", "drop without", "none"): 0.3,
    }
    covered = dict.fromkeys(truth, 0)
    for sim in range(sims):
        groups = np.repeat(np.arange(60), rng.integers(2, 7, 60)) if grouped else np.arange(200)
        n = len(groups)
        common = rng.standard_normal(n)
        if grouped:
            common = 0.8 * common + 0.6 * rng.standard_normal(60)[groups]
        latent = 0.7 * common[:, None] + np.sqrt(0.51) * rng.standard_normal((n, 6))
        right = latent < norm.ppf(np.concatenate([levels, alone]))
        table = columns_from_games(
            right[:, :4], targets=rng.choice(3, n, p=p), groups=groups if grouped else None
        )
        folder = tmp_path / str(sim)
        write_table(folder / "coalitions", table)
        references(folder, table["sample_id"], alone=right[:, 4:])
        found = measured(evidence_of(folder, 2, 3, grouped=grouped, replicates=500))
        for key, value in truth.items():
            covered[key] += found[key].low <= value <= found[key].high
        shutil.rmtree(folder)
    shares = {key: count / sims for key, count in covered.items()}
    assert all(0.913 <= share <= 0.987 for share in shares.values()), shares
