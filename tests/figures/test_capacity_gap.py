import pytest

from mmaudit.figures.capacity_gap import (
    capacity_gap_info,
    capacity_gap_table,
    plot_capacity_gap,
)
from mmaudit.report import AuditReport
from mmaudit.report.schema import Estimate, LabelledEstimate, MeasureResult
from tests.report.fixtures import HOSTILE, empty_report, make_report


def _report(rows, names=("audio", "image"), **spec):
    """Rows: (modality, quantity, mask) -> value with an interval of .02 to both sides; a text is why there is none."""
    estimates = []
    for labels, value in rows.items():
        estimate = (
            Estimate(undefined=value)
            if isinstance(value, str)
            else Estimate(value=value, low=value - 0.02, high=value + 0.02, n=300, method="a way")
        )
        named = dict(zip(("modality", "quantity", "mask"), labels, strict=True))
        estimates.append(LabelledEstimate(labels=named, estimate=estimate))
    result = MeasureResult(key="capacity_gap", title="", unit="", rows=tuple(estimates))
    record = make_report(names, samples=60).record
    changed = {"measures": {"capacity_gap": result}, "spec": {**record.spec, **spec}}
    return AuditReport(record.model_copy(update=changed))


def _rows(name, alone, above, first, advantage, drop, second=None):
    rows = {
        (name, "alone", "none"): alone,
        (name, "above chance", "none"): above,
        (name, "gap", "first"): first,
        (name, "joint advantage", "none"): advantage,
        (name, "drop without", "none"): drop,
    }
    return rows | ({} if second is None else {(name, "gap", "second"): second})


def test_what_was_compared_is_collected_and_drawn():
    report = _report(
        _rows("audio", 0.7, 0.6, 0.3, 0.2, 0.05, second=0.25)
        | _rows("image", 0.8, 0.7, 0.0, 0.1, 0.2, second=0.01)
    )
    info = capacity_gap_info(report)
    audio = info.rows[0]
    assert (audio.chance, audio.joint) == (pytest.approx(0.1), pytest.approx(0.9))
    assert audio.less(audio.gaps["second"]) == pytest.approx(0.45)
    assert (
        info.words.title
        == "audio alone reaches .30 more accuracy than the joint model reads from it"
    )
    assert "audio: alone .70 [.68, .72], +.30 [+.28, +.32] over the joint" in info.words.takeaway
    figure = plot_capacity_gap(info)
    marks = [trace for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None]
    places = {(trace.marker.symbol, round(trace.x[0], 3)) for trace in marks}
    assert {("circle", 0.7), ("circle-open", 0.4), ("x-thin-open", 0.45)} <= places
    assert {("line-ns-open", 0.1), ("star-open", 0.9), ("square", 0.8)} <= places
    assert [trace.name for trace in figure.data if trace.showlegend is None and trace.name] == [
        "alone",
        "inside the joint model",
        "the same, second mask",
        "joint model",
        "best constant",
    ]
    table = capacity_gap_table(info)
    assert table.headers[3:5] == (
        "Gap: alone less inside, first mask",
        "Gap: alone less inside, second mask",
    )
    assert table.rows[1][0] == "image" and table.rows[0][-1] == ".05 [.03, .07]"


@pytest.mark.parametrize(
    ("audio", "image", "title"),
    [
        ((0.9, 0.8, 0.3, -0.1, 0.0), (0.8, 0.7, 0.1, 0.0, 0.0), "audio alone (.90) beats the joint model by .10 of accuracy"),
        ((0.9, 0.8, 0.3, 0.1, 0.0), (0.8, 0.7, 0.1, 0.2, 0.0), "audio alone reaches .30 more accuracy than the joint model reads from it; image has a gap too"),
        ((0.9, 0.8, 0.01, 0.1, 0.0), (0.8, 0.7, -0.1, 0.2, 0.0), "From no modality does the joint model read less than a model of it alone"),
        ((*["none was named"] * 4, 0.1), (*["none was named"] * 4, 0.0), "The joint model beside models without a modality"),
    ],
)  # fmt: skip
def test_the_title_says_what_to_take_from_it(audio, image, title):
    info = capacity_gap_info(_report(_rows("audio", *audio) | _rows("image", *image)))
    assert info.words.title == title
    plot_capacity_gap(info)


def test_a_modality_without_a_model_has_no_marks():
    nothing = ["none was named"] * 4
    report = _report(_rows("audio", 0.7, 0.6, 0.0, 0.2, 0.05) | _rows("image", *nothing, 0.1))
    figure = plot_capacity_gap(capacity_gap_info(report))
    assert [note.text for note in figure.layout.annotations] == ["no model of it alone"]
    assert {trace.y[0] for trace in figure.data if trace.y[0] is not None} == {0}


def test_a_regression_is_told_in_r2():
    info = capacity_gap_info(_report(_rows("audio", 0.7, 0.7, 0.2, 0.2, 0.05), task="regression"))
    assert info.score == "R2" and "more R2 than" in info.words.title
    assert plot_capacity_gap(info).layout.xaxis.title.text == "R2 (1)"


def test_names_are_no_markup():
    names = (HOSTILE, "image")
    info = capacity_gap_info(_report(_rows(HOSTILE, 0.7, 0.6, 0.3, 0.2, 0.1), names))
    figure = plot_capacity_gap(info)
    texts = [text for trace in figure.data if trace.customdata for (text,) in trace.customdata]
    assert len(texts) == 4
    assert not any("<" in text for text in [*texts, *figure.layout.yaxis.ticktext])


def test_a_report_without_references_says_why():
    for report in (empty_report(), make_report(("audio",), samples=60)):
        info = capacity_gap_info(report)
        assert info.undefined
        plot_capacity_gap(info)
    undefined = capacity_gap_info(_report(_rows("audio", *["no model was named"] * 5)))
    assert undefined.undefined == "no model was named"
