"""Heads beside each other: a difference is called one only where it shows and matters."""

import numpy as np
import pytest

from mmaudit import ogr
from mmaudit.findings.heads_compared import find_blend
from mmaudit.report.schema import Estimate
from tests.loss_logs import T, log_text


def report(tmp_path, *columns, policy="clip"):
    paths = []
    for place, found in enumerate(columns):
        paths.append(tmp_path / f"run{place}.csv")
        paths[-1].write_text(log_text(heads=(), columns=found))
    return ogr(paths, policy=policy)


def pairs(**curves):
    return {
        f"{split}_{name}_loss": values
        for name, pair in curves.items()
        for split, values in zip(("train", "val"), pair, strict=True)
    }


def opening(gap, level=0.4, tau=5):
    """Losses between which a gap opens, as a share of what is generalized."""
    fall = 1.6 * np.exp(-np.arange(T) / tau)
    return level + fall - gap * (1.6 - fall), level + 0.1 + fall


def against(found):
    (one,) = [f for f in found.findings if f.rule == "joint against best single head"]
    return one


def blend(found):
    (one,) = [f for f in found.findings if f.rule == "blend"]
    return one


@pytest.mark.parametrize(("joint", "word", "level"), [(0.0037, "about as much", "information"),
    (0.03, "about as much", "information"), (0.3, "overfits more", "attention")])  # fmt: skip
def test_small_differences_of_ogr_are_none(tmp_path, joint, word, level):
    found = report(tmp_path, pairs(v=opening(0.0028), joint=opening(joint)))
    one = against(found)
    assert word in one.text and one.level == level
    numbers = one.text.split("whole training ")[1].split(" (")[0].split(" against ")
    assert numbers[0] != numbers[1]
    turned = against(report(tmp_path, pairs(v=opening(joint), joint=opening(0.0028))))
    assert turned.level == "information"
    assert ("about as much" if joint < 0.1 else "overfits less") in turned.text


def test_runs_that_disagree_settle_nothing(tmp_path):
    runs = [pairs(v=opening(0.1), joint=opening(gap)) for gap in (0.02, 0.9, 0.1, 0.6)]
    one = against(report(tmp_path, *runs))
    assert "4 runs do not settle" in one.text and one.level == "information"
    agreed = [pairs(v=opening(0.1), joint=opening(gap)) for gap in (0.52, 0.5, 0.51, 0.49)]
    assert against(report(tmp_path, *agreed)).level == "attention"


def test_nearly_the_same_loss_is_no_warning(tmp_path):
    def worse(level):
        found = report(tmp_path, pairs(v=opening(0.1), joint=opening(0.1, level=level)))
        return [f for f in found.findings if f.rule == "worse than its best head"]

    (near,) = worse(0.403)
    assert near.level == "information" and "about as good as v" in near.text
    assert ".504 and .501" in near.text
    (far,) = worse(0.5)
    assert far.level == "attention" and "no better than v" in far.text
    assert worse(0.3) == []


def test_weights_that_are_about_even_favour_nobody(tmp_path):
    near = blend(report(tmp_path, pairs(video=opening(0.5), joint=opening(0.51))))
    assert near.modality is None and "about even, no head is favoured" in near.text
    three = pairs(audio=opening(3.0), video=opening(0.5), joint=opening(0.51))
    some = blend(report(tmp_path, three))
    assert "video and joint are about even, no head is favoured alone" in some.text
    clear = blend(report(tmp_path, pairs(video=opening(0.5), joint=opening(1.0))))
    assert clear.modality == "video" and "it favours video" in clear.text
    assert len(clear.evidence) == 2 and all(e.says == "weight" for e in clear.evidence)


def test_overlapping_intervals_favour_nobody(tmp_path):
    found = report(tmp_path, pairs(video=opening(0.5), joint=opening(1.0)))
    result = found.record.measures["blend_weights"]
    rows = tuple(
        row.model_copy(update={"estimate": Estimate(value=row.estimate.value, low=0.0, high=1.0, n=1)})
        if (row.labels["quantity"], row.labels["window"]) == ("weight", "whole training") else row
        for row in result.rows
    )  # fmt: skip
    wide = result.model_copy(update={"rows": rows})
    record = found.record.model_copy(update={"measures": {**found.measures, "blend_weights": wide}})
    (one,) = find_blend(record, [])
    assert one.modality is None and "intervals overlap" in one.text
