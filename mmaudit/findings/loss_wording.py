"""What sentences about losses and learning speeds share: numbers of a head, what makes them rough, and how names are said."""

from __future__ import annotations

from collections.abc import Iterable

from mmaudit.report.labels import shorten
from mmaudit.report.loss_record import ALL_RUNS, LossRecord
from mmaudit.report.numbers import number
from mmaudit.report.schema import Estimate, FindingEvidence

__all__ = [
    "MOST_NAMED",
    "conditions_of",
    "estimate_of",
    "evidence_of",
    "named",
    "repeat",
    "said",
    "small",
    "value_of",
]

MOST_NAMED = 6
"""Heads that a sentence names; of more it says how many."""

_MOST_CONDITIONS = 40
_HARMLESS = ("window", "gap", "restart", "order", "not finite", "few checkpoints")


def repeat(record: LossRecord) -> tuple[str, ...]:
    """What is missing where there is one run."""
    if len(record.runs) > 1:
        return ()
    return (
        "Whether another training does the same: repeat it with other seeds and give all logs together, mmaudit ogr LOG LOG ...",
    )


def said(name: str) -> str:
    """A name from a log, for a sentence."""
    return shorten(name, 40)


def estimate_of(
    record: LossRecord, head: str, quantity: str, run: str = ALL_RUNS
) -> Estimate | None:
    """A number of the measure ``overfitting``; ``None`` where it has no such row."""
    rows = record.rows("overfitting", head=head, run=run, quantity=quantity)
    return rows[0].estimate if rows else None


def value_of(record: LossRecord, head: str, quantity: str) -> float | None:
    """The same as a value, over all runs; ``None`` where it is undefined, too."""
    found = estimate_of(record, head, quantity)
    return None if found is None else found.value


def evidence_of(
    record: LossRecord, head: str, quantities: Iterable[str], says: str = ""
) -> tuple[FindingEvidence, ...]:
    """Numbers of a head over all runs, as what a finding rests on."""
    found = []
    for quantity in quantities:
        estimate = estimate_of(record, head, quantity)
        if estimate is not None:
            labels = {"head": head, "run": ALL_RUNS, "quantity": quantity}
            found.append(
                FindingEvidence(measure="overfitting", labels=labels, estimate=estimate, says=says)
            )
    return tuple(found)


def conditions_of(record: LossRecord, heads: Iterable[str]) -> tuple[str, ...]:
    """What makes the numbers of some heads rough."""
    wanted = set(heads)
    told = [
        flag.text
        for flag in record.flags
        if not flag.unusable and (flag.head is None or flag.head in wanted)
    ]
    first = [t for t in told if not any(f.text == t and f.kind in _HARMLESS for f in record.flags)]
    return tuple(dict.fromkeys([*first, *told]))[:_MOST_CONDITIONS]


def named(heads: list[str]) -> str:
    """Names of heads as a sentence lists them."""
    shown = [said(head) for head in heads[:MOST_NAMED]]
    if len(heads) > MOST_NAMED:
        return f"{', '.join(shown)} and {len(heads) - MOST_NAMED} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def small(value: float) -> str:
    """A loss or a part of one, with as many digits as it needs.

    Example:
        >>> small(0.5), small(0.00123), small(120.0)
        ('.500', '.0012', '120.000')
    """
    return number(value, 3) if abs(value) >= 0.01 or value == 0 else number(value, 4)
