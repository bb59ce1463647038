"""From the names of series to a map of heads: what people call their losses, read as words. A guess is always told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mmaudit.evidence.combined_names import combination, parts_of
from mmaudit.evidence.loss_map import JOINT, MOST_HEADS, HeadMap, LossMap
from mmaudit.evidence.loss_words import derived_losses, weighed, without_unit
from mmaudit.evidence.readers.base import Columns, Run, counted, listed, said
from mmaudit.evidence.readers.huggingface import TRAINER
from mmaudit.evidence.readers.names import JOINT_KINDS, LossName, read_name, split_of
from mmaudit.exceptions import LogError

__all__ = ["Guess", "LossName", "guess_map", "of_test_set", "read_name"]

_NOTES = 3
_LOADERS = 8
_EVALUATED = re.compile(r"eval_(?:(.+)_)?loss", re.DOTALL)
_PLAIN_SET = "eval"
_TRAIN = "loss"
_NAMES_NO_HEAD = ("loss", "")

_Series = dict[tuple[str, str], list[str]]
"""Names of series by (kind of joint loss, head), the best first."""


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
    head. Losses that are called like parts of another one (``contrastive``, ``distill``, ``cls`` alone, ...) are no heads, unless one
    of them is all there is; :mod:`mmaudit.evidence.loss_words` has the rules. A trainer that calls its train loss just ``loss`` is
    understood. Where runs log different things, the map that most runs have everything for is taken.

    Args:
        runs: Whose series are looked at.
        columns: Kept in the map.

    Raises:
        LogError: If no head of any run has both a train and a validation loss; the sentence lists the series.
    """
    runs = list(runs)
    guesses: dict[tuple[str, ...], Guess | None] = {}
    too_many: LogError | None = None
    for run in runs:
        names = (run.format, *run.series)
        if names not in guesses or guesses[names] is None:
            try:
                guesses[names] = _guess(run, columns or Columns())
            except LogError as error:
                too_many, guesses[names] = error, None
    found = [guess for guess in guesses.values() if guess is not None]
    if not found:
        raise too_many or LogError(_nothing_found(runs))

    def support(guess: Guess) -> tuple[int, int]:
        has = sum(guess.map.series <= run.series.keys() for run in runs)
        return has, len(guess.map.heads)

    return max(found, key=support)


class _Heads(NamedTuple):
    """Heads as they are guessed."""

    pairs: dict[str, tuple[str, str]]
    """Head -> series of its train and of its validation loss."""
    joint: tuple[str, str] | None = None
    """Those of the joint head."""


def _guess(run: Run, columns: Columns) -> Guess | None:
    # A loss that was never finite can stand for no head; it is told among those left out.
    every = _read(run.series)
    read = {name: loss for name, loss in every.items() if _has_numbers(run, name)}
    sentences: list[str] = []
    found = _sets_of_trainer(run, read, sentences)
    auxiliary: dict[str, str] = {}
    if found is None:
        read, auxiliary = weighed(read)
        found = _heads(run, read, sentences) or _only_auxiliary(run, read, auxiliary, sentences)
        if found is None:
            return None
    heads = dict(found.pairs)
    name = JOINT
    if found.joint is not None:
        while name in heads:
            name = f"{name}_"
        heads[name] = found.joint
    if len(heads) > MOST_HEADS:
        raise LogError(
            f"{len(heads):,} heads were found by the names of the series, of which up to {MOST_HEADS} can be compared; name some in a map: "
            "heads: {NAME: {train: NAME, validation: NAME}, ...}."
        )
    maps = {head: HeadMap(train=t, validation=v) for head, (t, v) in heads.items()}
    found_map = LossMap(
        heads=maps, columns=columns, joint=None if found.joint is None or name == JOINT else name
    )
    sentences += _other_loaders(read, found_map)
    told = [
        f"{said(head)}: train '{said(m.train)}', validation '{said(m.validation)}'"
        for head, m in maps.items()
    ]
    if found.joint is None and len(maps) > 1 and not found_map.evaluation_sets:
        told.append("No joint head was recognised: name it in a map with joint: NAME.")
    words = dict.fromkeys(word for n, word in auxiliary.items() if n not in found_map.series)
    if words:
        told.append(
            f"Losses with {listed(list(words))} in their names were taken for parts of a loss, not for heads; if one is a head, name it in a map."
        )
    derived = [name for name in derived_losses(run.series) if name not in every]
    if derived:
        is_one = "is" if len(derived) == 1 else "are"
        told.append(f"{listed(derived)} {is_one} made of other losses (best, smoothed): left out.")
    left = [name for name in every if name not in found_map.series]
    if left:
        told.append(f"{counted(len(left), 'other loss', 'other losses')} left out: {listed(left)}.")
    return Guess(found_map, (*sentences, *told))


