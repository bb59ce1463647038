import pytest

from mmaudit.figures import FIGURES
from mmaudit.figures.contributions import (
    contributions_info,
    contributions_table,
    plot_contributions,
)
from mmaudit.report.schema import Estimate
from tests.report.fixtures import STRENGTHS, empty_report, make_report


def test_the_info_holds_the_records_estimates():
    report = make_report(("audio", "image", "text"), samples=200)
    info = contributions_info(report)
    assert info.modalities == ("audio", "image", "text")
    for name, value, share, nats in zip(
        info.modalities, info.values, info.shares, info.log_likelihoods, strict=True
    ):
        assert value == report.estimate("contributions", modality=name)
        assert share == report.estimate("contributions", modality=name, quantity="share")
        assert nats == report.estimate("contributions", modality=name, score="log-likelihood")


@pytest.mark.parametrize(
    ("modalities", "title"),
    [
        (("audio",), "audio contributes .12 of accuracy"),
        (("audio", "image"), "image contributes .78 of accuracy, audio .07"),
        (tuple(STRENGTHS), "image contributes most to the accuracy (.50), pose least (.00)"),
    ],
)
def test_the_title_says_what_to_take_from_it(modalities, title):
    info = contributions_info(make_report(modalities))
    assert info.words.title == title
    assert "n = 600" in info.words.subtitle
    assert "mask: zero" in info.words.subtitle
    assert "bootstrap over samples" in info.words.subtitle


def test_bars_and_intervals_are_the_estimates():
    info = contributions_info(make_report())
    figure = plot_contributions(info)
    for trace, estimate in zip(figure.data, info.values, strict=True):
        assert trace.x[0] == estimate.value
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(estimate.high)
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(estimate.low)


def test_what_is_undefined_is_no_bar():
    info = contributions_info(make_report())
    info = info._replace(values=(Estimate(undefined="no total"), info.values[1]))
    figure = plot_contributions(info)
    assert len(figure.data) == 1
    assert any(note.text == "undefined" for note in figure.layout.annotations)
    assert contributions_table(info).rows[0][1] == "undefined"


def test_an_empty_report_says_why():
    info = contributions_info(empty_report())
    assert info.undefined == "no sample has a target"
    assert "no sample has a target" in plot_contributions(info).layout.annotations[0].text
    assert FIGURES["contributions"].info is contributions_info
