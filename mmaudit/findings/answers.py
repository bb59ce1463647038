"""What can be said about one modality, as the rules of the verdicts read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mmaudit.findings.effects import Effect
from mmaudit.findings.facts import Mask

__all__ = ["Answer", "Answers", "Information", "Source"]

Answer = Literal["yes", "no", "unclear"]
Source = Literal["reference", "probe", "model"]


@dataclass(frozen=True)
class Information:
    """Whether a modality could say something about the target alone.

    Args:
        answer: ``yes``, ``no``, or ``unclear`` where evidence is missing or too weak.
        source: What the answer rests on: a reference model, a linear probe, or the audited model given the modality alone.
        above: Its score above the best constant prediction.
        failed: Whether there is a reference model at chance although something else finds information.
    """

    answer: Answer
    source: Source | None = None
    above: Effect | None = None
    failed: bool = False


@dataclass(frozen=True)
class Answers:
    """What can be said about one modality.

    Args:
        modality: Its name.
        silent: The response is numerically nothing.
        contribution: Mask -> Shapley value of the score.
        drop: Mask -> score of the whole model less its score without the modality.
        read_under: Mask -> whether the score depends on the modality.
        read: The same, all masks together.
        gains: Whether it raises the score, under the masks that count.
        idle: Whether it raises the score by little or nothing, under the masks that count.
        informative: Whether it could say something alone.
        needed: Whether the score falls without it.
        needed_by: The estimate that says so, and where it comes from in words.
        harmful_under: Masks under which masking it raises the score; empty where another mask contradicts.
        gaps: Mask -> what it says alone less what the joint model gets from it alone.
        less: Whether the model reads less than the modality says.
        disagree: Whether masks disagree on the sign or on reading.
    """

    modality: str
    silent: bool
    contribution: Mapping[Mask, Effect]
    drop: Mapping[Mask, Effect]
    read_under: Mapping[Mask, Answer]
    read: Answer
    gains: bool
    idle: bool
    informative: Information
    needed: Answer
    needed_by: tuple[Effect, str] | None
    harmful_under: tuple[Mask, ...]
    gaps: Mapping[Mask, Effect] = field(default_factory=dict)
    less: bool = False
    disagree: bool = False
