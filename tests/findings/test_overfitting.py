"""Findings about a training: what is said of heads in odd company, through logs that are made for it."""

import numpy as np

from mmaudit import LossReport, ogr
from mmaudit.findings.overfitting import find_overfitting
from tests.loss_logs import T, log_text, planted


def report(tmp_path, columns, heads=()):
    path = tmp_path / "log.csv"
    path.write_text(log_text(heads=heads, columns=columns))
    return ogr(path)


def pairs(**curves):
    return {
        f"{split}_{name}_loss": values
        for name, pair in curves.items()
        for split, values in zip(("train", "val"), pair, strict=True)
    }


def test_equal_heads_are_said_to_be_equal(tmp_path):
    found = report(tmp_path, pairs(audio=planted("audio"), joint=planted("audio")))
    (against,) = [f for f in found.findings if f.rule == "joint against best single head"]
    assert "about as much" in against.text and against.level == "information"
    assert any(f.rule == "worse than its best head" for f in found.findings)
    (blend,) = [f for f in found.findings if f.rule == "blend"]
    assert blend.modality is None and "no head is favoured" in blend.text


def test_many_heads_in_one_state_are_one_finding(tmp_path):
    rng = np.random.default_rng(0)
    flat = {f"m{i}": 2.3 + 0.001 * rng.normal(size=(2, T)) for i in range(8)}
    found = report(tmp_path, pairs(**flat))
    (idle,) = [f for f in found.findings if f.rule == "learns nothing"]
    assert idle.modality is None and "m0, m1" in idle.text and "and 2 more" in idle.text
    assert "OGR says nothing" in idle.text and idle.missing
    # the one thing that must not be said of them
    assert not any(f.level == "good" for f in found.findings)


def test_a_head_that_fits_its_train_set_alone_overfits_too(tmp_path):
    at = np.arange(T)
    memory = (2.3 * np.exp(-at / 5), 2.3 + 0.05 * at)
    found = report(tmp_path, pairs(text=memory, audio=planted("audio")))
    assert {f.rule for f in found.findings if f.modality == "text"} >= {
        "learns only its train set",
        "overfits first",
    }


def test_overlapping_turns_are_not_called_certain(tmp_path):
    paths = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        columns = {
            name: values + 0.02 * rng.normal(size=T)
            for name, values in pairs(a=planted("audio", 8), b=planted("audio", 8)).items()
        }
        paths.append(tmp_path / f"seed{seed}.csv")
        paths[-1].write_text(log_text(heads=(), columns=columns))
    (first,) = [f for f in ogr(paths).findings if f.rule == "overfits first"]
    assert any("overlap" in text for text in first.conditions)


def test_losses_below_0_have_no_shares(tmp_path):
    train, held_out = planted("audio")
    found = report(tmp_path, pairs(audio=(train - 2, held_out - 2)))
    assert any(flag.kind == "negative" for flag in found.flags)
    assert found.estimate("overfitting", head="audio", quantity="improvement").value is None
    assert found.estimate("overfitting", head="audio").value == 9
    assert any(f.rule == "overfits first" for f in found.findings)


def test_findings_follow_from_the_record_alone(tmp_path):
    found = report(tmp_path, pairs(audio=planted("audio"), joint=planted("joint")))
    assert find_overfitting(found.record) == found.findings
    bare = found.record.model_copy(update={"measures": {}})
    assert find_overfitting(bare) == ()


def test_the_most_pressing_come_first(tmp_path):
    whole = sum(planted(head)[0] for head in ("audio", "image", "joint"))
    columns = {"train_loss": whole, "val_loss": planted("joint")[1]}
    order = [f.level for f in report(tmp_path, columns, heads=("audio", "image")).findings]
    ranks = ["problem", "attention", "information", "good"]
    assert order == sorted(order, key=ranks.index) and order[0] == "problem"


