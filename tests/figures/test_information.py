import pytest

from mmaudit.figures.information import information_info, information_table, plot_information
from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from tests.report.fixtures import HOSTILE, as_regression, empty_report, make_report


def _report(values, names=("audio", "image"), score="accuracy"):
    """Modality -> above chance; texts are reasons."""
    rows = []
    for name, value in values.items():
        for kind in ("inputs", "encoder", "best"):
            for quantity, shift in ((score, 0.5), ("above chance", 0.0), ("gain", 0.1)):
                if isinstance(value, str):
                    estimate = Estimate(undefined=value)
                else:
                    at = value + shift
                    estimate = Estimate(value=at, low=at - 0.02, high=at + 0.02, n=300, method="a")
                labels = {"modality": name, "quantity": quantity, "features": kind}
                rows.append(LabelledEstimate(labels=labels, estimate=estimate))
    result = MeasureResult(key="information", title="", unit="", rows=tuple(rows))
    record = make_report(names, samples=60).record
    return AuditReport(record.model_copy(update={"measures": {"information": result}}))


def test_what_probes_found_is_collected_and_drawn():
    info = information_info(_report({"audio": 0.3, "image": 0.0}))
    assert (
        info.words.title
        == "audio alone is worth .30 of accuracy above chance; probes find nothing in image"
    )
    assert "audio: +.30 [+.28, +.32] above the best constant answer" in info.words.takeaway
    assert [e.value for e in info.of("gain", "best")] == pytest.approx([0.4, 0.1])
    figure = plot_information(info)
    assert len([trace for trace in figure.data if trace.mode == "markers"]) == 6
    table = information_table(info)
    assert table.headers[1] == "accuracy, inputs" and len(table.rows[0]) == 10
    assert table.rows[1][6].startswith(".00 [")


def test_nothing_is_found():
    info = information_info(_report({"audio": 0.01, "image": 0.0}))
    assert info.words.title == "Probes find nothing about the target in audio and image"


def test_a_reason_is_shown():
    info = information_info(_report({"audio": 0.2, "image": "one group"}))
    assert info.words.title == "audio alone is worth .20 of accuracy above chance"
    plot_information(info)
    assert information_table(info).rows[1][1] == "undefined"


def test_empty_reports_and_hostile_names():
    for report in (empty_report(), _report({"audio": "no", "image": "no"})):
        info = information_info(report)
        assert info.undefined is not None
        plot_information(info)
    names = (HOSTILE, "b")
    figure = plot_information(information_info(_report({HOSTILE: 0.1, "b": 0.2}, names)))
    assert "<script>" not in figure.to_json()


def test_numbers_and_one_modality():
    report = as_regression(_report({"audio": 0.4}, ("audio",), score="R2"))
    info = information_info(_with(report, {"audio": 0.4}))
    assert info.score == "R2" and "R2" in info.words.title
    plot_information(info)


def _with(report, values):
    measures = _report(values, ("audio",), score="R2").record.measures
    return AuditReport(report.record.model_copy(update={"measures": measures}))
