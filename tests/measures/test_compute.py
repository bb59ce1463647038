from __future__ import annotations

import numpy as np
import pytest

import mmaudit.measures as package
from mmaudit.exceptions import RecordError, SpecError, UndefinedMeasureError
from mmaudit.measures import MEASURES, compute_measures
from mmaudit.measures.contribution import contribution_shares
from mmaudit.measures.shapley import shapley_interactions, shapley_values
from mmaudit.measures.utilization import utilization_rates, utilization_spread
from mmaudit.report.labels import LABELS
from tests import toys
from tests.measures.table import columns_from_games, columns_from_logits, write_table

AV = ("audio", "video")
AVT = ("audio", "video", "text")
CLASSES = ("no", "yes")


def table_of_accuracies(folder, accuracies, n=240, **others):
    """A table whose coalition accuracies are exactly these, with losses that follow them."""
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(n) for _ in accuracies], axis=1)
    correct = ranks < np.round(n * np.asarray(accuracies))
    targets = rng.integers(0, 2, n)
    loglik = -rng.exponential(size=correct.shape) - 1.0 * ~correct
    return (
        write_table(folder, columns_from_games(correct, loglik, targets=targets, **others)),
        correct,
        loglik,
        targets,
    )


def find(result, **labels):
    rows = [
        row.estimate
        for row in result.rows
        if all(row.labels[key] == value for key, value in labels.items())
    ]
    assert len(rows) == 1, (labels, len(rows))
    return rows[0]


OF_THE_TABLE = [key for key, kind in MEASURES.items() if not getattr(kind, "tables", ())]
"""Measures that need no table beside the coalition table."""


def run(folder, modalities, **options):
    settings = {"classes": CLASSES, "grouped": False, "seed": 0, **options}
    results, failures = compute_measures(folder, modalities=modalities, **settings)
    assert failures == ()
    return results


def test_accuracy_game_by_hand(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, toys.ACCURACIES.values)
    results = run(folder, AV)
    assert list(results) == OF_THE_TABLE
    for m, name in enumerate(AV):
        labels = {"modality": name, "score": "accuracy", "class": "all"}
        value = find(results["contributions"], quantity="value", **labels)
        assert value.value == pytest.approx(toys.ACCURACIES.shapley[m], abs=1e-6)
        assert value.low < value.value < value.high
        share = find(results["contributions"], quantity="share", **labels)
        total = 0.7 - 1 / 6
        assert share.value == pytest.approx(toys.ACCURACIES.shapley[m] / total, abs=1e-6)
    for name, accuracy in zip(("none", "audio", "video", "audio+video"), toys.ACCURACIES.values):
        labels = {"coalition": name, "score": "accuracy", "class": "all"}
        estimate = find(results["coalitions"], **labels)
        assert estimate.value == pytest.approx(accuracy)
        assert estimate.method.startswith("Wilson")
        assert estimate.n == 240


def test_utilization_by_hand(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, toys.UTILIZATION_ACCURACIES)
    result = run(folder, AVT)["utilization"]
    for modality, rest, value in zip(
        AVT, ("video+text", "audio+text", "audio+video"), toys.UTILIZATION_RATES
    ):
        labels = {"quantity": "u", "modality": modality, "given": rest, "class": "all"}
        assert find(result, **labels).value == pytest.approx(value, abs=1e-6)
    alone = find(result, quantity="u", modality="audio", given="none", **{"class": "all"})
    assert alone.value == pytest.approx(1 - 0.1 / 0.5)
    spread = find(result, quantity="d_util", **{"class": "all"})
    assert spread.value == pytest.approx(1 / 3, abs=1e-6)
    rates = utilization_rates(toys.UTILIZATION_ACCURACIES)
    assert rates[[0, 1, 2], [6, 5, 3]] == pytest.approx(toys.UTILIZATION_RATES, abs=1e-6)
    assert utilization_spread(toys.UTILIZATION_RATES) == pytest.approx(0.333333)


def test_d_util_of_two_is_signed(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.1, 0.3, 0.6, 0.8])
    result = run(folder, AV)["utilization"]
    estimate = find(result, quantity="d_util", modality="video - audio", **{"class": "all"})
    # u(video | audio) - u(audio | video) = (1 - 3/8) - (1 - 6/8): the model leans on video
    assert estimate.value == pytest.approx(0.375)
    assert estimate.low > 0


def test_d_util_warns_where_its_modalities_are_a_guess(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.5] * 7 + [0.5])
    estimate = find(run(folder, AVT)["utilization"], quantity="d_util", **{"class": "all"})
    assert "overstated" in estimate.warning


