import pytest

from mmaudit.figures.utilization import plot_utilization, utilization_info, utilization_table
from tests.report.fixtures import STRENGTHS, empty_report, make_report


def test_few_modalities_have_the_whole_matrix():
    report = make_report(("audio", "image", "text"), samples=200)
    info = utilization_info(report)
    assert info.given == (
        "nothing else",
        "audio",
        "image",
        "text",
        "audio+image",
        "audio+text",
        "image+text",
    )
    for name, row in zip(info.modalities, info.rates, strict=True):
        for given, estimate in zip(info.given, row, strict=True):
            if name in given.split("+"):
                assert estimate is None
            else:
                there = "none" if given == "nothing else" else given
                assert estimate == report.estimate("utilization", modality=name, given=there)


def test_many_modalities_have_the_ends_and_the_average():
    report = make_report(tuple(STRENGTHS), samples=200)
    info = utilization_info(report)
    assert info.given == ("nothing else", "a set on average", "all others")
    for name, (nothing, average, rest) in zip(info.modalities, info.rates, strict=True):
        assert nothing == report.estimate("utilization", modality=name, given="none")
        assert rest == report.estimate("utilization", modality=name, given="rest")
        frame = report.to_frame("utilization")
        mine = frame[
            (frame["modality"] == name) & (frame["class"] == "all") & (frame["quantity"] == "u")
        ]
        assert len(mine) == 32
        assert average.value == pytest.approx(mine["value"].mean())
        assert average.low is None
        assert "no interval" in average.method


@pytest.mark.parametrize(
    ("modalities", "title"),
    [
        (("audio",), ".50 of the accuracy is lost without audio"),
        (("audio", "image"), "audio adds .01 of the accuracy once image is there"),
        (tuple(STRENGTHS), "touch adds .00 of the accuracy once all others are there"),
    ],
)
def test_the_title_says_who_adds_least(modalities, title):
    assert utilization_info(make_report(modalities)).words.title == title


def test_the_drawing_leaves_impossible_cells_empty():
    info = utilization_info(make_report())
    heat = plot_utilization(info).data[0]
    assert [[cell is None for cell in row] for row in heat.z] == [
        [False, True, False],
        [False, False, True],
    ]
    assert utilization_table(info).rows[0][2] == "–"


def test_an_empty_report_names_the_failure():
    info = utilization_info(empty_report())
    assert "ZeroDivisionError" in (info.undefined or "")
    plot_utilization(info)
