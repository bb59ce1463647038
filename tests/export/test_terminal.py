import io
import re

import pytest
from rich.console import Console

from mmaudit.export.terminal import print_report
from mmaudit.report.numbers import with_interval
from tests.report.fixtures import STRENGTHS, empty_report, hostile_report, make_report


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
