import re

from mmaudit.export.markdown import to_markdown
from mmaudit.report.numbers import with_interval
from tests.report.fixtures import HOSTILE, empty_report, hostile_report, make_report


def test_two_tables_and_three_sentences():
    report = make_report()
    text = to_markdown(report)
    assert text.startswith("# audio")
    lines = text.splitlines()
    header = lines.index(
        "| Modality | Contribution (accuracy) | Utilization given rest | Response accuracy |"
    )
    for line, name in zip(lines[header + 2 :], report.modalities, strict=False):
        estimate = report.estimate("contributions", modality=name)
        assert line.startswith(f"| {name} | {with_interval(estimate)} |".replace("[", "\\["))
    assert "## What stands out" in lines
    assert text.endswith("\n")


def test_foreign_text_is_neither_markdown_nor_html():
    text = to_markdown(hostile_report())
    assert HOSTILE not in text
    assert not re.search(r"(?<!\\)<(?!br)", text)
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5)
    assert "](" not in to_markdown(make_report(title="[x](javascript:alert(1))", samples=60))


def test_an_empty_report_says_why():
    text = to_markdown(empty_report())
    assert "no sample has a target" in text
    assert "What stands out" not in text


def test_a_modality_that_no_sample_has_is_said_once():
    text = to_markdown(make_report(("audio", "image", "text"), absent=("text",)))
    assert text.count("No audited sample has text: nothing can be said about it.") == 1
    assert "| text | undefined | undefined | undefined |" in text
    assert "no sample here" not in text
