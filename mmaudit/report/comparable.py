"""Whether two records can be compared, and what a reader has to know if they can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmaudit.report.numbers import count
from mmaudit.report.schema import Note, Record

__all__ = ["comparison_notes", "why_not_comparable"]


def why_not_comparable(before: Record, after: Record, *, common: bool = False) -> str | None:
    """Say in one sentence why two records cannot be compared.

    Args:
        before: One record.
        after: Another.
        common: Whether it was asked to compare only the samples that both have.

    Returns:
        The first reason; ``None`` where there is none. Another order of the modalities is none.
    """
    return next(_reasons(before, after, common), None)


def _reasons(before: Record, after: Record, common: bool) -> Iterator[str]:
    if set(before.modalities) != set(after.modalities):
        yield (
            f"the records have different modalities, {_listed(before.modalities)} before and {_listed(after.modalities)} after: "
            f"what one model has no input for cannot be compared"
        )
    tasks = [record.spec.get("task", "multiclass") for record in (before, after)]
    if tasks[0] != tasks[1]:
        yield f"the records are of different tasks, {tasks[0]} before and {tasks[1]} after"
    classes = [record.data.classes for record in (before, after)]
    if classes[0] != classes[1]:
        yield f"the records have different classes, {_listed(classes[0])} before and {_listed(classes[1])} after, or another order"
    for name in before.modalities:
        masks = [record.masks.get(name, "unknown") for record in (before, after)]
        if masks[0] != masks[1]:
            yield (
                f"{name} is masked in different ways, {masks[0]} before and {masks[1]} after: the measures answer different "
                f"questions; audit one again with the other's masks"
            )
    grouped = [record.data.groups is not None for record in (before, after)]
    if grouped[0] != grouped[1]:
        which = "before" if grouped[0] else "after"
        yield f"samples are grouped in the record {which} alone; audit both with the same group, or both without"
    yield from _data_reasons(before, after, common)
    for which, record in (("before", before), ("after", after)):
        if "coalitions" not in record.tables:
            yield f"the record {which} kept no table of its samples, and differences are about the same samples; audit again"


def _data_reasons(before: Record, after: Record, common: bool) -> Iterator[str]:
    prints = [record.data.fingerprint for record in (before, after)]
    if all(prints) and prints[0] == prints[1]:
        return
    sizes = [count(record.data.samples) for record in (before, after)]
    named = all(record.data.ids == "given" for record in (before, after))
    if common and not named:
        yield (
            "the records are about different data, and which samples they share cannot be known: samples have running numbers; "
            "name their ids in the audit file ('ids') and audit again"
        )
    if not common:
        way = (
            "; to compare the samples that both have, say so: common=True (--common)"
            if named
            else ""
        )
        yield (
            f"the records are about different data ({sizes[0]} samples before, {sizes[1]} after; their fingerprints differ){way}"
        )


def comparison_notes(before: Record, after: Record) -> list[Note]:
    """What differs between two comparable records that a reader has to know."""
    notes = []
    if before.modalities != after.modalities:
        notes.append(
            _note(
                "information",
                "data",
                f"the modalities are in another order after; they are compared by name, in the order {_listed(before.modalities)}",
            )
        )
    if "running number" in (before.data.ids, after.data.ids):
        notes.append(
            _note(
                "information",
                "data",
                "samples are matched by their running number: the records name no sample ids",
            )
        )
    for key, what in (("precision", "precision"), ("seed", "seed of the masks")):
        values = [record.settings.get(key) for record in (before, after)]
        if values[0] == values[1] or (key == "seed" and not (_drawn(before) or _drawn(after))):
            continue
        notes.append(
            _note(
                "warning",
                "evidence",
                f"the {what} differs, {values[0]} before and {values[1]} after: part of a difference may come from that",
            )
        )
    kinds = [_outputs(record) for record in (before, after)]
    if kinds[0] != kinds[1]:
        notes.append(
            _note(
                "warning",
                "evidence",
                f"the outputs are {kinds[0]} before and {kinds[1]} after: responses (s, Acc) are made of scores on different scales",
            )
        )
    for key in sorted(set(before.measures) ^ set(after.measures)):
        which = "before" if key in before.measures else "after"
        notes.append(
            _note(
                "warning", "measures", f"{key} is in the record {which} alone and is not compared"
            )
        )
    return notes


def _note(kind: Any, topic: str, text: str) -> Note:
    return Note(kind=kind, topic=topic, text=text)


def _drawn(record: Record) -> bool:
    """Whether some mask draws its values."""
    return any(
        word in mask for mask in record.masks.values() for word in ("noise", "marginal", "custom")
    )


def _outputs(record: Record) -> str:
    outputs = record.spec.get("outputs") or {}
    return str(outputs.get("kind", "logits")).replace("_", " ")


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown}, ... ({len(names)})" if len(names) > 6 else shown or "none"
