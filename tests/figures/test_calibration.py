import pytest

from mmaudit.figures.calibration import calibration_info, calibration_table, plot_calibration
from mmaudit.report.labels import coalition_names
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import estimate, report_of, undefined_report
from tests.report.fixtures import HOSTILE, empty_report

KEY = "calibration"


def values(coalitions, ece=0.1):
    rows = {}
    for place, name in enumerate(coalitions):
        rows[name, "ece"] = ece + 0.001 * place
        rows[name, "overconfidence"] = -0.05 + 0.01 * place
        rows[name, "selective risk"] = 0.2
        rows[name, "risk at 80 %"] = 0.15
    return rows


def some(names):
    """Sets that a record of more than five modalities has rows for."""
    return [
        "none",
        *names,
        *("+".join(n for n in names if n != gone) for gone in names),
        "+".join(names),
    ]


def test_every_set_of_two():
    names = ("audio", "image")
    rows = values(coalition_names(names)) | {("audio+image", "ece"): estimate(0.03)}
    info = calibration_info(report_of(KEY, rows, names))
    assert info.names == ("all masked", "audio", "image", "all")
    assert [e.value for e in info.values["ece"]] == pytest.approx([0.1, 0.101, 0.102, 0.03])
    assert (
        info.words.title
        == "The calibration error is .03 with all modalities, and up to .10 with image"
    )
    assert calibration_table(info).rows[3] == (
        "all",
        ".03 [.01, .05]",
        "-.02 [-.04, .00]",
        ".20 [.18, .22]",
        ".15 [.13, .17]",
    )


@pytest.mark.parametrize(("M", "rows"), [(1, 2), (2, 4), (5, 32), (6, 14), (12, 26)])
def test_the_drawing_has_a_row_for_each_set(M, rows):
    names = tuple(f"modality {m}" for m in range(M))
    sets = coalition_names(names) if M <= 5 else some(names)
    info = calibration_info(report_of(KEY, values(sets), names))
    assert len(info.coalitions) == rows
    sizes = [len(members) for members in info.coalitions]
    assert sizes == sorted(sizes)
    figure = plot_calibration(info)
    assert len(figure.data) == 3 * rows
    assert [axis.range[0] < 0 for axis in (figure.layout.xaxis2,)] == [True]
    assert figure.layout.xaxis.range[0] <= 0
    if M == 12:
        assert info.names[13] == "all but modality 0"


def test_titles_of_one_modality_and_of_none_worse():
    info = calibration_info(report_of(KEY, values(("none", "audio")), ("audio",)))
    assert info.words.title == "The calibration error is .10 with audio, and no larger with fewer"
    rows = values(("none", "audio")) | {("none", "ece"): estimate(0.3)}
    info = calibration_info(report_of(KEY, rows, ("audio",)))
    assert (
        info.words.title
        == "The calibration error is .10 with audio, and up to .30 with all of them masked"
    )


def test_cells_without_a_value_say_so():
    rows = values(("none", "audio")) | {("audio", "ece"): Estimate(undefined="a reason")}
    figure = plot_calibration(calibration_info(report_of(KEY, rows, ("audio",))))
    assert [note.text for note in figure.layout.annotations] == ["undefined"]
    assert "a reason" in figure.layout.annotations[0].hovertext


def test_hostile_names_are_text():
    names = (HOSTILE, "image")
    figure = plot_calibration(
        calibration_info(report_of(KEY, values(coalition_names(names)), names))
    )
    texts = [*figure.layout.yaxis.ticktext, *(trace.customdata[0][0] for trace in figure.data)]
    texts.append(figure.layout.title.text)
    assert any("&lt;" in text for text in texts)
    assert not any("<script" in text or "<img" in text for text in texts)


def test_reports_without_calibration():
    info = calibration_info(undefined_report(KEY, "a regression has no confidence"))
    assert info.undefined == "a regression has no confidence"
    plot_calibration(info)
    assert calibration_table(info).rows == ()
    plot_calibration(calibration_info(empty_report()))
