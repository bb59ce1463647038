"""Findings about the model as a whole: what only shows when modalities are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from mmaudit.findings.answers import Answers
from mmaudit.findings.effects import Effect, difference, holm
from mmaudit.findings.facts import Facts
from mmaudit.findings.wording import (
    enumerated,
    get_second_mask,
    model_of,
    remedies,
    said,
    shown,
)
from mmaudit.report.numbers import count, number, percent
from mmaudit.report.schema import Finding, FindingEvidence

__all__ = ["ACROSS", "findings_across"]

_Known = Mapping[str, Answers]


def findings_across(facts: Facts, answers: _Known) -> list[Finding]:
    """Everything there is to say about the model as a whole, the most pressing first.

    Args:
        facts: The record.
        answers: Modality -> answers.

    Returns:
        Findings without a verdict.
    """
    return [finding for rule in ACROSS.values() for finding in rule(facts, answers)]


class _Claim(NamedTuple):
    """That the joint model is worse than one of its modalities alone."""

    advantage: Effect
    """Score of the joint model less that of the modality."""
    source: str
    p: float


def _claim(facts: Facts, name: str) -> _Claim | None:
    """The strongest claim there is for one modality, corrected for the number of its sources."""
    if facts.whole is None:
        return None
    paired, probe, inside = facts.advantage(name), facts.probe(name), facts.inside(name)
    others = [other for other in facts.modalities if other != name]
    sources: list[tuple[Effect, str]] = []
    if paired is not None:
        sources.append((paired, "reference"))
    if probe is not None:
        sources.append((difference(facts.whole, probe), "probe"))
    # Of two modalities one alone is the model without the other, for which the record has the paired difference.
    drop = facts.drop(others[0], "first") if len(others) == 1 else None
    if drop is not None:
        sources.append((drop, "model"))
    elif inside is not None:
        sources.append((difference(facts.whole, inside), "model"))
    claims = [_Claim(e, s, min(1.0, e.p_below(0) * len(sources))) for e, s in sources]
    return min(claims, key=lambda claim: (claim.p, claim.advantage.value), default=None)


def _worse_than_best(facts: Facts, answers: _Known) -> Iterator[Finding]:
    """The joint model is worse than one of its modalities alone; every source of that is one claim for each modality."""
    if facts.M < 2 or facts.whole is None:
        return
    claims = {name: claim for name in facts.present if (claim := _claim(facts, name)) is not None}
    corrected = holm(claim.p for claim in claims.values())
    worse = {
        name: claim
        for (name, claim), p in zip(claims.items(), corrected, strict=True)
        if p <= facts.alpha
    }
    if not worse:
        return
    name = min(worse, key=lambda name: worse[name].advantage.value)
    advantage, source, _ = worse[name]
    conditions = [f"corrected for {len(claims)} modalities"]
    if source == "probe":
        conditions.append("compared with a probe, as if on other samples")
    yield Finding(
        rule="worse than its best modality",
        level="problem" if advantage.value <= -facts.thresholds.delta else "attention",
        text=(
            f"The joint model is worse than {said(name)} alone: {model_of(source, name)} has {shown(advantage.scaled(-1))} more "
            f"{facts.score} than the joint model's {shown(facts.whole)}."
        ),
        because="the score of the joint model less that of one modality alone is below 0",
        evidence=(*advantage.evidence("joint model less one modality"), *facts.whole.evidence()),
        remedies=remedies(facts),
        conditions=tuple(conditions),
    )


def _at_chance(facts: Facts, answers: _Known) -> Iterator[Finding]:
    whole, chance = facts.whole, facts.chance
    if whole is None or chance is None or not whole.under(chance + facts.thresholds.delta):
        return
    yield Finding(
        rule="no better than a constant",
        level="problem",
        text=(
            f"The model is no better than a constant prediction: {facts.score} {shown(whole)}, where always giving the same "
            f"answer has {number(chance)}; look at the data and the preprocessing first (mmaudit preview audit.yaml)."
        ),
        because=f"the {facts.score} is less than {number(facts.thresholds.delta)} above the best constant prediction",
        evidence=whole.evidence("at chance"),
    )


def _leak(facts: Facts, answers: _Known) -> Iterator[Finding]:
    """One modality alone is nearly perfect, and nothing else matters."""
    if facts.M < 2:
        return
    perfect: dict[str, tuple[Effect, str]] = {}
    # Of what a constant prediction leaves open: beside a class that most samples have, .99 is no marvel.
    perfect_score = 1 - (1 - facts.thresholds.perfect) * (1 - (facts.chance or 0.0))
    for name in facts.present:
        looks = (
            (facts.alone, "reference"),
            (facts.probe, "probe"),
            (facts.inside, "model"),
        )
        for look, source in looks:
            effect = look(name)
            if effect is not None and effect.value >= perfect_score:
                perfect[name] = (effect, source)
                break
    if len(perfect) != 1:
        return
    ((name, (effect, source)),) = perfect.items()
    rest = [answers[other] for other in answers if other != name]
    chance = facts.chance
    easy = chance is not None and chance >= facts.thresholds.perfect - facts.thresholds.delta
    if easy or any(other.needed == "yes" for other in rest):
        return
    others = [other for other in rest if other.needed != "no"]
    if others:
        return
    yield Finding(
        rule="leaked label",
        level="attention",
        text=(
            f"{said(name)} may hold the label: {model_of(source, name)} has {facts.score} {shown(effect)}, and nothing else "
            "matters; see whether something in it gives the answer away, or whether the task is that easy."
        ),
        because=(
            f"one modality alone reaches {number(facts.thresholds.perfect, 3)}, and without any of the others less than "
            f"{number(facts.thresholds.delta)} is lost"
        ),
        evidence=(
            *effect.evidence("nearly perfect alone"),
            *(row for other in rest for row in _needed_rows(other)),
        ),
    )


def _needed_rows(answer: Answers) -> tuple[FindingEvidence, ...]:
    return () if answer.needed_by is None else answer.needed_by[0].evidence("not needed")


def _dominance(facts: Facts, answers: _Known) -> Iterator[Finding]:
    if facts.M < 2:
        return
    limit = facts.thresholds.dominance
    for name in facts.present:
        share = facts.share(name)
        contribution = facts.contribution(name, "first")
        if share is None or contribution is None or contribution.value <= 0:
            continue
        if share.p_above(limit) > facts.alpha:
            continue
        others = [other for other in facts.present if other != name]
        neglected = [o for o in others if answers[o].less]
        whole = f"{shown(share)} of all contributions to the {facts.score} are its own"
        if share.value > 1.05:  # others take away what it brings
            whole = f"it contributes {shown(contribution)} of {facts.score}, and the others together less than nothing"
        text = f"{said(name)} dominates: {whole}, of {facts.M} modalities."
        yield Finding(
            rule="dominance",
            level="attention" if neglected else "information",
            text=text,
            because=f"its share of the contributions is above {number(limit)}",
            evidence=share.evidence("dominates"),
            remedies=remedies(facts) if neglected else (),
        )


def _synergy(facts: Facts, answers: _Known) -> Iterator[Finding]:
    """Synergy or none: pairs worth more together than one by one, or less."""
    if facts.M < 2:
        return
    delta, alpha = facts.thresholds.delta, facts.alpha
    pairs = {
        pair: effect
        for pair in itertools.combinations(facts.present, 2)
        if (effect := facts.interaction(*pair)) is not None
    }
    if not pairs:
        return
    condition = (f"corrected for {len(pairs)} pairs",) if len(pairs) > 1 else ()
    up = holm(e.p_above(0) if e.value >= delta else 1.0 for e in pairs.values())
    down = holm(e.p_below(0) if e.value <= -delta else 1.0 for e in pairs.values())
    more = [pair for pair, p in zip(pairs, up, strict=True) if p <= alpha]
    less = [pair for pair, p in zip(pairs, down, strict=True) if p <= alpha]
    if more:
        best = max(more, key=lambda pair: pairs[pair].value)
        nothing_alone = [n for n in best if answers[n].informative.answer == "no"]
        alone = (
            f", and alone {enumerated(nothing_alone)} would say nothing" if nothing_alone else ""
        )
        yield Finding(
            rule="synergy",
            text=(
                f"Synergy: {enumerated(best)} are worth {shown(pairs[best])} of {facts.score} more together than one by one{alone}."
            ),
            because="an interaction is above 0",
            evidence=tuple(row for pair in more for row in pairs[pair].evidence("synergy")),
            conditions=condition,
        )
    if less:
        worst = min(less, key=lambda pair: pairs[pair].value)
        yield Finding(
            rule="overlap",
            text=(
                f"{enumerated(worst)} overlap: together they are worth {shown(pairs[worst].scaled(-1))} of {facts.score} less than "
                "one by one."
            ),
            because="an interaction is below 0",
            evidence=tuple(row for pair in less for row in pairs[pair].evidence("overlap")),
            conditions=condition,
        )
    if not more and all(effect.within(delta) for effect in pairs.values()):
        strongest = max(pairs.values(), key=lambda effect: abs(effect.value))
        yield Finding(
            rule="no synergy",
            text=f"No synergy: the strongest interaction of two modalities is {shown(strongest)} of {facts.score}.",
            because=f"all interactions lie within {number(delta)} of 0",
            evidence=strongest.evidence("no synergy"),
        )


def _masks_disagree(facts: Facts, answers: _Known) -> Iterator[Finding]:
    torn = [answer for answer in answers.values() if answer.disagree]
    tops = {}
    for mask in facts.masks:
        known = {n: a.contribution[mask] for n, a in answers.items() if mask in a.contribution}
        if len(known) > 1:
            first, second = sorted(known.values(), key=lambda e: -e.value)[:2]
            if difference(first, second).p_above(0) <= facts.alpha:
                tops[mask] = max(known, key=lambda n: known[n].value)
    flips = len(set(tops.values())) > 1
    if not torn and not flips:
        return
    parts = []
    if torn:
        verb = "counts" if len(torn) == 1 else "count"
        parts.append(
            f"whether {enumerated(a.modality for a in torn)} {verb} depends on how modalities are hidden"
        )
    if flips:
        leaders = [f"{said(n)} under {said(facts.words(m, n))}" for m, n in tops.items()]
        parts.append(f"the largest contribution is that of {' and '.join(leaders)}")
    text = "; ".join(parts)
    alone = all(facts.alone(name) is not None for name in facts.present)
    hint = "" if alone else "; a model of each modality alone would help to settle it"
    rows = [
        row
        for answer in torn
        for mask, effect in answer.contribution.items()
        for row in effect.evidence(f"{answer.read_under[mask]} under this mask")
    ]
    yield Finding(
        rule="depends on the mask",
        level="attention",
        text=f"{text[0].upper()}{text[1:]}{hint}.",
        because="masks disagree on a sign, on whether a modality is read, or on which contributes most",
        evidence=tuple(rows),
    )


def _too_little(facts: Facts, answers: _Known) -> Iterator[Finding]:
    (n, groups), limits = facts.units, facts.thresholds
    few = groups is not None and groups < limits.groups
    if n >= limits.samples and not few:
        return
    number_of = f"{groups} groups" if few else f"{count(n)} samples"
    wanted = f"{limits.groups} groups" if few else f"{limits.samples} samples"
    yield Finding(
        rule="too little data",
        level="attention",
        text=f"Too little data to say: {number_of}, where verdicts need at least {wanted}.",
        because="intervals of so few do not hold what they promise",
        evidence=facts.whole.evidence() if facts.whole is not None else (),
    )


def _one_mask(facts: Facts, answers: _Known) -> Iterator[Finding]:
    if len(facts.masks) != 1 or all(answer.silent for answer in answers.values()):
        return
    yield Finding(
        rule="one mask",
        text="Everything here rests on one way of hiding modalities; another may say otherwise.",
        because="there is no second mask to compare with",
        missing=get_second_mask(),
    )


def _copies(facts: Facts, answers: _Known) -> Iterator[Finding]:
    """Two modalities with the same inputs, or from which the model answers alike, its errors included."""
    equal = facts.record.data.identical
    for names in _together(equal):
        insides = [facts.inside(name) for name in names]
        yield Finding(
            rule="identical modalities",
            level="attention",
            text=(
                f"{enumerated(names)} are identical: their inputs are equal in every sample; see whether they are what they "
                "should be."
            ),
            because="equal values in all samples that have both",
            evidence=tuple(r for e in insides if e is not None for r in e.evidence("identical")),
        )
    for pair in facts.alike:
        if pair.share < facts.thresholds.identical or (pair.first, pair.second) in equal:
            continue
        first, second = said(pair.first), said(pair.second)
        effects = (facts.inside(pair.first), facts.inside(pair.second))
        yield Finding(
            rule="identical modalities",
            level="attention",
            text=(
                f"{first} and {second} may be copies of each other: from either alone the model gives the same answer on "
                f"{percent(pair.share)} of the {count(pair.samples)} samples where it errs; see whether both are what they should be."
            ),
            because=f"equal answers on at least {percent(facts.thresholds.identical)} of the samples that are wrong with either alone",
            evidence=tuple(r for e in effects if e is not None for r in e.evidence("alike")),
        )


def _together(pairs: tuple[tuple[str, str], ...]) -> list[list[str]]:
    """Sets of modalities that are all connected by pairs, each in the order of the pairs."""
    found: list[list[str]] = []
    for pair in pairs:
        touched = [names for names in found if set(names) & set(pair)]
        merged = list(dict.fromkeys([*itertools.chain.from_iterable(touched), *pair]))
        found = [names for names in found if names not in touched] + [merged]
    return found


ACROSS: dict[str, Callable[[Facts, _Known], Iterator[Finding]]] = {
    "worse than its best modality": _worse_than_best,
    "no better than a constant": _at_chance,
    "too little data": _too_little,
    "identical modalities": _copies,
    "leaked label": _leak,
    "depends on the mask": _masks_disagree,
    "dominance": _dominance,
    "synergy": _synergy,
    "one mask": _one_mask,
}
"""The rules about the model as a whole, in the order in which they are told."""
