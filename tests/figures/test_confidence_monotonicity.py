import pytest

from mmaudit.figures.confidence_monotonicity import (
    confidence_monotonicity_info,
    confidence_monotonicity_table,
    plot_confidence_monotonicity,
)
from mmaudit.report.labels import coalition_names
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import report_of, undefined_report
from tests.report.fixtures import empty_report

KEY = "confidence_monotonicity"
TWO = {("any",): 0.4, ("none",): 0.05, ("audio",): 0.1, ("image",): 0.35}


def test_the_largest_share_comes_first():
    info = confidence_monotonicity_info(report_of(KEY, TWO, ("audio", "image")))
    assert info.coalitions == ("image", "audio", "none")
    assert info.anything.value == 0.4
    assert (
        info.words.title
        == "40 % of the samples become more confident when something is masked; 35 % with only image"
    )
    assert [row[0] for row in confidence_monotonicity_table(info).rows] == [
        "any set",
        "image",
        "audio",
        "nothing",
    ]


@pytest.mark.parametrize(("M", "bars"), [(1, 2), (2, 4), (3, 8), (5, 21), (12, 21)])
def test_the_drawing_has_at_most_twenty_sets(M, bars):
    names = tuple(f"modality {m}" for m in range(M))
    sets = (
        coalition_names(names)[:-1]
        if M <= 5
        else ["none", *names, *map("without {}".format, names)]
    )
    rows = {("any",): 0.6} | {(name,): 0.01 * place for place, name in enumerate(sets)}
    info = confidence_monotonicity_info(report_of(KEY, rows, names))
    figure = plot_confidence_monotonicity(info)
    assert len(figure.data) == bars
    assert ("sets shown" in info.words.subtitle) == (len(sets) > 20)
    widths = [bar.x[0] for bar in figure.data]
    assert widths == sorted(widths, reverse=True)


def test_titles_of_ends():
    names = ("audio", "image")
    none = dict.fromkeys(TWO, 0.0)
    title = confidence_monotonicity_info(report_of(KEY, none, names)).words.title
    assert title == "No sample becomes more confident when modalities are masked"
    title = confidence_monotonicity_info(report_of(KEY, TWO | {("none",): 0.39}, names)).words.title
    assert title.endswith("; 39 % with nothing at all")
    rows = {("any",): 0.2, ("none",): 0.2}
    title = confidence_monotonicity_info(report_of(KEY, rows, ("audio",))).words.title
    assert title == "20 % of the samples become more confident when something is masked"
    four = ("a", "b", "c", "d")
    rows = {("any",): 0.5, ("a+c+d",): 0.3, ("a",): 0.1}
    title = confidence_monotonicity_info(report_of(KEY, rows, four)).words.title
    assert title.endswith("; 30 % with all but b")


def test_reports_without_shares():
    info = confidence_monotonicity_info(undefined_report(KEY, "a regression has no confidence"))
    assert info.undefined == "a regression has no confidence"
    plot_confidence_monotonicity(info)
    rows = {labels: Estimate(undefined="no samples") for labels in TWO}
    info = confidence_monotonicity_info(report_of(KEY, rows, ("audio", "image")))
    assert info.undefined == "no samples"
    plot_confidence_monotonicity(confidence_monotonicity_info(empty_report()))
