"""Findings about a training: what is said of heads in odd company, through logs that are made for it."""

import numpy as np

from mmaudit import ogr
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
