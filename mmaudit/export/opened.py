"""What lies behind each finding: the rule that fired, the estimates that it rests on, and what is missing."""

from __future__ import annotations

from typing import NamedTuple

from mmaudit.export.overview import MostShown
from mmaudit.figures.base import cell
from mmaudit.report.labels import clean, shorten
from mmaudit.report.numbers import count
from mmaudit.report.schema import Finding, Record
from mmaudit.report.statements import MARKS, VERDICT_WORDS, about_labels, of_the_model, verdicts

__all__ = ["EVIDENCE_HEADERS", "Opened", "open_findings"]

EVIDENCE_HEADERS = ("Measure", "About", "Estimate", "n", "Says")


class Opened(NamedTuple):
    """A finding, opened; foreign texts are on one line and bounded, but not escaped."""

    name: str
    """The modality, or the rule where it is about the model."""
    modality: str | None
    """As the record has it; ``None`` for the model."""
    verdict: str
    """Empty where it is no verdict."""
    level: str
    mark: str
    text: str
    meaning: str
    """What the verdict means; empty where it is none."""
    rule: str
    """Why it fired, with the thresholds; empty where the record does not say."""
    evidence: tuple[tuple[str, ...], ...]
    """As ``EVIDENCE_HEADERS`` says."""
    more: int
    """Estimates that are not among them."""
    conditions: tuple[str, ...]
    missing: tuple[str, ...]
    """What evidence is missing, and the command that gets it."""
    remedies: tuple[str, ...]


def open_findings(record: Record) -> tuple[Opened, ...]:
    """Open all findings: those about the model, then one verdict per modality."""
    whole = of_the_model(record)[: MostShown.findings]
    return tuple(_open(finding) for finding in (*whole, *verdicts(record).values()))


def _open(finding: Finding) -> Opened:
    shown = finding.evidence[: MostShown.files]
    about = "" if finding.modality is None else f"{shorten(finding.modality)}, "
    return Opened(
        name=shorten(finding.modality or "", 60)
        if finding.verdict
        else shorten(f"{about}{finding.rule}", 90),
        modality=finding.modality,
        verdict=finding.verdict or "",
        level=finding.level,
        mark=MARKS[finding.level],
        text=shorten(finding.text, MostShown.text),
        meaning=VERDICT_WORDS[finding.verdict] if finding.verdict else "",
        rule=shorten(finding.because, 2 * MostShown.text) if finding.because else "",
        evidence=tuple(
            (
                clean(row.measure),
                about_labels(row),
                cell(row.estimate, 3),
                count(row.estimate.n) if row.estimate.n else "–",
                shorten(row.says, 80) if row.says else "–",
            )
            for row in shown
        ),
        more=len(finding.evidence) - len(shown),
        conditions=tuple(shorten(text, MostShown.text) for text in finding.conditions),
        missing=tuple(shorten(text, MostShown.text) for text in finding.missing),
        remedies=tuple(shorten(key, 40) for key in finding.remedies),
    )
