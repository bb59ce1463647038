import re

from mmaudit.export.markdown import to_markdown
from mmaudit.report.numbers import with_interval
from tests.report.fixtures import (
    HOSTILE,
    empty_report,
    hostile_report,
    make_report,
    with_findings,
)


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


def test_findings_stand_above_below_and_behind_the_table():
    text = to_markdown(with_findings(make_report(), "under-used", "undetermined"))
    parts = [
        "## The whole model", "- **problem**: The model is worse", "## Modalities", "| Modality | Verdict |",
        "| audio | under\\-used |", "- depends on the mask: audio", "## What to do", "- **attention**: audio is under\\-used",
        "  - Worth trying: agm, mla.", "  - `mmaudit retrain audit.yaml --remedy agm`", "## Behind the findings",
        "### audio: under-used", "- Rule: read and needed", "| contributions |", "### image: undetermined",
        "- Missing: No unimodal model",
    ]  # fmt: skip
    place = 0
    for part in parts:
        assert part in text[place:], part
        place = text.index(part, place)
    assert "What stands out" not in text


def test_findings_with_hostile_names_are_escaped():
    text = to_markdown(with_findings(hostile_report(), "harmful", "under-used"))
    assert HOSTILE not in text
    assert not re.search(r"(?<!\\)<(?!br)", text)


def test_a_command_with_backticks_stays_code():
    report = with_findings(make_report(samples=60), "under-used")
    record = report.record
    file = record.subject.files[1].model_copy(update={"path": "a`b``c.yaml"})
    subject = record.subject.model_copy(update={"files": (file,)})
    report.record = record.model_copy(update={"subject": subject})
    assert "``` mmaudit retrain 'a`b``c.yaml' --remedy agm ```" in to_markdown(report)
