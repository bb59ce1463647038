import numpy as np
import pytest
from sklearn.datasets import load_digits, make_circles

from mmaudit.evidence.probing import Split, deal, probe, probe_elsewhere
from mmaudit.evidence.questions import Decisions, ask, missed


def _asked(x, truth, *, task="multiclass", classes=0, units=None, seed=0):
    names = [str(i) for i in range(len(x))] if units is None else [str(u) for u in units]
    folds, numbers = deal(names, seed)
    question = ask(task, np.asarray(truth), classes or int(np.max(truth)) + 1)
    return probe(Split(x.astype(np.float32), question, folds, numbers), seed=seed)


def _gain(judged):
    return np.nansum(judged["gain"]) / np.nansum(judged["entropy"])


def _above(judged):
    return np.nanmean(judged["score"] - judged["constant"])


def _rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("n", "d", "classes"), [(100, 5, 2), (400, 30, 3), (1000, 10, 2)])
def test_noise_says_nothing(n, d, classes):
    gains, above = [], []
    for seed in range(5):
        rng = _rng(seed)
        judged = _asked(rng.standard_normal((n, d)), rng.integers(0, classes, n), seed=seed)
        gains.append(_gain(judged))
        above.append(_above(judged))
    assert np.median(np.abs(gains)) == 0  # most find exactly nothing
    assert np.abs(gains).max() < 0.02
    assert np.abs(above).max() < 0.05


def _circles(n, noise_features):
    x, y = make_circles(n, noise=0.1, factor=0.5, random_state=0)
    return np.hstack([x, 0.7 * _rng().standard_normal((n, noise_features))]), y


def _product(n, d):
    x = _rng().standard_normal((n, d))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def _shapes(n):
    rng = _rng()
    y, x = rng.integers(0, 4, n), 0.8 * rng.standard_normal((n, 16, 16))
    for image, kind in zip(x, y, strict=True):
        a, b = 8 * (kind % 2) + rng.integers(0, 4), 8 * (kind // 2) + rng.integers(0, 4)
        image[a : a + 4, b : b + 4] += 1.0
    return x.reshape(n, -1), y


@pytest.mark.parametrize(
    ("data", "accuracy", "gain"),
    [
        (lambda: _circles(600, 0), 0.97, 0.9),
        (lambda: _circles(600, 48), 0.75, 0.35),
        (lambda: _product(1000, 2), 0.95, 0.8),
        (lambda: _product(1000, 10), 0.75, 0.3),
        (lambda: (load_digits().data, load_digits().target), 0.96, 0.93),
        (lambda: _shapes(1000), 0.7, 0.4),
    ],
    ids=["circle", "circle among 50", "product", "product among 10", "digits", "shapes in noise"],
)
def test_what_is_there_is_found(data, accuracy, gain):
    judged = _asked(*data())
    assert np.mean(judged["score"]) > accuracy
    assert gain < _gain(judged) < 1


def test_the_gain_is_the_share_of_the_entropy():
    """A feature that names the class with probability .8: the gain is known."""
    rng = _rng()
    y = rng.integers(0, 2, 4000)
    x = np.where(rng.random(4000) < 0.8, y, 1 - y)[:, None].astype(float)
    judged = _asked(x, y)
    expected = 1 + (0.8 * np.log2(0.8) + 0.2 * np.log2(0.2))
    assert _gain(judged) == pytest.approx(expected, abs=0.02)
    assert np.mean(judged["score"]) == pytest.approx(0.8, abs=0.02)


def test_what_belongs_together_is_never_learnt_from():
    """Features name the group, labels belong to groups at random: known inside a group, nothing beyond it."""
    rng = _rng()
    groups = np.repeat(np.arange(60), 10)
    x = rng.standard_normal((60, 8))[groups] + 0.05 * rng.standard_normal((600, 8))
    y = rng.integers(0, 2, 60)[groups]
    apart, together = _asked(x, y), _asked(x, y, units=groups)
    assert _gain(apart) > 0.9
    assert _gain(together) < 0.05


def test_a_rare_class_is_no_reason_to_believe_in_something():
    rng = _rng()
    y = (rng.random(600) < 0.08).astype(int)
    judged = _asked(rng.standard_normal((600, 6)), y)
    assert abs(_gain(judged)) < 0.02 and abs(_above(judged)) < 1e-9
    known = rng.standard_normal((600, 6))
    known[:, 0] += 4 * y
    assert _gain(_asked(known, y)) > 0.5


def test_a_class_that_is_absent_harms_nothing():
    rng = _rng()
    y = 2 * rng.integers(0, 2, 200)  # of four classes, two
    x = y[:, None] + 0.3 * rng.standard_normal((200, 3))
    judged = _asked(x, y, classes=4)
    assert np.mean(judged["score"]) > 0.97 and np.isfinite(judged["gain"]).all()


def test_numbers():
    rng = _rng()
    x = rng.standard_normal((600, 6))
    y = np.stack([np.sin(2 * x[:, 0]), rng.standard_normal(600), 1e6 + 50 * x[:, 1]], 1)
    y[::7, 1] = np.nan
    judged = _asked(x, y, task="regression", classes=1)
    share = 1 - np.nansum(judged["score"], 0) / np.nansum(judged["constant"], 0)
    assert share[0] > 0.7 and abs(share[1]) < 0.05 and share[2] > 0.9
    assert np.isnan(judged["score"][::7, 1]).all()
    nothing = _asked(rng.standard_normal((600, 6)), y[:, [1]], task="regression", classes=1)
    assert abs(_gain(nothing)) < 0.01


def test_labels():
    rng = _rng()
    x = rng.standard_normal((600, 5))
    y = np.stack([x[:, 0] > 0, rng.random(600) < 0.3, x[:, 1] ** 2 > 0.5], 1).astype(int)
    y[:50, 2] = -1
    judged = _asked(x, y, task="multilabel", classes=2)
    score = np.nanmean(judged["score"], 0)
    assert score[0] > 0.9 and score[2] > 0.85
    assert abs(np.nanmean(judged["score"][:, 1] - judged["constant"][:, 1])) < 0.03
    assert np.isnan(judged["gain"][:50, 2]).all() and np.isfinite(judged["gain"][50:]).all()


def test_a_probe_may_be_asked_about_other_data():
    rng = _rng()
    x, y = rng.standard_normal((500, 4)), rng.integers(0, 2, 500)
    x[:, 0] += 1.5 * y
    folds, units = deal([str(i) for i in range(500)], 0)
    split = Split(x, ask("binary", y, 2), folds, units)
    other, z = rng.standard_normal((300, 4)), rng.integers(0, 2, 300)
    other[:, 0] += 1.5 * z
    judged = probe_elsewhere(split, other, ask("binary", z, 2), np.arange(300), seed=0)
    assert np.mean(judged["score"]) == pytest.approx(0.77, abs=0.05)
    assert _gain(judged) > 0.15
    wrong = probe_elsewhere(split, other, ask("binary", 1 - z, 2), np.arange(300), seed=0)
    assert _gain(wrong) < -0.3  # judged by what is true there


def test_it_is_the_same_every_time():
    x, y = _product(200, 4)
    a, b = _asked(x, y), _asked(x, y)
    assert all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)
    assert not np.array_equal(_asked(x, y, seed=1)["gain"], a["gain"])


