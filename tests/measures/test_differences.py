"""Every difference against an independent implementation: loops over samples, orders of modalities and replicates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mmaudit.comparing import compare
from mmaudit.measures.differences import family_of
from mmaudit.measures.paired import holm
from mmaudit.measures.resampling import bootstrap_weights
from mmaudit.measures.units import unit_keys
from tests.pairs import NAMES, make_pair

REPLICATES = 100


def worths(table, rows, w, score):
    values = np.asarray(table["correct" if score == "accuracy" else "loglik"], float)[rows]
    return (w[:, None] * values).sum(axis=0) / w.sum()


def shapley(game, M):
    """Mean marginal contribution over all orders in which modalities may arrive."""
    values = np.zeros(M)
    for order in itertools.permutations(range(M)):
        there = 0
        for m in order:
            values[m] += game[there | 1 << m] - game[there]
            there |= 1 << m
    return values / math.factorial(M)


def interaction(game, M, i, j):
    """Mean over all orders of the others of what the pair is worth beyond its parts, when it arrives as one."""
    merged = [m for m in range(M) if m not in (i, j)] + ["pair"]
    total, orders = 0.0, list(itertools.permutations(merged))
    for order in orders:
        there = sum(1 << m for m in order[: order.index("pair")])
        a, b = 1 << i, 1 << j
        total += game[there | a | b] - game[there | a] - game[there | b] + game[there]
    return total / len(orders)


def name_of(c, names):
    return "+".join(n for m, n in enumerate(names) if c >> m & 1) or "none"


def values_of(table, rows, w, names):
    """Every number of every measure for these samples, each counted so often, by its labels."""
    M, found = len(names), {}
    acc, full = worths(table, rows, w, "accuracy"), 2 ** len(names) - 1
    for score in ("accuracy", "log-likelihood"):
        game = worths(table, rows, w, score)
        for c in range(2**M):
            found["coalitions", name_of(c, names), score] = game[c]
        values = shapley(game, M)
        for m, name in enumerate(names):
            found["contributions", name, score, "value"] = values[m]
            found["contributions", name, score, "share"] = values[m] / (game[full] - game[0])
        for i, j in itertools.combinations(range(M), 2):
            found["interactions", names[i], names[j], score] = interaction(game, M, i, j)
    for m, name in enumerate(names):
        has = np.where(table["present"][rows] >> m & 1, w, 0.0)
        for empty in ("exact", "zero"):
            for quantity, column, sign in (("Acc", "score", 1), ("s", "loglik", -1)):
                values = table[f"response_{column}_{empty}"][rows, m].astype(float)
                found["responses", quantity, name, empty] = sign * (has * values).sum() / has.sum()
        for c in range(2**M):
            if not c >> m & 1:
                with_ = acc[c | 1 << m]
                found["utilization", "u", name, name_of(c, names)] = (with_ - acc[c]) / with_
    if M > 1:
        rates = [
            found["utilization", "u", n, name_of(full - (1 << m), names)]
            for m, n in enumerate(names)
        ]
        pair = "max - min" if M > 2 else f"{names[1]} - {names[0]}"
        spread = max(rates) - min(rates) if M > 2 else rates[1] - rates[0]
        found["utilization", "d_util", pair, "rest"] = spread
    return found


def owners_of(table, grouped, rows):
    """Unit of each of these samples; units are numbered in the order in which they are drawn."""
    keys = unit_keys(np.array(table["group" if grouped else "sample_id"], object), 0)[rows]
    return np.unique(keys, return_inverse=True)[1]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("M", [1, 2, 3])
def test_every_number(tmp_path, M, grouped):
    rng = np.random.default_rng(M)
    n = 90
    groups = rng.integers(0, 25, n) if grouped else None
    # only samples that have everything and samples that lack one modality
    present = (
        np.where(rng.random(n) < 0.7, 2**M - 1, 2**M - 1 - (1 << rng.integers(0, M, n)))
        if M > 1
        else None
    )
    skills = ((1.4, 0.8, 0.6)[:M], (1.5, 1.1, 0.2)[:M])
    before, after, tables = make_pair(
        tmp_path, skills, n=n, K=2, groups=groups, present=present, seed=M
    )
    names = NAMES[:M]
    comparison = compare(before, after, replicates=REPLICATES)
    classes = {"all": np.arange(n)} | {
        f"class {k}": np.flatnonzero(tables[0]["target"] == k) for k in range(2)
    }
    seen = 0
    for label, rows in classes.items():
        owners = owners_of(tables[0], grouped, rows)
        units = owners.max() + 1
        weights = bootstrap_weights(units, REPLICATES, 0)

        def differences(counted):
            one, other = (values_of(table, rows, counted[owners], names) for table in tables)
            return {key: other[key] - one[key] for key in one}

        one = np.ones(units)
        first, second = (values_of(table, rows, one[owners], names) for table in tables)
        slopes, step = [], 1e-4
        for u in range(units):
            nudge = step * (np.arange(units) == u)
            more, less = differences(one + nudge), differences(one - nudge)
            slopes.append({key: (more[key] - less[key]) / (2 * step) for key in more})
        for measure, result in comparison.measures.items():
            for row in result.rows:
                if row.labels["class"] != label:
                    continue
                key = (measure, *(v for k, v in row.labels.items() if k != "class"))
                if row.difference.value is None:
                    assert row.difference.undefined
                    continue
                seen += 1
                value = second[key] - first[key]
                assert row.before.value == pytest.approx(first[key], abs=1e-6), key
                assert row.after.value == pytest.approx(second[key], abs=1e-6), key
                assert row.difference.value == pytest.approx(value, abs=1e-6), key
                if "max - min" in key:
                    continue  # the record keeps the two modalities it found fixed
                changes = np.array([slope[key] for slope in slopes])
                check_interval(row, key, value, changes, weights, owners, tables, rows, names)
    assert seen > (20 if M == 1 else 60)


def check_interval(row, key, value, changes, weights, owners, tables, rows, names):
    used = len(changes)
    if key[0] == "responses":
        has = tables[0]["present"][rows] >> names.index(key[2]) & 1
        used = len(set(owners[has == 1].tolist()))
    error = math.sqrt((changes**2).sum() * used / (used - 1))
    if error < 1e-9:
        return  # all agree: tested by hand elsewhere
    strays, plain = [], []
    factor = stats.t.ppf(0.975, used - 1) / stats.norm.ppf(0.975) * math.sqrt(used / (used - 1))
    for drawn in weights:
        again = np.repeat(changes, drawn)
        spread = (again**2).sum() - again.sum() ** 2 / used
        own = math.sqrt(max(spread, 0.0) * used / (used - 1))
        strays.append(abs(again.sum()) / own if own > 1e-6 * error else math.inf)
        plain.append(factor * abs(again.sum()) / error)
    if used < 20 or np.isfinite(strays).mean() <= 0.95:
        strays = plain
    half = sorted(strays)[math.ceil(0.95 * (REPLICATES - 1))] * error
    ends = [value - half, value + half]
    if row.gained is not None:
        ends = np.clip(ends, -1, 1)
    assert (row.difference.low, row.difference.high) == pytest.approx(tuple(ends), abs=1e-5), key
    if row.test == "exact McNemar":
        assert row.p == pytest.approx(mcnemar_by_hand(key, tables, rows, names)), key
    else:
        # what strays exactly as far as 0 lies may fall on either side by rounding
        least, most = (
            (1 + sum(s >= abs(value) / error + slack for s in strays)) / (REPLICATES + 1)
            for slack in (1e-4, -1e-4)
        )
        assert least - 1e-12 <= row.p <= max(most, row.smallest_p) + 1e-12 or abs(value) < 1e-9, key


def mcnemar_by_hand(key, tables, rows, names):
    if key[0] == "coalitions":
        c = [name_of(c, names) for c in range(2 ** len(names))].index(key[1])
        one, other = (np.asarray(t["correct"])[rows, c] for t in tables)
    else:
        m = names.index(key[2])
        rows = [r for r in rows if tables[0]["present"][r] >> m & 1]
        one, other = (t[f"response_score_{key[3]}"][rows, m] for t in tables)
    gained, lost = int((other > one).sum()), int((one > other).sum())
    n = gained + lost
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n)


def test_accuracies_of_groups_are_not_tested_as_independent(tmp_path):
    groups = np.arange(300) // 5
    before, after, _ = make_pair(tmp_path, groups=groups)
    row = compare(before, after, replicates=200).row("coalitions", coalition="audio+image")
    assert row.test == "paired bootstrap"
    assert row.difference.groups == 60
    assert row.gained is not None
    assert row.gained - row.lost == pytest.approx(300 * row.difference.value)


def test_ties_are_not_tested_as_right_or_wrong(tmp_path):
    before, after, tables = make_pair(tmp_path / "1")
    assert compare(before, after).row("responses", modality="audio").test == "exact McNemar"
    from tests.pairs import make_record

    tables[1]["response_score_exact"][5, 0] = 0.5
    tied = make_record(tmp_path / "2", tables[1], NAMES[:2], before.classes)
    row = compare(before, tied).row("responses", modality="audio")
    assert row.test == "paired bootstrap"
    assert (row.gained, row.lost) == (None, None)
    assert compare(before, tied).row("responses", modality="image").test == "exact McNemar"


def test_families(tmp_path):
    before, after, _ = make_pair(tmp_path, ((1.0, 0.5, 0.4), (1.0, 0.9, 0.4)), K=3)
    comparison = compare(before, after, replicates=200)
    for measure, result in comparison.measures.items():
        families = {}
        for row in result.rows:
            if row.p is not None:
                families.setdefault(family_of(row.labels), []).append(row)
        for family, rows in families.items():
            expected = holm(np.array([row.p for row in rows]))
            assert [row.p_holm for row in rows] == pytest.approx(expected)
            assert {row.family for row in rows} == {len(rows)}, (measure, family)
    assert comparison.row("coalitions", coalition="audio+image+text").family == 1
    assert comparison.row("coalitions", coalition="audio").family == 3
    assert comparison.row("responses", modality="audio").family == 3
    assert comparison.row("utilization", modality="audio", given="rest").family == 3
    assert comparison.row("utilization", modality="audio", given="image").family == 6
    assert comparison.row("interactions", first="audio", second="text").family == 3
    single = comparison.row("responses", modality="audio", **{"class": "class 1"})
    assert single.family == 9
