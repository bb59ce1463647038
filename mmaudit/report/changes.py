"""What a comparison is read for: the main numbers, and the verdict in words.

The terminal, Markdown, the figure and the app take their rows and sentences from here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from mmaudit.report.comparison import (
    Audited,
    ComparedMeasure,
    Difference,
    Verdict,
    find_difference,
)
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count, number, with_interval

__all__ = [
    "MATTERS",
    "Change",
    "is_significant",
    "main_changes",
    "make_verdict",
    "model_name",
    "p_text",
]

MATTERS = 0.02
"""The smallest change of the score that matters; the score is the same where the whole interval is inside it."""

_Kind: TypeAlias = Literal["helps", "hurts", "does not help", "too little data"]
_LEVEL = 0.05
_MOST_NAMED = 3
_KINDS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("response", "responses", {}),
    ("utilization", "utilization", {"given": "rest"}),
    ("contribution", "contributions", {}),
)
"""What is said of each modality: in words (a response is that of the score), the measure, and its labels."""


class Change(NamedTuple):
    """One of the main numbers."""

    kind: str
    """The score (``accuracy``, ``R2``), ``response accuracy`` (``response R2``), ``utilization`` (given the rest) or ``contribution``."""
    modality: str | None
    """``None`` for the score of the whole model."""
    row: Difference

    @property
    def name(self) -> str:
        """For example ``audio response accuracy``."""
        return self.kind if self.modality is None else f"{shorten(self.modality)} {self.kind}"


def main_changes(
    modalities: Sequence[str], measures: Mapping[str, ComparedMeasure]
) -> tuple[Change, ...]:
    """The score, then for each modality what the model hears from it; what was not compared is left out.

    Args:
        modalities: In the order of the record before.
        measures: Of a comparison.
    """
    whole = find_difference(
        measures, modalities, "coalitions", coalition=coalition_name(modalities, modalities)
    )
    changes = [] if whole is None else [Change(whole.labels["score"], None, whole)]
    for name in modalities:
        for kind, measure, labels in _KINDS:
            row = find_difference(measures, modalities, measure, modality=name, **labels)
            if row is None:
                continue
            if measure == "responses":
                score = row.labels["quantity"]
                kind = f"{kind} {'accuracy' if score == 'Acc' else score}"
            changes.append(Change(kind, name, row))
    return tuple(changes)


def is_significant(row: Difference) -> bool:
    """Whether the corrected p is below 5 %."""
    return row.p_holm is not None and row.p_holm < _LEVEL


def p_text(p: float | None) -> str:
    """Write a p-value.

    Example:
        >>> p_text(0.0204), p_text(0.00002), p_text(1.0), p_text(None)
        ('p .020', 'p < .001', 'p 1.00', '')
    """
    if p is None:
        return ""
    return "p < .001" if p < 0.001 else f"p {number(p, 3 if p < 0.1 else 2)}"


def model_name(audited: Audited, other: Audited) -> str:
    """What to call a model in a sentence: its remedy where it has one, else its title where that tells it from the other."""
    remedy = audited.lineage.get("remedy") or audited.title.rpartition("retrained with ")[2]
    if remedy != audited.title or audited.title != other.title:
        return shorten(remedy, 60)
    return "the second model"


def make_verdict(
    before: Audited,
    after: Audited,
    modalities: Sequence[str],
    measures: Mapping[str, ComparedMeasure],
    *,
    samples: int,
    same: bool = False,
) -> Verdict:
    """Say what a comparison comes to.

    Args:
        before: The first record.
        after: The second.
        modalities: In the order of the first.
        measures: What was compared.
        samples: Samples that both have.
        same: Whether the models answer every sample alike.

    Returns:
        ``helps`` or ``hurts`` where the score changes and its test says so (5 %); ``does not help`` where the whole interval
        of the change is within ``MATTERS`` of 0; else ``too little data``. What changed for a modality is told beside it, as
        far as its corrected test says so.
    """
    name = model_name(after, before)
    if same:
        text = f"{name} does not help: the two models answer all {count(samples)} samples alike"
        return Verdict(kind="does not help", headline=_big(text), sentence=_big(f"{text}."))
    changes = main_changes(modalities, measures)
    found = next((c for c in changes if c.modality is None), None)
    score, whole = ("accuracy", None) if found is None else (found.kind, found.row)
    the = "the accuracy" if score == "accuracy" else score
    moved = _moved(changes)
    caveats = [
        "The intervals are about which samples were drawn; another training seed may give another model."
    ]
    if whole is None or whole.difference.value is None:
        reason = "it was not measured" if whole is None else whole.difference.undefined
        text = f"too little data to say whether {name} helps: {the} has no difference ({reason})"
        return Verdict(
            kind="too little data",
            headline=_big(f"too little data about {name}"),
            sentence=" ".join([_big(f"{text}."), *_told(moved, changes)]),
            caveats=tuple(caveats),
        )
    if whole.difference.warning:
        caveats.insert(0, f"{_big(score)}: {whole.difference.warning}.")
    kind, headline, text = _judged(name, whole, samples, score, the)
    used = _used(moved)
    return Verdict(
        kind=kind,
        headline=_big(f"{headline}; {used}" if used else headline),
        sentence=" ".join([_big(text), *_told(moved, changes)]),
        caveats=tuple(caveats),
    )


def _judged(
    name: str, row: Difference, samples: int, score: str, the: str
) -> tuple[_Kind, str, str]:
    """Kind, headline and sentence about the score alone."""
    estimate = row.difference
    assert estimate.value is not None and row.before.value is not None
    assert row.after.value is not None
    low, high = estimate.low, estimate.high
    by = with_interval(estimate, 3, signed=True)
    by += f" ({p_text(row.p)})" if row.p is not None else ""
    way = f"from {number(row.before.value, 3)} to {number(row.after.value, 3)}, {by}"
    change = number(estimate.value, 3, signed=True)
    if row.p is not None and row.p < _LEVEL and estimate.value > 0:
        return (
            "helps",
            f"{name} helps: {score} {change}",
            f"{name} helps: {the} rises {way}.",
        )
    if row.p is not None and row.p < _LEVEL and estimate.value < 0:
        return (
            "hurts",
            f"{name} hurts: {score} {change}",
            f"{name} hurts: {the} falls {way}.",
        )
    if low is not None and high is not None and max(-low, high) <= MATTERS:
        within = f"stays within {number(MATTERS)} of what it was"
        return (
            "does not help",
            f"{name} does not help: {the} {within}",
            f"{name} does not help: {the} {within}, {way}.",
        )
    return (
        "too little data",
        f"too little data to say whether {name} helps: {score} {with_interval(estimate, 3, signed=True)}",
        f"too little data to say whether {name} helps: on {count(samples)} samples {the} goes {way}.",
    )


def _moved(changes: Sequence[Change]) -> dict[str, list[Change]]:
    """Modality -> what changed for it beyond doubt, the modality with the largest change first."""
    moved: dict[str, list[Change]] = {}
    for change in changes:
        if change.modality is not None and is_significant(change.row):
            moved.setdefault(change.modality, []).append(change)
    sizes = {
        name: max(abs(c.row.difference.value or 0.0) for c in found)
        for name, found in moved.items()
    }
    return dict(sorted(moved.items(), key=lambda item: -sizes[item[0]]))


def _told(moved: Mapping[str, Sequence[Change]], changes: Sequence[Change]) -> list[str]:
    """At most ``_MOST_NAMED`` sentences, and one that counts the rest; none where nothing was tested."""
    if not any(change.modality is not None and change.row.p is not None for change in changes):
        return []
    if not moved:
        return ["No modality is used differently, as far as these samples tell."]
    sentences = []
    for name, changes in list(moved.items())[:_MOST_NAMED]:
        parts = [
            f"{c.kind} {number(c.row.before.value or 0.0)} to {number(c.row.after.value or 0.0)}, "
            f"{with_interval(c.row.difference, signed=True)} ({p_text(c.row.p_holm)})"
            for c in changes
        ]
        sentences.append(f"{shorten(name, 40)}: {'; '.join(parts)}.")
    if len(moved) > _MOST_NAMED:
        sentences.append(f"{len(moved) - _MOST_NAMED} more modalities are used differently.")
    return sentences


def _used(moved: Mapping[str, Sequence[Change]]) -> str:
    """In a few words, how modalities are used now."""
    parts = []
    for name, changes in list(moved.items())[:2]:
        up = {(c.row.difference.value or 0.0) > 0 for c in changes}
        how = "differently" if len(up) > 1 else "more" if up.pop() else "less"
        parts.append(f"{shorten(name)} is used {how}")
    return ", ".join(parts)


def _big(text: str) -> str:
    return text[:1].upper() + text[1:]
