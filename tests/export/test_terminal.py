import io
import re

import pytest
from rich.console import Console

from mmaudit.exceptions import RecordError
from mmaudit.export.terminal import print_finding, print_report
from mmaudit.report import AuditReport
from mmaudit.report.numbers import with_interval
from tests.report.fixtures import (
    STRENGTHS,
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    with_findings,
)


def _printed(report, width=80, **options):
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width, **options))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "report",
    [
        make_report(("audio",), samples=60),
        make_report(),
        make_report(tuple(STRENGTHS)),
        hostile_report(),
        empty_report(),
    ],
    ids=["one", "two", "six", "hostile", "empty"],
)
def test_it_fits(report, width):
    assert max(map(len, _printed(report, width).splitlines())) <= width


def test_the_story_is_told_in_order():
    report = make_report()
    text = _printed(report)
    words = [
        "Loading",
        "Structure",
        "Data",
        "Masks",
        "Coalitions",
        "Accuracy",
        "Modality",
        "Masking audio costs",
    ]
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    for expected in (
        "late.safetensors   2 modalities   10 classes",
        "audio <- audio_encoder (38 k)   image <- image_encoder (38 k)",
        "4 x 600 samples   1.04 passes   3 s",
        "verified against brute force on 96 rows",
        f"both {with_interval(report.accuracy, 3)}   image only .950   audio only .240",
    ):
        assert expected in text
    row = next(line for line in text.splitlines() if line.strip().startswith("image  "))
    for measure, labels in (
        ("contributions", {}),
        ("utilization", {"given": "rest"}),
        ("responses", {}),
    ):
        assert with_interval(report.estimate(measure, modality="image", **labels)) in row


def test_no_response_undefined_and_failures_are_words():
    text = _printed(make_report(("image", "pose"), samples=200))
    assert re.search(r"pose .* no response", text)
    text = _printed(empty_report())
    assert "! utilization failed: ZeroDivisionError" in text
    assert "! contributions is undefined: no sample has a target" in text
    assert re.search(r"audio +undefined +failed +undefined", text)


def test_intervals_with_a_warning_are_marked_and_explained():
    text = _printed(make_report(samples=30), width=120)
    assert re.search(r"image .*\] !", text)
    assert "! contribution of audio" in text
    assert "only 30 samples" in text


def test_without_a_terminal_there_is_no_colour_and_no_control_code():
    text = _printed(hostile_report())
    assert "\x1b" not in text
    assert "[red]" in text, "foreign text is not markup"
    assert "\x1b[" in _printed(
        make_report(samples=60), force_terminal=True, color_system="standard"
    )


def test_no_color_is_heeded(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = _printed(empty_report(), force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text), "bold is no colour, yellow is"


def test_names_cannot_move_the_cursor():
    report = make_report(("au\x1b[2Jdio", "im\rage\x07"), samples=60, title="a\x1b]0;title\x07b")
    assert not set("\x1b\r\x07") & set(_printed(report))


def test_a_modality_that_no_sample_has_is_said_once():
    text = _printed(make_report(("audio", "image", "text"), absent=("text",)), width=120)
    assert text.count("No audited sample has text: nothing can be said about it.") == 1
    assert re.search(r"text +undefined +undefined +undefined", text)
    assert "no sample here" not in text


def test_findings_of_the_model_then_verdicts_then_what_to_do():
    report = with_findings(make_report(), "under-used", "well used")
    text = _printed(report)
    words = [
        "Accuracy",
        "!! The model is worse than audio alone",
        "Verdict",
        "under-used",
        "well used",
        "depends on the mask: audio",
        "! audio is under-used: the joint model draws",
        "Worth trying: agm, mla.",
        "mmaudit retrain audit.yaml --remedy agm",
    ]
    place = 0
    for word in words:
        place = text.index(word, place)
    assert "Masking audio costs" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_twelve_verdicts_fit(width):
    verdicts = [
        "under-used",
        "harmful",
        "undetermined",
        "uninformative",
        "redundant",
        "well used",
    ] * 2
    report = with_findings(twelve_report(), *verdicts)
    lines = _printed(report, width).splitlines()
    assert max(map(len, lines)) <= width
    told = [line for line in lines if line.startswith((" !! ", " ! "))]
    assert len([line for line in told if "sensor" in line]) == 3
    if width == 80:
        for line in lines:
            assert line.count("[") == line.count("]"), "intervals are not broken"


def test_a_verdict_opens():
    report = with_findings(make_report(), "under-used", "undetermined")
    stream = io.StringIO()
    print_finding(report, "audio", Console(file=stream, width=100))
    text = stream.getvalue()
    for word in (
        "audio: under-used",
        "It has information",
        "Rule         read and needed",
        "Beside it    depends on the mask",
        "Worth trying agm, mla",
        "modality audio, score accuracy, quantity value",
        with_interval(report.estimate("contributions", modality="audio"), 3),
    ):
        assert word in text
    stream = io.StringIO()
    print_finding(report, "image", Console(file=stream, width=100))
    assert "Missing      No unimodal model was given" in stream.getvalue()
    stream = io.StringIO()
    print_finding(report, "model", Console(file=stream, width=100))
    assert stream.getvalue().startswith("worse than its best modality\n")


@pytest.mark.parametrize(
    ("report", "name", "words"),
    [
        (with_findings(make_report(samples=30), "harmful"), "audoi", "did you mean 'audio'"),
        (make_report(samples=30), "audio", "no findings"),
        (
            with_findings(make_report(samples=30), "harmful", whole=False),
            "model",
            "nothing was found about the whole model",
        ),
    ],
)
def test_what_cannot_be_opened_is_said(report, name, words):
    with pytest.raises(RecordError, match=words):
        print_finding(report, name, Console(file=io.StringIO()))


def test_verdicts_are_words_whatever_the_colour():
    report = with_findings(make_report(), "harmful", "well used")
    plain = _printed(report)
    coloured = _printed(report, force_terminal=True, color_system="standard")
    assert "\x1b[1;31mharmful" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in stripped.splitlines()] == [
        line.rstrip() for line in plain.splitlines()
    ]


def test_a_remedy_is_named_once():
    report = with_findings(make_report(samples=60), "under-used", "well used")
    findings = list(report.record.findings)
    findings[0] = findings[0].model_copy(update={"remedies": ("agm", "mla")})
    record = report.record.model_copy(update={"findings": tuple(findings)})
    text = _printed(AuditReport(record))
    assert text.count("mmaudit retrain audit.yaml --remedy agm") == 1
    assert text.count("Worth trying") == 1
    assert text.index("Verdict") < text.index("Worth trying")
    calm = AuditReport(record.model_copy(update={"findings": (findings[0], findings[2])}))
    assert _printed(calm).count("--remedy agm") == 1
