"""Which head the losses of a training favour, and which overfits more: said where it shows. Importable without torch.

Figures and findings both read this, so that no title says more than the sentence beside it. Where there are intervals they
decide; a difference below a named share counts as none, because weights and ratios of one training are rough.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from mmaudit.report.loss_record import ALL_RUNS, WHOLE, LossRecord
from mmaudit.report.numbers import with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "CLEARLY_MORE",
    "OGR_MARGIN",
    "OGR_SHARE",
    "BlendOutcome",
    "blend_outcome",
    "numbers_apart",
    "ogr_margin",
]

CLEARLY_MORE = 0.2
"""Share of the largest weight by which it has to exceed the next one: .56 against .44 does, .52 against .48 does not."""

OGR_MARGIN = 0.05
"""Difference of two OGRs that counts as none: the overfitting gap opened by a twentieth of what was generalized."""

OGR_SHARE = 0.1
"""The same as a share of the larger one; the larger margin holds."""

_MOST_DIGITS = 6
_SAME = 9


class BlendOutcome(NamedTuple):
    """Weights of the whole training, and what they say."""

    weights: dict[str, Estimate]
    """Head -> its weight, those that have one."""
    top: str
    """The head with the largest."""
    beside: tuple[str, ...]
    """Heads whose weight does not show to be smaller; with ``top`` they are favoured about evenly."""
    outcome: Literal["favoured", "even", "unsettled"]
    """``favoured``: ``top`` alone; ``even``: ``beside`` differ by less than ``CLEARLY_MORE``; ``unsettled``: intervals overlap."""


def blend_outcome(record: LossRecord) -> BlendOutcome | None:
    """What Gradient-Blend would favour over the whole training; ``None`` where no head has a weight."""
    rows = record.rows("blend_weights", run=ALL_RUNS, window=WHOLE, quantity="weight")
    weights = {row.labels["head"]: row.estimate for row in rows if row.estimate.value is not None}
    if not weights:
        return None
    top = max(weights, key=lambda head: _value(weights[head]))
    others = [head for head in weights if head != top]
    close = [head for head in others if not _exceeds(weights[top], weights[head])]
    overlapping = [head for head in others if _overlap(weights[top], weights[head])]
    beside = tuple(head for head in others if head in close or head in overlapping)
    outcome: Literal["favoured", "even", "unsettled"] = "favoured"
    if beside:
        outcome = "even" if set(beside) <= set(close) else "unsettled"
    return BlendOutcome(weights, top, beside, outcome)


def ogr_margin(first: float, second: float) -> float:
    """Difference of two OGRs up to which they count as alike.

    Example:
        >>> ogr_margin(0.0037, 0.0028), ogr_margin(2.0, 1.0)
        (0.05, 0.2)
    """
    return max(OGR_MARGIN, OGR_SHARE * max(abs(first), abs(second)))


def numbers_apart(
    estimates: list[Estimate], digits: int = 2, *, most: int | None = None
) -> list[str]:
    """Write numbers that stand beside each other with as many digits as it takes to tell them apart.

    Args:
        estimates: Undefined ones are written in words.
        digits: As many at least.
        most: As many at most; left out, numbers that differ are never written alike.

    Example:
        >>> numbers_apart([Estimate(value=0.0037), Estimate(value=0.0028)])
        ['.004', '.003']
        >>> numbers_apart([Estimate(value=0.104), Estimate(value=0.101), Estimate(value=0.104)], most=2)
        ['.10', '.10', '.10']
        >>> numbers_apart([Estimate(value=2e-9), Estimate(value=3e-9)])
        ['2e-09', '3e-09']
    """
    different = len({_rounded(e.value) for e in estimates if e.value is not None})
    last = most or _MOST_DIGITS
    for places in range(digits, last + 1):
        points = {
            with_interval(Estimate(value=e.value), places) for e in estimates if e.value is not None
        }
        if len(points) == different:
            return [with_interval(e, places) for e in estimates]
    if most is not None:
        return [with_interval(e, most) for e in estimates]
    return [_exactly(e, estimates) for e in estimates]


def _exactly(estimate: Estimate, others: list[Estimate]) -> str:
    """A number in the fewest significant digits that set it apart from all others."""
    if estimate.value is None:
        return with_interval(estimate)
    own = _rounded(estimate.value)
    different = {e.value for e in others if e.value is not None and _rounded(e.value) != own}
    text = ""
    for significant in range(1, _SAME + 1):
        text = f"{estimate.value:.{significant}g}"
        if text not in {f"{value:.{significant}g}" for value in different}:
            break
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:.{significant}g}, {estimate.high:.{significant}g}]"


def _rounded(value: float) -> float:
    """What differs by less than this is the same number, computed twice."""
    return float(f"{value:.{_SAME}g}")


def _value(estimate: Estimate) -> float:
    return estimate.value or 0.0


def _exceeds(top: Estimate, other: Estimate) -> bool:
    most = _value(top)
    # Shares of a sum are whole only up to rounding.
    return most > 0 and most - _value(other) >= CLEARLY_MORE * most * (1 - 1e-9)


def _overlap(top: Estimate, other: Estimate) -> bool:
    return top.low is not None and other.high is not None and top.low <= other.high
