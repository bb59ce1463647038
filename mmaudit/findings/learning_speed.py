"""Which branch learns faster through the others at the end of a training: the one to care for (Wu et al. 2022).

Stated only where there is a difference of conditional speeds: own updates of a late fusion say nothing about it.
"""

from __future__ import annotations

from mmaudit.findings.loss_wording import repeat, said
from mmaudit.report.last_speeds import ABOUT_ALIKE, LastSpeeds, last_speeds
from mmaudit.report.loss_outcomes import numbers_apart
from mmaudit.report.loss_record import LossRecord
from mmaudit.report.numbers import count, with_interval
from mmaudit.report.schema import Estimate, Finding, FindingEvidence

__all__ = ["find_learning_speed"]


def find_learning_speed(record: LossRecord) -> list[Finding]:
    """State what the learning speeds of a record mean.

    Args:
        record: With its measures.

    Returns:
        One finding at most.
    """
    last = last_speeds(record)
    if last is None or last.difference is None or last.outcome is None:
        return []
    apart = last.difference
    steps = int(record.measures["learning_speed"].settings.get("recorded_steps", 0))
    speeds = (
        FindingEvidence(
            measure="learning_speed",
            labels={**apart.labels, "branch": name, "quantity": "speed"},
            estimate=last.branches[name],
        )
        for name in last.known
    )
    return [
        Finding(
            rule="conditional learning speed",
            modality=last.fastest if last.outcome == "apart" else None,
            level="information",
            text=_text(last, apart.estimate),
            because=(
                "log10 of the updates of what carries the others into a branch over those of its own parameters (squared gradients over "
                f"squared weights, summed over {count(steps)} recorded step{'' if steps == 1 else 's'}); differences below "
                f"{ABOUT_ALIKE:g} count as none (Wu et al. 2022)"
            ),
            evidence=(
                FindingEvidence(
                    measure="learning_speed",
                    labels=apart.labels,
                    estimate=apart.estimate,
                    says="difference",
                ),
                *speeds,
            ),
            missing=repeat(record),
        )
    ]


def _text(last: LastSpeeds, apart: Estimate) -> str:
    assert last.fastest is not None and last.slowest is not None
    pair = len(last.branches) == 2
    top, bottom = said(last.fastest), said(last.slowest)
    speeds = numbers_apart([last.branches[name] for name in (last.fastest, last.slowest)])
    if pair and (apart.value or 0.0) < 0:
        apart = _negative(apart)
    numbers = (
        f"conditional learning speed (log10) {' against '.join(speeds)} at step {count(int(last.checkpoint))}, "
        f"{'difference' if pair else 'largest less smallest'} {with_interval(apart)}"
        f"{' (one run: not tested)' if apart.low is None else ''}"
    )
    if last.outcome == "alike":
        who = f"{top} and {bottom}" if pair else "All branches"
        through = "each other" if pair else "the others"
        return f"{who} learn about as fast through {through}: {numbers}."
    if last.outcome == "unsettled":
        return f"Whether {top} learns faster through the others than {bottom}, {apart.n} runs do not settle: {numbers}."
    if pair:
        opening = f"{top} learns faster through {bottom} than {bottom} through {top}"
    else:
        opening = f"{top} learns fastest through the others, {bottom} slowest"
    return f"{opening}: {numbers}. {top} is the branch to care for: it should learn more from its own input."


def _negative(estimate: Estimate) -> Estimate:
    """The difference the other way round."""
    low, high = estimate.low, estimate.high
    return Estimate(
        value=-(estimate.value or 0.0),
        low=None if high is None else -high,
        high=None if low is None else -low,
        n=estimate.n,
        method=estimate.method,
        warning=estimate.warning,
    )