def _read(names: Iterable[str]) -> dict[str, LossName]:
    """The losses among the series; where a validation loss says so in full, ``va`` is a head."""
    names = list(names)
    whole = {
        name: loss
        for name in names
        if (loss := read_name(without_unit(name), va_is_validation=False)) is not None
    }
    if any(loss.split == "validation" for loss in whole.values()):
        return whole
    return {name: loss for name in names if (loss := read_name(without_unit(name))) is not None}


def _sets_of_trainer(run: Run, read: Mapping[str, LossName], sentences: list[str]) -> _Heads | None:
    """The evaluation sets of a Hugging Face Trainer: it knows one train loss, and calls the others ``eval_SET_loss``.

    ``None`` where there is but ``eval_loss``, or where a trainer of somebody's own logs train losses of the same names.
    """
    if run.format != TRAINER:
        return None
    names = {n: found[1] for n in run.series if (found := _EVALUATED.fullmatch(n))}
    others = [loss.head for name, loss in read.items() if name not in names and loss.split in ("train", None)]  # fmt: skip
    of_heads = any(head and head in others for n in names if n in read and (head := read[n].head))
    sets: dict[str, str] = {}
    for name, own in names.items():
        if _has_numbers(run, name):
            called = own or _PLAIN_SET
            while called in sets:
                called = f"{called}_"
            sets[called] = name
    train = next((sets.pop(own) for own in list(sets) if split_of(own) == "train"), None)
    plain = train is None
    if train is None and _TRAIN in read:
        train = _TRAIN
    if (
        train is None
        or of_heads
        or not sets
        or (len(sets) == 1 and (not plain or _PLAIN_SET in sets))
    ):
        return None
    if len(sets) > 1:
        sentences.append(
            f"All evaluation losses are compared with the one train loss, '{said(train)}': they are evaluation sets of the Trainer, not heads of "
            "their own."
        )
    return _Heads({own: (train, name) for own, name in sets.items()})


def _heads(run: Run, read: Mapping[str, LossName], sentences: list[str]) -> _Heads | None:
    """Heads by the names of their series; a train loss that names a head is of that head alone. ``None`` where there is none."""
    read = {name: loss for name, loss in read.items() if not loss.part}
    held_out = "validation"
    if not any(loss.split == "validation" for loss in read.values()):
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
    if joint is None and (whole := combination(list(heads))) is not None:
        joint = heads.pop(whole)
        sentences.append(
            f"'{said(whole)}' is called after all other heads ({listed(list(heads))}): it was taken for the joint head."
        )
    for key in validation:
        # Of two heads that see all modalities the surer one is the joint head, the other one of its own.
        second = key[0] in ("fusion", "whole") and key in train
        if second and joint is not None and joint[1] != validation[key][0]:
            heads[key[1]] = (train[key][0], validation[key][0])
    if joint is None and not heads and list(train) == [_NAMES_NO_HEAD]:
        heads = _shared(train[_NAMES_NO_HEAD][0], validation, sentences)
    if (heads or joint is not None) and held_out == "test":
        sentences.insert(0, "No validation loss was logged: the test loss stands in for it.")
    used = {pair[1] for pair in (*heads.values(), *((joint,) if joint is not None else ()))}
    alone = [names[0] for key, names in validation.items() if key not in train and names[0] not in used]  # fmt: skip
    if alone and (heads or joint is not None):
        has, their = ("has", "its") if len(alone) == 1 else ("have", "their")
        sentences.append(f"{listed(alone)} {has} no train loss of {their} own: left out.")
    return _Heads(heads, joint) if heads or joint is not None else None


