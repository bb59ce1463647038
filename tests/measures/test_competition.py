"""Competition strengths as estimates: by hand, and whether the intervals cover."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mmaudit.evidence.extra_table import write_table as write_further
from mmaudit.evidence.strength import strength_terms
from mmaudit.exceptions import UndefinedMeasureError
from mmaudit.measures import competition
from mmaudit.measures.competition import CompetitionStrength, competition_strength
from mmaudit.measures.evidence import Evidence
from mmaudit.measures.resampling import bootstrap_weights
from mmaudit.report.labels import LABELS
from tests.measures.evidence_tables import evidence_of

PENALTIES = ("cross-validated", "120")
TERMS = ("error", "whitened", "weight", "bias")
PROBES = ("modality", "penalty", "reason", "value", "fitted_on", "n", "rank", "width", "outputs")


def _evidence(folder, pairs, *, n, reasons=None, groups=None):
    """``pairs``: modality -> rows, concept, predictions under both penalties."""
    owners = [f"s{i}" for i in range(n)] if groups is None else [f"g{g}" for g in groups]
    base = evidence_of(folder, np.tile([[0, 1, 0, 1]], (n, 1)), ids=[f"s{i}" for i in range(n)], groups=None if groups is None else owners)  # fmt: skip
    scatter, table = np.full((n, 2), np.nan), {key: np.full((n, 4), np.nan) for key in TERMS}
    probes = []
    for m, name in enumerate(("audio", "image")):
        for p, penalty in enumerate(PENALTIES):
            reason, rank = (reasons or {}).get(name), 0
            if name in pairs:
                rows, concept, *predicted = pairs[name]
                units = np.arange(n) if groups is None else np.asarray(groups)
                terms = strength_terms(concept, predicted[p], units[rows])
                scatter[rows, m] = terms.scatter
                for key in TERMS:
                    table[key][rows, 2 * m + p] = getattr(terms, key)
                rank = terms.rank
            probes.append((name, penalty, reason, (3.5, 120.0)[p], "training data", 99, rank, 16, 2))  # fmt: skip
    write_further(folder / "competition_probes", dict(zip(PROBES, map(list, zip(*probes)), strict=True)))  # fmt: skip
    write_further(
        folder / "competition",
        {"sample_id": [f"s{i}" for i in range(n)], "group": owners, "scatter": scatter, **table},
    )
    return Evidence(base.coalitions, ("audio", "image"), ("no", "yes"), groups is not None, 0, 500)


def _measured(evidence):
    result = CompetitionStrength().of(evidence)
    assert all(tuple(row.labels) == LABELS["competition"] for row in result.rows)
    return {tuple(row.labels.values()): row.estimate for row in result.rows}, result


def _pair(n, q=3, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    concept = rng.standard_normal((n, q)) @ rng.standard_normal((q, q))
    return concept, concept + noise * rng.standard_normal((n, q))


def test_a_case_by_hand(tmp_path):
    concept = np.array([[1.0, 0], [0, 2], [-1, 0], [0, -2]])
    predicted = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    pairs = {"audio": (np.arange(4), concept, predicted, 0 * predicted)}
    evidence = _evidence(tmp_path, pairs, n=4, reasons={"image": "no reference"})
    found, result = _measured(evidence)
    assert found["audio", "pooled", "cross-validated"].value == pytest.approx(0.2)
    assert found["audio", "whitened", "cross-validated"].value == pytest.approx(0.09375)
    assert found["audio", "pooled", "120"].value == pytest.approx(1.0)
    assert found["audio", "whitened", "120"].value == pytest.approx(0.75)
    values = [found["audio", name, "120"].value for name in ("rank", "lambda", "latent width")]
    assert values == [2, 120, 16]
    assert found["audio", "lambda", "cross-validated"].value == 3.5
    assert found["image", "whitened", "120"].undefined == "no reference"
    assert "4 samples, fewer than 50" in found["audio", "pooled", "120"].warning
    assert result.settings["probes"][0]["fitted_on"] == "training data"


def test_samples_without_the_modality_do_not_count(tmp_path):
    concept, predicted = _pair(200)
    some = np.arange(0, 200, 3)
    pairs = {
        "audio": (some, concept[some], predicted[some], predicted[some]),
        "image": (np.arange(200), concept, predicted, predicted),
    }
    found, _ = _measured(_evidence(tmp_path, pairs, n=200))
    audio, image = (found[name, "pooled", "120"] for name in ("audio", "image"))
    assert (audio.n, image.n) == (67, 200)
    assert audio.value == pytest.approx(competition_strength(concept[some], predicted[some]))
    assert image.value == pytest.approx(competition_strength(concept, predicted))
    assert audio.low < audio.value < audio.high
    assert audio.high - audio.low > image.high - image.low


def test_groups_are_resampled_whole(tmp_path):
    groups = np.repeat(np.arange(60), 5)
    concept, predicted = (part[groups] for part in _pair(60))
    pair = (np.arange(300), concept, predicted, predicted)
    apart = _measured(_evidence(tmp_path / "a", {"audio": pair}, n=300, reasons={"image": "no"}))[0]
    whole = _measured(
        _evidence(tmp_path / "b", {"audio": pair}, n=300, reasons={"image": "no"}, groups=groups)
    )[0]
    for quantity in ("pooled", "whitened"):
        a, b = (found["audio", quantity, "120"] for found in (apart, whole))
        assert a.value == pytest.approx(b.value) and b.groups == 60
        assert (b.high - b.low) / (a.high - a.low) == pytest.approx(np.sqrt(5), rel=0.2)


def test_nothing_can_be_said_without_reasons_failing(tmp_path):
    reasons = {"audio": "the model has no latent", "image": "the model has no latent"}
    found, result = _measured(_evidence(tmp_path, {}, n=5, reasons=reasons))
    assert result.undefined is None and len(found) == 20
    assert all(estimate.undefined == "the model has no latent" for estimate in found.values())


def test_the_formula_alone_says_why_it_is_undefined():
    with pytest.raises(UndefinedMeasureError, match="the same for all"):
        competition_strength(np.ones((3, 2)), np.ones((3, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "q", "noise", "tail", "size"),
    [(60, 6, 0.3, False, 1), (200, 6, 1.5, False, 1), (200, 20, 1.0, False, 1), (1000, 1, 1.0, True, 1), (400, 6, 1.5, False, 8)],
)  # fmt: skip
def test_intervals_cover(n, q, noise, tail, size):
    """93 to 97 % of 1,000 data sets, widened by two Monte Carlo standard errors."""
    weights = bootstrap_weights(n // size, 800, 0)
    evidence = SimpleNamespace(grouped=size > 1, sums=SimpleNamespace(weights=lambda _: weights))
    rng = np.random.default_rng(2)
    truly = rng.standard_normal((24, q))
    found = truly + 0.3 * rng.standard_normal((24, q))
    mix = rng.standard_normal((q, q)) / np.sqrt(q)

    def draw(rows, rng):
        z, e = rng.standard_normal((rows, 24)), rng.standard_normal((rows, q))
        if size > 1:
            z = 0.7 * z + 0.7 * np.repeat(rng.standard_normal((rows // size, 24)), size, 0)
        if tail:
            e *= np.exp(0.5 * rng.standard_normal((rows, 1)))
        return z @ truly + noise * e @ mix, z @ found

    everything = strength_terms(*draw(400_000, rng))
    truth = {
        "pooled": everything.error.sum() / everything.scatter.sum(),
        "whitened": everything.whitened.sum(),
    }
    hits = dict.fromkeys(truth, 0)
    for run in range(1000):
        concept, predicted = draw(n, np.random.default_rng(100 + run))
        terms = strength_terms(concept, predicted, np.arange(n) // size)
        columns = [terms.error, terms.scatter, terms.whitened, terms.weight, terms.bias]
        rows = np.column_stack([np.ones(n), *columns])
        sums = rows.reshape(n // size, size, 6).sum(1)
        probe = {"rank": terms.rank, "value": 1.0, "width": 24}
        estimates = competition._estimates(evidence, probe, sums)
        for name, value in truth.items():
            hits[name] += estimates[name].low <= value <= estimates[name].high
    assert all(0.917 <= count / 1000 <= 0.983 for count in hits.values()), hits
