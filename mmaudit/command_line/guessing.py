"""What a batch seems to hold: inputs grouped into modalities, labels, sample ids, groups. Guesses, each with its reason.

Names decide where they say something (keys of the batch, parameters of ``forward``), shapes and values where they do not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mmaudit.command_line.entries import Entry
from mmaudit.exceptions import DataError

__all__ = ["Guess", "GuessedModality", "about_target", "guess"]

_LABELS = {
    "label",
    "labels",
    "target",
    "targets",
    "y",
    "class",
    "classes",
    "cls",
    "answer",
    "category",
}
_IDS = {
    "id",
    "ids",
    "idx",
    "index",
    "uid",
    "uuid",
    "key",
    "keys",
    "name",
    "filename",
    "file",
    "path",
    "video",
    "clip",
}
_GROUPS = {
    "group",
    "groups",
    "patient",
    "subject",
    "speaker",
    "actor",
    "clip",
    "session",
    "site",
    "hospital",
    "user",
    "person",
}
_TOKENS = {"input_ids", "ids", "tokens", "token_ids", "text", "words", "token"}
_NICKNAMES = {
    "pixel_values": "image",
    "input_ids": "text",
    "input_values": "audio",
    "input_features": "audio",
}
_ACCESSORY = re.compile(r"mask|padding|length|lens?$|_lens?_|token_type|position_ids|segment_ids")
_STEM = re.compile(
    r"_?(attention_mask|padding_mask|pad_mask|mask|lengths?|lens?|token_type_ids|position_ids|segment_ids|input_ids|input_values"
    r"|token_ids|tokens|ids|values|features|inputs?|embeds?)$"
)
_FEW = 1000
_NO_LABELS = "called like labels, but not what labels look like"


@dataclass
class GuessedModality:
    """A modality: its main input first, then masks and lengths that belong to it."""

    name: str
    inputs: dict[str, Entry]
    masks: dict[str, Any]
    """Input -> mask as it is written in a spec."""
    reason: str


@dataclass
class Guess:
    """What a batch seems to hold.

    Attributes:
        n: Samples in the batch.
        found: Everything in it.
        modalities: In the order of the batch.
        target: The labels.
        target_reason: Why.
        ids: Sample ids.
        group: What belongs together.
        left_out: Entry -> why it is none of these.
    """

    n: int
    found: list[Entry]
    modalities: list[GuessedModality] = field(default_factory=list)
    target: Entry | None = None
    target_reason: str = ""
    ids: Entry | None = None
    group: Entry | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def guess(found: Sequence[Entry], parameters: Sequence[str], *, target: str | None = None) -> Guess:
    """Say what the entries of a batch seem to be.

    Args:
        found: From :func:`~mmaudit.command_line.entries.entries`.
        parameters: Names of what ``forward`` takes.
        target: Path of the labels, where it is known.
    """
    result = Guess(found[0].n, list(found))
    rest = [entry for entry in found if not _ignored(entry, result)]
    _find_target(rest, parameters, target, result)
    rest = [entry for entry in rest if entry is not result.target]
    _find_ids(rest, parameters, result)
    rest = [entry for entry in rest if entry not in (result.ids, result.group)]
    accessories = [entry for entry in rest if _is_accessory(entry)]
    mains = [
        entry for entry in rest if entry not in accessories and _is_main(entry, parameters, result)
    ]
    known = [entry for entry in mains if entry.name in parameters]
    if known and len(known) < len(mains):
        for entry in mains:
            if entry not in known:
                result.left_out[entry.path] = "forward has no argument of this name"
        mains = known
    _group(mains, accessories, parameters, result)
    return result


def about_target(result: Guess) -> str:
    """What was taken for the labels, what is odd about them, and how to name others: the end of a sentence."""
    target = result.target
    if target is None:
        return ""
    taken = f"; '{target.path}' was taken for the labels"
    odd = ""
    if not target.is_text:
        taken += f" ({_values(target)})"
        values = target.value.reshape(-1)
        known = values[torch.isfinite(values)] if values.is_floating_point() else values
        if known.numel() and _is_whole(known) and int(known.min()) == 1:
            odd = ": classes count from 0, so give labels less 1 if they are these"
        elif known.numel() and _is_whole(known) and int(known.min()) < 0:
            odd = ": classes count from 0, so leave out samples without a label, or give the labels from 0"
    others = "".join(
        f"; '{entry.path}' ({_values(entry)}) is called like labels, but classes are whole numbers from 0"
        for entry in result.found
        if not entry.is_text and result.left_out.get(entry.path) == _NO_LABELS
    )
    return f"{taken}{odd}{others}; --target NAME names others"


def _ignored(entry: Entry, result: Guess) -> bool:
    if entry.is_text and len(entry.value) != entry.n:
        result.left_out[entry.path] = f"{len(entry.value)} strings for {entry.n} samples"
        return True
    if entry.dim is None:
        result.left_out[entry.path] = f"no dimension of {entry.n} samples"
        return True
    return False


def _find_target(
    rest: Sequence[Entry], parameters: Sequence[str], wanted: str | None, result: Guess
) -> None:
    if wanted is not None:
        named = [entry for entry in rest if entry.path == wanted]
        if not named:
            raise DataError(
                f"there is no '{wanted}' with one label per sample; the batch holds {', '.join(e.path for e in rest)}"
            )
        result.target, result.target_reason = named[0], "as you said"
        return
    ranked = [
        (score, place, entry)
        for place, entry in enumerate(rest)
        if (score := _target_score(entry, parameters)) > 0
    ]
    if not ranked:
        return
    # In a tuple the labels come last.
    score, _, entry = max(ranked, key=lambda item: item[:2])
    result.target = entry
    values = "names" if entry.is_text else _values(entry)
    each = "one per sample" if entry.is_vector else f"{entry.shape[1]} per sample"
    called = f"called '{entry.name}'"
    result.target_reason = f"{values}, {called if score >= 9 else each}"


def _target_score(entry: Entry, parameters: Sequence[str]) -> int:
    name = entry.name.lower()
    named = name in _LABELS or any(part in _LABELS for part in name.split("_"))
    if not entry.is_vector:
        several = not entry.is_text and entry.dim == 0 and len(entry.shape) == 2
        return 9 * (named and several and name not in parameters)
    if entry.is_text:
        return 8 * named
    values = entry.value.reshape(-1)
    if not _is_whole(values) or bool((values < 0).any()):
        # Numbers that are no classes are taken for a target only where they are called so.
        return 9 * (named and name not in parameters and not entry.is_integer)
    if named:
        return 12 if name in _LABELS else 10
    if (
        not entry.is_integer
        or name in parameters
        or name in _IDS
        or name.endswith("_id")
        or _is_accessory(entry)
    ):
        return 0
    distinct = len(values.unique())
    return 0 if distinct > _FEW or (distinct == entry.n and entry.n > 20) else 5


def _is_whole(values: torch.Tensor) -> bool:
    if not values.is_floating_point():
        return True
    return bool(torch.isfinite(values).all() and (values == values.round()).all())


def _values(entry: Entry) -> str:
    values = entry.value.reshape(-1)
    known = values[torch.isfinite(values)] if values.is_floating_point() else values
    if not known.numel():
        return "no known value"
    if not _is_whole(known):
        return f"numbers {float(known.min()):.4g} to {float(known.max()):.4g}"
    return f"whole numbers {int(known.min())} to {int(known.max())}"


def _find_ids(rest: Sequence[Entry], parameters: Sequence[str], result: Guess) -> None:
    for entry in rest:
        name = entry.name.lower()
        if not entry.is_vector or name in parameters or not (entry.is_text or entry.is_integer):
            continue
        values: list[Any] = entry.value if entry.is_text else entry.value.reshape(-1).tolist()
        distinct = len(set(values)) == entry.n
        parts = set(name.split("_"))
        if result.ids is None and distinct and (entry.is_text or parts & _IDS):
            result.ids = entry
        elif result.group is None and (parts & _GROUPS or (entry.is_text and not distinct)):
            result.group = entry
        elif entry.is_text:
            result.left_out[entry.path] = "strings"


def _is_accessory(entry: Entry) -> bool:
    if entry.is_text or not _ACCESSORY.search(entry.name.lower()):
        return False
    return entry.is_integer or bool(((entry.value == 0) | (entry.value == 1)).all())


def _is_main(entry: Entry, parameters: Sequence[str], result: Guess) -> bool:
    if entry.is_text:
        result.left_out.setdefault(entry.path, "strings")
        return False
    if entry.name.lower() in _LABELS:
        result.left_out[entry.path] = _NO_LABELS
        return False
    if entry.is_vector and entry.name not in parameters:
        result.left_out[entry.path] = "one number per sample, and no argument of forward"
        return False
    return True


def _group(
    mains: Sequence[Entry], accessories: Sequence[Entry], parameters: Sequence[str], result: Guess
) -> None:
    numbered = [entry for entry in result.found if entry in mains or entry in accessories]
    by_place = (
        dict(zip([e.path for e in numbered], parameters, strict=False))
        if len(numbered) <= len(parameters)
        else {}
    )
    owners = _owners(mains, accessories, result)
    taken: set[str] = set()
    for main in mains:
        inputs, masks = {main.name: main}, {main.name: _mask_of(main, owners[main.path])}
        for entry in owners[main.path]:
            inputs[entry.name], masks[entry.name] = entry, "keep"
        if len(inputs) < 1 + len(
            owners[main.path]
        ):  # equal names in different folders of the batch
            inputs = {e.path.replace(".", "_"): e for e in (main, *owners[main.path])}
            masks = {
                name: ("keep" if e is not main else masks[main.name]) for name, e in inputs.items()
            }
        called = by_place.get(main.path, "") if main.name.isdigit() else main.name
        reason = (
            f"argument '{called}' of forward"
            if called in parameters
            else "an array with a row per sample"
        )
        name = _fresh_name(called or f"input_{main.path}", taken)
        taken.add(name)
        result.modalities.append(GuessedModality(name, inputs, masks, reason))


def _owners(
    mains: Sequence[Entry], accessories: Sequence[Entry], result: Guess
) -> dict[str, list[Entry]]:
    """Main input -> the masks and lengths that belong to it."""
    owners: dict[str, list[Entry]] = {main.path: [] for main in mains}
    for entry in accessories:
        stem = _stem(entry.name)
        by_name = [
            main
            for main in mains
            if _stem(main.name) == stem or (stem == "pixel" and "pixel" in main.name)
        ]
        by_shape = [
            main for main in mains if len(entry.shape) >= 2 and main.shape[:2] == entry.shape[:2]
        ]
        tokens = [main for main in by_shape if _is_tokens(main)]
        candidates = by_name or tokens or by_shape or (list(mains) if len(mains) == 1 else [])
        if candidates:
            owners[candidates[0].path].append(entry)
        else:
            result.left_out[entry.path] = "a mask or length, but of which input?"
    return owners


def _stem(name: str) -> str:
    stem, before = name.lower(), ""
    while stem != before:
        before, stem = stem, _STEM.sub("", stem)
    return stem


def _is_tokens(entry: Entry) -> bool:
    return (
        entry.is_integer
        and len(entry.shape) == 2
        and entry.value.dtype not in (torch.uint8, torch.bool)
    )


def _mask_of(main: Entry, accessories: Sequence[Entry]) -> Any:
    if not _is_tokens(main):
        return "zero"
    padding = 0
    for entry in accessories:
        hidden = (
            main.value[entry.value == 0]
            if entry.shape == main.shape and "mask" in entry.name
            else main.value[:0]
        )
        if hidden.numel():
            padding = int(hidden.mode().values)
    return {"token": padding}


def _fresh_name(wanted: str, taken: set[str]) -> str:
    name = re.sub(r"\W+", "_", _NICKNAMES.get(wanted, wanted)).strip("_")
    stem = _stem(name)
    name = (
        stem
        if stem and stem not in taken and not stem.isdigit() and wanted not in _NICKNAMES
        else name
    )
    number = 2
    fresh = name
    while fresh in taken:
        fresh, number = f"{name}_{number}", number + 1
    return fresh
