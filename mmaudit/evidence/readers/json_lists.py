"""A run that is written as a list of numbers for each series, with or without lists of the epochs or steps beside them.

Lists of one length are put side by side. Lists of several lengths tell by themselves nothing about which value belongs to which: the
first ten of fifty train losses are not those of ten validations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaudit.evidence.readers.base import (
    Columns,
    Kind,
    Run,
    Series,
    counted,
    known_column,
    listed,
    said,
)
from mmaudit.evidence.readers.names import read_name, splits_in, splits_of, words_in
from mmaudit.exceptions import LogError
from mmaudit.typing import FloatArray

__all__ = ["is_series", "lists_run"]

_LARGEST = 2**53
_TOLD = 6


class _Clock(NamedTuple):
    """A list of places."""

    kind: Kind
    split: str | None
    """Of the series that it counts; ``None`` for all."""
    value: FloatArray


class _Place(NamedTuple):
    """Where the values of a list lie."""

    step: FloatArray
    epoch: FloatArray


def is_series(value: Any) -> bool:
    """Whether a value of JSON is a list of numbers, some of which may be missing."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(
            v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in value
        )
    )


def lists_run(path: Path, row: Mapping[str, Any], columns: Columns, at: int) -> Run:
    """The run that a mapping of lists describes.

    A list of epochs or steps counts the lists of its length; one that is called after a split (``val_epoch``), those of that split. Where
    there is none, lists of the length that train and validation losses have in common count as epochs. A list whose length is a whole
    multiple of that of another is put beside it value by value, k after k, which is told; any other has no place, which is told too.

    Args:
        path: Of the log.
        row: Name -> list, or a fact of the run such as its name.
        columns: Which list is what.
        at: Number of the run in the log.

    Raises:
        LogError: If a list that was named is missing, or train and validation losses cannot be put side by side.
    """
    notes: list[str] = []
    lists = {
        name: _numbers(path, name, value, notes) for name, value in row.items() if is_series(value)
    }
    notes += [
        f"'{said(name)}' in {said(path.name)} holds what is no number: left out."
        for name, value in row.items()
        if isinstance(value, list) and value and name not in lists and read_name(name) is not None
    ]
    missing = sorted({c for c in (columns.step, columns.epoch) if c is not None} - set(lists))
    if missing:
        raise LogError(f"{said(path.name)} has no list '{said(missing[0])}'.")
    clocks = {
        name: clock for name, value in lists.items() if (clock := _clock(name, value, columns))
    }
    values = {name: value for name, value in lists.items() if name not in clocks}
    places = _places(path, values, list(clocks.values()), notes)
    series = {}
    for name, value in values.items():
        place = places[name]
        good = np.isfinite(place.step) & (np.abs(place.step) < _LARGEST)
        step = np.where(good, place.step, -1).astype(np.int64)
        series[name] = Series(step, place.epoch, value, np.arange(len(value))).counted()
    title = row.get(columns.run or "run", row.get("name", row.get("seed", at)))
    whose = said(str(title), 100) if isinstance(title, (str, int, float)) else str(at)
    return Run(f"{path.stem} {whose}", "JSON", (path,), series, tuple(notes))


def _clock(name: str, value: FloatArray, columns: Columns) -> _Clock | None:
    """The places that a list holds; ``None`` where it is a series."""
    if name in (columns.step, columns.epoch):
        return _Clock("step" if name == columns.step else "epoch", None, value)
    kind = known_column(name)
    if kind is not None:
        return _Clock(kind, None, value)
    words = words_in(name)
    rest = [w for w, split in zip(words, splits_of(words), strict=True) if split is None]
    kind = known_column("_".join(rest))
    return _Clock(kind, splits_in(name)[-1], value) if kind is not None else None