def test_a_head_that_diverges_is_told_and_the_others_are_not_cut(tmp_path):
    train, held_out = planted("joint")
    broken = held_out.copy()
    broken[T // 2 :] = np.nan
    found = report(tmp_path, pairs(audio=planted("audio"), image=(train, broken), joint=planted("joint")))  # fmt: skip
    (diverged,) = [f for f in found.findings if f.rule == "diverged"]
    assert diverged.level == "problem" and diverged.modality == "image"
    assert f"is not finite after epoch {T // 2 - 1}" in diverged.text
    whole = report(tmp_path, pairs(audio=planted("audio"), joint=planted("joint")))
    for head in ("audio", "joint"):
        for quantity in ("first overfitting", "OGR", "best checkpoint"):
            same = [r.estimate("overfitting", head=head, quantity=quantity) for r in (found, whole)]
            assert same[0].value == same[1].value
    against = found.estimate(
        "overfitting", head="joint", quantity="OGR less that of the best other head"
    )
    assert "'audio'" in against.method
    weights = found.record.rows("blend_weights", run="all", quantity="weight")
    assert {row.labels["head"] for row in weights} == {"audio", "joint"}
    assert "not comparable" in weights[0].estimate.warning
    # and it is kept, drawn and written as it is
    assert None in found.record.runs[0].validation["image"]
    assert "image" in found.markdown() and found.figures()
    assert LossReport.load(found.save(tmp_path / "kept")) == found


def test_a_sum_in_both_is_compared_with_nothing(tmp_path):
    a, b = planted("audio"), planted("image")
    both = tuple(x + y for x, y in zip(a, b, strict=True))
    found = report(tmp_path, pairs(audio=a, image=b, joint=both))
    assert any(f.kind == "sum" and not f.unusable for f in found.flags)
    rules = {f.rule for f in found.findings}
    assert not rules & {"worse than its best head", "joint against best single head"}
    against = found.estimate(
        "overfitting", head="joint", quantity="OGR less that of the best other head"
    )
    assert against.value is None and "sum" in against.undefined
    rows = found.record.rows("blend_weights", run="all", window="whole training", quantity="weight")
    assert {row.labels["head"] for row in rows} == {"audio", "image"}
    # its own course is still that of a loss
    assert found.estimate("overfitting", head="joint", quantity="OGR").value is not None


def test_runs_of_unlike_length_are_told(tmp_path):
    paths = []
    for seed, length in enumerate((T, T, T // 2)):
        path = tmp_path / f"seed{seed}.csv"
        columns = pairs(audio=planted("audio"), joint=planted("joint"))
        lines = log_text(heads=(), columns=columns).splitlines(keepends=True)
        path.write_text("".join(lines[: 1 + length]))
        paths.append(path)
    found = ogr(paths)
    warning = found.estimate("overfitting", head="audio", quantity="OGR").warning
    assert f"each run over its own {T // 2} to {T} checkpoints" in warning
    weight = found.estimate("blend_weights", head="audio")
    assert f"over the {T // 2} checkpoints that all heads and runs have" in weight.warning
    assert "each run over its own" in found.markdown()


def test_a_weight_for_learning_nothing_is_told(tmp_path):
    rng = np.random.default_rng(0)
    idle = 2.3 + 0.0005 * rng.normal(size=(2, T)) - 0.0005 * np.arange(T)
    found = report(tmp_path, pairs(audio=planted("audio"), image=idle))
    (blend,) = [f for f in found.findings if f.rule == "blend"]
    assert blend.modality == "image" and "though it learns next to nothing" in blend.text
    assert any("divides by O^2" in text for text in blend.conditions)


def none_found(found):
    (one,) = [f for f in found.findings if f.rule == "no overfitting"]
    return one


def test_only_heads_that_were_judged_are_praised(tmp_path):
    train, held_out = planted("audio", T - 1)
    clean = {"video": (train, held_out), "joint": planted("joint", T - 1)}
    one = none_found(report(tmp_path, pairs(**clean)))
    assert one.level == "good" and "video and joint" in one.text
    assert "no rise of their validation losses beyond the noise" in one.text
    assert "Not judged" not in one.text
    # its validation loss was divided by 8: it turns, but says nothing of overfitting
    turning = planted("audio")
    excluded = none_found(report(tmp_path, pairs(audio=(turning[0], turning[1] / 8), **clean)))
    assert "Not judged: audio (its losses cannot be compared)" in excluded.text
    assert "audio" not in excluded.text.split("Not judged")[0]
    broken = np.where(np.arange(T) < 12, held_out, np.nan)
    diverged = none_found(report(tmp_path, pairs(audio=(train, broken), **clean)))
    assert "Not judged: audio (it diverged)" in diverged.text
    assert "audio" not in diverged.text.split("Not judged")[0]


def test_few_checkpoints_are_no_praise(tmp_path):
    for number, rule in ((4, "few checkpoints"), (5, "no overfitting")):
        columns = pairs(audio=planted("audio"), joint=planted("joint"))
        path = tmp_path / f"{number}.csv"
        path.write_text("\n".join(log_text(heads=(), columns=columns).splitlines()[: number + 1]))
        found = ogr(path)
        (one,) = [f for f in found.findings if "No overfitting of" in f.text]
        assert one.rule == rule and (one.level == "good") == (number == 5)
        assert ("4 are too few" in one.text) == (number == 4)


def test_losses_that_stand_still_are_no_praise(tmp_path):
    nothing = np.zeros((2, T))
    found = report(tmp_path, pairs(audio=nothing, video=nothing, joint=nothing))
    assert [f.rule for f in found.findings] == ["learns nothing"]
    below = report(tmp_path, pairs(audio=nothing - 1.5, joint=planted("joint")))
    assert any(f.rule == "learns nothing" and f.modality == "audio" for f in below.findings)


def test_a_head_with_one_checkpoint_is_not_judged(tmp_path):
    train, held_out = planted("audio", T - 1)
    once = np.where(np.arange(T) == 3, held_out, np.nan)
    columns = pairs(audio=(train, once), joint=planted("joint", T - 1))
    path = tmp_path / "log.csv"
    path.write_text(log_text(heads=(), columns=columns).replace("nan", ""))
    found = ogr(path)
    assert "Not judged: audio (1 checkpoint)" in none_found(found).text
    assert not any(f.rule == "learns nothing" for f in found.findings)


def test_what_does_not_turn_is_not_said_to_be_certain(tmp_path):
    found = report(tmp_path, pairs(audio=planted("audio"), joint=planted("joint", T - 1)))
    (first,) = [f for f in found.findings if f.rule == "overfits first"]
    assert first.text.endswith("; no rise beyond the noise was found of joint.")
