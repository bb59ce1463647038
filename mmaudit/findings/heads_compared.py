"""What the losses say of heads beside each other: whether joint training pays, overfits more, and which head a blend would favour.

A difference is called one where it is larger than a named margin and, where there are intervals, beyond them.
"""

from __future__ import annotations

from mmaudit.findings.loss_wording import conditions_of, evidence_of, named, repeat, said, value_of
from mmaudit.findings.loss_wording import estimate_of as of
from mmaudit.report.loss_outcomes import (
    CLEARLY_MORE,
    BlendOutcome,
    blend_outcome,
    numbers_apart,
    ogr_margin,
)
from mmaudit.report.loss_record import LossRecord
from mmaudit.report.numbers import percent
from mmaudit.report.schema import Estimate, Finding, FindingEvidence

__all__ = ["find_blend", "find_joint_against_single"]

_LOSS_SHARE = 0.01
_NAMED_WEIGHTS = 12


def find_joint_against_single(record: LossRecord, heads: list[str]) -> list[Finding]:
    """Set the joint head against the other head with the lowest validation loss.

    Args:
        record: With its measures.
        heads: That learn something, and whose losses can be compared with each other's.

    Returns:
        Up to two findings, of the losses and of OGR; none where there is no joint head or no other.
    """
    joint = record.joint
    alike = [head for head in heads if head not in record.incomparable]
    lowest = {
        head: value
        for head in alike
        if head != joint and (value := value_of(record, head, "validation at best")) is not None
    }
    if joint is None or joint not in alike or not lowest:
        return []
    best = min(lowest, key=lambda head: lowest[head])
    return [*_losses(record, joint, best), *_ratios(record, joint, best)]


def find_blend(record: LossRecord, idle: list[str]) -> list[Finding]:
    """State the weights that Gradient-Blend would give over the whole training, and which head they favour if one.

    Args:
        record: With its measures.
        idle: Heads that learn next to nothing.

    Returns:
        One finding; none where there are no weights.
    """
    result = record.measures.get("blend_weights")
    found = blend_outcome(record)
    if result is None or found is None:
        return []
    shown = list(found.weights.items())[:_NAMED_WEIGHTS]
    written = numbers_apart([e for _, e in shown], most=3)
    weights = ", ".join(f"{said(head)} {text}" for (head, _), text in zip(shown, written, strict=True))  # fmt: skip
    warning = found.weights[found.top].warning
    conditions = [warning] if warning else []
    heavy = [h for h, e in found.weights.items() if (e.value or 0.0) > 1 / (2 * len(found.weights))]
    resting = [head for head in heavy if head in idle]
    ends = _favoured(found)
    if resting:
        have = "has its weight" if len(resting) == 1 else "have their weights"
        conditions.append(
            f"{named(resting)} learn{'s' if len(resting) == 1 else ''} next to nothing and {have} for overfitting little: the formula "
            "divides by O^2."
        )
        if found.outcome == "favoured" and found.top in idle:
            ends += ", though it learns next to nothing"
    return [
        Finding(
            rule="blend",
            modality=found.top if found.outcome == "favoured" else None,
            level="information",
            text=f"Gradient-Blend would weight the losses {weights}: {ends}.",
            because=(
                f"weights G / O^2 over the whole training, policy '{result.settings.get('policy', 'clip')}'; estimated from this training, "
                "where the method trains a copy of each head. A head is favoured whose weight exceeds each other by "
                f"{percent(CLEARLY_MORE)} of itself and whose interval overlaps none"
            ),
            evidence=tuple(
                FindingEvidence(
                    measure="blend_weights", labels=row.labels, estimate=row.estimate, says="weight"
                )
                for row in result.rows
                if row.labels["head"] in found.weights
                and row.estimate is found.weights[row.labels["head"]]
            ),
            conditions=tuple(conditions),
        )
    ]