def test_every_measure_agrees_with_the_rows_in_memory(tmp_path):
    accuracies = [0.1, 0.5, 0.4, 0.8, 0.3, 0.7, 0.6, 0.9]
    folder, correct, loglik, targets = table_of_accuracies(tmp_path, accuracies)
    results = run(folder, AVT)
    for label, rows in (("all", slice(None)), ("no", targets == 0), ("yes", targets == 1)):
        for score, worth in (("accuracy", correct), ("log-likelihood", loglik)):
            game = worth[rows].mean(axis=0)
            for m, modality in enumerate(AVT):
                labels = {"modality": modality, "score": score, "class": label}
                value = find(results["contributions"], quantity="value", **labels)
                assert value.value == pytest.approx(shapley_values(game)[m], abs=1e-6)
                share = find(results["contributions"], quantity="share", **labels)
                assert share.value == pytest.approx(contribution_shares(game)[m], abs=1e-6)
            for i, j in ((0, 1), (0, 2), (1, 2)):
                labels = {"first": AVT[i], "second": AVT[j], "score": score, "class": label}
                found = find(results["interactions"], **labels)
                assert found.value == pytest.approx(shapley_interactions(game)[i, j], abs=1e-6)
        rate = find(
            results["utilization"],
            quantity="u",
            modality="text",
            given="audio+video",
            **{"class": label},
        )
        accuracy = correct[rows].mean(axis=0)
        assert rate.value == pytest.approx(1 - accuracy[3] / accuracy[7])


def ignoring_model(n=200, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, n)
    audio = np.eye(2)[targets] * 2 + rng.normal(size=(n, 2))
    bias = np.tile([0.2, 0.0], (n, 1))
    return np.stack([bias, audio + bias, bias, audio + bias]), targets


def test_an_ignored_modality_has_no_response_and_a_certain_zero(tmp_path):
    logits, targets = ignoring_model()
    results = run(write_table(tmp_path, columns_from_logits(logits, targets)), AV)
    for empty in ("exact", "zero"):
        for quantity in ("s", "Acc"):
            labels = {"quantity": quantity, "empty": empty, "class": "all"}
            nothing = find(results["responses"], modality="video", **labels)
            assert nothing.value is None
            assert nothing.undefined.startswith("no response")
            assert find(results["responses"], modality="audio", **labels).value > 0
    for score in ("accuracy", "log-likelihood"):
        labels = {"modality": "video", "quantity": "value", "score": score, "class": "all"}
        estimate = find(results["contributions"], **labels)
        assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0, 0, 0), abs=1e-6)
        assert estimate.warning is None


def test_absent_samples_leave_the_responses_but_not_the_contributions(tmp_path):
    rng = np.random.default_rng(3)
    n = 200
    targets = rng.integers(0, 2, n)
    has = rng.random(n) < 0.6
    parts = [np.eye(2)[targets] * s + rng.normal(size=(n, 2)) for s in (1.0, 1.5)]
    parts[1][~has] = 0
    logits = np.stack(
        [sum((parts[m] for m in range(2) if c >> m & 1), np.zeros((n, 2))) for c in range(4)]
    )
    columns = columns_from_logits(logits, targets, present=np.where(has, 3, 1))
    columns["response_loglik_exact"][~has, 1] = np.nan
    results = run(write_table(tmp_path, columns), AV)
    labels = {"quantity": "Acc", "empty": "exact", "class": "all"}
    assert find(results["responses"], modality="video", **labels).n == has.sum()
    assert find(results["responses"], modality="audio", **labels).n == n
    labels = {"modality": "video", "quantity": "value", "score": "accuracy", "class": "all"}
    found = find(results["contributions"], **labels)
    assert found.n == n
    assert found.value == pytest.approx(shapley_values(columns["correct"].mean(axis=0))[1])


def test_shares_of_nothing_are_undefined(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.5, 0.6, 0.4, 0.5])
    labels = {"modality": "audio", "quantity": "share", "score": "accuracy", "class": "all"}
    assert "nothing to share" in find(run(folder, AV)["contributions"], **labels).undefined
    folder, *_ = table_of_accuracies(tmp_path / "b", [0.5, 0.6, 0.4, 0.525])
    assert "includes 0" in find(run(folder, AV)["contributions"], **labels).undefined
    with pytest.raises(UndefinedMeasureError, match="nothing to share"):
        contribution_shares(np.array([0.5, 0.6, 0.4, 0.5]))