def _places(
    path: Path, values: Mapping[str, FloatArray], clocks: list[_Clock], notes: list[str]
) -> dict[str, _Place]:
    """Where the values of each list lie."""
    found: dict[str, _Place] = {}
    for name, value in values.items():
        own = _own(name, len(value), clocks)
        if own is not None:
            found[name] = own
    free = {name: len(value) for name, value in values.items() if name not in found}
    if not free:
        return found
    known = {len(place.step): place for place in found.values()}
    known |= {len(c.value): p for c in clocks if (p := _own("", len(c.value), clocks)) is not None}
    length, agreed = _shared(free)
    if agreed or not known:
        several = len(set(_of_split(free, "train") + _held(free))) > 1
        count, none = np.arange(length, dtype=np.float64), np.full(length, np.nan)
        known[length] = _Place(count + 1, none) if several and not agreed else _Place(none, count)
        if several and not agreed:
            notes.append(
                f"Steps of {said(path.name)} count the values of its longest list of losses, of steps or epochs: it does not say which."
            )
    losses = [name for name in values if read_name(name) is not None]
    ratios: dict[tuple[int, int], list[str]] = {}
    lost: list[str] = []
    for name, length in free.items():
        if length in known:
            found[name] = known[length]
            continue
        # Sizes of layers and the like are lists too, and have no place in a training.
        near = [
            m for m in sorted(known, reverse=True) if losses and not max(m, length) % min(m, length)
        ]
        if near:
            found[name] = _beside(known[near[0]], near[0], length)
            ratios.setdefault((near[0], length), []).append(name)
        else:
            none = np.full(length, np.nan)
            found[name] = _Place(none, none)
            lost.append(name)
    _refuse_apart(path, values, lost)
    for (reference, length), names in ratios.items():
        names = [name for name in names if name in losses]
        notes += [_put_beside(names, reference, length)] if names else []
    lost = [name for name in lost if name in losses]
    if lost:
        lengths = _numbers_said([len(values[name]) for name in lost])
        notes.append(
            f"{listed(lost)}: {lengths} values without epochs or steps, no whole multiple of the others: not put beside them."
        )
    return found


def _own(name: str, length: int, clocks: list[_Clock]) -> _Place | None:
    """Places by lists of epochs or steps of the same length: those that are called after the split of a series before all others."""
    read = read_name(name)
    split = read.split if read is not None else next(iter(splits_in(name)), None)
    place = _Place(np.full(length, np.nan), np.full(length, np.nan))
    beside = [c for c in clocks if len(c.value) == length and c.split in (None, split or "train")]
    for clock in sorted(beside, key=lambda c: c.split is not None):
        if clock.kind != "time":
            place = place._replace(**{clock.kind: clock.value})
    return place if any(clock.kind != "time" for clock in beside) else None


def _shared(lengths: Mapping[str, int]) -> tuple[int, bool]:
    """The length that train and validation losses have in common, and whether there is one: else that of the longest losses."""
    train, held = set(_of_split(lengths, "train")), set(_held(lengths))
    return max(train & held or train | held or set(lengths.values())), bool(train & held)


def _held(lengths: Mapping[str, int]) -> list[int]:
    """Lengths of the validation losses, or of the test losses that stand in for them."""
    return _of_split(lengths, "validation") or _of_split(lengths, "test")


def _of_split(lengths: Mapping[str, int], split: str) -> list[int]:
    """Lengths of the losses of a split; a loss that names none is a train loss, as Keras calls it."""
    return [
        length
        for name, length in lengths.items()
        if (read := read_name(name)) is not None and (read.split or "train") == split
    ]


def _beside(place: _Place, reference: int, length: int) -> _Place:
    """Places of a list of another length: after each k values of a longer one, or k values at each place of a shorter one."""
    if reference > length:
        k = reference // length
        return _Place(place.step[k - 1 :: k], place.epoch[k - 1 :: k])
    k = length // reference
    return _Place(np.repeat(place.step, k), np.repeat(place.epoch, k))


def _put_beside(names: list[str], reference: int, length: int) -> str:
    if reference > length:
        k = reference // length
        how = f"each was put after {k:,} of the {reference:,} values of other lists"
    else:
        k = length // reference
        how = f"{k:,} of them were put at each of the {reference:,} places of other lists"
    return f"{listed(names, 4)}: {length:,} values without epochs or steps; {how}."


def _refuse_apart(path: Path, values: Mapping[str, FloatArray], lost: list[str]) -> None:
    """Refuse losses of which no train and validation loss can be put side by side."""
    every = {name: len(value) for name, value in values.items()}
    kept = {name: length for name, length in every.items() if name not in lost}
    train, held = _of_split(every, "train"), _held(every)
    if not (train and held) or (_of_split(kept, "train") and _held(kept)):
        return
    raise LogError(
        f"{said(path.name)}: train losses have {_numbers_said(train)} values and validation losses {_numbers_said(held)}, without epochs or "
        "steps: which belong together is not known. Write lists of them beside, such as 'epoch' and 'val_epoch'."
    )


def _numbers_said(lengths: list[int]) -> str:
    different = sorted(set(lengths), reverse=True)
    shown = ", ".join(f"{length:,}" for length in different[:_TOLD])
    return shown + (", ..." if len(different) > _TOLD else "")


def _numbers(path: Path, name: str, values: list[Any], notes: list[str]) -> FloatArray:
    try:
        return np.array([np.nan if v is None else v for v in values], np.float64)
    except OverflowError:
        found = np.array([_number(v) for v in values], np.float64)
        huge = sum(
            isinstance(v, int) and not np.isfinite(x) for v, x in zip(values, found, strict=True)
        )
        notes.append(
            f"{counted(huge, 'number')} of '{said(name)}' in {said(path.name)} too large: taken for infinite."
        )
        return found


def _number(value: Any) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