def _favoured(found: BlendOutcome) -> str:
    together = [head for head in found.weights if head == found.top or head in found.beside]
    if found.outcome == "favoured":
        return f"it favours {said(found.top)}"
    if found.outcome == "unsettled":
        return "the intervals overlap, so that no head is favoured for certain"
    if len(together) == len(found.weights):
        return "about even, no head is favoured"
    return f"{named(together)} are about even, no head is favoured alone"


def _losses(record: LossRecord, joint: str, best: str) -> list[Finding]:
    """That joint training does not pay: its lowest validation loss is not below that of the best other head."""
    own, other = (of(record, head, "validation at best") for head in (joint, best))
    if own is None or other is None or own.value is None or other.value is None:
        return []
    if own.value < other.value:
        return []
    margin = _LOSS_SHARE * abs(other.value)
    overlap = own.low is not None and other.high is not None and own.low <= other.high
    worse = own.value - other.value > margin
    if worse and not overlap:
        opening = f"Joint training is no better than {said(best)} alone"
    elif worse:
        opening = f"Joint training is not shown to be better than {said(best)} alone"
    else:
        opening = f"Joint training is about as good as {said(best)} alone"
    shown = numbers_apart([own, other], 3)
    return [
        Finding(
            rule="worse than its best head",
            level="attention" if worse and not overlap else "information",
            text=f"{opening}: at their best the validation losses are {' and '.join(shown)}.",
            because=(
                "the lowest validation loss of the joint head is not below that of the best other head; differences of up to "
                f"{percent(_LOSS_SHARE)} and within the intervals count as none"
            ),
            evidence=(
                *evidence_of(record, joint, ("validation at best",), "joint"),
                *evidence_of(record, best, ("validation at best",), "best other head"),
            ),
            conditions=conditions_of(record, [joint, best]),
        )
    ]


def _ratios(record: LossRecord, joint: str, best: str) -> list[Finding]:
    """Whether joint training overfits more for what it generalizes."""
    apart = of(record, joint, "OGR less that of the best other head")
    ratios = [r for head in (joint, best) if (r := of(record, head, "OGR")) is not None]
    values = [r.value for r in ratios if r.value is not None]
    if apart is None or apart.value is None or len(values) < 2:
        return []
    outcome = _outcome(apart, ogr_margin(*values))
    name = said(best)
    opening = {
        "alike": f"Joint training overfits about as much for what it generalizes as {name}, the best other head",
        "unsettled": f"Whether joint training overfits more than {name}, the best other head, {len(record.runs)} runs do not settle",
        "more": f"Joint training overfits more for what it generalizes than {name}, the best other head",
        "less": f"Joint training overfits less for what it generalizes than {name}, the best other head",
    }[outcome]
    shown = " against ".join(numbers_apart(ratios))
    tested = "" if apart.low is not None else " (one run: not tested)"
    return [
        Finding(
            rule="joint against best single head",
            level="attention" if outcome == "more" else "information",
            text=f"{opening}: OGR over the whole training {shown}{tested}.",
            because=(
                "OGR from the first to the last checkpoint, of the joint head and of the other head with the lowest validation loss; "
                f"a difference below {ogr_margin(*values):.2g} counts as none"
            ),
            evidence=(
                *evidence_of(
                    record,
                    joint,
                    ("OGR less that of the best other head", "OGR", "dO", "dG"),
                    "joint",
                ),
                *evidence_of(record, best, ("OGR", "dO", "dG"), "best other head"),
            ),
            conditions=conditions_of(record, [joint, best]),
            missing=repeat(record),
        )
    ]


def _outcome(apart: Estimate, margin: float) -> str:
    """``alike``, ``unsettled``, ``more`` or ``less``."""
    value, low, high = apart.value or 0.0, apart.low, apart.high
    small = abs(value) <= margin
    if low is not None and high is not None:
        shows = low * high > 0
        if max(abs(low), abs(high)) <= margin or (small and shows):
            return "alike"
        if not shows:
            return "unsettled"
    elif small:
        return "alike"
    return "more" if value > 0 else "less"
