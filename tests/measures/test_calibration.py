from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve

from mmaudit.measures import selective_risk
from mmaudit.measures.calibration import (
    BINS,
    Calibration,
    calibration_intervals,
    confidence_bins,
    debiased_gaps,
    overconfidence_intervals,
)
from mmaudit.measures.intervals import FEWEST_SUCCESSES
from tests.measures.evidence_tables import NAMES, evidence_of, find, regression_of, wrong_and_right

QUANTITIES = ("ece", "overconfidence", "selective risk", "risk at 80 %")


def measured(evidence):
    return Calibration().of(evidence)


def answers(rng, shape, accuracy=0.9, shift=1.0, groups=None, icc=0.3):
    """Confidence, correct and the true chance of being correct; more confident than right by ``shift`` logits."""
    n, sims = shape
    middle = {0.7: 1.0, 0.9: 2.7, 0.98: 4.8}[accuracy]
    spread, luck = rng.standard_normal((2, n, sims))
    if groups is not None:
        of_group = rng.standard_normal((2, groups.max() + 1, sims))[:, groups]
        spread = np.sqrt(1 - icc) * spread + np.sqrt(icc) * of_group[0]
        luck = np.sqrt(1 - icc) * luck + np.sqrt(icc) * of_group[1]
    chance = 1 / (1 + np.exp(-middle - 1.2 * spread))
    correct = (stats.norm.cdf(luck) < chance).astype(np.float64)
    return 1 / (1 + np.exp(-middle - 1.2 * spread - shift)), correct, chance


def plain_ece(confidence, correct):
    """Over all samples at once, by the definition."""
    return sum(
        abs((confidence[inside] - correct[inside]).mean()) * inside.mean()
        for b in range(BINS)
        if (inside := (confidence > b / BINS) & (confidence <= (b + 1) / BINS)).any()
    )


