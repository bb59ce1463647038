import pytest

from mmaudit.figures.missing_modality import (
    missing_modality_info,
    missing_modality_table,
    plot_missing_modality,
)
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import estimate, report_of, undefined_report
from tests.report.fixtures import empty_report

KEY = "missing_modality"
TWO = {
    ("0.00", "expected"): 0.9,
    ("0.00", "worst"): 0.9,
    ("0.25", "expected"): 0.7,
    ("0.50", "expected"): 0.5,
    ("0.50", "worst"): 0.4,
    ("all", "area"): 0.7,
}


def curve(M):
    rows = {}
    for step in range(2 * M - 1):
        rate = step / (2 * M)
        rows[f"{rate:.2f}", "expected"] = 0.95 - 0.6 * rate
        if step % 2 == 0:
            rows[f"{rate:.2f}", "worst"] = 0.95 - 0.8 * rate
    return {**rows, ("all", "area"): 0.66}


def test_the_curve_is_collected_in_order():
    report = report_of(KEY, dict(reversed(TWO.items())), ("audio", "image"))
    info = missing_modality_info(report)
    assert info.rates == (0.0, 0.25, 0.5)
    assert [e.value for e in info.expected] == [0.9, 0.7, 0.5]
    assert [e and e.value for e in info.worst] == [0.9, None, 0.4]
    assert info.area == report.estimate(KEY, rate="all", quantity="area")
    assert (
        info.words.title
        == "The expected accuracy falls from .90 with nothing missing to .50 when one modality is left, or .40 at worst"
    )
    assert missing_modality_table(info).rows[-1] == ("mean over the rates", ".70 [.68, .72]", "–")


@pytest.mark.parametrize("M", [2, 3, 5, 12])
def test_the_drawing_has_a_point_for_each_rate(M):
    names = tuple(f"modality {m}" for m in range(M))
    figure = plot_missing_modality(missing_modality_info(report_of(KEY, curve(M), names)))
    band, expected, worst = figure.data
    assert len(expected.x) == 2 * M - 1
    assert len(band.x) == 2 * len(expected.x)
    assert len(worst.x) == M
    assert len(worst.error_y.array) == M


def test_rates_below_what_is_missing_anyway_are_left_out():
    reason = "30 % of the cells are missing in the data already"
    rows = TWO | {(rate, "expected"): Estimate(undefined=reason) for rate in ("0.00", "0.25")}
    info = missing_modality_info(report_of(KEY, rows, ("audio", "image")))
    assert info.words.title == "The accuracy is .50 with 50 % missing, or .40 at worst"
    assert list(plot_missing_modality(info).data[1].x) == [0.5]
    assert missing_modality_table(info).rows[0][1] == "undefined"
    rows |= {("0.50", "expected"): Estimate(undefined=reason)}
    info = missing_modality_info(report_of(KEY, rows, ("audio", "image")))
    assert info.words.title == "With the worst modalities missing the accuracy is .40"
    plot_missing_modality(info)


def test_a_regression_is_told_in_r2_and_may_be_below_zero():
    rows = TWO | {("0.50", "expected"): -3.0, ("0.50", "worst"): estimate(-40.0, 5)}
    info = missing_modality_info(report_of(KEY, rows, ("audio", "image"), task="regression"))
    assert info.words.title.startswith(
        "The expected R2 falls from .90 with nothing missing to -3.00"
    )
    figure = plot_missing_modality(info)
    assert figure.layout.yaxis.title.text == "R2 (fraction)"
    assert figure.layout.yaxis.range is None


def test_one_modality_says_why_not():
    info = missing_modality_info(undefined_report(KEY, "with one modality none can be missing"))
    assert info.undefined == "with one modality none can be missing"
    plot_missing_modality(info)
    assert missing_modality_info(empty_report()).undefined == "it was not measured"
