"""What probes found, as estimates: by hand, and whether the intervals cover."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mmaudit.evidence.extra_table import write_table as write_further
from mmaudit.evidence.questions import Decisions
from mmaudit.measures import information
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.information import Information
from mmaudit.measures.resampling import bootstrap_weights
from mmaudit.report.labels import LABELS
from tests.measures.evidence_tables import evidence_of, regression_of

PROBES = ("modality", "features", "reason", "learnt_from", "said", "n")


def _evidence(folder, cells, reasons=(), *, n=40, groups=None, task="multiclass"):
    """``cells``: (modality, features) -> score, constant, luck, gain, missed, entropy, ``(n, 6)``."""
    rows = {name: [] for name in ("sample_id", "group", "modality", "features")}
    owners = [f"s{i}" for i in range(n)] if groups is None else [f"g{g}" for g in groups]
    numbers, probes = [], []
    for (modality, features), values in cells.items():
        rows["sample_id"] += [f"s{i}" for i in range(n)]
        rows["group"] += owners
        rows["modality"] += [modality] * n
        rows["features"] += [features] * n
        numbers.append(np.asarray(values, dtype=np.float64))
        probes.append((modality, features, None, "other audited samples", "values", 32))
    probes += [(modality, features, reason, "", "", 0) for modality, features, reason in reasons]
    if task == "regression":
        base = regression_of(folder, np.arange(n), np.zeros((n, 4)))
    else:
        base = evidence_of(
            folder,
            np.tile([[0, 1, 0, 1]], (n, 1)),
            ids=[f"s{i}" for i in range(n)],
            groups=None if groups is None else owners,
        )
    columns = dict(zip(PROBES, map(list, zip(*probes)), strict=True))
    write_further(folder / "information_probes", columns)
    table = np.concatenate(numbers) if numbers else np.zeros((0, 6))
    named = zip(("score", "constant", "luck", "gain", "missed", "entropy"), table.T, strict=True)
    write_further(folder / "information", {**rows, **dict(named)})
    classes = ("value",) if task == "regression" else ("no", "yes")
    return Evidence(base.coalitions, ("audio", "image"), classes, groups is not None, 0, 500, task)


def _measured(evidence):
    result = Information().of(evidence)
    assert all(tuple(row.labels) == LABELS["information"] for row in result.rows)
    return {tuple(row.labels.values()): row.estimate for row in result.rows}, result


def _cell(right, constant, gain=0.3, entropy=0.7, luck=0.0, missed=0.0):
    right, constant = np.asarray(right, float), np.asarray(constant, float)
    rest = np.tile([luck, gain, missed, entropy], (len(right), 1))
    return np.column_stack([right, constant, rest])


def test_a_case_by_hand(tmp_path):
    audio = _cell([1] * 30 + [0] * 10, [1] * 20 + [0] * 20)
    evidence = _evidence(
        tmp_path,
        {("audio", "inputs"): audio, ("audio", "best"): audio},
        [("image", "inputs", "input 'image' is a list, no tensor")],
    )
    found, result = _measured(evidence)
    accuracy = found["audio", "accuracy", "inputs"]
    assert (accuracy.value, accuracy.n, accuracy.method) == (0.75, 40, "Wilson over samples")
    above = found["audio", "above chance", "best"]
    assert above.value == pytest.approx(0.25)
    assert above.low == pytest.approx(0.25 - 2.0227 * np.sqrt(0.25 * 0.75 / 39), abs=1e-4)
    assert above.high - above.value == pytest.approx(above.value - above.low)
    gain = found["audio", "gain", "inputs"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((3 / 7, 3 / 7, 3 / 7))
    reason = found["image", "above chance", "inputs"].undefined
    assert reason == "input 'image' is a list, no tensor"
    assert result.settings["probes"][0]["learnt_from"] == "other audited samples"
    assert result.settings["tables"] == ["information", "information_probes"]
    assert "40 samples, fewer than 50" in above.warning


def test_a_probe_that_found_nothing(tmp_path):
    same = [1] * 55 + [0] * 45
    evidence = _evidence(tmp_path, {("audio", "best"): _cell(same, same, gain=0.0)}, n=100)
    found, _ = _measured(evidence)
    above, gain = found["audio", "above chance", "best"], found["audio", "gain", "best"]
    assert above.value == 0 and -0.04 < above.low < 0 < above.high < 0.04
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)


def test_it_may_have_missed_something(tmp_path):
    same = [1] * 55 + [0] * 45
    cell = _cell(same, same, gain=0.0, missed=0.018)
    found, _ = _measured(_evidence(tmp_path, {("audio", "best"): cell}, n=100))
    above, gain = found["audio", "above chance", "best"], found["audio", "gain", "best"]
    assert (gain.value, gain.low, gain.high) == (0, 0, pytest.approx(0.018 / 0.7))
    assert above.value == 0 and above.high == pytest.approx(np.sqrt(0.018 / 2))
    assert "up to what may have been missed" in above.method


def test_the_interval_is_shifted_by_how_lucky_the_constant_was(tmp_path):
    right, constant = [1] * 120 + [0] * 80, [1] * 60 + [0] * 140
    plain = _measured(_evidence(tmp_path / "a", {("audio", "best"): _cell(right, constant)}, n=200))
    lucky = _measured(
        _evidence(tmp_path / "b", {("audio", "best"): _cell(right, constant, luck=0.01)}, n=200)
    )
    before, after = (found[0]["audio", "above chance", "best"] for found in (plain, lucky))
    assert after.value == before.value
    assert after.low - before.low == pytest.approx(0.01)
    assert after.high - before.high == pytest.approx(0.015)


def test_groups_are_resampled_whole(tmp_path):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 8)
    right = (rng.random(50) < 0.7)[groups].astype(float)
    cell = {("audio", "best"): _cell(right, np.zeros(400))}
    apart = _measured(_evidence(tmp_path / "a", cell, n=400))[0]["audio", "above chance", "best"]
    found = _measured(_evidence(tmp_path / "b", cell, n=400, groups=groups))[0]
    whole = found["audio", "above chance", "best"]
    assert whole.groups == 50 and apart.groups is None and whole.value == apart.value
    ratio = (whole.high - whole.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(np.sqrt(8), rel=0.1)


def test_numbers_have_r2(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(300)
    predicted = truth + 0.5 * rng.standard_normal(300)
    values = np.column_stack(
        [
            -((truth - predicted) ** 2),
            -((truth - truth.mean()) ** 2),
            np.zeros(300),
            truth**2 - (truth - predicted) ** 2,
            np.zeros(300),
            truth**2,
        ]
    )
    evidence = _evidence(tmp_path, {("audio", "best"): values}, n=300, task="regression")
    found, _ = _measured(evidence)
    expected = 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    share = found["audio", "R2", "best"]
    assert share.value == pytest.approx(expected)
    assert share.low < 0.8 < share.high and share == found["audio", "above chance", "best"]
    assert ("audio", "accuracy", "best") not in found


def test_modalities_do_not_need_the_same_samples(tmp_path):
    evidence = _evidence(tmp_path, {("audio", "best"): _cell([1] * 40, [0] * 40)})
    columns = {
        "sample_id": ["s0", "s1", "s0"],
        "group": ["s0", "s1", "s0"],
        "modality": ["audio", "audio", "image"],
        "features": ["best"] * 3,
        **{name: [1.0, 0.0, 1.0] for name in ("score", "gain", "entropy")},
        **{name: [0.0] * 3 for name in ("constant", "luck", "missed")},
    }
    for path in (tmp_path / "information").glob("*"):
        path.unlink()
    write_further(tmp_path / "information", columns)
    for path in (tmp_path / "information_probes").glob("*"):
        path.unlink()
    probes = [("audio", "best", None, "", "", 2), ("image", "best", None, "", "", 2)]
    write_further(tmp_path / "information_probes", dict(zip(PROBES, map(list, zip(*probes)), strict=True)))  # fmt: skip
    found, _ = _measured(evidence)
    assert (found["audio", "accuracy", "best"].n, found["image", "accuracy", "best"].n) == (2, 1)
    assert found["audio", "accuracy", "best"].value == 0.5
    assert "no interval" in found["image", "gain", "best"].warning


def _drawn(rng, n, prior, sharp, size):
    """Classes and the log-probabilities of a probe that is over-sure, ``(n, K)``."""
    K = len(prior)
    y = rng.choice(K, n, p=prior)
    x = rng.standard_normal((n, K))
    if size > 1:
        x += np.repeat(0.7 * rng.standard_normal((n // size, K)), size, 0)
    x[np.arange(n), y] += sharp
    logits = np.log(prior) + 0.8 * sharp * x
    return y, logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "prior", "sharp", "size"),
    [
        (60, (0.5, 0.5), 0.6, 1),
        (200, (0.52, 0.48), 0.6, 1),
        (200, (0.1,) * 10, 1.0, 1),
        (1000, (0.7, 0.2, 0.1), 0.8, 1),
        (400, (0.4, 0.3, 0.2, 0.1), 0.6, 8),
    ],
)
def test_intervals_cover(n, prior, sharp, size):
    """93 to 97 % of 1,000 data sets, widened by two Monte Carlo standard errors."""
    prior = np.array(prior)
    weights = {u: bootstrap_weights(u, 800, 0) for u in (n // size,)}
    evidence = SimpleNamespace(
        grouped=size > 1, task="multiclass", sums=SimpleNamespace(weights=weights.__getitem__)
    )
    y, logp = _drawn(np.random.default_rng(1), 400_000, prior, sharp, size)
    gain = logp[np.arange(len(y)), y] - np.log(prior)[y]
    accuracy = (logp.argmax(1) == y).mean()
    truth = {
        "accuracy": accuracy,
        "above chance": accuracy - prior.max(),
        "gain": gain.mean() / -(prior * np.log(prior)).sum(),
    }
    hits = dict.fromkeys(truth, 0)
    for run in range(1000):
        y, logp = _drawn(np.random.default_rng(100 + run), n, prior, sharp, size)
        base = np.log(prior)[y]
        question = Decisions(y[:, None], len(prior))
        right, gain = logp.argmax(1) == y, logp[np.arange(n), y] - base
        luck = np.full(n, question.luck()[0])
        rows = np.column_stack(
            [np.ones(n), right, question.constant(), luck, gain, 0 * gain, -base]
        )
        sums = rows.reshape(n // size, size, 7).sum(1)
        for name, e in information._estimates(evidence, sums).items():
            hits[name] += e.low <= truth[name] <= e.high
    assert all(0.917 <= count / 1000 <= 0.983 for count in hits.values()), hits
