"""One verdict for each modality: the table of rules, read from top to bottom, and what each says.

==============  =====================================  =====================  ==================================================
Verdict         read                                   informative            needed
==============  =====================================  =====================  ==================================================
harmful         -                                      -                      no: masking raises the score, and no mask lowers it
under-used      no, or clearly less than it says       yes                    any
well used       yes                                    yes, or with others    yes
redundant       yes                                    yes                    no: a model without it does as well
uninformative   no, or to no avail                     no                     no
undetermined    anything else
==============  =====================================  =====================  ==================================================

*Less than it says* and *yes* exclude each other, so that the place of under-used before well used and redundant takes nothing
from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from mmaudit.findings.answers import Answers
from mmaudit.findings.effects import Effect
from mmaudit.findings.facts import Facts, Mask
from mmaudit.findings.wording import (
    get_information,
    get_second_mask,
    get_without,
    model_of,
    more_samples,
    remedies,
    said,
    shown,
    under_mask,
)
from mmaudit.report.numbers import count, number
from mmaudit.report.schema import Finding, FindingEvidence, VerdictName

__all__ = ["VERDICTS", "verdict_of"]


class _Said(NamedTuple):
    """What a rule has to say beside the evidence."""

    text: str
    because: str
    missing: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()


def verdict_of(facts: Facts, modality: str, answer: Answers | None) -> Finding:
    """Give one modality its verdict.

    Args:
        facts: The record.
        modality: Its name.
        answer: What is known; ``None`` where no audited sample has the modality.

    Returns:
        The finding, with the rule that fired and all estimates that were looked at.
    """
    if answer is None:
        text = f"{said(modality)} is undetermined: no audited sample has it."
        return _finding(modality, "undetermined", _Said(text, "no sample to judge by"))
    few = _too_few(facts, modality)
    if few is not None:
        return _finding(modality, "undetermined", few, _evidence(answer, facts))
    for verdict, rule in VERDICTS.items():
        found = rule(facts, answer)
        if found is not None:
            return _finding(
                modality, verdict, found, _evidence(answer, facts), _conditions(facts, answer)
            )
    raise AssertionError("the last rule always fires")


def _harmful(facts: Facts, answer: Answers) -> _Said | None:
    if not answer.harmful_under:
        return None
    mask = answer.harmful_under[0]
    name, drop = said(answer.modality), answer.drop[mask]
    one_sided = len(answer.harmful_under) < len(answer.drop)
    where = f" {_under(facts, answer.harmful_under, answer)}" if one_sided else ""
    text = (
        f"{name} is harmful: masking it raises the {_score(facts)} by {shown(drop.scaled(-1))}{where}; "
        "look for a corrupted input or a cue that no longer holds."
    )
    only = " and under no mask is it lowered" if one_sided else ""
    because = f"the score without it is higher {_under(facts, answer.harmful_under, answer)}{only}"
    missing = get_second_mask() if len(answer.drop) < 2 else ()
    return _Said(text, because, missing)


def _under_used(facts: Facts, answer: Answers) -> _Said | None:
    information = answer.informative
    if not answer.less or information.above is None:
        return None
    name = said(answer.modality)
    draws = _contribution(facts, answer)
    text = (
        f"{name} is under-used: {model_of(information.source, answer.modality)} is {shown(information.above)} better than a "
        f"constant prediction, the joint model draws {draws} from it."
    )
    reading = (
        "the score does not depend on it"
        if answer.read == "no"
        else f"its contribution is less than a fair part of what it says alone, 1/{facts.M} of it"
    )
    because = (
        f"{reading}, although it says something alone, and alone it says at least {number(facts.thresholds.delta)} more than the "
        "joint model gets from it"
    )
    return _Said(text, because, (), remedies(facts))


def _well_used(facts: Facts, answer: Answers) -> _Said | None:
    if answer.read != "yes" or answer.needed != "yes" or not answer.gains:
        return None
    if facts.twin(answer.modality) is not None:
        return None  # whatever masking it costs, its twin says the same
    name, information = said(answer.modality), answer.informative
    assert answer.needed_by is not None
    loss, source = answer.needed_by
    contributes = (
        f"{name} is well used: it contributes {_contribution(facts, answer)} of {_score(facts)}"
    )
    lost = f"{shown(loss)} would be lost without it"
    if information.answer == "no":
        text = f"{contributes} together with others, though alone it says nothing: {lost}."
        because = "read and needed, and informative only together with others (synergy)"
    elif information.answer == "yes":
        text = f"{contributes}, and {lost}."
        because = "read, informative and needed"
    else:
        text = f"{contributes}, and {lost}."
        because = (
            "read and needed; that something is lost without it shows that it says something, alone or "
            "together with others"
        )
    return _Said(text, f"{because} ({_source(source)})")


def _redundant(facts: Facts, answer: Answers) -> _Said | None:
    information = answer.informative
    read = answer.read == "yes" or "yes" in answer.read_under.values()
    twin = facts.twin(answer.modality)
    if twin is not None and (read or information.answer == "yes"):
        text = (
            f"{said(answer.modality)} is redundant: its inputs are those of {said(twin)} in every sample, so that a model of one of "
            "them knows as much; see whether both are what they should be."
        )
        return _Said(text, f"the same values as {said(twin)} in all samples that have both")
    if not read or information.answer != "yes" or answer.needed != "no":
        return None
    assert answer.needed_by is not None
    loss, source = answer.needed_by
    if loss.value <= -facts.thresholds.delta and loss.p_below(0) <= facts.alpha:
        return None  # a model without it does better: whatever it is, it is not the same again
    text = (
        f"{said(answer.modality)} is redundant: the model reads it, but without it only {shown(loss)} of {_score(facts)} is lost; "
        "keep it for the day another modality fails, or drop it."
    )
    because = (
        f"read and informative, but a model without it loses less than {number(facts.thresholds.delta)} "
        f"({_source(source)})"
    )
    return _Said(text, because)


def _uninformative(facts: Facts, answer: Answers) -> _Said | None:
    information = answer.informative
    if information.answer != "no" or answer.needed == "yes":
        return None
    unread = answer.read == "no" or answer.idle
    if not unread or information.above is None:
        return None
    above = shown(information.above, signed=True)
    text = (
        f"{said(answer.modality)} is uninformative: {model_of(information.source, answer.modality)} is no better than a constant "
        f"prediction ({above}), and the model draws {_contribution(facts, answer)} from it; leave it, or drop it."
    )
    because = "it says nothing alone, and the score does not depend on it"
    if answer.read != "no":
        because = "it says nothing alone, and the score gains nothing from it"
    if information.source == "probe":
        because += (
            "; a linear probe sees only what a linear model of the inputs or of the encoder could"
        )
    return _Said(text, because)


def _undetermined(facts: Facts, answer: Answers) -> _Said:
    name, information = said(answer.modality), answer.informative
    known: list[str] = []
    open_: list[str] = []
    missing: list[str] = []
    contribution = f"contribution {_contribution(facts, answer)}"
    if answer.read == "unclear":
        torn = "; masks disagree" if answer.disagree else ""
        open_.append(f"whether it is read ({contribution}{torn})")
    else:
        known.append(f"it is {'read' if answer.read == 'yes' else 'not read'} ({contribution})")
    if information.answer == "unclear":
        if information.above is None:
            open_.append("whether it says anything alone (no reference model, no probe)")
            missing += get_information(facts, [answer.modality])
        else:
            above = shown(information.above, signed=True)
            open_.append(f"whether it says anything alone ({above} against a constant prediction)")
    elif information.above is not None:
        says = "something" if information.answer == "yes" else "nothing"
        known.append(
            f"it says {says} alone ({shown(information.above, signed=True)} against a constant prediction)"
        )
    if answer.needed == "unclear" and answer.needed_by is not None:
        loss, source = answer.needed_by
        corrected = ""
        if loss.under(facts.thresholds.delta) and facts.M > 1:
            corrected = f"; below {number(facts.thresholds.delta)}, but not surely so as one of {facts.M} modalities"
        open_.append(
            f"whether it is needed ({shown(loss)} lost without it, {_source(source)}{corrected})"
        )
        if facts.drop_without(answer.modality) is None and answer.read == "yes":
            missing += get_without(facts, answer.modality)
    elif answer.needed != "unclear":
        known.append(_known_need(facts, answer))
    if len(facts.masks) < 2:
        missing += get_second_mask()
    widest = _widest(answer)
    if widest is not None and (answer.read == "unclear" or answer.needed == "unclear"):
        missing.append(more_samples(facts, widest))
    if answer.read == "no" and information.answer == "yes":
        gap = next(iter(answer.gaps.values()), None)
        what = "no comparison" if gap is None else shown(gap, signed=True)
        open_.append(f"whether it says more alone than the joint model gets from it alone ({what})")
    parts = [f"known: {', '.join(known)}"] if known else []
    parts += [f"open: {', '.join(open_)}"] if open_ else ["no verdict fits that"]
    return _Said(
        f"{name} is undetermined; {'; '.join(parts)}.",
        "no rule applies to what is known",
        tuple(dict.fromkeys(missing)),
    )


VERDICTS: dict[VerdictName, Callable[[Facts, Answers], _Said | None]] = {
    "harmful": _harmful,
    "under-used": _under_used,
    "well used": _well_used,
    "redundant": _redundant,
    "uninformative": _uninformative,
    "undetermined": _undetermined,
}
"""The rules, in the order in which they are asked; the first that applies gives the verdict."""

_LEVELS: dict[VerdictName, str] = {
    "harmful": "problem",
    "under-used": "attention",
    "well used": "good",
    "redundant": "information",
    "uninformative": "information",
    "undetermined": "information",
}


def _finding(
    modality: str,
    verdict: VerdictName,
    found: _Said,
    evidence: tuple[FindingEvidence, ...] = (),
    conditions: tuple[str, ...] = (),
) -> Finding:
    return Finding.model_validate(
        {
            "rule": "verdict",
            "modality": modality,
            "verdict": verdict,
            "level": _LEVELS[verdict],
            "text": found.text,
            "because": found.because,
            "evidence": evidence,
            "remedies": found.remedies,
            "missing": found.missing,
            "conditions": conditions,
        }
    )


def _too_few(facts: Facts, modality: str) -> _Said | None:
    """Too little data to say anything."""
    (n, groups), limits = facts.units, facts.thresholds
    name = said(modality)
    if groups is not None and groups < limits.groups:
        text = f"{name} is undetermined: {groups} groups are too little data to say, at least {limits.groups} are needed."
        return _Said(text, "too few groups")
    if n < limits.samples:
        text = f"{name} is undetermined: {count(n)} samples are too little data to say, at least {limits.samples} are needed."
        return _Said(text, "too few samples")
    return None


def _evidence(answer: Answers, facts: Facts) -> tuple[FindingEvidence, ...]:
    """All rows that the answers rest on, each once."""
    reading = {"yes": "read", "no": "not read", "unclear": "read or not"}
    informing = {"yes": "informative", "no": "not informative", "unclear": "informative or not"}
    needing = {"yes": "needed", "no": "not needed", "unclear": "needed or not"}
    rows: list[FindingEvidence] = []
    for mask, effect in answer.contribution.items():
        rows += effect.evidence(reading[answer.read_under[mask]])
    for mask, effect in answer.drop.items():
        harms = mask in answer.harmful_under
        rows += effect.evidence("masking it raises the score" if harms else needing[answer.needed])
    without = facts.drop_without(answer.modality)
    by = answer.needed_by[0] if answer.needed_by is not None else None
    if without is not None:
        failed = answer.modality in facts.failed_without
        rows += without.evidence("training fell short" if failed else needing[answer.needed])
    if by is not None:
        rows += by.evidence(needing[answer.needed])
    if answer.informative.above is not None:
        rows += answer.informative.above.evidence(informing[answer.informative.answer])
    for look in (facts.alone, facts.probe_gain):
        effect_alone = look(answer.modality)
        if effect_alone is not None:
            rows += effect_alone.evidence(informing[answer.informative.answer])
    for effect in answer.gaps.values():
        rows += effect.evidence("less than it says" if answer.less else "what it says and is read")
    once: dict[tuple[str, frozenset[tuple[str, str]]], FindingEvidence] = {}
    for row in rows:
        once.setdefault((row.measure, frozenset(row.labels.items())), row)
    return tuple(once.values())


def _conditions(facts: Facts, answer: Answers) -> tuple[str, ...]:
    return tuple(_all_conditions(facts, answer))


def _all_conditions(facts: Facts, answer: Answers) -> Iterator[str]:
    if answer.disagree:
        words = [
            f"{said(facts.words(mask, answer.modality))}: {_reading(under)}"
            for mask, under in answer.read_under.items()
        ]
        alike = len(set(answer.read_under.values())) < 2
        yield f"depends on the mask ({'they disagree on the sign' if alike else ', '.join(words)})"
    if answer.harmful_under and len(answer.harmful_under) < len(answer.drop):
        yield f"harmful only {_under(facts, answer.harmful_under, answer)}"
    if len(facts.masks) == 1 and not answer.silent:
        yield f"under one mask only ({said(facts.words(facts.masks[0], answer.modality))})"
    if answer.informative.failed:
        yield (
            "its reference model is at chance although it says something: that training may have failed"
        )
    lacks = facts.failed_without.get(answer.modality)
    if lacks is not None:
        yield (
            f"the model trained without it is {shown(lacks)} worse than the joint model with it masked, though neither has it: that "
            "training fell short, and does not count"
        )
    if answer.informative.answer == "no" and answer.informative.source == "probe":
        yield "by a probe; a model of the modality alone may find more"
    if facts.M > 1:
        yield f"corrected for {facts.M} modalities"
    if any(
        row[2].warning
        for effect in (*answer.contribution.values(), *answer.drop.values())
        for row in effect.rows
    ):
        yield "some of its intervals carry a warning"


def _reading(answer: str) -> str:
    return {"yes": "read", "no": "not read"}.get(answer, "unclear")


def _score(facts: Facts) -> str:
    return facts.score


def _source(source: str) -> str:
    trained = "model trained" in source
    return f"by {source}" if trained else f"by masking, {said(source)}"


def _contribution(facts: Facts, answer: Answers) -> str:
    """The contribution, under the mask of other samples' values where the masks disagree."""
    if answer.silent:
        return "nothing"
    others = facts.others_values(answer.modality)
    mask: Mask = others if others is not None and answer.disagree else "first"
    effect = answer.contribution.get(mask) or next(iter(answer.contribution.values()), None)
    return "an unknown part" if effect is None else shown(effect)


def _under(facts: Facts, masks: tuple[Mask, ...], answer: Answers) -> str:
    return " and ".join(under_mask(facts, mask, answer.modality) for mask in masks)


def _known_need(facts: Facts, answer: Answers) -> str:
    """Whether it is needed, or in the way."""
    if answer.needed == "yes":
        return "it is needed"
    if answer.needed_by is not None and answer.needed_by[0].value <= -facts.thresholds.delta:
        loss, source = answer.needed_by
        return (
            f"the {_score(facts)} is {shown(loss.scaled(-1))} higher without it ({_source(source)})"
        )
    return "it is not needed"


def _widest(answer: Answers) -> Effect | None:
    """The least certain effect of what is to be known."""
    parts = [e for e in (*answer.contribution.values(), *answer.drop.values()) if e.low is not None]
    return max(parts, key=lambda e: e.error, default=None)
