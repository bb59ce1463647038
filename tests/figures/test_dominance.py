import pytest

from mmaudit.figures.dominance import dominance_info, dominance_table, plot_dominance
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import report_of, undefined_report
from tests.report.fixtures import empty_report

KEY = "dominance"


def rows(names):
    found = {}
    for m, name in enumerate(names):
        found[name, "share"] = 0.1 + 0.02 * m
        found[name, "alone"] = 0.05
        found[name, "against"] = 0.4 - 0.02 * m
    return found


def test_the_shares_of_two():
    names = ("audio", "image")
    info = dominance_info(report_of(KEY, rows(names), names))
    assert [e.value for e in info.values["share"]] == pytest.approx([0.1, 0.12])
    assert (
        info.words.title
        == "image has the largest value in 12 % of the samples; audio works against the truth in 40 %"
    )
    assert dominance_table(info).rows[0] == (
        "audio",
        ".10 [.08, .12]",
        ".05 [.03, .07]",
        ".40 [.38, .42]",
    )


@pytest.mark.parametrize("M", [1, 2, 5, 12])
def test_the_drawing_has_three_marks_for_each_modality(M):
    names = tuple(f"modality {m}" for m in range(M))
    figure = plot_dominance(dominance_info(report_of(KEY, rows(names), names)))
    assert len(figure.data) == 3 * M
    assert list(figure.layout.yaxis.ticktext) == list(names)


def test_one_modality_and_absent_ones_say_so():
    alone = {
        ("audio", quantity): Estimate(undefined="there is no other modality")
        for quantity in ("share", "alone")
    } | {("audio", "against"): 0.2}
    info = dominance_info(report_of(KEY, alone, ("audio",)))
    assert info.words.title == "audio works against the truth in 20 % of the samples"
    figure = plot_dominance(info)
    assert [note.text for note in figure.layout.annotations] == ["undefined"] * 2
    info = dominance_info(report_of(KEY, alone | {("audio", "against"): 0.0}, ("audio",)))
    assert info.words.title == "No modality works against the truth in any sample"


def test_reports_without_shares():
    info = dominance_info(undefined_report(KEY, "no sample"))
    assert info.undefined == "no sample"
    plot_dominance(info)
    info = dominance_info(empty_report())
    assert info.undefined == "it was not measured"
    assert dominance_table(info).rows == (("audio", "–", "–", "–"), ("image", "–", "–", "–"))
