"""What the findings take for large, small and certain: every number they use, named, and how to change it.

An audit file overrides single ones under ``thresholds``::

    thresholds: {delta: 0.01, dominance: 0.9}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmaudit.exceptions import SpecError

__all__ = ["Thresholds", "read_thresholds"]


class Thresholds(BaseModel):
    """All thresholds of the findings.

    Scores are accuracies, or R2 of a regression: their range is 1, so that a difference of scores is a share of the range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    delta: float = Field(default=0.02, gt=0, lt=1)
    """Smallest difference of scores that matters. An effect is there where its interval excludes 0 and its value reaches delta;
    it is absent where its whole interval lies inside (-delta, delta)."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Chance of a false claim among all modalities of a model (Holm), two-sided: half of it for each direction."""
    at_chance: float = Field(default=0.1, gt=0, lt=1)
    """A modality says nothing where the score of a model of it alone is not clearly above that of a constant prediction, and its
    interval ends below so much more; and what says nothing is of no avail where its drop and contribution are so. Intervals inside
    delta would take thousands of samples; this leaves little room. With many modalities an equal part of what the joint model
    gains over a constant prediction takes its place, where that is less (but not below delta)."""
    gain: float = Field(default=0.02, gt=0, lt=1)
    """A probe found nothing where its log-likelihood gain, as a share of the entropy of the target, is below this."""
    fair_share: float = Field(default=1.0, gt=0)
    """A model that makes use of what a modality says alone credits it with at least 1/M of that. A modality is read less than it
    says where its contribution is below this many such parts."""
    neglect: float = Field(default=0.5, gt=0)
    """The same for a modality without which nothing is lost."""
    dominance: float = Field(default=0.8, gt=0.5, lt=1)
    """A modality dominates where its share of all contributions is certainly above this."""
    perfect: float = Field(default=0.985, gt=0.5, le=1)
    """A score of one modality alone from which a leaked label is suspected."""
    identical: float = Field(default=0.95, gt=0.5, le=1)
    """Two modalities are suspected to be copies where the model errs alike on this share of the samples that it errs on with
    either alone."""
    samples: int = Field(default=50, ge=2)
    """Fewer samples allow no verdict."""
    groups: int = Field(default=10, ge=2)
    """Fewer groups allow no verdict, where samples are grouped."""


def read_thresholds(given: Mapping[str, float] | None = None) -> Thresholds:
    """Fill in the defaults.

    Args:
        given: Name -> value, as an audit file has them under ``thresholds``.

    Raises:
        SpecError: If a name is unknown or a value out of range, with what is allowed.

    Example:
        >>> read_thresholds({"delta": 0.05}).delta
        0.05
        >>> read_thresholds({"dleta": 0.05})
        Traceback (most recent call last):
            ...
        mmaudit.exceptions.SpecError: thresholds: 'dleta' is none, did you mean 'delta'? There are delta, level, at_chance, gain, fair_share, neglect, dominance, perfect, identical, samples, groups.
    """
    given = dict(given or {})
    names = list(Thresholds.model_fields)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f", did you mean '{near[0]}'?" if near else "."
            raise SpecError(f"thresholds: '{name}' is none{hint} There are {', '.join(names)}.")
    try:
        return Thresholds.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name, came = str(fault["loc"][0]), fault.get("input")
        message = fault["msg"][0].lower() + fault["msg"][1:]
        raise SpecError(f"thresholds: {name} is {came!r}; {message}.") from None
