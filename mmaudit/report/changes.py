"""What a comparison is read for: the main numbers, and the verdict in words.

The terminal, Markdown, the figure and the app take their rows and sentences from here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from mmaudit.report.comparison import (
    Audited,
    ComparedMeasure,
    Comparison,
    Difference,
    Verdict,
    find_difference,
)
from mmaudit.report.labels import coalition_name, shorten
from mmaudit.report.numbers import count, number, with_interval
from mmaudit.report.sides import model_name, remedy_name, sides_of

__all__ = [
    "MATTERS",
    "Change",
    "conclusion",
    "is_significant",
    "main_changes",
    "make_verdict",
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
        same: Whether the models answer every sample alike: then there is nothing to say about either.

    Returns:
        ``helps`` or ``hurts`` where the score changes and its test says so (5 %); ``does not help`` where the whole interval
        of the change is within ``MATTERS`` of 0; else ``too little data``. What changed for a modality is told beside it, as
        far as its corrected test says so. Against the model before it is the retraining that helps; whether its remedy does
        only plain training with the same budget can say.
    """
    if same:
        return Verdict(
            kind="does not help",
            headline="The two models answer alike",
            sentence=f"The two records are of models that answer all {count(samples)} samples alike, whatever is masked.",
        )
    said = _words(before, after)
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
        text = f"Too little data to say whether {said.name} {said.helps}{said.against}: {the} has no difference ({reason})."
        return Verdict(
            kind="too little data",
            headline=f"Too little data about {said.name}{said.against}",
            sentence=" ".join([text, *_told(moved, changes)]),
            caveats=tuple(caveats),
        )
    if whole.difference.warning:
        caveats.insert(0, f"{score[:1].upper()}{score[1:]}: {whole.difference.warning}.")
    kind, headline, text = _judged(said, whole, samples, score, the)
    doubt = _DOUBT if whole.difference.warning else ""
    used = _used(moved)
    return Verdict(
        kind=kind,
        headline=f"{headline}{doubt}; {used}" if used else f"{headline}{doubt}",
        sentence=" ".join([f"{text}{doubt}.", *_told(moved, changes)]),
        caveats=tuple(caveats),
    )


def conclusion(found: Comparison, beside: Comparison) -> str:
    """Say in one sentence what two comparisons of a retrained model come to.

    Args:
        found: Of the model before with the retrained one.
        beside: Of plain training with the retrained one: it alone says whether the remedy helps.

    Returns:
        Both differences of the score, and what the second makes of the remedy.
    """
    sides = sides_of(beside.before, beside.after)
    name, plain = model_name(beside.after, beside.before), sides.against or "plain training"
    score, change = _score_change(found)
    _, against = _score_change(beside)
    the = "the accuracy" if score == "accuracy" else score
    judged = {
        "helps": "it does",
        "hurts": "it hurts",
        "does not help": "it does not",
        "too little data": "too little data to say",
    }[beside.verdict.kind]
    if beside.same_answers:
        judged = "the two answer alike"
    elif beside.verdict.kind == "does not help" and found.verdict.kind == "helps":
        judged = "it does not, plain training gets as far"
    row = _score_row(beside)
    doubt = _DOUBT if row is not None and row.difference.warning else ""
    return (
        f"In sum: {the} changes by {change} against the model before, and by {against} against {plain}; "
        f"only the second says whether {name} helps: {judged}{doubt}."
    )


_DOUBT = ", on an interval that should not be trusted"


class _Words(NamedTuple):
    """How the second of two models is spoken of."""

    name: str
    """At the start of a sentence as within."""
    start: str
    helps: str
    hurts: str
    helps_not: str
    against: str
    """`` against plain training with the same budget``; empty for a model and what was made of it."""
    same: str
    """What the score stays close to."""


def _words(before: Audited, after: Audited) -> _Words:
    sides, name = sides_of(before, after), model_name(after, before)
    if sides.relation == "models":
        # The title of a model is somebody's own: it keeps its letters.
        start = f"T{name[1:]}" if name == "the second model" else name
        verbs = ("is better", "is worse", "is no better")
        return _Words(name, start, *verbs, "", "that of the first")
    verbs = ("helps", "hurts", "does not help")
    if sides.relation == "retrained" and name != remedy_name("joint"):
        name = f"retraining with {name}"
    start = name[:1].upper() + name[1:]
    if sides.against:
        return _Words(name, start, *verbs, f" against {sides.against}", "it")
    return _Words(name, start, *verbs, "", "what it was")


def _score_row(comparison: Comparison) -> Difference | None:
    changes = main_changes(comparison.modalities, comparison.measures)
    return next((change.row for change in changes if change.modality is None), None)


def _score_change(comparison: Comparison) -> tuple[str, str]:
    """Name of the score, and its difference in words."""
    row = _score_row(comparison)
    if row is None:
        return "accuracy", "an amount that was not measured"
    if row.difference.value is None:
        return row.labels["score"], "an undefined amount"
    return row.labels["score"], with_interval(row.difference, 3, signed=True)


def _judged(
    said: _Words, row: Difference, samples: int, score: str, the: str
) -> tuple[_Kind, str, str]:
    """Kind, headline and sentence (without its point) about the score alone."""
    estimate = row.difference
    assert estimate.value is not None and row.before.value is not None
    assert row.after.value is not None
    low, high = estimate.low, estimate.high
    by = with_interval(estimate, 3, signed=True)
    way = f"from {number(row.before.value, 3)} to {number(row.after.value, 3)}, {by}"
    way += f" ({p_text(row.p)})" if row.p is not None else ""
    change = number(estimate.value, 3, signed=True)
    if row.p is not None and row.p < _LEVEL and estimate.value > 0:
        verdict = f"{said.start} {said.helps}{said.against}"
        return "helps", f"{verdict}: {score} {change}", f"{verdict}: {the} rises {way}"
    if row.p is not None and row.p < _LEVEL and estimate.value < 0:
        verdict = f"{said.start} {said.hurts}{said.against}"
        return "hurts", f"{verdict}: {score} {change}", f"{verdict}: {the} falls {way}"
    if low is not None and high is not None and max(-low, high) <= MATTERS:
        within = f"stays within {number(MATTERS)} of {said.same}"
        text = f"{said.start} {said.helps_not}{said.against}: {the} {within}"
        return "does not help", text, f"{text}, {way}"
    verdict = f"Too little data to say whether {said.name} {said.helps}{said.against}"
    return (
        "too little data",
        f"{verdict}: {score} {by}",
        f"{verdict}: on {count(samples)} samples {the} goes {way}",
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
            f"{with_interval(c.row.difference, signed=True)} ({p_text(c.row.p_holm)}{_unsure(c.row)})"
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


def _unsure(row: Difference) -> str:
    return ", interval not to be trusted" if row.difference.warning else ""
