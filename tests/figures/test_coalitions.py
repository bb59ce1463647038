import pytest

from mmaudit.figures.coalitions import coalitions_info, coalitions_table, plot_coalitions
from mmaudit.report.labels import coalition_name
from tests.report.fixtures import STRENGTHS, empty_report, make_report


def test_all_coalitions_of_few_modalities_small_first_then_best_first():
    report = make_report(("audio", "image", "text"), samples=200)
    info = coalitions_info(report)
    assert len(info.coalitions) == info.total == 8
    sizes = [len(members) for members in info.coalitions]
    assert sizes == sorted(sizes)
    assert info.coalitions[1] == {"image"}
    for members, estimate in zip(info.coalitions, info.scores, strict=True):
        assert estimate == report.estimate(
            "coalitions", coalition=coalition_name(members, info.modalities)
        )


def test_of_many_coalitions_the_telling_ones_are_shown_and_counted():
    info = coalitions_info(make_report(tuple(STRENGTHS), samples=100))
    assert len(info.coalitions) == 32
    assert len(set(info.coalitions)) == 32
    assert info.total == 64
    sizes = [len(members) for members in info.coalitions]
    assert [sizes.count(size) for size in (0, 1, 5, 6)] == [1, 6, 6, 1]
    assert "32 of 64 coalitions shown" in info.words.subtitle


@pytest.mark.parametrize(
    ("modalities", "title"),
    [
        (("audio",), "audio gets .228 right, the model without it .113"),
        (("audio", "image"), "image alone gets .950 right, both together .957"),
        (tuple(STRENGTHS), "image alone gets .945 right, all 6 together .983"),
    ],
)
def test_the_title_says_how_far_one_modality_gets(modalities, title):
    assert coalitions_info(make_report(modalities)).words.title == title


def test_filled_dots_are_the_present_modalities():
    info = coalitions_info(make_report(("audio", "image", "text"), samples=100))
    figure = plot_coalitions(info)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [trace.y[0] for trace in bars] == [e.value for e in info.scores]
    rows = [t for t in figure.data if t.type == "scatter" and t.mode == "markers"]
    assert len(rows) == 3
    for name, trace in zip(info.modalities, rows, strict=True):
        filled = [colour != "rgba(0,0,0,0)" for colour in trace.marker.color]
        assert filled == [name in members for members in info.coalitions]


def test_a_modality_with_a_plus_in_its_name_stays_one():
    info = coalitions_info(make_report(("rgb+d", "audio"), samples=60))
    assert frozenset({"rgb+d"}) in info.coalitions
    plot_coalitions(info)


def test_tables_and_empty_reports():
    table = coalitions_table(coalitions_info(make_report(samples=60)))
    assert [row[0] for row in table.rows] == ["none", "image", "audio", "audio+image"]
    info = coalitions_info(empty_report())
    assert info.undefined == "no sample has a target"
    plot_coalitions(info)