def test_constant_features_say_nothing():
    judged = _asked(np.full((100, 3), 2.5), _rng().integers(0, 2, 100))
    assert _gain(judged) == 0 and _above(judged) == 0


def test_units_stay_whole_and_folds_are_even():
    units = [f"u{i % 23}" for i in range(230)]
    folds, numbers = deal(units, 0)
    assert len({(f, n) for f, n in zip(folds.tolist(), numbers.tolist(), strict=True)}) == 23
    assert sorted(np.bincount(folds).tolist()) == [40, 40, 50, 50, 50]
    assert (deal(units[::-1], 0)[0][::-1] == folds).all()


def test_the_best_constant_answer():
    y = np.array([0] * 55 + [1] * 45)
    question = Decisions(y[:, None], 2)
    assert question.constant()[:, 0].tolist() == [1.0] * 55 + [0.0] * 45
    assert 0 < question.luck()[0] < 0.03
    far = Decisions(np.array([0] * 90 + [1] * 10)[:, None], 2)
    assert far.luck()[0] == pytest.approx(0, abs=2e-3)
    even = Decisions(np.array([0, 1, 2] * 20)[:, None], 3)
    assert np.allclose(even.constant(), 1 / 3) and even.luck()[0] == 0


def test_luck_is_by_how_much_the_largest_frequency_is_too_high():
    found = []
    for seed in range(300):
        y = _rng(seed).integers(0, 5, 100)
        question = Decisions(y[:, None], 5)
        found.append((question.constant().mean() - 0.2, question.luck()[0]))
    excess, luck = np.array(found).T
    assert excess.mean() > 0.04
    assert 0.4 * excess.mean() < luck.mean() < 0.8 * excess.mean()  # part of it, as said


def test_what_may_have_been_missed_is_about_what_so_few_samples_hide():
    """Per sample 1.92 / n nats on average where there is nothing; much more where something is there that was not believed."""
    for n in (100, 400):
        totals = []
        for seed in range(12):
            rng = _rng(seed)
            judged = _asked(rng.standard_normal((n, 4)), rng.integers(0, 2, n), seed=seed)
            assert ((judged["missed"] > 0) <= (judged["gain"] == 0)).all()
            totals.append(judged["missed"].sum())
        assert 0.5 < np.median(totals) < 6  # nats; 1.92 where the slope is 0
    assert _asked(np.full((100, 3), 2.5), _rng().integers(0, 2, 100))["missed"].sum() == 0


def test_what_was_missed_is_the_square_of_the_largest_weight():
    """By hand: less their mean, moves are .25 (two right, one wrong of four) and -.75 (right)."""
    question = Decisions(np.array([1, 1, 0, 0] * 25)[:, None], 2)
    answer = np.array([1.0, 1.0, 0.0, 1.0] * 25)[:, None]
    prior = np.array([[0.5, 0.5]])
    slopes = question.slopes([answer], prior, np.arange(100))
    assert slopes[:, 0] == pytest.approx([25.0, 18.75, 18.75])
    most = (25 + 1.959964 * np.sqrt(18.75)) ** 2 / (2 * 18.75)
    assert missed(slopes, squared=False)[0] == pytest.approx(most)
    together = question.slopes([answer], prior, np.arange(100) // 4)
    assert together[1, 0] == pytest.approx(25 * 1.0)
    assert missed(np.array([[-20.0], [25.0], [25.0]]), squared=False)[0] == 0
    numbers = ask("regression", np.array([1.0, -1.0] * 50)[:, None], 1)
    slopes = numbers.slopes([np.array([0.5, -0.5] * 50)[:, None]], np.zeros(1), np.arange(100))
    assert slopes[:, 0] == pytest.approx([50, 25, 25])
    assert missed(slopes, squared=True)[0] == pytest.approx((50 + 1.959964 * 5) ** 2 / 25)
