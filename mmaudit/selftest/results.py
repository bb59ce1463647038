"""What a self-test found: how far estimates are from the truth, how often intervals hold it, and whether verdicts are right."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["CoverageRow", "ErrorRow", "SelftestResult", "VerdictRow"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    right: bool
    """Whether all is well."""


class ErrorRow(_Row):
    """Errors of one estimator over all cases and modalities."""

    estimator: str
    estimates: int
    """How many were compared with the truth."""
    largest_error: float
    """Largest absolute error, in the estimator's unit."""
    mean_error: float
    """Mean absolute error."""
    largest_deviation: float
    """Largest error as a multiple of its standard error: chance alone rarely reaches 4."""
    exact: int
    """Estimates without sampling error, that is with an interval of no width."""
    worst: str
    """Case and row of the largest deviation."""


class CoverageRow(_Row):
    """How often the 95 % intervals of one estimator held the truth in one scenario."""

    scenario: str
    interval: str
    coverage: float
    intervals: int
    runs: int
    """Data sets."""
    warned: float
    """Share of the intervals that carry a warning; where most do, nothing is promised."""


class VerdictRow(_Row):
    """One verdict, or one finding about the whole model, against what was planted."""

    case: str
    about: str
    """The modality, or ``model``."""
    expected: str
    found: str


class SelftestResult(BaseModel):
    """Everything a self-test found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    seed: int
    quick: bool
    seconds: float
    errors: tuple[ErrorRow, ...]
    coverage: tuple[CoverageRow, ...]
    verdicts: tuple[VerdictRow, ...]

    @property
    def off(self) -> tuple[str, ...]:
        """What is off, one line each."""
        return (
            *(
                f"{r.estimator}: {r.largest_deviation:.1f} standard errors off in {r.worst}"
                for r in self.errors
                if not r.right
            ),
            *(
                f"{r.interval}, {r.scenario}: covers {100 * r.coverage:.1f} %"
                for r in self.coverage
                if not r.right
            ),
            *(
                f"{r.case}, {r.about}: expected {r.expected}, found {r.found}"
                for r in self.verdicts
                if not r.right
            ),
        )
