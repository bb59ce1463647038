"""Could a modality say something alone, and is that more than the joint model reads out of it?

A constant prediction is beaten by a reference model, a probe, or the audited model given one modality alone: each proves that
the modality says something. Only the first two can make it unlikely that it says anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mmaudit.findings.answers import Answers, Information, Source
from mmaudit.findings.effects import Effect, any_of, holm
from mmaudit.findings.facts import Facts, Mask

__all__ = ["informative", "little", "with_gaps"]


_LIKELY = 0.2
"""P-value up to which a contribution is taken to be less than a fair part, where the gap itself is certain."""


def informative(facts: Facts) -> dict[str, Information]:
    """Whether each modality that is there could say something about the target alone, and what shows it."""
    limit, delta, alpha = facts.thresholds.gain, facts.thresholds.delta, facts.alpha
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
        any_of([e.p_above(0) if e.value >= delta else 1.0 for e in sources.values()])
        for sources in known.values()
    )
    found = {}
    for (name, sources), p in zip(known.items(), p_values, strict=True):
        reference, probe = sources.get("reference"), sources.get("probe")
        gain = facts.probe_gain(name)
        no_reference = reference is not None and little(facts, reference)
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
        no_probe = no_probe or (probe is not None and little(facts, probe))
        if reference is not None:
            nothing = little(facts, reference) or (_at_chance(facts, reference) and no_probe)
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
    """Whether a gain is not clearly above 0, without regard to how many were asked: to deny a gain must not get easier by that."""
    return above.high is not None and above.p_above(0) > facts.alpha


def little(facts: Facts, above: Effect) -> bool:
    """Whether a gain is next to none: less than delta, or not clearly above 0 and never far."""
    if above.under(facts.thresholds.delta):
        return True
    return _at_chance(facts, above) and above.under(facts.next_to_none)


def with_gaps(facts: Facts, found: dict[str, Answers]) -> dict[str, Answers]:
    """Whether each modality is read less than it says alone."""
    gaps = {name: _gaps(facts, name, answer.informative) for name, answer in found.items()}
    p_values = holm(_less(facts, answer, gaps[name]) for name, answer in found.items())
    return {
        name: replace(answer, gaps=gaps[name], less=p <= facts.alpha)
        for (name, answer), p in zip(found.items(), p_values, strict=True)
    }


def _less(facts: Facts, answer: Answers, gaps: Mapping[Mask, Effect]) -> float | None:
    """P-value of the claim that a modality is read less than it says; ``None`` where it is not known to say anything.

    It says more alone than the joint model gets from it alone, under every mask (under that of other samples' values where masks
    disagree on whether it is read), and the score does not depend on it, or less
    than it should. Where it is not needed, a model that makes do with another modality is not to blame for reading it somewhat less.
    """
    delta, information = facts.thresholds.delta, answer.informative
    if information.answer != "yes" or information.above is None:
        return None
    if facts.twin(answer.modality) is not None:
        return None  # its twin says the same: nothing that it says is lost
    if answer.silent:
        return 0.0  # given it alone, the joint model says what it says given nothing: all of the information is missing
    if not gaps:
        return None
    others = facts.others_values(answer.modality)
    if answer.read == "no" and answer.disagree and others is not None and others in gaps:
        # Given it and zeros alone, a model answers from a modality that it hardly weighs: only size is lost, and nothing is louder.
        gaps = {others: gaps[others]}
    wide = max(e.p_above(0) if e.value >= delta else 1.0 for e in gaps.values())
    if answer.read == "no":
        return wide
    limits = facts.thresholds
    parts = limits.neglect if answer.needed == "no" else limits.fair_share
    chosen = answer.contribution
    if others is not None and others in chosen and answer.read_under[others] != "yes":
        chosen = {others: chosen[others]}
    # The claim is the gap. This decides which of two readings of it is told: a model that reads too little, or one whose
    # modality cannot be judged alone because masks of the others are far from the data.
    fair = parts * information.above.value / facts.M
    return wide if chosen and all(e.p_below(fair) <= _LIKELY for e in chosen.values()) else 1.0


def _gaps(facts: Facts, name: str, information: Information) -> dict[Mask, Effect]:
    """By the reference model, unless it failed or there is none: then by the probe, under the first mask."""
    if information.source == "reference" or facts.probe(name) is None:
        return {mask: gap for mask in facts.masks if (gap := facts.gap(name, mask)) is not None}
    probed = facts.probe_gap(name)
    return {} if probed is None else {"first": probed}
