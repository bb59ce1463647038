import plotly.graph_objects as go

from mmaudit.figures.marks import bar, filling, mark, told, write
from mmaudit.figures.pairs import add_pairs
from mmaudit.figures.theme import NEUTRAL, modality_styles, name_rows
from mmaudit.report.schema import Estimate
from tests.figures.table_reports import estimate

STYLES = modality_styles(["a", "b"])
HOSTILE = "<b>a</b>"


def test_a_bar_has_the_colour_and_hatching_of_its_modality():
    drawn = go.Figure(go.Bar(**bar(estimate(0.5), 2, STYLES["b"], "b", "half", width=0.6))).data[0]
    assert (drawn.x, drawn.y, drawn.width) == ((0.5,), (2,), 0.6)
    assert drawn.marker.color == STYLES["b"].colour
    assert drawn.marker.pattern.shape == STYLES["b"].pattern
    assert round(drawn.error_x.array[0], 9) == round(drawn.error_x.arrayminus[0], 9) == 0.02
    assert filling(None)["color"] == NEUTRAL


def test_names_are_no_markup_under_the_pointer_nor_beside_it():
    assert told(HOSTILE)["customdata"] == [["&lt;b&gt;a&lt;/b&gt;"]]
    assert mark(0.1, 0, {}, HOSTILE)["customdata"] == [["&lt;b&gt;a&lt;/b&gt;"]]
    figure = go.Figure()
    write(figure, 0, 1, HOSTILE, xshift=6)
    (text,) = figure.layout.annotations
    assert (text.text, text.y, text.xanchor) == ("&lt;b&gt;a&lt;/b&gt;", 1, "left")


def test_rows_are_named_from_the_top():
    figure = go.Figure()
    name_rows(figure, [HOSTILE, "b"], edge=0.5)
    axis = figure.layout.yaxis
    assert axis.range == (1.5, -0.5)
    assert axis.ticktext == ("&lt;b&gt;a&lt;/b&gt;", "b")


def _pairs(pairs, sides=("first", "second")):
    figure = go.Figure().set_subplots(rows=2, cols=1)
    add_pairs(figure, ["a", "b"][: len(pairs)], pairs, sides, apart=0.2, row=2)
    return figure


def test_the_second_of_a_pair_is_open_and_below():
    figure = _pairs([(estimate(0.1), estimate(0.2)), (estimate(0.3), None)])
    assert [(t.x[0], t.y[0], t.marker.symbol) for t in figure.data] == [
        (0.1, -0.2, STYLES["a"].symbol),
        (0.2, 0.2, f"{STYLES['a'].symbol}-open"),
        (0.3, 0.8, STYLES["b"].symbol),
    ]
    assert figure.data[1].customdata[0][0].startswith("a, second: .200")
    assert {trace.yaxis for trace in figure.data} == {"y2"}


def test_a_single_estimate_lies_in_the_middle_of_its_row():
    figure = _pairs([(estimate(0.1),), (None,)], sides=("first",))
    assert [trace.y[0] for trace in figure.data] == [0]
    assert [(text.text, text.y) for text in figure.layout.annotations] == [("not measured", 1)]


def test_without_a_value_the_row_says_so():
    figure = _pairs([(None, Estimate(undefined="one class"))])
    assert not figure.data
    assert figure.layout.annotations[0].text == "undefined"
