import io
import re

import pytest
from rich.console import Console

from mmaudit.export.comparison import comparison_markdown, print_comparison
from tests.report.comparisons import make_comparison
from tests.report.fixtures import HOSTILE


def printed(comparison, width=80, **options):
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=width, **options))
    return stream.getvalue()


def hostile():
    return make_comparison(
        modalities=(f"a{HOSTILE}", "im<b>[red]age[/red]</b>"),
        names=(HOSTILE, f"\x1b[2J{HOSTILE}"),
        notes=(("warning", f"{HOSTILE}\x07"),),
    )


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "comparison",
    [
        make_comparison(),
        make_comparison((0.013, 0.009), (0.47, 0.06), groups=1234, samples=123_456),
        make_comparison(modalities=tuple("abcdefghijkl")),
        make_comparison(undefined="no sample of this class"),
        make_comparison(measured=False),
        hostile(),
    ],
    ids=["plain", "grouped", "twelve", "undefined", "nothing", "hostile"],
)
def test_it_fits(comparison, width):
    assert max(map(len, printed(comparison, width).splitlines())) <= width


def test_the_table_and_the_verdict():
    text = printed(make_comparison((0.013, 0.009), (0.47, 0.06)), width=100)
    words = [
        "Before digits, late fusion",
        "After  digits, late fusion, retrained with AGM",
        "Difference, 600 samples",
        "Verdict:",
    ]
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert re.search(r"accuracy +\.948 +\.961 +\+\.013 \[\+\.004, \+\.022\] +\.003", text)
    assert re.search(
        r"audio response accuracy +\.24 +\.71 +\+\.470 \[\+\.410, \+\.530\] +\.003", text
    )
    flat = " ".join(text.split())
    assert (
        "Verdict: Retraining with AGM helps: the accuracy rises from .948 to .961, +.013 [+.004, +.022] (p .003)."
        in flat
    )
    assert "audio: response accuracy .24 to .71" in flat
    assert "another training seed may give another model" in flat
    assert "the bootstrap gives none below .0005" in flat


def test_warnings_are_marked_and_explained():
    text = printed(
        make_comparison(warning="the interval should not be trusted: 30 samples"), width=120
    )
    assert re.search(r"accuracy .*\] !", text)
    assert "! accuracy: the interval should not be trusted: 30 samples" in text
    assert text.count("30 samples") == 1
    text = printed(make_comparison(notes=(("warning", "3 left out"), ("information", "by number"))))
    assert "! data: 3 left out" in text
    assert "i data: by number" in text


def test_undefined_is_a_word_with_its_reason():
    text = printed(make_comparison(undefined="no sample of this class"), width=120)
    assert re.search(r"accuracy +\.948 +undefined +undefined", text)
    assert "! accuracy: after: no sample of this class" in text


def test_other_numbers_that_changed_are_counted():
    comparison = make_comparison()
    assert "numbers" not in printed(comparison), "all are shown"
    measure = comparison.measures["responses"]
    moved = measure.rows[0].model_copy(
        update={"labels": measure.rows[0].labels | {"quantity": "s"}, "p_holm": 0.01}
    )
    still = moved.model_copy(update={"labels": moved.labels | {"empty": "zero"}, "p_holm": 0.5})
    more = comparison.measures | {
        "responses": measure.model_copy(update={"rows": (*measure.rows, moved, still)})
    }
    text = " ".join(printed(comparison.model_copy(update={"measures": more})).split())
    assert (
        "1 of 2 other numbers changed too (corrected p below .05), for example responses (s, audio, exact)"
        in text
    )
    none = comparison.measures | {
        "responses": measure.model_copy(update={"rows": (*measure.rows, still)})
    }
    text = printed(comparison.model_copy(update={"measures": none}))
    assert "None of 1 other numbers changed" in text


def test_without_a_terminal_there_is_no_control_code():
    text = printed(hostile())
    assert not set("\x1b\x07\r") & set(text)
    assert "[red]" in text, "foreign text is not markup"


def test_markdown_holds_the_same_table():
    text = comparison_markdown(make_comparison((0.013, 0.009), (0.47, 0.06)))
    lines = text.splitlines()
    assert lines[0] == "# Before and after"
    assert "|  | Before | After | Difference, 600 samples | p |" in lines
    assert "| accuracy | .948 | .961 | +.013 \\[+.004, +.022] | .003 |" in lines
    assert any(
        line.startswith("**Verdict**: Retraining with AGM helps: the accuracy rises")
        for line in lines
    )
    assert text.endswith("\n")


def test_foreign_text_is_neither_markdown_nor_html():
    text = comparison_markdown(hostile())
    assert HOSTILE not in text
    assert not re.search(r"(?<!\\)<", text)
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 6


def against_plain_training(remedy="modality_dropout", **options):
    comparison = make_comparison(**options)
    start = {"parent": "c", "start": "checkpoint", "recipe": "{}"}
    before = comparison.before.model_copy(update={"lineage": start | {"remedy": "joint"}})
    after = comparison.after.model_copy(update={"lineage": start | {"remedy": remedy}})
    return comparison.model_copy(update={"before": before, "after": after})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_plain_training_is_not_called_before(width):
    comparison = against_plain_training()
    text = printed(comparison, width)
    assert max(map(len, text.splitlines())) <= width
    assert "Before" not in text and "After" not in text
    assert text.startswith(" Plain training   digits, late fusion\n Modality dropout digits")
    lines = comparison_markdown(against_plain_training("ogm_ge")).splitlines()
    assert lines[0] == "# Plain training and OGM\\-GE"
    assert any(line.startswith("|  | Plain training | OGM\\-GE | Diff") for line in lines)


def test_a_caveat_that_a_warning_tells_of_several_numbers_is_said_once():
    why = "the interval should not be trusted: 30 samples"
    comparison = make_comparison(warning=why)
    measure = comparison.measures["responses"]
    rows = tuple(
        row.model_copy(update={"difference": row.difference.model_copy(update={"warning": why})})
        for row in measure.rows
    )
    measures = comparison.measures | {"responses": measure.model_copy(update={"rows": rows})}
    text = printed(comparison.model_copy(update={"measures": measures}), 120)
    assert "! accuracy, audio response accuracy, image response accuracy: the interval" in text
    assert text.count("30 samples") == 1
