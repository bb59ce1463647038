"""The words of findings: names, numbers, commands and remedies, each said in one way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mmaudit.findings.effects import Effect
from mmaudit.findings.facts import Facts, Mask
from mmaudit.report.labels import shorten
from mmaudit.report.numbers import count, number, with_interval
from mmaudit.report.schema import Estimate

__all__ = [
    "REMEDIES",
    "enumerated",
    "get_information",
    "get_second_mask",
    "get_without",
    "model_of",
    "more_samples",
    "remedies",
    "said",
    "shown",
    "under_mask",
]

REMEDIES = ("agm", "mla", "modality_dropout")
"""Keys of the remedies worth trying where a modality is under-used, the most promising first."""


def said(name: str) -> str:
    """A modality's name, at most 40 characters of it, on one line."""
    return shorten(name, 40)


def shown(effect: Effect, *, signed: bool = False) -> str:
    """A number with its interval: ``.81 [.77, .84]``.

    Example:
        >>> shown(Effect(0.81, 0.77, 0.84)), shown(Effect(-0.05, None, None))
        ('.81 [.77, .84]', '-.050')
    """
    estimate = Estimate(value=effect.value, low=effect.low, high=effect.high)
    small = abs(effect.value) < 0.0995 and max(abs(effect.low or 0), abs(effect.high or 0)) < 0.0995
    return with_interval(estimate, 3 if small else 2, signed=signed)


def enumerated(names: Iterable[str]) -> str:
    """Names in a sentence.

    Example:
        >>> enumerated(["a"]), enumerated(["a", "b"]), enumerated(["a", "b", "c"])
        ('a', 'a and b', 'a, b and c')
    """
    parts = [said(name) for name in names]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def model_of(source: str | None, name: str) -> str:
    """What shows how much a modality says alone, as the subject of a sentence."""
    return {
        "reference": f"a model of {said(name)} alone",
        "probe": f"a probe of {said(name)} alone",
        "model": f"the model given {said(name)} alone",
    }.get(source or "", "nothing")


def under_mask(facts: Facts, mask: Mask, name: str) -> str:
    """How a modality was hidden, as the end of a sentence."""
    words = facts.words(mask, name)
    return f"under the mask {said(words)}" if words else f"under the {mask} mask"


def remedies(facts: Facts) -> tuple[str, ...]:
    """What is worth trying for the task and the model."""
    if not facts.can_be_retrained:
        return ()
    return tuple(key for key in REMEDIES if key != "mla" or facts.has_encoders)


def get_information(facts: Facts, names: Sequence[str]) -> tuple[str, ...]:
    """How to find out whether modalities say something alone."""
    if not names:
        return ()
    who = enumerated(names)
    what = f"Whether {who} {'says' if len(names) == 1 else 'say'} anything about the target alone"
    if "data" not in facts.record.spec:
        return (
            f"{what}: give audit() a model of each alone (references=...) or training data (train=...); with an audit file, "
            "mmaudit unimodal audit.yaml --out alone, then 'references: alone' in it.",
        )
    train = "" if facts.has_training_data else " (it takes training data: data.train)"
    return (
        f"{what}: mmaudit unimodal audit.yaml --out alone{train}, then write 'references: alone' into audit.yaml and run mmaudit "
        "audit audit.yaml again.",
    )


def get_without(facts: Facts, name: str) -> tuple[str, ...]:
    """How to find out whether a modality is needed."""
    what = f"Whether a model without {said(name)} does as well"
    if "data" not in facts.record.spec:
        return (
            f"{what}: give audit() one (references={{'without': {{{name!r}: model}}}}), which mmaudit unimodal --without trains.",
        )
    return (
        f"{what}: mmaudit unimodal audit.yaml --out alone --without, then write "
        "'references: alone' into audit.yaml and run mmaudit audit audit.yaml again.",
    )


def get_second_mask() -> tuple[str, ...]:
    """How to find out whether an answer hangs on the mask."""
    return (
        "Whether this hangs on how modalities are hidden: write 'second_mask: auto' into audit.yaml and run mmaudit audit audit.yaml again.",
    )


def more_samples(facts: Facts, effect: Effect) -> str:
    """How many samples an effect of delta would take to be seen."""
    if effect.low is None or effect.high is None:
        return "more samples are needed for an interval."
    n, groups = facts.units
    units, word = (
        (groups, "groups") if groups is not None else (effect_samples(effect, n), "samples")
    )
    half = (effect.high - effect.low) / 2
    wanted = math.ceil(units * (half / facts.thresholds.delta) ** 2)
    if wanted <= units:
        return (
            f"The difference is near {number(facts.thresholds.delta)}, which decides: more samples than these {count(units)} {word} may "
            "tell."
        )
    size = 10 ** max(0, len(str(wanted)) - 2)
    return (
        f"{count(units)} {word} show differences of about {number(half)} or more; "
        f"for {number(facts.thresholds.delta)} about {count(math.ceil(wanted / size) * size)} are needed."
    )


def effect_samples(effect: Effect, fallback: int) -> int:
    """Samples behind an effect."""
    return min((row[2].n for row in effect.rows if row[2].n), default=fallback)
