"""The findings of a record as a reader meets them: what comes first, what to do, and what lies behind each.

The terminal, the pages, the notebook and the files all read findings through here, so that they cannot disagree. Records
without findings have none of this; :mod:`mmaudit.report.sentences` then says what stands out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import NamedTuple

from mmaudit.report.labels import clean, shorten
from mmaudit.report.schema import Finding, FindingEvidence, Record, VerdictName

__all__ = [
    "LEVELS",
    "MARKS",
    "VERDICT_WORDS",
    "Statement",
    "about_labels",
    "advice",
    "further_advice",
    "of_the_model",
    "statement",
    "verdicts",
]

LEVELS = ("problem", "attention", "information", "good")
"""Levels of findings, what needs most attention first."""

MARKS = {"problem": "!!", "attention": "!", "information": "i", "good": "+"}
"""What stands before a finding where there is no colour."""

VERDICT_WORDS: dict[VerdictName, str] = {
    "harmful": "The score rises when it is masked.",
    "well used": "The model reads it, it is informative, and the score needs it.",
    "redundant": "The model reads it and it is informative, but a model without it does as well.",
    "under-used": "It has information that the model does not draw from it.",
    "uninformative": "Neither the model nor a test of its own finds anything in it.",
    "undetermined": "The evidence is not enough to say.",
}
"""Verdict -> what it means, in one sentence."""

_MOST = 3
_LONGEST = 400


class Statement(NamedTuple):
    """A finding as it is laid out; foreign texts are on one line and bounded, but not escaped."""

    level: str
    """One of ``LEVELS``."""
    mark: str
    """The level without colour: one of ``MARKS``."""
    text: str
    """The sentence, with its numbers."""
    below: tuple[str, ...] = ()
    """What to do: remedies worth trying, or how to get what is missing."""
    command: str | None = None
    """To be typed, where there is one."""


def verdicts(record: Record) -> dict[str, Finding]:
    """The verdict of each modality that has one, in the order of the record's modalities."""
    found = {f.modality: f for f in record.findings if f.verdict is not None}
    return {name: found[name] for name in record.modalities if name in found}


def of_the_model(record: Record) -> tuple[Finding, ...]:
    """Findings that are no verdicts, those that need most attention first."""
    others = [finding for finding in record.findings if finding.verdict is None]
    return tuple(sorted(others, key=_weight))


def advice(record: Record) -> tuple[Statement, ...]:
    """What to do, modality by modality.

    Returns:
        At most three statements: the verdicts that ask for something, the worst first; where none does, the others.
    """
    shown = [statement(record, finding) for finding in _told(record)[:_MOST]]
    for place, found in enumerate(shown):
        # A command that stands above already is not said again, nor what has to be done before it.
        above = [before.command for before in shown[:place]]
        if found.command is not None and found.command in above:
            shown[place] = found._replace(command=None, below=found.below[:1])
    return tuple(shown)


def further_advice(record: Record) -> str:
    """Which modalities ask for something beside those of :func:`advice`, in one sentence; empty where none does."""
    names = [shorten(f.modality or "") for f in _told(record)[_MOST:] if _asks(f)]
    if not names:
        return ""
    shown = f"{', '.join(names[:_MOST])}{' and others' if len(names) > _MOST else ''}"
    return f"{len(names)} more ask{'s' if len(names) == 1 else ''} for a look: {shown}."


def statement(record: Record, finding: Finding) -> Statement:
    """Lay one finding out.

    Args:
        record: Whose it is; knows the audit file that a command needs.
        finding: Of the record.
    """
    below, command = [], None
    if finding.remedies:
        below.append(
            f"Worth trying: {', '.join(shorten(key, 40) for key in finding.remedies[:4])}."
        )
        below += _before_training(record)
        command = (
            f"mmaudit retrain {_audit_file(record)} --remedy {shlex.quote(finding.remedies[0])}"
        )
    elif finding.missing:
        below.append(shorten(finding.missing[0], _LONGEST))
    return Statement(
        finding.level,
        MARKS[finding.level],
        shorten(finding.text, _LONGEST),
        tuple(below),
        command,
    )


def about_labels(evidence: FindingEvidence) -> str:
    """Say what a row of a measure is about.

    Example:
        >>> from mmaudit.report.schema import Estimate
        >>> labels = {"quantity": "u", "modality": "audio", "given": "image", "class": "all"}
        >>> row = FindingEvidence(measure="utilization", labels=labels, estimate=Estimate(value=0.1))
        >>> about_labels(row)
        'quantity u, modality audio, given image'
    """
    told = [
        f"{clean(key)} {shorten(value, 40)}"
        for key, value in evidence.labels.items()
        if (key, value) != ("class", "all")
    ]
    return ", ".join(told) or "the whole model"


def _told(record: Record) -> list[Finding]:
    found = sorted(verdicts(record).values(), key=_weight)
    return [finding for finding in found if _asks(finding)] or found


def _asks(finding: Finding) -> bool:
    return finding.level in ("problem", "attention") or bool(finding.missing)


def _weight(finding: Finding) -> int:
    return LEVELS.index(finding.level)


def _before_training(record: Record) -> list[str]:
    """What has to be done before a retraining; nothing where the record does not say."""
    data = record.spec.get("data")
    if not isinstance(data, Mapping) or data.get("train") is not None:
        return []
    return ["The audit file names no training data: add 'train' under 'data' first."]


def _audit_file(record: Record) -> str:
    """The audit file as a shell needs it; a placeholder where the audit was made from Python."""
    files = [file.path for file in record.subject.files if file.role == "audit file"]
    # What a terminal would not show as it is must not be copied into a shell.
    if not files or clean(files[0]) != files[0] or len(files[0]) > _LONGEST:
        return "AUDIT.yaml"
    return shlex.quote(files[0])
