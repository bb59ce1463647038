import itertools
import json

import pytest

from mmaudit.figures import FIGURES, PARTS, draw_all, figures_by_part
from mmaudit.figures.base import Table
from mmaudit.figures.theme import Words
from mmaudit.report import AuditReport
from mmaudit.report.labels import LABELS
from tests.report.fixtures import (
    as_regression,
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    with_every_measure,
)

FULL = with_every_measure(make_report(("audio", "image", "text"), samples=60))
REPORTS = {
    "full": FULL,
    "one": with_every_measure(make_report(("audio",), samples=60)),
    "five": with_every_measure(make_report(tuple("abcde"), samples=60)),
    "twelve": twelve_report(),
    "hostile": with_every_measure(hostile_report()),
    "regression": as_regression(with_every_measure(make_report(samples=60))),
    "empty": empty_report(),
}


def test_every_figure_has_its_place_on_the_pages():
    assert list(itertools.chain(*PARTS.values())) == list(FIGURES)
    drawn = {key for drawing in FIGURES.values() for key in drawing.measures}
    assert drawn == set(LABELS) - {"interactions"}


def test_the_pages_are_in_the_order_of_the_story():
    assert [key for keys in figures_by_part(FULL).values() for key in keys] == [
        "contributions",
        "coalitions",
        "utilization",
        "branch_utilization",
        "responses",
        "capacity_gap",
        "information",
        "competition",
        "mask_sensitivity",
        "missing_modality",
        "calibration",
        "confidence_monotonicity",
        "dominance",
        "classes",
    ]
    assert list(draw_all(FULL)) == list(FIGURES)


def test_what_was_not_measured_has_no_figure():
    some = {"dominance": FULL.measures["dominance"]}
    report = AuditReport(FULL.record.model_copy(update={"measures": some}))
    assert figures_by_part(report) == {"Dominance, sample by sample": ("dominance",)}
    assert list(draw_all(report)) == ["dominance"]
    # What failed or is undefined keeps its place and says why.
    assert set(itertools.chain(*figures_by_part(empty_report()).values())) == {
        "contributions",
        "coalitions",
        "utilization",
        "responses",
        "classes",
    }
    assert draw_all(empty_report()) == {}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_keeps_the_contract(key, report):
    drawing = FIGURES[key]
    info = drawing.info(report)
    assert isinstance(info.words, Words)
    assert all(info.words)
    figure = drawing.plot(info)
    json.dumps(json.loads(figure.to_json()), allow_nan=False)
    meta = figure.layout.meta
    assert meta["title"] == info.words.title
    assert 0 < meta["least_width"] < 2000
    assert 0 < figure.layout.height < 4000
    table = drawing.table(info)
    assert isinstance(table, Table)
    assert all(len(row) == len(table.headers) for row in table.rows)
    assert len(table.rows) <= 300


# A prediction of numbers has no confidence, and its branches no classes to be right about.
OF_CLASSES = {"branch_utilization", "calibration", "confidence_monotonicity"}


@pytest.mark.parametrize("key", [key for key in FIGURES if key not in OF_CLASSES])
def test_a_regression_has_its_own_words(key):
    info = FIGURES[key].info(REPORTS["regression"])
    text = " ".join(info.words) + FIGURES[key].plot(info).to_json()
    for word in ("accuracy", "Accuracy", "nats"):
        assert word not in text
