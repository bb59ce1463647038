"""Three questions about each modality: is it read, could it say something alone, is it needed; and whether masking it helps.

Each answer is a claim about an estimate, and claims of one kind are corrected for the number of modalities (Holm). Where several
estimates can support the same claim its smallest p-value counts, times their number.
"""

from __future__ import annotations

from mmaudit.findings.answers import Answers
from mmaudit.findings.facts import Facts
from mmaudit.findings.informing import informative, little, with_gaps
from mmaudit.findings.needing import harmful_under, needed, with_carriers
from mmaudit.findings.reading import (
    counting_masks,
    masks_disagree,
    read_by_all,
    read_under,
    signs_under,
)

__all__ = ["answers"]


def answers(facts: Facts) -> dict[str, Answers]:
    """Ask all questions of all modalities that a sample has.

    Args:
        facts: The record.

    Returns:
        Modality -> answers, in order.
    """
    effects = facts.effects
    reads = {mask: read_under(facts, mask) for mask in facts.masks}
    signs = {mask: signs_under(facts, mask) for mask in facts.masks}
    says, harms, wanted = informative(facts), harmful_under(facts), needed(facts)
    found = {}
    for name in facts.present:
        contribution, drop = effects[name]
        under = {mask: reads[mask][name] for mask in facts.masks}
        read = read_by_all(facts, name, under, contribution)
        counting = counting_masks(facts, name, under)
        found[name] = Answers(
            modality=name,
            silent=facts.silent(name),
            contribution=contribution,
            drop=drop,
            read_under=under,
            read=read,
            gains=any(signs[mask][name] > 0 for mask in counting),
            idle=bool(counting)
            and all(
                little(facts, effect)
                for mask in counting
                for effect in (contribution.get(mask), drop.get(mask))
                if effect is not None
            ),
            informative=says[name],
            needed=wanted[name][0],
            needed_by=wanted[name][1],
            harmful_under=harms[name],
            disagree=masks_disagree(under, [signs[mask][name] for mask in facts.masks]),
        )
    return with_carriers(facts, with_gaps(facts, found))
