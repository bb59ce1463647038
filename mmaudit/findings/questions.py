"""Three questions about each modality: is it read, could it say something alone, is it needed; and whether masking it helps.

Each answer is a claim about an estimate, and claims of one kind are corrected for the number of modalities (Holm). Where several
estimates can support the same claim its smallest p-value counts, times their number.

What makes some of the answers certain:

- A constant prediction is beaten by a reference model, a probe, or the audited model given one modality alone: each proves that
  the modality says something. Only the first two can make it unlikely that it says anything.
- The model with a modality masked is itself a model without it: where it loses nothing under any one mask, the modality is not
  needed, whatever another mask does.
- Under the values of other samples a modality that is independent of the target and of the others has no effect; under zeros
  it may have one, because zeros are far from the data. What zeros show and other samples' values do not is no reading of content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mmaudit.findings.effects import Effect, holm
from mmaudit.findings.facts import Facts, Mask

__all__ = ["Answer", "Answers", "Information", "Source", "answers"]

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
        idle: Whether it raises the score nowhere by delta: upper ends below it, under the masks that count.
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


def answers(facts: Facts) -> dict[str, Answers]:
    """Ask all questions of all modalities that a sample has.

    Args:
        facts: The record.

    Returns:
        Modality -> answers, in order.
    """
    names = facts.present
    effects = {
        name: (
            _known(facts, lambda mask, name=name: facts.contribution(name, mask)),  # type: ignore[misc]
            _known(facts, lambda mask, name=name: facts.drop(name, mask)),  # type: ignore[misc]
        )
        for name in names
    }
    reads = {mask: _read_under(facts, effects, mask) for mask in facts.masks}
    signs = {mask: _signs(facts, effects, mask) for mask in facts.masks}
    informative = _informative(facts)
    harmful = _harmful(facts, effects)
    needed = _needed(facts, effects)
    found = {}
    for name in names:
        contribution, drop = effects[name]
        under = {mask: reads[mask][name] for mask in facts.masks}
        read = _read(facts, name, under, contribution)
        counting = _counting(facts, name, under)
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
                effect.under(facts.thresholds.delta)
                for mask in counting
                for effect in (contribution.get(mask), drop.get(mask))
                if effect is not None
            ),
            informative=informative[name],
            needed=needed[name][0],
            needed_by=needed[name][1],
            harmful_under=harmful[name],
            disagree=_disagree(under, [signs[mask][name] for mask in facts.masks]),
        )
    return _with_gaps(facts, found)


def _known(facts: Facts, look: Callable[[Mask], Effect | None]) -> dict[Mask, Effect]:
    found = {mask: look(mask) for mask in facts.masks}
    return {mask: effect for mask, effect in found.items() if effect is not None}


_Effects = Mapping[str, tuple[Mapping[Mask, Effect], Mapping[Mask, Effect]]]


def _alpha(facts: Facts) -> float:
    """Level of a one-sided claim."""
    return facts.thresholds.level / 2


def _best(p_values: list[float]) -> float | None:
    """One p-value for a claim that any of several estimates can support (Bonferroni)."""
    return min(1.0, min(p_values) * len(p_values)) if p_values else None


def _signs(facts: Facts, effects: _Effects, mask: Mask) -> dict[str, int]:
    """1 where the contribution or the drop is clearly above 0, -1 where one is clearly below, 0 otherwise; drop before contribution."""
    delta = facts.thresholds.delta
    found = dict.fromkeys(effects, 0)
    for which in (0, 1):
        pairs = {
            name: both[which].get(mask) for name, both in effects.items() if mask in both[which]
        }
        up = holm(
            e.p_above(0) if e is not None and e.value >= delta else 1.0 for e in pairs.values()
        )
        down = holm(
            e.p_below(0) if e is not None and e.value <= -delta else 1.0 for e in pairs.values()
        )
        for name, p_up, p_down in zip(pairs, up, down, strict=True):
            if p_up <= _alpha(facts) / 2:
                found[name] = 1
            elif p_down <= _alpha(facts) / 2:
                found[name] = -1
    return found


def _read_under(facts: Facts, effects: _Effects, mask: Mask) -> dict[str, Answer]:
    """Whether the score depends on each modality, as one mask shows it."""
    delta, signs = facts.thresholds.delta, _signs(facts, effects, mask)
    found: dict[str, Answer] = {}
    for name, (contribution, drop) in effects.items():
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


def _counting(facts: Facts, name: str, under: Mapping[Mask, Answer]) -> tuple[Mask, ...]:
    """The masks that count for whether content is read: other samples' values where they are clear, else all."""
    others = facts.others_values(name)
    if others is not None and under[others] != "unclear":
        return (others,)
    return tuple(under)