def plain_risks(confidence, correct, repeats=1):
    """Area under the curve and risk of the surest 80 %, by sorting; ties in random order, over and over."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(repeats):
        order = np.lexsort((rng.random(len(correct)), -confidence))
        risk = np.cumsum(1 - correct[order]) / np.arange(1, len(correct) + 1)
        found.append((risk.mean(), risk[round(0.8 * len(correct)) - 1]))
    return np.mean(found, axis=0)


def in_bins(confidence, correct, starts=None):
    """Sums of units: errors and confidence less 1 in each bin, and counts."""
    inside = confidence_bins(confidence)[..., None] == np.arange(BINS)
    parts = [(1 - correct)[..., None] * inside, (confidence - 1)[..., None] * inside]
    parts.append(np.ones((len(correct), 1)))
    if starts is not None:
        parts = [np.add.reduceat(part, starts, axis=0) for part in parts]
    return parts


# by hand --------------------------------------------------------------------------------------------------------------


def test_twenty_samples_by_hand(tmp_path):
    # ten samples at .95, nine of them right; ten at .55, four of them right
    confidence = np.repeat([0.95, 0.55], 10)
    correct = np.array([1] * 9 + [0] + [1] * 4 + [0] * 6)
    result = measured(
        evidence_of(
            tmp_path, np.tile(correct[:, None], 2), confidence=np.tile(confidence[:, None], 2)
        )
    )
    found = {quantity: find(result, coalition="a", quantity=quantity) for quantity in QUANTITIES}
    assert found["overconfidence"].value == pytest.approx(0.75 - 0.65, abs=1e-6)
    # the surest 16: all ten of the first kind, six of the second in random order
    assert found["risk at 80 %"].value == pytest.approx((1 + 6 * 0.6) / 16)
    # risk .1 up to half of the samples, then (.05 + .6 (c - .5)) / c
    assert found["selective risk"].value == pytest.approx(0.05 + 0.3 - 0.25 * np.log(2), abs=1e-6)
    plug_in = 0.5 * (0.95 - 0.9) + 0.5 * (0.55 - 0.4)
    assert 0 <= found["ece"].value < plug_in
    for estimate in found.values():
        assert estimate.low < estimate.value < estimate.high
        assert "20 samples" in estimate.warning


def test_noise_is_taken_off_gaps():
    rng = np.random.default_rng(0)
    for truth in np.linspace(0, 3, 13):
        value, least, most = (
            part.mean() - truth
            for part in debiased_gaps(truth + rng.standard_normal(200_000), np.ones(200_000))
        )
        assert -0.26 < value < 0.26
        assert least < 0.01
        assert most > -0.04
    # the size itself is off by .8 at 0
    assert np.abs(rng.standard_normal(200_000)).mean() > 0.79


def test_gaps_without_noise_or_far_from_it_stay():
    for part in debiased_gaps(np.array([-0.2, 0.0, 0.3]), np.array([0.0, 0.0, 0.01])):
        assert part == pytest.approx([0.2, 0.0, 0.3])


# against other implementations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_it_agrees_with_plain_loops_and_scikit_learn(tmp_path, grouped, shift):
    rng = np.random.default_rng(0)
    confidence, correct, _ = answers(rng, (20_000, 4), 0.7, shift)
    confidence = confidence.astype(np.float32)
    groups = np.arange(20_000) // 5 if grouped else None
    evidence = evidence_of(tmp_path, correct, confidence=confidence, groups=groups, shards=3)
    result = measured(evidence)
    for place, name in enumerate(("none", "a", "b", "a+b")):
        c, y = confidence[:, place].astype(np.float64), correct[:, place]
        ece = find(result, coalition=name, quantity="ece")
        right, said = calibration_curve(y, c, n_bins=BINS)
        sizes = np.bincount(confidence_bins(c), minlength=BINS)
        by_sklearn = (sizes[sizes > 0] / len(y)) @ np.abs(right - said)
        assert plain_ece(c, y) == pytest.approx(by_sklearn)
        # with 20,000 samples hardly any noise is left
        assert ece.value == pytest.approx(by_sklearn, abs=0.003)
        assert ece.low < by_sklearn < ece.high
        gap = find(result, coalition=name, quantity="overconfidence")
        assert gap.value == pytest.approx((c - y).mean(), abs=1e-6)
        area, cut = plain_risks(c, y)
        found = find(result, coalition=name, quantity="selective risk")
        assert found.value == pytest.approx(area, abs=1 / 2048)
        assert found.groups == (4000 if grouped else None)
        found = find(result, coalition=name, quantity="risk at 80 %")
        assert found.value == pytest.approx(cut, abs=1e-3)


def test_ties_are_in_random_order(tmp_path):
    rng = np.random.default_rng(0)
    confidence, correct, _ = answers(rng, (300, 4), 0.7)
    confidence = np.round(confidence, 1).astype(np.float32)
    confidence[:, 0] = 0.5
    result = measured(evidence_of(tmp_path, correct, confidence=confidence))
    for place, name in enumerate(("none", "a", "b", "a+b")):
        area, cut = plain_risks(confidence[:, place], correct[:, place], 4000)
        found = find(result, coalition=name, quantity="selective risk").value
        # the mean over whole samples is not the integral; 1 / n of the risk of the very first
        assert found == pytest.approx(area, abs=2 / 300)
        assert find(result, coalition=name, quantity="risk at 80 %").value == pytest.approx(
            cut, abs=2e-3
        )
    constant = find(result, coalition="none", quantity="selective risk")
    assert constant.value == pytest.approx(1 - correct[:, 0].mean())


def test_blocks_of_ranks_change_little(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    confidence, correct, _ = answers(rng, (6000, 4), 0.9)
    evidence = evidence_of(tmp_path, correct, confidence=confidence)
    exact = measured(evidence)
    monkeypatch.setattr(selective_risk, "_MOST_RANKS", 2000)
    monkeypatch.setattr(selective_risk, "_BLOCKS", 200)
    blocks = selective_risk.rank_errors(evidence, np.arange(4))
    assert all(150 < len(ranked.mass) <= 200 for ranked in blocks)
    for row, other in zip(exact.rows, measured(evidence).rows, strict=True):
        assert row.labels == other.labels
        for end in ("value", "low", "high"):
            assert getattr(row.estimate, end) == pytest.approx(
                getattr(other.estimate, end), abs=5e-3
            )


@pytest.mark.parametrize("number", [selective_risk.area_under_risk, selective_risk.risk_at])
def test_the_influence_of_samples_is_the_derivative(number):
    rng = np.random.default_rng(0)
    mass = rng.dirichlet(np.ones(60))
    ranked = selective_risk.RankedErrors(np.sort(rng.random(60))[::-1], mass, mass * rng.random(60))
    found = number(ranked)
    assert found.of_error @ ranked.errors + found.of_sample @ ranked.mass == pytest.approx(
        0, abs=1e-12
    )
    if number is selective_risk.risk_at:
        return  # how often the model errs just at the threshold is smoothed
    step = 1e-7
    for block in (0, 1, 30, 59):
        for wrong in (0.0, 1.0):
            # one more sample in a block, right or wrong, and all others that much less
            more = ranked.mass * (1 - step)
            errors = ranked.errors * (1 - step)
            more[block] += step
            errors[block] += step * wrong
            moved = number(ranked._replace(mass=more, errors=errors)).value - found.value
            predicted = found.of_error[block] * wrong + found.of_sample[block]
            assert moved / step == pytest.approx(predicted, abs=1e-4)


# properties -----------------------------------------------------------------------------------------------------------


def test_a_perfect_ranking_is_better_than_none_and_than_the_reverse(tmp_path):
    correct = np.tile((np.arange(200) < 150)[:, None], 2)
    best, worst = np.linspace(1, 0.6, 200), np.linspace(0.6, 1, 200)
    values = []
    for name, confidence in (("best", best), ("worst", worst)):
        evidence = evidence_of(
            tmp_path / name, correct, confidence=np.stack([np.full(200, 0.8), confidence], 1)
        )
        result = measured(evidence)
        values.append(find(result, coalition="a", quantity="selective risk").value)
        assert find(result, coalition="none", quantity="selective risk").value == pytest.approx(
            0.25
        )
    assert values[0] < 0.05 < 0.25 < values[1]


def test_extremes_stay_in_range(tmp_path):
    for name, correct, confidence in (
        ("always right and sure", np.ones((60, 2)), np.ones((60, 2))),
        ("always wrong and sure", np.zeros((60, 2)), np.ones((60, 2))),
        ("always right and unsure", np.ones((60, 2)), np.full((60, 2), 0.5)),
    ):
        result = measured(evidence_of(tmp_path / name, correct, confidence=confidence))
        gap = abs(confidence[0, 0] - correct[0, 0])
        for row in result.rows:
            e = row.estimate
            assert (
                0 <= e.low <= e.value <= e.high <= 1 or row.labels["quantity"] == "overconfidence"
            )
            assert f"fewer than {FEWEST_SUCCESSES} errors" in e.warning
        ece = find(result, coalition="a", quantity="ece")
        assert ece.value == pytest.approx(gap)
        assert ece.high - ece.low > 0.03 or gap in (0, 1)


@pytest.mark.parametrize(("M", "coalitions"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 14), (12, 26)])
def test_which_coalitions_have_rows(tmp_path, M, coalitions):
    correct, confidence = wrong_and_right(np.random.default_rng(0), 50, M)
    result = measured(evidence_of(tmp_path, correct, confidence=confidence))
    assert len(result.rows) == 4 * coalitions
    names = {row.labels["coalition"] for row in result.rows}
    assert {"none", "+".join(NAMES[:M]), "a"} <= names
    assert result.settings["bins"] == 15


def test_a_regression_has_no_confidence(tmp_path):
    result = measured(
        regression_of(tmp_path, np.arange(60.0), np.random.default_rng(0).normal(size=(60, 4)))
    )
    assert result.rows == ()
    assert "no confidence" in result.undefined


def test_no_error_among_the_surest_is_a_bound_and_no_certainty(tmp_path):
    confidence = np.linspace(1, 0.5, 200)
    correct = np.arange(200) < 170
    evidence = evidence_of(
        tmp_path, np.tile(correct[:, None], 2), confidence=np.tile(confidence[:, None], 2)
    )
    found = find(measured(evidence), coalition="a", quantity="risk at 80 %")
    assert (found.value, found.low) == (pytest.approx(0), pytest.approx(0))
    # Wilson's upper end of none in 160
    assert found.high == pytest.approx(0.0234, abs=5e-4)
    assert f"fewer than {FEWEST_SUCCESSES}" in found.warning


def test_two_samples_have_values(tmp_path):
    confidence = np.array([[0.9, 0.9], [0.6, 0.6]])
    result = measured(evidence_of(tmp_path, np.array([[1, 1], [0, 0]]), confidence=confidence))
    for row in result.rows:
        assert row.estimate.value is not None
        assert "2 samples" in row.estimate.warning


def test_one_group_has_no_interval(tmp_path):
    rng = np.random.default_rng(0)
    correct, confidence = wrong_and_right(rng, 60, 2)
    evidence = evidence_of(tmp_path, correct, confidence=confidence, groups=np.zeros(60, int))
    for row in measured(evidence).rows:
        assert row.estimate.value is not None
        assert row.estimate.low is None
        assert "no interval" in row.estimate.warning


def test_the_order_of_samples_does_not_matter(tmp_path):
    rng = np.random.default_rng(0)
    correct, confidence = wrong_and_right(rng, 200, 2)
    order = rng.permutation(200)
    first = evidence_of(tmp_path / "a", correct, confidence=confidence)
    second = evidence_of(
        tmp_path / "b", correct[order], confidence=confidence[order], ids=[str(i) for i in order]
    )
    for row, other in zip(measured(first).rows, measured(second).rows, strict=True):
        assert row.estimate.value == pytest.approx(other.estimate.value)
        assert row.estimate.high == pytest.approx(other.estimate.high)


# coverage -------------------------------------------------------------------------------------------------------------


def truths(accuracy, shift):
    """Of the population: ECE in the same bins, overconfidence, area and risk at 80 %."""
    confidence, _, chance = answers(np.random.default_rng(9), (1000, 1000), accuracy, shift)
    confidence, chance = confidence.ravel(), chance.ravel()
    gaps = np.bincount(confidence_bins(confidence), confidence - chance, BINS) / len(chance)
    area, cut = plain_risks(confidence, chance)
    ece = np.abs(gaps).sum() if shift else 0.0
    return ece, (confidence - chance).mean(), area, cut


def covered(rng, n, accuracy, shift, sims, number=None):
    """How often each of the four is below the interval, and above it; and how often few errors warn."""
    truth, outside, rare = truths(accuracy, shift), np.zeros((4, 2)), 0.0
    for _ in range(sims // 100):
        groups = starts = None
        if number is not None:
            groups = np.repeat(np.arange(number), rng.integers(4, 17, number))
            starts, n = np.flatnonzero(np.diff(groups, prepend=-1)), len(groups)
        confidence, correct, _ = answers(rng, (n, 100), accuracy, shift, groups)
        wrong, short, counts = in_bins(confidence, correct, starts)
        grouped = number is not None
        found = [
            calibration_intervals(wrong, short, counts, grouped=grouped),
            overconfidence_intervals(wrong.sum(2), short.sum(2), counts, grouped=grouped),
        ]
        found += risks(confidence, correct, counts, starts)
        for place, intervals in enumerate(found):
            assert np.isfinite([intervals.low, intervals.high]).all()
            outside[place] += [
                (intervals.low > truth[place]).sum(),
                (intervals.high < truth[place]).sum(),
            ]
        rare += (found[0].successes < FEWEST_SUCCESSES).sum()
    return outside / sims, rare / sims


def risks(confidence, correct, counts, starts):
    influence, values = np.empty((2, *correct.shape)), np.empty((2, correct.shape[1]))
    for run, (c, e) in enumerate(zip(confidence.T, 1 - correct.T)):
        least, block = np.unique(-c, return_inverse=True)
        ranked = selective_risk.RankedErrors(
            -least, np.bincount(block) / len(e), np.bincount(block, e) / len(e)
        )
        for kind, number in enumerate((selective_risk.area_under_risk, selective_risk.risk_at)):
            risk = number(ranked)
            values[kind, run] = risk.value
            influence[kind, :, run] = risk.of_error[block] * e + risk.of_sample[block]
    errors = (1 - correct).sum(axis=0)
    for kind in range(2):
        sums = (
            influence[kind] if starts is None else np.add.reduceat(influence[kind], starts, axis=0)
        )
        yield selective_risk.risk_intervals(
            values[kind], sums, counts, errors=errors, grouped=starts is not None, area=kind == 0
        )


def judge(tag, outside, rare, shift, failures):
    total = 1 - outside.sum(axis=1)
    if rare < 0.5:
        failures += [
            f"{name}, {tag}: {total[place]:.3f}"
            for place, name in enumerate(QUANTITIES)
            # the calibration error is covered more often where the bins hold too little to tell, also 0 by all
            if not 0.92 <= total[place] <= (1.0 if place == 0 else 0.985)
        ]
    if shift == 0:
        assert outside[0, 1] == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("n", [200, 1000, 5000])
def test_independent_samples(n):
    rng, failures = np.random.default_rng(n), []
    for accuracy in (0.7, 0.9, 0.98):
        for shift in (0.0, 0.3, 1.0, -0.7):
            outside, rare = covered(rng, n, accuracy, shift, 2000 if n < 5000 else 600)
            judge(f"n {n}, accuracy {accuracy}, shift {shift}", outside, rare, shift, failures)
    assert not failures, "\n".join(failures)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [30, 100])
def test_groups(number):
    rng, failures = np.random.default_rng(number), []
    for accuracy in (0.7, 0.9, 0.98):
        for shift in (0.0, 0.3, 1.0, -0.7):
            outside, rare = covered(rng, None, accuracy, shift, 1000, number)
            judge(
                f"{number} groups, accuracy {accuracy}, shift {shift}",
                outside,
                rare,
                shift,
                failures,
            )
    assert not failures, "\n".join(failures)


def test_perfect_calibration_is_not_told_from_it():
    rng = np.random.default_rng(0)
    confidence, correct, _ = answers(rng, (300, 300), 0.7, 0.0)
    wrong, short, counts = in_bins(confidence, correct)
    found = calibration_intervals(wrong, short, counts, grouped=False)
    assert (found.low == 0).mean() > 0.92
    plug_in = np.abs((wrong + short).sum(axis=0) / 300).sum(axis=1)
    assert found.value.mean() < plug_in.mean() / 2


def test_a_quick_look():
    outside, _ = covered(np.random.default_rng(0), 200, 0.9, 1.0, 400)
    total = 1 - outside.sum(axis=1)
    assert (total > 0.91).all()
    assert (total[1:] < 0.99).all()
