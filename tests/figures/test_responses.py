import math

from mmaudit.figures.responses import plot_responses, responses_info, responses_table
from tests.report.fixtures import empty_report, make_report


def test_the_info_holds_both_rules():
    report = make_report(samples=200)
    info = responses_info(report)
    for name, accuracy, loss in zip(info.modalities, info.scores, info.losses, strict=True):
        for rule, acc, nll in zip(("exact", "zero"), accuracy, loss, strict=True):
            assert acc == report.estimate("responses", modality=name, empty=rule)
            assert nll == report.estimate("responses", modality=name, empty=rule, quantity="s")
    assert info.words.title == "The response to image gets .94 right, to audio .23"


def test_no_response_is_words_and_not_a_mark():
    info = responses_info(make_report(("image", "pose"), samples=100))
    assert info.words.title.endswith("; no response to pose")
    figure = plot_responses(info)
    marked = {row for trace in figure.data for row in trace.y}
    assert all(row < 0.5 for row in marked), "only image, in row 0, has marks"
    assert sum(note.text == "no response" for note in figure.layout.annotations) == 2
    assert responses_table(info).rows[1][1:] == ("no response",) * 4


def test_only_silent_modalities():
    info = responses_info(make_report(("pose",), samples=60))
    assert info.words.title == "The model responds to no modality"
    assert info.undefined is None
    plot_responses(info)


def test_the_level_of_a_guess_is_marked():
    figure = plot_responses(responses_info(make_report(samples=60)))
    assert sorted(shape.x0 for shape in figure.layout.shapes) == [1 / 10, math.log(10)]


def test_an_empty_report_says_why():
    info = responses_info(empty_report())
    assert info.undefined == "no sample has a target"
    plot_responses(info)
