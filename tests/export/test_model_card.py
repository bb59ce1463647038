import re

import pytest

from mmaudit.export.model_card import to_model_card, without_paths
from mmaudit.report import AuditReport
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import FileRecord, Note
from tests.report.fixtures import (
    HOSTILE,
    empty_report,
    hostile_report,
    make_report,
    twelve_report,
    with_findings,
)


def test_it_says_what_was_audited_on_what_and_what_came_out():
    report = with_findings(make_report(), "under-used", "well used")
    text = to_model_card(report)
    parts = [
        "## Modality audit", "**Weights**: late.safetensors, SHA-256 abab", "### Data", "**Samples**: 600", "10 (0, 1, 2",
        "### Scores: Accuracy", with_interval(report.accuracy, 3).replace("[", "\\["), "(mask: zero)", "### Findings",
        "The model is worse", "| audio | under\\-used |", "**audio: under-used** (depends on the mask)",
        "Worth trying: agm, mla.", "### Limits", "One kind of mask", "mmaudit 0.1.0 on 2026-11-21, seed 0",
    ]  # fmt: skip
    place = 0
    for part in parts:
        assert part in text[place:], (part, text)
        place = text.index(part, place)
    for name in report.modalities:
        estimate = report.estimate("contributions", modality=name)
        assert with_interval(estimate).replace("[", "\\[") in text


def test_nothing_of_the_machine_is_in_it():
    report = with_findings(make_report(samples=60), "undetermined", "under-used")
    record = report.record
    home = "/home/someone/projects/av"
    finding = record.findings[-2].model_copy(
        update={"missing": (f"Train one: mmaudit unimodal {home}/audit.yaml --out {home}/alone.",)}
    )
    record = record.model_copy(
        update={
            "subject": record.subject.model_copy(
                update={
                    "files": (
                        FileRecord(path=f"{home}/best.pt", sha256="ab", bytes=1, role="checkpoint"),
                        FileRecord(
                            path=r"C:\Users\me\b.pt",
                            sha256="cd",
                            bytes=1,
                            role="checkpoint of head",
                        ),
                    )
                }
            ),
            "data": record.data.model_copy(update={"source": f"{home}/test.npz, rows 1:9"}),
            "notes": (Note(kind="warning", topic="loading", text=f"{home}/best.pt is old"),),
            "findings": (*record.findings[:-2], finding, record.findings[-1]),
            "settings": {"seed": 3, "device": "cuda:1", "workers": 8},
        }
    )
    text = to_model_card(AuditReport(record))
    for word in ("/home", "someone", "Users", "cuda", "Linux", "3.11.7", "2.13.0"):
        assert word not in text
    for word in ("best.pt", "b.pt", "test.npz, rows 1:9", "alone"):
        assert word in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/me/data/x.npz", "x.npz"),
        ("see '/a/b c.txt' and ~/x/y/", "see 'b c.txt' and y"),
        (r"\\server\share\x.pt", "x.pt"),
        ("audio/image", "audio/image"),
        ("1/2 of 3/4", "1/2 of 3/4"),
        ("audio/image/text", "audio/image/text"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("file:///home/me/x.pt", "file://x.pt"),
    ],
)
def test_paths_are_cut_to_their_last_part(text, left):
    assert without_paths(text) == left


def test_foreign_text_is_neither_markdown_nor_html():
    text = to_model_card(with_findings(hostile_report(), "harmful", "under-used"))
    assert HOSTILE not in text
    assert not re.search(r"(?<!\\)<(?!br)", text)


@pytest.mark.parametrize(
    "report",
    [empty_report(), twelve_report(), make_report(("audio",), samples=30)],
    ids=["empty", "twelve", "one"],
)
def test_every_kind_of_report_has_a_card(report):
    text = to_model_card(report)
    assert text.startswith("## Modality audit\n")
    assert text.endswith(".\n")
    assert "### Limits" in text
    assert "\n\n\n" not in text


def test_modalities_that_some_samples_lack_are_said():
    text = to_model_card(make_report(("audio", "image", "text"), samples=60, absent=("text",)))
    assert "**Samples that have it**: text 0" in text
    assert "No audited sample has text." in text
