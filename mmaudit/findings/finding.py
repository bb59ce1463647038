"""From a record's measures to statements that a person can act on."""

from __future__ import annotations

from pathlib import Path

from mmaudit.findings.across import findings_across
from mmaudit.findings.alike import find_alike
from mmaudit.findings.facts import Facts
from mmaudit.findings.questions import answers
from mmaudit.findings.thresholds import read_thresholds
from mmaudit.findings.verdicts import verdict_of
from mmaudit.findings.wording import enumerated
from mmaudit.report.schema import Finding, Record

__all__ = ["NEEDED_MEASURES", "find"]

NEEDED_MEASURES = ("coalitions", "contributions", "interactions", "information", "mask_sensitivity")
"""Measures that verdicts cannot do without: where an audit was asked to leave one out, what it lacks is no finding."""

_FINE = ("well used", "redundant", "uninformative")


def find(record: Record, table: Path | None = None) -> tuple[Finding, ...]:
    """State what a record means for each modality and for the model as a whole.

    Args:
        record: With its measures; thresholds are those of its spec.
        table: Folder of the coalition table, where there is one: copies of one modality under two names are looked for in it.

    Returns:
        Findings about the whole model, the most pressing first; then one verdict for each modality, in their order. Empty where
        the record has no score at all.

    Raises:
        SpecError: If a threshold of the spec is none.

    Example:
        >>> find(report.record)[-1].text                                      # doctest: +SKIP
        'audio is under-used: a model of audio alone is .81 [.79, .84] better than a constant prediction, ...'
    """
    thresholds = read_thresholds(record.spec.get("thresholds"))
    facts = Facts(record, thresholds, find_alike(record, table))
    if facts.whole is None:
        return ()
    known = answers(facts)
    verdicts = [verdict_of(facts, name, known.get(name)) for name in record.modalities]
    across = findings_across(facts, known)
    return (*across, *_nothing_to_do(across, verdicts), *verdicts)


def _nothing_to_do(across: list[Finding], verdicts: list[Finding]) -> list[Finding]:
    """That nothing should be done is an answer too."""
    calm = all(finding.level in ("good", "information") for finding in across)
    if not calm or not verdicts or any(v.verdict not in _FINE for v in verdicts):
        return []
    told: dict[str, list[str]] = {}
    for verdict in verdicts:
        told.setdefault(str(verdict.verdict), []).append(str(verdict.modality))
    what = "; ".join(f"{verdict}: {enumerated(names)}" for verdict, names in told.items())
    return [
        Finding(
            rule="do nothing",
            level="good",
            text=f"Nothing to do ({what}); no remedy is called for.",
            because="no modality is under-used or harmful, and nothing else stands out",
        )
    ]
