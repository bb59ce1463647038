"""Is a modality needed: does the score fall without it; and is it harmful: does the score rise?

The model with a modality masked is itself a model without it, and so is a model of another modality alone: where one of them loses
nothing, the modality is not needed, whatever other masks do. A model that was trained without it counts for more than masks, unless
it is certainly worse than the model with the modality masked: then its training fell short, and what it lacks is no evidence.
"""

from __future__ import annotations

from dataclasses import replace

from mmaudit.findings.answers import Answer, Answers
from mmaudit.findings.effects import Effect, any_of, holm
from mmaudit.findings.facts import Facts, Mask
from mmaudit.findings.wording import said

__all__ = ["harmful_under", "needed", "with_carriers"]


def harmful_under(facts: Facts) -> dict[str, tuple[Mask, ...]]:
    """Masks under which masking certainly raises the score, where no other mask certainly lowers it."""
    delta, alpha = facts.thresholds.delta, facts.alpha
    p_values = holm(
        any_of([e.p_below(0) if e.value <= -delta else 1.0 for e in drop.values()])
        for _, drop in facts.effects.values()
    )
    found: dict[str, tuple[Mask, ...]] = {}
    for (name, (_, drop)), p in zip(facts.effects.items(), p_values, strict=True):
        contradicted = any(e.value > 0 and e.p_above(0) <= alpha for e in drop.values())
        under = tuple(
            mask for mask, e in drop.items() if e.value <= -delta and e.p_below(0) <= alpha
        )
        found[name] = under if p <= alpha and not contradicted else ()
    return found


def needed(facts: Facts) -> dict[str, tuple[Answer, tuple[Effect, str] | None]]:
    """Whether the score falls without each modality, and the estimate that says so with its source in words."""
    delta = facts.thresholds.delta
    sources = {name: _sources(facts, name) for name in facts.effects}
    dispensable = holm(
        any_of([min(1.0, e.p_below(delta) * tried) for e, _, tried in given])
        for given in sources.values()
    )
    lost = holm(_loss(facts, name) for name in facts.effects)
    # A model that is no better than a constant has nothing to lose.
    whole, chance = facts.whole, facts.chance
    gained = whole is None or chance is None or whole.p_above(chance) <= facts.alpha
    found: dict[str, tuple[Answer, tuple[Effect, str] | None]] = {}
    for (name, given), p_no, p_yes in zip(sources.items(), dispensable, lost, strict=True):
        if not given:
            found[name] = ("unclear", None)
        elif p_no <= facts.alpha:
            least = min(given, key=lambda source: source[0].p_below(delta))
            found[name] = ("no", least[:2])
        else:
            found[name] = ("yes" if p_yes <= facts.alpha and gained else "unclear", given[0][:2])
    return found


def _sources(facts: Facts, name: str) -> list[tuple[Effect, str, int]]:
    """Score of the model less that of each model without the modality, where that comes from, and out of how many it was chosen."""
    found = [(e, facts.words(mask, name), 1) for mask, e in facts.effects[name][1].items()]
    trained = facts.trained_without(name)
    if trained is not None:
        found.insert(0, (trained, "a model trained without it", 1))
    others = [other for other in facts.present if other != name]
    paired = {other: e for other in others if (e := facts.advantage(other)) is not None}
    if trained is None and paired:
        best = min(paired, key=lambda other: paired[other].value)
        found.append((paired[best], f"a model trained on {said(best)} alone", len(paired)))
    return found


def _loss(
    facts: Facts, name: str, *, masked: bool = False, only: Mask | None = None
) -> float | None:
    """P-value of the claim that something is lost without a modality: by a model trained without it, else under every mask."""
    trained = None if masked else facts.trained_without(name)
    drops = facts.effects[name][1]
    masks = [drop for mask, drop in drops.items() if only is None or mask == only]
    parts = [trained] if trained is not None else masks
    delta = facts.thresholds.delta
    return max((e.p_above(0) if e.value >= delta else 1.0 for e in parts), default=None)


def with_carriers(facts: Facts, found: dict[str, Answers]) -> dict[str, Answers]:
    """Answers, where modalities that carry the joint model for want of others that it does not read count as needed.

    A model of another modality may do as well. Where the joint model does not read that other one, it cannot do without what it
    does read.
    """
    if not any(answer.less for answer in found.values()):
        return found
    # Given zeros in place of what carries it, a model answers from what it hardly weighs.
    torn = any(answer.less and answer.disagree for answer in found.values())
    masks = {name: facts.others_values(name) if torn else None for name in found}
    lost = holm(_loss(facts, name, masked=True, only=masks[name]) for name in found)
    result = {}
    for (name, answer), p in zip(found.items(), lost, strict=True):
        named = masks[name]
        drop = next((d for d in answer.drop.items() if named is None or d[0] == named), None)
        others_less = any(other.less for key, other in found.items() if key != name)
        if (
            answer.needed == "yes"
            or answer.less
            or not others_less
            or drop is None
            or p > facts.alpha
        ):
            result[name] = answer
        else:
            source = (drop[1], facts.words(drop[0], name))
            result[name] = replace(answer, needed="yes", needed_by=source)
    return result
