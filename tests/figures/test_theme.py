import json

import pytest

from mmaudit.exceptions import RecordError
from mmaudit.figures import CONFIG, FIGURES, TEMPLATES, draw
from mmaudit.figures.theme import modality_styles, plain
from tests.report.fixtures import (
    HOSTILE,
    STRENGTHS,
    empty_report,
    hostile_report,
    make_report,
    undefined_rows_report,
)

REPORTS = {
    "one": make_report(("audio",), samples=60),
    "two": make_report(samples=60),
    "six": make_report(tuple(STRENGTHS), samples=60),
    "empty": empty_report(),
    "undefined": undefined_rows_report(),
    "hostile": hostile_report(),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_of_every_report_draws(key, report):
    figure = draw(report, key)
    json.dumps(json.loads(figure.to_json()), allow_nan=False)
    for part in ("title", "subtitle", "takeaway"):
        assert figure.layout.meta[part]
    for axis in figure.select_xaxes():
        assert axis.title.text or axis.visible is False or axis.matches


def _texts(value):
    if isinstance(value, dict):
        for key, part in value.items():
            if key != "meta":
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("key", FIGURES)
def test_names_are_never_markup(key):
    for text in _texts(json.loads(draw(hostile_report(), key).to_json())):
        without = text.replace("<br>", "").replace("<extra></extra>", "")
        assert "<" not in without, text


def test_an_unknown_figure_is_named():
    with pytest.raises(RecordError, match="contributions, coalitions"):
        draw(make_report(samples=40), "contribution")


def test_a_modality_looks_the_same_everywhere_and_unlike_any_other():
    names = [f"m{i}" for i in range(12)]
    styles = modality_styles(names)
    assert len({(s.colour, s.pattern, s.symbol) for s in styles.values()}) == 12
    assert modality_styles(names[:3]) == {name: styles[name] for name in names[:3]}
    report = make_report(("audio", "image", "text"), samples=60)
    mine = modality_styles(report.modalities)["image"]
    bars = draw(report, "contributions").data
    assert bars[1].marker.color == mine.colour
    assert bars[1].marker.pattern.shape == mine.pattern
    assert {
        t.marker.color
        for t in draw(report, "responses").data
        if t.marker.symbol.startswith(mine.symbol)
    } == {mine.colour}


def test_plotly_may_not_upload():
    assert CONFIG["showSendToCloud"] is False
    assert CONFIG["plotlyServerURL"] == ""
    assert CONFIG["displaylogo"] is False
    assert set(TEMPLATES) == {"light", "dark"}


def test_plain_text_is_escaped():
    assert plain(HOSTILE).count("<") == 0
