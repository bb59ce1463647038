"""Is a modality read: does the score depend on it, and do different masks agree?

Under the values of other samples a modality that is independent of the target and of the others has no effect; under zeros it
may have one, because zeros are far from the data. What zeros show and other samples' values do not is no reading of content.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmaudit.findings.answers import Answer
from mmaudit.findings.effects import Effect, holm
from mmaudit.findings.facts import Facts, Mask

__all__ = ["counting_masks", "masks_disagree", "read_by_all", "read_under", "signs_under"]


def signs_under(facts: Facts, mask: Mask) -> dict[str, int]:
    """1 where the contribution or the drop is clearly above 0, -1 where one is clearly below, 0 otherwise; drop before contribution."""
    delta = facts.thresholds.delta
    found = dict.fromkeys(facts.effects, 0)
    for which in (0, 1):
        pairs = {
            name: both[which].get(mask)
            for name, both in facts.effects.items()
            if mask in both[which]
        }
        up = holm(
            e.p_above(0) if e is not None and e.value >= delta else 1.0 for e in pairs.values()
        )
        down = holm(
            e.p_below(0) if e is not None and e.value <= -delta else 1.0 for e in pairs.values()
        )
        for name, p_up, p_down in zip(pairs, up, down, strict=True):
            if p_up <= facts.alpha / 2:
                found[name] = 1
            elif p_down <= facts.alpha / 2:
                found[name] = -1
    return found


def read_under(facts: Facts, mask: Mask) -> dict[str, Answer]:
    """Whether the score depends on each modality, as one mask shows it."""
    delta, signs = facts.thresholds.delta, signs_under(facts, mask)
    found: dict[str, Answer] = {}
    for name, (contribution, drop) in facts.effects.items():
        both = [effect for effect in (contribution.get(mask), drop.get(mask)) if effect is not None]
        if facts.silent(name):
            found[name] = "no"
        elif signs[name]:
            found[name] = "yes"
        elif both and all(effect.within(delta) for effect in both):
            found[name] = "no"
        else:
            found[name] = "unclear"
    return found


def counting_masks(facts: Facts, name: str, under: Mapping[Mask, Answer]) -> tuple[Mask, ...]:
    """The masks that count for whether content is read: other samples' values where they are clear, else all."""
    others = facts.others_values(name)
    if others is not None and under[others] != "unclear":
        return (others,)
    return tuple(under)


def read_by_all(
    facts: Facts,
    name: str,
    under: Mapping[Mask, Answer],
    contribution: Mapping[Mask, Effect],
) -> Answer:
    """Whether a modality is read, all masks together."""
    given = set(under.values())
    if len(given) <= 1:
        return next(iter(given), "unclear")
    others = facts.others_values(name)
    if others is None:
        return "unclear"
    if under[others] != "unclear":
        return under[others]
    # Other samples' values are evaluated on fewer samples: they need not be certain where the other mask is.
    effect = contribution.get(others)
    agrees = effect is not None and effect.value >= facts.thresholds.delta
    return "yes" if "yes" in given and agrees else "unclear"


def masks_disagree(under: Mapping[Mask, Answer], signs: list[int]) -> bool:
    """Whether masks disagree on the sign, or on whether a modality is read."""
    return {"yes", "no"} <= set(under.values()) or {1, -1} <= set(signs)
