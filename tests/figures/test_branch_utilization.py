from __future__ import annotations

import itertools

import pytest

from mmaudit.figures.branch_utilization import (
    branch_utilization_info,
    branch_utilization_table,
    plot_branch_utilization,
)
from mmaudit.report import AuditReport
from mmaudit.report.labels import others
from mmaudit.report.schema import Estimate, FailureRecord, LabelledEstimate, MeasureResult
from tests.report.fixtures import HOSTILE, empty_report, make_report


def estimate(value, n=200):
    return Estimate(value=value, low=value - 0.05, high=min(1.0, value + 0.05), n=n, method="t")


def branch_report(names=("audio", "video"), accuracies=(0.8, 0.7), cut=(0.4, 0.69), **undefined):
    rows = []

    def add(quantity, modality, given, value):
        labels = {"quantity": quantity, "modality": modality, "given": given}
        rows.append(LabelledEstimate(labels=labels, estimate=value))

    for name, whole, left in zip(names, accuracies, cut):
        rest = others(name, names)
        add("accuracy", rest, name, estimate(whole))
        add("accuracy cut", rest, name, estimate(left))
        reason = undefined.get(name)
        u = Estimate(undefined=reason) if reason else estimate(1 - left / whole)
        add("u", rest, name, u)
        if len(names) > 2:
            for other in names:
                if other != name:
                    add("accuracy cut", other, name, estimate(whole - 0.01))
                    add("u", other, name, estimate(0.01 / whole))
    if len(names) > 1:
        add("d_util", f"{names[1]} - {names[0]}", f"{names[0]} - {names[1]}", estimate(0.4))
    result = MeasureResult(key="branch_utilization", title="t", unit="", rows=tuple(rows))
    report = make_report(names)
    measures = report.record.measures | {"branch_utilization": result}
    return AuditReport(report.record.model_copy(update={"measures": measures}))


def test_the_title_says_who_owes_most_and_least():
    info = branch_utilization_info(branch_report())
    assert info.words.title == (
        "audio's branch owes .50 of its accuracy to video, video's branch owes .01 of its accuracy to audio"
    )
    assert "by cutting branches, not by masking" in info.words.subtitle
    assert "u = .50 [.45, .55], accuracy .40 [.35, .45] instead of .80 [.75, .85]" in (
        info.words.takeaway
    )
    worse = branch_utilization_info(branch_report(cut=(0.88, 0.7)))
    assert "audio's branch loses .10 of its accuracy to video" in worse.words.title


def test_bars_are_the_accuracies_and_rates_stand_beside_them():
    info = branch_utilization_info(branch_report())
    figure = plot_branch_utilization(info)
    bars = [trace for trace in figure.data if trace.x[0] is not None]
    assert [bar.x[0] for bar in bars] == [0.8, 0.4, 0.7, 0.69]
    assert [bar.marker.color for bar in bars[:2]] == [bars[0].marker.color] * 2
    assert bars[0].marker.color != bars[2].marker.color
    texts = [note.text for note in figure.layout.annotations]
    assert texts[0] == "u = .50 [.45, .55]"
    assert list(figure.layout.yaxis.ticktext) == ["audio without video", "video without audio"]


def test_pairs_are_drawn_of_few_and_listed_of_all():
    names = ("a", "b", "c")
    info = branch_utilization_info(branch_report(names, (0.8, 0.7, 0.6), (0.4, 0.6, 0.6)))
    assert [(c.branch, c.gained_from) for c in info.cuts if c.from_all] == [
        ("a", "b+c"),
        ("b", "a+c"),
        ("c", "a+b"),
    ]
    assert len(plot_branch_utilization(info).layout.yaxis.ticktext) == 9
    assert all(cut.accuracy is not None for cut in info.cuts)
    five = tuple("abcde")
    many = branch_utilization_info(branch_report(five, (0.8,) * 5, (0.4, 0.5, 0.6, 0.7, 0.8)))
    assert len(plot_branch_utilization(many).layout.yaxis.ticktext) == 5
    table = branch_utilization_table(many)
    assert len(table.rows) == 5 * 5 + 1
    assert {row[0] for row in table.rows} >= {
        f"{a} without {b}" for a, b in itertools.permutations(five, 2)
    }
    assert table.rows[-1][:2] == ("difference, d_util", ".40 [.35, .45]")


def test_what_is_undefined_is_said():
    info = branch_utilization_info(branch_report(audio="the accuracy is 0"))
    assert info.undefined is None
    assert (
        "undefined" in [note.text for note in plot_branch_utilization(info).layout.annotations][0]
    )
    assert info.words.title.startswith("video's branch owes .01")
    reasons = {"audio": "the accuracy is 0", "video": "the accuracy is 0"}
    nothing = branch_utilization_info(branch_report(**reasons))
    assert nothing.undefined == "the accuracy is 0"
    assert "the accuracy is 0" in plot_branch_utilization(nothing).layout.annotations[0].text


def test_reports_without_branches():
    info = branch_utilization_info(make_report())
    assert info.undefined == "it was not measured" and plot_branch_utilization(info).data == ()
    assert branch_utilization_info(empty_report()).undefined
    assert branch_utilization_info(make_report(("audio",))).undefined
    failed = empty_report().record.model_copy(
        update={"failures": (FailureRecord(measure="branch_utilization", error="planted"),)}
    )
    assert "planted" in branch_utilization_info(AuditReport(failed)).undefined


@pytest.mark.parametrize("name", [HOSTILE, "<b>bold</b>"])
def test_names_are_never_markup(name):
    figure = plot_branch_utilization(branch_utilization_info(branch_report((name, "video"))))
    drawn = figure.to_json().split('"meta"')[0]
    assert "<script" not in drawn and "<b>" not in drawn