def _read(
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


def _disagree(under: Mapping[Mask, Answer], signs: list[int]) -> bool:
    return {"yes", "no"} <= set(under.values()) or {1, -1} <= set(signs)


def _informative(facts: Facts) -> dict[str, Information]:
    limit, delta, alpha = facts.thresholds.gain, facts.thresholds.delta, _alpha(facts)
    looks: dict[Source, Callable[[str], Effect | None]] = {
        "reference": facts.alone_above,
        "probe": facts.probe_above,
        "model": facts.inside_above,
    }
    known = {
        name: {source: effect for source, look in looks.items() if (effect := look(name))}
        for name in facts.present
    }
    p_values = holm(
        _best([e.p_above(0) if e.value >= delta else 1.0 for e in sources.values()])
        for sources in known.values()
    )
    found = {}
    for (name, sources), p in zip(known.items(), p_values, strict=True):
        reference, probe = sources.get("reference"), sources.get("probe")
        gain = facts.probe_gain(name)
        no_reference = reference is not None and _little(facts, reference)
        if p <= alpha:
            certain = {
                s: e for s, e in sources.items() if e.value >= delta and e.p_above(0) <= alpha
            }
            source = max(certain, key=lambda s: certain[s].value)
            if "reference" in certain:
                source = "reference"
            found[name] = Information("yes", source, certain[source], failed=no_reference)
            continue
        some_gain = gain is not None and gain.p_above(limit) <= alpha
        no_gain = gain is not None and gain.under(limit)
        no_probe = probe is not None and (
            probe.under(delta) or (no_gain and _at_chance(facts, probe))
        )
        no_probe = no_probe or (probe is not None and _little(facts, probe))
        if reference is not None:
            nothing = _little(facts, reference) or (_at_chance(facts, reference) and no_probe)
        else:
            nothing = no_probe
        best: Source | None = "reference" if reference is not None else "probe"
        above = reference if reference is not None else probe
        if nothing and not some_gain:
            found[name] = Information("no", best, above)
        else:
            found[name] = Information("unclear", best if above is not None else None, above)
    return found


def _at_chance(facts: Facts, above: Effect) -> bool:
    """Whether a score is not clearly above that of a constant prediction, among as many as there are modalities."""
    return above.high is not None and above.p_above(0) * facts.M > _alpha(facts)


def _little(facts: Facts, above: Effect) -> bool:
    """Whether a score is that of a constant prediction: less than delta above it, or not clearly above it and never far."""
    limits = facts.thresholds
    return above.under(limits.delta) or (_at_chance(facts, above) and above.under(limits.at_chance))


def _harmful(facts: Facts, effects: _Effects) -> dict[str, tuple[Mask, ...]]:
    """Masks under which masking certainly raises the score, where no other mask certainly lowers it."""
    delta, alpha = facts.thresholds.delta, _alpha(facts)
    p_values = holm(
        _best([e.p_below(0) if e.value <= -delta else 1.0 for e in drop.values()])
        for _, drop in effects.values()
    )
    found: dict[str, tuple[Mask, ...]] = {}
    for (name, (_, drop)), p in zip(effects.items(), p_values, strict=True):
        contradicted = any(e.value > 0 and e.p_above(0) <= alpha for e in drop.values())
        under = tuple(
            mask for mask, e in drop.items() if e.value <= -delta and e.p_below(0) <= alpha
        )
        found[name] = under if p <= alpha and not contradicted else ()
    return found


def _needed(facts: Facts, effects: _Effects) -> dict[str, tuple[Answer, tuple[Effect, str] | None]]:
    """Whether the score falls without each modality, and the estimate that says so."""
    delta, alpha = facts.thresholds.delta, _alpha(facts)
    without = {name: facts.drop_without(name) for name in effects}
    sources: dict[str, list[tuple[Effect, str]]] = {}
    for name, (_, drop) in effects.items():
        trained = without[name]
        sources[name] = [(e, facts.words(mask, name)) for mask, e in drop.items()]
        if trained is not None:
            sources[name].insert(0, (trained, "a model trained without it"))
    dispensable = holm(_best([e.p_below(delta) for e, _ in s]) for s in sources.values())

    def loss(name: str) -> float | None:
        trained = without[name]
        parts = [trained] if trained is not None else list(effects[name][1].values())
        return max((e.p_above(0) if e.value >= delta else 1.0 for e in parts), default=None)

    lost = holm(loss(name) for name in effects)
    found: dict[str, tuple[Answer, tuple[Effect, str] | None]] = {}
    for (name, given), p_no, p_yes in zip(sources.items(), dispensable, lost, strict=True):
        if not given:
            found[name] = ("unclear", None)
        elif p_no <= alpha:
            found[name] = ("no", min(given, key=lambda pair: pair[0].p_below(delta)))
        elif p_yes <= alpha:
            found[name] = ("yes", given[0])
        else:
            found[name] = ("unclear", given[0])
    return found


def _with_gaps(facts: Facts, found: dict[str, Answers]) -> dict[str, Answers]:
    """Whether each modality is read less than it says alone."""
    gaps = {name: _gaps(facts, name, answer.informative) for name, answer in found.items()}
    p_values = holm(_less(facts, answer, gaps[name]) for name, answer in found.items())
    return {
        name: replace(answer, gaps=gaps[name], less=p <= _alpha(facts))
        for (name, answer), p in zip(found.items(), p_values, strict=True)
    }


def _less(facts: Facts, answer: Answers, gaps: Mapping[Mask, Effect]) -> float | None:
    """P-value of the claim that a modality is read less than it says; ``None`` where it is not known to say anything.

    It says more alone than the joint model gets from it alone, under every mask, and the score does not depend on it, or less
    than it should. Where it is not needed, a model that makes do with another modality is not to blame for reading it somewhat less.
    """
    delta, information = facts.thresholds.delta, answer.informative
    if information.answer != "yes" or information.above is None or not gaps:
        return None
    wide = max(e.p_above(0) if e.value >= delta else 1.0 for e in gaps.values())
    if answer.read == "no":
        return wide
    limits = facts.thresholds
    parts = limits.neglect if answer.needed == "no" else limits.fair_share
    others = facts.others_values(answer.modality)
    chosen = answer.contribution
    if others is not None and others in chosen and answer.read_under[others] != "yes":
        chosen = {others: chosen[others]}
    # The claim is the gap. This decides which of two readings of it is told: a model that reads too little, or one whose
    # modality cannot be judged alone because masks of the others are far from the data.
    fair = parts * information.above.value / facts.M
    return wide if chosen and all(effect.value < fair for effect in chosen.values()) else 1.0


def _gaps(facts: Facts, name: str, information: Information) -> dict[Mask, Effect]:
    """By the reference model, unless it failed or there is none: then by the probe, under the first mask."""
    if information.source == "reference" or facts.probe(name) is None:
        return _known(facts, lambda mask: facts.gap(name, mask))
    gap = facts.probe_gap(name)
    return {} if gap is None else {"first": gap}
