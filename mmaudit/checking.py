"""Hold a record against requirements, for use in CI: are the numbers what they must be, interval included?

A requirement is about the truth and not about an estimate of it, so ``>=`` needs the lower end of the interval above the bound
and ``<=`` the upper end below it. What has no value or no interval fails, and says why: a check that passes because nothing was
measured is worse than none. Reads records only; imports no torch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mmaudit.exceptions import RecordError, UndefinedMeasureError
from mmaudit.report import AuditReport
from mmaudit.report.labels import LABELS, clean, coalition_name, shorten
from mmaudit.report.numbers import number, with_interval
from mmaudit.report.requirements import (
    VERDICT,
    Requirement,
    RequirementError,
    did_you_mean,
    parse_requirement,
)
from mmaudit.report.schema import Estimate

__all__ = ["Outcome", "check"]

_COMPARE = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_COALITIONS = "coalitions"


class Outcome(NamedTuple):
    """What became of one requirement."""

    requirement: str
    """As it was written."""
    holds: bool
    found: str
    """The estimate with its interval, the verdict, or ``undefined``."""
    compared: str
    """What was held against the bound: ``lower end .031``, ``value .05``, ``verdict``; ``nothing`` where there was nothing."""
    reason: str
    """Why it fails, or what to know although it holds; empty where there is nothing to say."""
    estimate: Estimate | None
    """The number behind it; ``None`` for verdicts and where nothing was measured."""

    @property
    def sentence(self) -> str:
        """The outcome on one line."""
        said = f"{self.requirement}: {'holds' if self.holds else 'fails'}, found {self.found}"
        return f"{said} ({self.reason})" if self.reason else said


def check(
    report: AuditReport | Path | str, requirements: Iterable[str], *, point: bool = False
) -> tuple[Outcome, ...]:
    """Hold a record against requirements.

    Args:
        report: A report, or where its record lies.
        requirements: In the grammar of :mod:`mmaudit.report.requirements`. Labels that are left out mean what they mean in
            :meth:`AuditReport.estimate`; ``given`` is then ``rest``, and ``accuracy`` alone is that of the whole model.
        point: Where an estimate has no interval, compare its value. Without this it fails.

    Returns:
        One outcome per requirement, in their order.

    Raises:
        RequirementError: If there is no requirement, or one is malformed or names a measure, modality or label that there is not.
        RecordError: If there is no readable record.

    Example:
        >>> check("runs/audit", ["utilization.audio >= 0.05", "verdict.image != harmful"])  # doctest: +SKIP
    """
    asked = [parse_requirement(text) for text in requirements]
    if not asked:
        raise RequirementError(
            "there is no requirement; write for example utilization.audio >= 0.05"
        )
    read = report if isinstance(report, AuditReport) else AuditReport.load(report)
    return tuple(_outcome(read, requirement, point) for requirement in asked)


def _outcome(report: AuditReport, requirement: Requirement, point: bool) -> Outcome:
    if requirement.measure == VERDICT:
        return _of_verdict(report, requirement)
    key, labels = _place(report, requirement)
    try:
        estimate = _find(report, requirement, key, labels)
    except UndefinedMeasureError as error:
        return _fails(requirement, shorten(str(error), 300))
    if estimate is None:
        has = ", ".join(report.measures) or "nothing"
        reason = f"{key} was not measured in this audit; it has {has}"
        return _fails(requirement, shorten(reason, 300))
    return _of_estimate(requirement, estimate, point)


def _of_verdict(report: AuditReport, requirement: Requirement) -> Outcome:
    name = requirement.name or ""
    _known_modality(report, requirement, name)
    verdicts = {f.modality: f.verdict for f in report.record.findings if f.verdict is not None}
    verdict = verdicts.get(name)
    if verdict is None:
        return _fails(
            requirement, "this record has no verdicts; audit again with this version of mmaudit"
        )
    holds = bool(_COMPARE[requirement.operator](verdict, requirement.bound))
    return Outcome(requirement.text, holds, verdict, "verdict", "", None)


def _of_estimate(requirement: Requirement, estimate: Estimate, point: bool) -> Outcome:
    if estimate.value is None:
        return _fails(requirement, clean(estimate.undefined or ""), estimate)
    upwards = requirement.operator in (">=", ">")
    end = estimate.low if upwards else estimate.high
    remarks = [clean(estimate.warning)] if estimate.warning else []
    found = with_interval(estimate, 3)
    if end is None and not point:
        remarks.insert(
            0,
            f"it has no {'lower' if upwards else 'upper'} end to compare; --point (point=True) compares the value",
        )
        return Outcome(requirement.text, False, found, "nothing", "; ".join(remarks), estimate)
    which = "value" if end is None else "lower end" if upwards else "upper end"
    compared = estimate.value if end is None else end
    holds = bool(_COMPARE[requirement.operator](compared, requirement.bound))
    shown = f"{which} {number(compared, _digits(compared, requirement.bound))}"
    return Outcome(requirement.text, holds, found, shown, "; ".join(remarks), estimate)


def _digits(value: float, bound: float | str) -> int:
    """Decimals that show on which side of the bound a value lies."""
    away = abs(value - float(bound))
    return next((digits for digits in range(3, 9) if away >= 0.999 * 10**-digits), 9)


def _fails(requirement: Requirement, reason: str, estimate: Estimate | None = None) -> Outcome:
    return Outcome(requirement.text, False, "undefined", "nothing", reason, estimate)


def _place(report: AuditReport, requirement: Requirement) -> tuple[str, dict[str, str]]:
    """The measure that a requirement is about, and the labels that it gives.

    A score of the whole model (``accuracy``) is a row of the coalitions.
    """
    names = report.modalities
    labels = dict(requirement.labels)
    key = requirement.measure
    scores = _scores(report)
    if key in scores and key not in LABELS:
        labels.setdefault("score", key)
        if requirement.name is None:
            labels.setdefault("coalition", coalition_name(names, names))
        key = _COALITIONS
    known = _label_keys(report, key)
    if known is None:
        choices = [*dict.fromkeys((*report.measures, *LABELS)), *sorted(scores), VERDICT]
        raise _wrong(
            requirement,
            f"expected a measure ({', '.join(choices)}), found '{shorten(key, 40)}'{did_you_mean(key, choices)}",
        )
    for label in labels:
        if label not in known:
            raise _wrong(
                requirement,
                f"{key} has the labels {', '.join(known)}, found '{shorten(label, 40)}'{did_you_mean(label, known)}",
            )
    if requirement.name is not None:
        what = next((label for label in ("modality", "coalition") if label in known), None)
        if what is None:
            raise _wrong(
                requirement,
                f"{key} has no modality; say {' or '.join(f'{label}=...' for label in known)} "
                f"in place of '{shorten(requirement.name, 40)}'",
            )
        if what in labels:
            raise _wrong(requirement, f"the {what} is said twice")
        labels[what] = requirement.name
    if "modality" in labels and labels.get("quantity") != "d_util":
        labels["modality"] = _modalities(report, requirement, key, labels["modality"])
    return key, labels


def _find(
    report: AuditReport, requirement: Requirement, key: str, labels: dict[str, str]
) -> Estimate | None:
    """The estimate; ``None`` where this audit did not measure it."""
    failed = any(failure.measure == key for failure in report.failures)
    if key not in report.measures and not failed:
        return None
    tries = [labels]
    if "given" in (_label_keys(report, key) or ()) and "given" not in labels:
        tries.append({**labels, "given": "rest"})
    complaint = ""
    for asked in tries:
        try:
            return report.estimate(key, **asked)
        except RecordError as error:
            complaint = complaint or str(error)
    raise _wrong(requirement, shorten(complaint, 600))


def _scores(report: AuditReport) -> set[str]:
    rows = report.rows(_COALITIONS)
    return {"accuracy", *(row.labels["score"] for row in rows if "score" in row.labels)}


def _label_keys(report: AuditReport, key: str) -> tuple[str, ...] | None:
    """Labels of a measure, of this record or any; ``None`` where there is no such measure."""
    result = report.measures.get(key)
    if result is not None and result.rows:
        return tuple(result.rows[0].labels)
    if key in LABELS:
        return LABELS[key]
    return () if result is not None else None


def _modalities(report: AuditReport, requirement: Requirement, key: str, name: str) -> str:
    """A modality, or where a measure has rows about several at once their names in the order of the spec."""
    parts, names = name.split("+"), report.modalities
    if name not in names and len(parts) > 1 and set(parts) <= set(names):
        together = coalition_name(parts, names)
        if report.rows(key, modality=together):
            return together
    _known_modality(report, requirement, name)
    return name


def _known_modality(report: AuditReport, requirement: Requirement, name: str) -> None:
    names = report.modalities
    if name not in names:
        shown = ", ".join(shorten(known, 40) for known in names)
        raise _wrong(
            requirement,
            f"expected one of the modalities {shown}, found '{shorten(name, 40)}'{did_you_mean(name, names)}",
        )


def _wrong(requirement: Requirement, sentence: str) -> RequirementError:
    return RequirementError(f"requirement '{shorten(requirement.text, 120)}': {sentence}")
