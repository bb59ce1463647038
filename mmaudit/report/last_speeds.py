"""Where the learning speeds of a record end: what figures, files, terminal and findings all tell of them. Importable without torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mmaudit.report.loss_record import LossRecord
from mmaudit.report.schema import Estimate, LabelledEstimate

__all__ = ["ABOUT_ALIKE", "LastSpeeds", "last_speeds"]

ABOUT_ALIKE = 0.05
"""Difference of two speeds, log10, below which branches learn about as fast: a factor of 1.12."""


class LastSpeeds(NamedTuple):
    """The learning speeds at the end of a training."""

    checkpoint: str
    """Optimiser step that they are taken at: the last one; where runs end at different ones, that at which step times number of runs is
    largest, so that neither one long run nor one that broke off speaks for all."""
    quantity: Literal["speed", "own"]
    """Conditional speeds; ``own`` updates where nothing carries one branch into another, as in late fusion."""
    branches: dict[str, Estimate]
    """Branch -> its estimate, in the order of the record."""
    difference: LabelledEstimate | None
    """Of the conditional speeds; ``None`` where there is one branch, or no conditional speed."""

    @property
    def known(self) -> dict[str, float]:
        """Branch -> its value, where it has one."""
        return {name: e.value for name, e in self.branches.items() if e.value is not None}

    @property
    def fastest(self) -> str | None:
        """The branch that learns fastest; ``None`` where none has a value."""
        known, value = self.known, self._apart
        if len(self.branches) == len(known) == 2 and value:
            # A run may have the speed of one branch alone: the difference is of those that have both.
            return list(known)[0 if value > 0 else 1]
        return max(known, key=lambda name: known[name]) if known else None

    @property
    def slowest(self) -> str | None:
        """The branch that learns slowest; ``None`` where fewer than two have a value."""
        others = {name: value for name, value in self.known.items() if name != self.fastest}
        return min(others, key=lambda name: others[name]) if others else None

    @property
    def outcome(self) -> Literal["apart", "alike", "unsettled"] | None:
        """Whether the branches learn unlike fast; ``None`` where there is no difference to judge.

        ``unsettled``: over the runs the intervals leave open which of them is faster.
        """
        value = self._apart
        if value is None or self.difference is None or self.fastest is None or self.slowest is None:
            return None
        alike = abs(value) < ABOUT_ALIKE
        low, high = self.difference.estimate.low, self.difference.estimate.high
        if low is None or high is None:
            return "alike" if alike else "apart"
        if len(self.branches) == 2:
            inside = max(abs(low), abs(high)) < ABOUT_ALIKE
            if low <= 0 <= high and not inside:
                return "unsettled"
            return "alike" if alike else "apart"
        # A spread is never below 0: its interval does not say who is first.
        top, bottom = self.branches[self.fastest].low, self.branches[self.slowest].high
        if alike:
            return "alike"
        return "unsettled" if top is None or bottom is None or top <= bottom else "apart"

    @property
    def _apart(self) -> float | None:
        return None if self.difference is None else self.difference.estimate.value


def last_speeds(record: LossRecord) -> LastSpeeds | None:
    """Where the learning speeds of a record end; ``None`` where there are none."""
    rows = record.rows("learning_speed")
    runs: dict[str, int] = {}
    for row in rows:
        if row.labels["quantity"] == "own":
            place = row.labels["checkpoint"]
            runs[place] = max(runs.get(place, 0), row.estimate.n)
    if not runs:
        return None
    last = max(runs, key=lambda place: (runs[place] * float(place), runs[place]))
    quantity: Literal["speed", "own"] = "own"
    if any(row.labels["quantity"] == "crossing" for row in rows):
        quantity = "speed"
    at_end = [row for row in rows if row.labels["checkpoint"] == last]
    return LastSpeeds(
        last,
        quantity,
        {r.labels["branch"]: r.estimate for r in at_end if r.labels["quantity"] == quantity},
        next((r for r in at_end if r.labels["quantity"] == "difference"), None),
    )
