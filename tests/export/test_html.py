import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from mmaudit.export.csv_tables import to_csv
from mmaudit.export.html import notebook_html, to_html, write_html
from mmaudit.export.markdown import to_markdown
from mmaudit.export.model_card import to_model_card
from mmaudit.export.overview import make_overview
from mmaudit.export.terminal import print_report
from mmaudit.figures import figures_by_part
from mmaudit.report import AuditReport
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import LabelledEstimate
from tests.report.fixtures import (
    STRENGTHS,
    as_regression,
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    undefined_rows_report,
    with_findings,
)


class _Page(HTMLParser):
    """Elements of a page: tags with attributes, texts of scripts, and visible text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.text, self._inside = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif self._inside is None:
            self.text.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_order_is_what_how_scores_modalities_findings_figures_methods():
    text = to_html(make_report())
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", text)
    assert headings == [
        "How it was done, and whether it can be trusted",
        "Accuracy",
        "Modalities",
        "What stands out",
        "Contributions",
        "Utilization",
        "Class by class",
        "All classes",
        "Methods and provenance",
    ]
    assert len(re.findall("<h1", text)) == 1


def test_the_numbers_are_those_of_the_record():
    report = make_report()
    text = " ".join(" ".join(_Page(to_html(report)).text).split())
    for name in report.modalities:
        assert with_interval(report.estimate("contributions", modality=name)) in text
        assert with_interval(report.estimate("utilization", modality=name, given="rest")) in text
        assert with_interval(report.estimate("responses", modality=name)) in text
    assert with_interval(report.accuracy, 3) in text
    for sentence in report.summary():
        assert sentence in text
    for part in (
        "ab" * 32,
        "ef" * 32,
        "2.13.0",
        "late.safetensors",
        "the prefix 'model.' was stripped",
    ):
        assert part in text


def test_one_file_that_asks_nobody_for_anything():
    text = to_html(make_report())
    page = _Page(text)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "data:,") == "data:,", (tag, attrs)
    (policy,) = [m["content"] for m in page.named("meta") if m.get("http-equiv")]
    assert "default-src 'none'" in policy
    script = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script
    run = [body for attrs, body in page.scripts if attrs.get("type") != "application/json"]
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in run
    }
    assert hashes == set(script.split()[1:])
    assert len(run) == 2
    assert text.count("plotly.js v") == 1


@pytest.mark.parametrize(
    "report",
    [
        make_report(("audio",), samples=60),
        make_report(samples=60),
        make_report(tuple(STRENGTHS), samples=60),
    ],
    ids=["one", "two", "six"],
)
def test_charts_have_words_and_a_table(report):
    page = _Page(to_html(report))
    charts = [a for a in page.named("div") if a.get("role") == "img"]
    assert [a["id"] for a in charts] == [
        f"figure-{key}" for keys in figures_by_part(report).values() for key in keys
    ]
    assert all(len(a["aria-label"]) > 20 for a in charts)
    assert len(page.named("table")) >= len(charts) + 2
    assert all(a.get("scope") in ("col", "row") for a in page.named("th"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(a["aria-labelledby"] in ids for _, a in page.tags if "aria-labelledby" in a)


def test_hostile_names_are_text():
    text = to_html(hostile_report())
    page = _Page(text)
    assert page.named("img") == []
    assert len(page.scripts) == 3
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert all(re.fullmatch(r"[a-z-]+", name) for name in ids)
    assert any("<script>document.title='pwned'" in part for part in page.text), "shown as it is"
    data = next(body for attrs, body in page.scripts if attrs.get("type") == "application/json")
    assert "<" not in data
    assert json.loads(data)["figures"]
    fragment = _Page(notebook_html(hostile_report()))
    assert fragment.named("script") == fragment.named("img") == []


@pytest.mark.parametrize(
    "report", [empty_report(), undefined_rows_report()], ids=["empty", "undefined"]
)
def test_what_has_no_value_says_so(report):
    page = _Page(to_html(report))
    text = " ".join(page.text)
    assert not [a for a in page.named("div") if a.get("role") == "img"]
    assert "undefined" in text
    assert "No fallback, no failure, no warning." not in text
    assert "What stands out" not in text


def test_no_warning_is_only_said_where_no_interval_has_one():
    report = make_report(("audio", "image"))
    rows = [row for measure in report.measures.values() for row in measure.rows]
    measures = {
        key: measure.model_copy(update={"rows": tuple(_sure(row) for row in measure.rows)})
        for key, measure in report.measures.items()
    }
    record = report.record.model_copy(update={"measures": measures, "notes": ()})
    assert make_overview(AuditReport(record)).calm == "No fallback, no failure, no warning."
    first = measures["interactions"].rows[0]
    doubtful = first.model_copy(
        update={"estimate": first.estimate.model_copy(update={"warning": "1 sample"})}
    )
    one = measures["interactions"].model_copy(
        update={"rows": (doubtful, *measures["interactions"].rows[1:])}
    )
    record = record.model_copy(update={"measures": measures | {"interactions": one}})
    known = sum(row.estimate.low is not None for row in rows)
    calm = f"No fallback, no failure; 1 of {known:,} intervals in the record carries a warning."
    assert make_overview(AuditReport(record)).calm == calm
    assert make_overview(AuditReport(record)).warnings == ()
    assert calm in " ".join(_Page(to_html(AuditReport(record))).text)


def _sure(row):
    return row.model_copy(update={"estimate": row.estimate.model_copy(update={"warning": None})})


def test_size_does_not_grow_without_bound(tmp_path):
    small = make_report()
    rows = small.measures["contributions"].rows
    names = tuple(f"class {i} {'x' * 500}" for i in range(3000))
    many = tuple(
        LabelledEstimate(labels={**row.labels, "class": name}, estimate=row.estimate)
        for name in names
        for row in rows[:2]
    )
    result = small.measures["contributions"].model_copy(update={"rows": (*rows, *many)})
    record = small.record.model_copy(
        update={
            "measures": small.measures | {"contributions": result},
            "data": small.data.model_copy(
                update={"classes": names, "class_counts": (1,) * 3000, "samples": 10**9}
            ),
            "spec": {"long": "y" * 5_000_000},
            "notes": tuple(
                small.notes[0].model_copy(update={"text": "z" * 10_000}) for _ in range(5000)
            ),
            "settings": {str(i): "w" * 5000 for i in range(3000)},
        }
    )
    write_html(AuditReport(record), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 8_000_000
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "200 of 3,000 classes" in text


def test_it_is_written_by_the_report(tmp_path):
    report = make_report(samples=60)
    assert report.html(tmp_path / "new" / "report.html").read_text("utf-8") == to_html(report)


def test_a_modality_that_no_sample_has_is_said_once():
    report = make_report(("audio", "image", "text"), absent=("text",))
    text = " ".join(" ".join(_Page(to_html(report)).text).split())
    assert text.count("No audited sample has text: nothing can be said about it.") == 1
    assert "text contributes" not in text
    assert "text least" not in text


def test_verdicts_are_words_that_open():
    text = to_html(with_findings(make_report(), "under-used", "undetermined"))
    page = _Page(text)
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", text)
    assert headings[1:3] == ["Accuracy", "Findings"]
    assert "What stands out" not in headings
    chips = [a["class"] for a in page.named("span") if a.get("class", "").startswith("verdict")]
    assert set(chips) == {"verdict verdict-under-used", "verdict verdict-undetermined"}
    told = " ".join(" ".join(page.text).split())
    place = 0
    for part in (
        "The model is worse than audio alone",
        "under-used",
        "depends on the mask: audio",
        "Worth trying: agm, mla.",
        "mmaudit retrain audit.yaml --remedy agm",
        "What lies behind each finding",
        "read and needed beyond delta",
        "Estimates behind it",
        "No unimodal model was given",
    ):
        assert part in told[place:], part
        place = told.index(part, place)
    fragment = notebook_html(with_findings(make_report(), "under-used", "undetermined"))
    assert "<script" not in fragment
    for part in ("under-used", "The model is worse", "<details>", "No unimodal model"):
        assert part in fragment


def test_figures_whose_measure_was_not_asked_for_are_left_out():
    report = make_report(samples=60)
    assert "figure-mask_sensitivity" not in to_html(report)
    twelve = twelve_report()
    text = to_html(twelve)
    assert "figure-mask_sensitivity" in text
    assert "How it moves with the mask" in text
    few = {"utilization": report.measures["utilization"]}
    text = to_html(AuditReport(report.record.model_copy(update={"measures": few})))
    assert "figure-contributions" not in text
    assert "figure-utilization" in text


def test_hostile_findings_are_text():
    page = _Page(to_html(with_findings(hostile_report(), "harmful", "under-used")))
    assert page.named("img") == []
    assert len(page.scripts) == 3


@pytest.mark.parametrize(
    "report",
    [
        as_regression(make_report(classes=("price", "rent"), samples=60)),
        as_regression(with_findings(make_report(classes=("price",), samples=60), "well used")),
        as_regression(twelve_report()),
    ],
    ids=["two numbers", "one number", "twelve"],
)
def test_a_regression_is_told_in_its_own_words(report):
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=120))
    told = {
        "page": " ".join(_Page(to_html(report)).text),
        "notebook": notebook_html(report),
        "terminal": stream.getvalue(),
        "markdown": to_markdown(report),
        "card": to_model_card(report),
        "figures": " ".join(figure.to_json() for figure in report.figures().values()),
        "table": to_csv(report),
    }
    for place, text in told.items():
        words = ("accuracy", "Accuracy", " right", "nats", "log-likelihood", "class")
        for word in words[: -1 if place == "table" else None]:  # a column of labels is called class
            assert not re.search(rf"{word}", text), (
                place,
                word,
                text[text.find(word) - 80 :][:200],
            )
    assert re.search(r"R2 +all|R2 +both", told["terminal"])
    assert f"{report.score.value:.3f}".lstrip("0") in told["page"]
