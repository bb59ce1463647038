"""From the names of series to a map of heads: what people call their losses, read as words. A guess is always told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from mmaudit.evidence.loss_map import JOINT, HeadMap, LossMap
from mmaudit.evidence.readers.base import Columns, Run, counted, listed, said
from mmaudit.evidence.readers.names import JOINT_KINDS, LossName, read_name
from mmaudit.exceptions import LogError

__all__ = ["Guess", "LossName", "guess_map", "of_test_set", "read_name"]

_BETWEEN = {"and", "plus", "with", "x", "n"}
_MOST_PARTS = 12
_NOTES = 3


class Guess(NamedTuple):
    """A map that was found by the names of the series."""

    map: LossMap
    sentences: tuple[str, ...]
    """What was taken for what, and what was left out."""


def of_test_set(name: str) -> bool:
    """Whether a series says of itself that it was measured on the test set."""
    read = read_name(name)
    return read is not None and read.split == "test"


def guess_map(runs: Iterable[Run], *, columns: Columns | None = None) -> Guess:
    """Find heads by the names of their series.

    A name is read as words: one says that it is a loss, one the split, the rest names the head; nothing left over is the joint
    head. A trainer that calls its train loss just ``loss`` is understood. Where runs log different things, the map that most runs
    have everything for is taken.

    Args:
        runs: Whose series are looked at.
        columns: Kept in the map.

    Raises:
        LogError: If no head of any run has both a train and a validation loss; the sentence lists the series.
    """
    runs = list(runs)
    guesses: dict[tuple[str, ...], Guess] = {}
    for run in runs:
        names = tuple(run.series)
        if names not in guesses:
            guess = _guess(run, columns or Columns())
            if guess is not None:
                guesses[names] = guess
    if not guesses:
        raise LogError(_nothing_found(runs))

    def support(guess: Guess) -> tuple[int, int]:
        has = sum(guess.map.series <= run.series.keys() for run in runs)
        return has, len(guess.map.heads)

    return max(guesses.values(), key=support)


def _guess(run: Run, columns: Columns) -> Guess | None:
    # A loss that was never finite can stand for no head; it is told among those left out.
    every = {name: found for name in run.series if (found := read_name(name)) is not None}
    read = {name: found for name, found in every.items() if _has_numbers(run, name)}
    sentences: list[str] = []
    held_out = "validation"
    if not any(found.split == "validation" for found in read.values()):
        held_out = "test"
    validation = _by_head(run, read, held_out)
    train = _by_head(run, read, "train")
    for key, names in _by_head(run, read, None).items():
        # Keras calls the train loss of an output just 'audio_loss'.
        if key not in train and key in validation:
            train[key] = names
    heads = {
        key[1]: (train[key][0], validation[key][0])
        for key in validation
        if key in train and key[0] == ""
    }
    _demote_parts(train, validation, heads)
    joint = _joint_pair(train, validation, sentences)
    if joint is None and (whole := _combination(list(heads))) is not None:
        joint = heads.pop(whole)
        sentences.append(
            f"'{said(whole)}' is called after all other heads ({listed(list(heads))}): it was taken for the joint head."
        )
    for key in validation:
        # Of two heads that see all modalities the surer one is the joint head, the other one of its own.
        second = key[0] in ("fusion", "whole") and key in train
        if second and joint is not None and joint[1] != validation[key][0]:
            heads[key[1]] = (train[key][0], validation[key][0])
    shared = [key for key in validation if key[0] == "" and key[1] not in heads]
    if len(train) == 1 and not heads and shared:
        one = next(iter(train.values()))[0]
        heads = {key[1]: (one, validation[key][0]) for key in shared}
        if len(heads) + (joint is not None) > 1:
            sentences.append(
                f"All evaluation losses are compared with the one train loss, '{said(one)}': they are not heads of their own."
            )
    if joint is not None:
        name = JOINT
        while name in heads:
            name = f"{name}_"
        heads[name] = joint
    if not heads:
        return None
    if held_out == "test":
        sentences.insert(0, "No validation loss was logged: the test loss stands in for it.")
    maps = {head: HeadMap(train=t, validation=v) for head, (t, v) in heads.items()}
    found_map = LossMap(
        heads=maps, columns=columns, joint=None if joint is None or name == JOINT else name
    )
    told = [
        f"{said(head)}: train '{said(m.train)}', validation '{said(m.validation)}'"
        for head, m in maps.items()
    ]
    if joint is None and len(maps) > 1 and not found_map.evaluation_sets:
        told.append("No joint head was recognised: name it in a map with joint: NAME.")
    left = [name for name in every if name not in found_map.series]
    if left:
        told.append(f"{counted(len(left), 'other loss', 'other losses')} left out: {listed(left)}.")
    return Guess(found_map, (*sentences, *told))


_Series = dict[tuple[str, str], list[str]]


def _by_head(run: Run, read: Mapping[str, LossName], split: str | None) -> _Series:
    """Series of one split by (kind of joint loss, head), the best first."""
    found: _Series = {}
    for name, loss in read.items():
        if loss.split == split or (split == "train" and loss.split is None and not loss.head):
            found.setdefault(
                (loss.joint or "", loss.head if loss.joint != "loss" else ""), []
            ).append(name)
    points = {name: len(series.value) for name, series in run.series.items()}
    return {
        key: sorted(names, key=lambda n: (points[n] < 2, *read[n].rank))
        for key, names in found.items()
    }


def _joint_pair(
    train: _Series, validation: _Series, sentences: list[str]
) -> tuple[str, str] | None:
    """Train and validation loss of the joint head: of the surest kind that has both, else one of each."""
    kinds = [kind for kind, _ in JOINT_KINDS]

    def best(series: _Series) -> list[tuple[str, str]]:
        return sorted((key for key in series if key[0]), key=lambda key: kinds.index(key[0]))

    own = [key for key in best(validation) if key in train]
    if own:
        return train[own[0]][0], validation[own[0]][0]
    trained, held_out = best(train), best(validation)
    if not trained or not held_out:
        return None
    pair = train[trained[0]][0], validation[held_out[0]][0]
    if {trained[0][0], held_out[0][0]} != {"loss"}:
        sentences.append(
            f"'{said(pair[0])}' and '{said(pair[1])}' are called differently; they were taken for one head."
        )
    return pair


def _combination(names: list[str]) -> str | None:
    """The name that is made of all others, two or more: ``rgb_flow`` of ``rgb`` and ``flow``, ``atv`` of ``a``, ``t``, ``v``.

    Names of some of them together (``at``) count as none of the others.
    """
    made_of = {name: _parts(name, names) for name in names}
    single = {name for name in names if not made_of[name]}
    whole = [name for name in names if any(parts == single for parts in made_of[name])]
    return whole[0] if whole and len(names) <= _MOST_PARTS + 1 else None


def _parts(name: str, names: list[str]) -> list[set[str]]:
    """The sets of two or more other names that a name can be made of, whatever stands between them."""
    others = [other for other in names if other != name]
    fused = {word for kind, words in JOINT_KINDS if kind == "fusion" for word in words}
    text = "".join(
        word for word in name.split("_") if word in others or word not in _BETWEEN | fused
    )
    if len(others) > _MOST_PARTS:
        return []

    @cache
    def ways(rest: str, used: frozenset[str]) -> frozenset[frozenset[str]]:
        if not rest:
            return frozenset({used})
        return frozenset(
            way
            for other in others
            if other not in used and rest.startswith(part := other.replace("_", "")) and part
            for way in ways(rest[len(part) :], used | {other})
        )

    return [set(way) for way in ways(text, frozenset()) if len(way) > 1]


def _demote_parts(train: _Series, validation: _Series, heads: dict[str, tuple[str, str]]) -> None:
    """Make ``av`` a head like others where it is of some modalities alone: of three heads ``a``, ``v`` and ``t``."""
    for key in [key for key in validation if key[0] == "whole" and key in train]:
        names = [*heads, key[1]]
        single = {name for name in names if not _parts(name, names)}
        made_of = _parts(key[1], names)
        if made_of and not any(parts == single for parts in made_of):
            heads[key[1]] = (train.pop(key)[0], validation.pop(key)[0])


def _nothing_found(runs: list[Run]) -> str:
    """Why no head was found, in a sentence, with what the readers said."""
    first = runs[0]
    losses = [name for name in first.series if read_name(name) is not None]
    empty = [name for name in losses if not _has_numbers(first, name)]
    if losses and len(empty) == len(losses):
        text = f"no loss of the log is finite anywhere: every value of {listed(losses, 12)} is NaN or infinite."
    else:
        text = (
            f"no head with a train and a validation loss was recognised among the series ({listed(list(first.series), 12) or 'none'}); "
            "name them in a map: heads: {joint: {train: NAME, validation: NAME}}."
        )
        if empty:
            text += f" No value of {listed(empty)} is finite."
    return " ".join((text, *(said(note, 200) for note in first.notes[:_NOTES])))


def _has_numbers(run: Run, name: str) -> bool:
    return bool(np.isfinite(run.series[name].value).any())