def _only_auxiliary(
    run: Run, read: Mapping[str, LossName], auxiliary: Mapping[str, str], sentences: list[str]
) -> _Heads | None:
    """The one head that is called like a part of a loss, where no other has both losses: of several none is guessed."""
    if len({read[name].head for name in auxiliary}) != 1:
        return None
    found = _heads(run, {**read, **{n: read[n]._replace(part=False) for n in auxiliary}}, sentences)
    if found is not None:
        sentences.append(
            f"'{said(read[next(iter(auxiliary))].head)}' is called like a part of a loss; it was taken for a head, because no other has both losses."
        )
    return found


def _shared(train: str, validation: _Series, sentences: list[str]) -> dict[str, tuple[str, str]]:
    """Heads of validation losses that have one train loss, which names none of them."""
    heads = {head: (train, names[0]) for (_, head), names in validation.items()}
    if len(heads) > 1:
        sentences.append(
            f"All evaluation losses are compared with the one train loss, '{said(train)}': taken for sets of data; if they are heads of the model, "
            "each needs a train loss of its own."
        )
    else:
        sentences += [_called_differently(*pair) for pair in heads.values()]
    return heads


def _other_loaders(read: Mapping[str, LossName], heads: LossMap) -> list[str]:
    """That a head has validation losses on several sets of data, of which the first counts."""
    taken: set[int] = set()
    left: set[int] = set()
    for pair in heads.heads.values():
        own = read.get(pair.validation)
        if own is None or own.loader is None:
            continue
        same = {
            loss.loader
            for loss in read.values()
            if loss.loader is not None
            and (loss.split, loss.head, loss.part) == (own.split, own.head, own.part)
        }
        if len(same) > 1:
            taken.add(own.loader)
            left |= same - {own.loader}
    if not left:
        return []
    used, others = (
        ", ".join(f"dataloader_idx_{number}" for number in sorted(numbers)[:_LOADERS])
        + (" and more" if len(numbers) > _LOADERS else "")
        for numbers in (taken, left)
    )
    return [
        f"Validation losses were logged on several sets of data: the first ({used}) was taken, the others ({others}) were left out."
    ]


def _by_head(run: Run, read: Mapping[str, LossName], split: str | None) -> _Series:
    """Series of one split."""
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
        sentences.append(_called_differently(*pair))
    return pair


def _called_differently(train: str, validation: str) -> str:
    return f"'{said(train)}' and '{said(validation)}' are called differently; they were taken for one head."


def _demote_parts(train: _Series, validation: _Series, heads: dict[str, tuple[str, str]]) -> None:
    """Make ``av`` a head like others where it is of some modalities alone: of three heads ``a``, ``v`` and ``t``."""
    for key in [key for key in validation if key[0] == "whole" and key in train]:
        names = [*heads, key[1]]
        single = {name for name in names if not parts_of(name, names)}
        made_of = parts_of(key[1], names)
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
        parts = list(weighed(_read(losses)).auxiliary)
        if parts:
            text += f" By their names {listed(parts)} are parts of a loss."
        if empty:
            text += f" No value of {listed(empty)} is finite."
    return " ".join((text, *(said(note, 200) for note in first.notes[:_NOTES])))


def _has_numbers(run: Run, name: str) -> bool:
    return bool(np.isfinite(run.series[name].value).any())