def test_a_share_is_no_surer_than_the_contribution_it_comes_from(tmp_path):
    rng = np.random.default_rng(4)
    n, targets = 240, rng.integers(0, 2, 240)
    heard = (rng.random(n) < 0.9)[:, None] * np.eye(2)[targets] * 4
    bias = np.tile([0.2, 0.0], (n, 1))
    # The second changes scores, but in no sample the answer.
    slight = rng.normal(size=(n, 2)) * 0.01
    logits = np.stack([bias, bias + heard, bias + slight, bias + heard + slight])
    results = run(write_table(tmp_path / "a", columns_from_logits(logits, targets)), AV)
    labels = {"score": "accuracy", "class": "all"}
    value, share, all_of_it = (
        find(results["contributions"], modality=name, quantity=quantity, **labels)
        for name, quantity in (("video", "value"), ("video", "share"), ("audio", "share"))
    )
    total = sum(
        find(results["contributions"], modality=name, quantity="value", **labels).value
        for name in AV
    )
    assert value.value == share.value == 0 and value.high > 0
    assert (share.low, share.high) == pytest.approx((value.low / total, value.high / total))
    assert all_of_it.value == 1.0
    assert (all_of_it.low, all_of_it.high) == pytest.approx((1 + share.low, 1 + share.high))
    # Where the model does not hear the second at all, the first has all by its make.
    silent = np.stack([bias, bias + heard, bias, bias + heard])
    results = run(write_table(tmp_path / "b", columns_from_logits(silent, targets)), AV)
    for name, whole in (("audio", 1.0), ("video", 0.0)):
        share = find(results["contributions"], modality=name, quantity="share", **labels)
        assert (share.low, share.value, share.high) == (whole, whole, whole)


def test_no_accuracy_no_rate(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.0, 0.0, 0.4, 0.0])
    result = run(folder, AV)["utilization"]
    labels = {"quantity": "u", "given": "none", "class": "all"}
    assert "accuracy of audio is 0" in find(result, modality="audio", **labels).undefined
    assert find(result, modality="video", **labels).value == 1.0
    assert "is 0" in find(result, quantity="d_util", **{"class": "all"}).undefined


def test_a_class_without_samples(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.1, 0.5, 0.4, 0.8])
    results = run(folder, AV, classes=("no", "yes", "never"))
    for result in results.values():
        if "class" not in LABELS[result.key]:
            continue
        rows = [row.estimate for row in result.rows if row.labels["class"] == "never"]
        assert rows
        assert all(row.undefined for row in rows)


def test_one_modality(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.5, 0.8])
    results = run(folder, ("audio",))
    assert "two modalities" in results["interactions"].undefined
    labels = {"modality": "audio", "quantity": "value", "score": "accuracy", "class": "all"}
    assert find(results["contributions"], **labels).value == pytest.approx(0.3)
    assert all(row.labels["quantity"] == "u" for row in results["utilization"].rows)


def test_groups_widen_and_are_counted(tmp_path):
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(50), 8)
    of_group = rng.random((50, 4)) < [0.1, 0.5, 0.4, 0.8]
    correct = of_group[groups]
    columns = columns_from_games(correct, -2.0 + correct + rng.normal(size=(400, 4)), groups=groups)
    write_table(tmp_path, columns)
    alone, together = run(tmp_path, AV), run(tmp_path, AV, grouped=True)
    labels = {"modality": "audio", "quantity": "value", "score": "accuracy", "class": "all"}
    a, b = (find(found["contributions"], **labels) for found in (alone, together))
    assert a.groups is None
    assert b.groups == 50
    assert "50 groups" in b.method
    assert (b.high - b.low) / (a.high - a.low) == pytest.approx(np.sqrt(8), rel=0.15)


def test_equal_seeds_give_equal_bytes(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.1, 0.5, 0.4, 0.8])
    first, second = run(folder, AV), run(folder, AV)
    assert {k: v.model_dump_json() for k, v in first.items()} == {
        k: v.model_dump_json() for k, v in second.items()
    }


def test_rows_of_a_measure_share_their_labels(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.1, 0.5, 0.4, 0.8, 0.3, 0.7, 0.6, 0.9])
    for result in run(folder, AVT).values():
        keys = {tuple(row.labels) for row in result.rows}
        assert len(keys) == 1
        assert len({tuple(row.labels.values()) for row in result.rows}) == len(result.rows)


def test_a_measure_that_raises_does_not_lose_the_others(tmp_path, monkeypatch):
    folder, *_ = table_of_accuracies(tmp_path, [0.1, 0.5, 0.4, 0.8])

    class Broken(MEASURES["interactions"]):
        def rows(self, sums):
            raise RuntimeError("planted")

    monkeypatch.setitem(package.MEASURES, "interactions", Broken)
    results, failures = compute_measures(
        folder, modalities=AV, classes=CLASSES, grouped=False, seed=0
    )
    assert [(f.measure, f.error) for f in failures] == [("interactions", "RuntimeError: planted")]
    assert set(results) == set(OF_THE_TABLE) - {"interactions"}


def test_only_some_measures(tmp_path):
    folder, *_ = table_of_accuracies(tmp_path, [0.1, 0.5, 0.4, 0.8])
    assert list(run(folder, AV, only=["utilization", "coalitions"])) == [
        "coalitions",
        "utilization",
    ]
    with pytest.raises(SpecError, match="'utilisation'; there are coalitions"):
        run(folder, AV, only=["utilisation"])
    with pytest.raises(RecordError):
        run(tmp_path / "elsewhere", AV)


def test_left_out_samples_are_said(tmp_path):
    logits, targets = ignoring_model()
    columns = columns_from_logits(logits, targets)
    columns["loglik"][5] = np.nan
    results = run(write_table(tmp_path, columns), AV)
    for result in results.values():
        assert result.settings["left_out_not_finite"] == 1
        assert result.settings["left_out_ids"] == ["5"]


def without_some(folder, modalities, lacking, of_class=None, n=240):
    """A table where no sample, or none of one class, has the modalities ``lacking`` (bits)."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, n)
    gone = np.full(n, True) if of_class is None else targets == of_class
    present = np.where(gone, (2 ** len(modalities) - 1) & ~lacking, 2 ** len(modalities) - 1)
    seen = np.arange(2 ** len(modalities)) & present[:, None]
    strength = np.array([0.1, 0.5, 0.4, 0.8, 0.3, 0.7, 0.6, 0.9])
    correct = rng.random((n, 1)) < strength[seen]
    loglik = np.log(strength[seen] * 0.9) - 0.1 * rng.random((n, 1))
    columns = columns_from_games(correct, loglik, targets=targets, present=present)
    return run(write_table(folder, columns), modalities)


NOT_HERE = "no sample here has this modality"


def about(row, name):
    """Whether a row is about a modality; that it is among the given ones does not count."""
    return name in [row.labels.get(key) for key in ("modality", "first", "second")]


@pytest.mark.parametrize(("lacking", "of_class"), [(4, None), (4, 1)])
def test_nothing_is_measured_of_a_modality_that_no_sample_has(tmp_path, lacking, of_class):
    results = without_some(tmp_path, AVT, lacking, of_class)
    where = {"all", *CLASSES} if of_class is None else {CLASSES[of_class]}
    for key in ("contributions", "interactions", "utilization", "responses"):
        rows = [row for row in results[key].rows if about(row, "text")]
        assert {row.labels["class"] for row in rows} == {"all", *CLASSES}
        for row in rows:
            if row.labels["class"] in where:
                assert row.estimate.undefined == NOT_HERE, (key, row.labels)
            elif key != "responses":
                assert row.estimate.value is not None, (key, row.labels)
    for key in ("coalitions", "contributions", "interactions", "utilization"):
        others = [row for row in results[key].rows if not about(row, "text")]
        assert others
        assert all(row.estimate.value is not None for row in others), key


def test_rates_given_an_absent_modality_are_those_without_it(tmp_path):
    result = without_some(tmp_path, AVT, 4)["utilization"]
    labels = {"quantity": "u", "modality": "audio", "class": "all"}
    with_text = find(result, given="video+text", **labels)
    assert with_text.value == find(result, given="video", **labels).value > 0


def test_d_util_does_not_compare_an_absent_modality(tmp_path):
    result = without_some(tmp_path, AVT, 4)["utilization"]
    for name in ("all", *CLASSES):
        rates = {
            m: find(result, quantity="u", modality=m, given=given, **{"class": name}).value
            for m, given in (("audio", "video+text"), ("video", "audio+text"))
        }
        spread = find(result, quantity="d_util", **{"class": name})
        assert spread.value == pytest.approx(max(rates.values()) - min(rates.values()))
    two = without_some(tmp_path / "two", AV, 2)["utilization"]
    spread = find(two, quantity="d_util", **{"class": "all"})
    assert "no sample here has video" in spread.undefined
    one = without_some(tmp_path / "one", AVT, 6)["utilization"]
    spread = find(one, quantity="d_util", **{"class": "all"})
    assert "no sample here has video or text" in spread.undefined
