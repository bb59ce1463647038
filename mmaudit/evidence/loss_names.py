"""From the names of series to a map of heads: what people call their losses, read as words. A guess is always told."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmaudit.evidence.loss_map import JOINT, HeadMap, LossMap
from mmaudit.evidence.readers.base import Columns, Run, counted, listed, said
from mmaudit.evidence.readers.joining import split_of
from mmaudit.exceptions import LogError

__all__ = ["Guess", "LossName", "guess_map", "of_test_set", "read_name"]

_LOSSES = {"loss", "losses", "nll", "ce", "bce", "xent", "mse", "crossentropy", "criterion", "objective"}  # fmt: skip
_NO_LOSSES = {
    "scale", "scaler", "scaling", "weight", "weights", "ratio", "grad", "gradient", "gradnorm", "lr", "best", "min",
    "max", "std", "var", "variance", "coef", "coefficient", "lambda", "count", "time", "vs", "delta", "diff", "gap",
    "change", "ema", "smoothed", "smooth", "ogr", "acc", "accuracy",
}  # fmt: skip
_EVERY = {
    "step", "epoch", "batch", "iter", "avg", "mean", "average", "clean", "metric", "metrics", "log", "logs", "scalar",
    "scalars", "model", "net", "network", "value", "running", "per", "sample", "samples", "set", "data", "monitor",
    "loop", "end", "curve", "curves", "summary", "phase", "stage", "cross", "entropy", "history",
}  # fmt: skip
_KINDS: tuple[tuple[str, set[str]], ...] = (
    ("fusion", {"joint", "fusion", "fused", "fuse", "multimodal", "multi", "modal", "concat"}),
    ("whole", {"av", "mm", "main", "mix", "mixed"}),
    ("loss", set()),
    ("total", {"total", "all", "overall", "combined", "full", "sum", "summed"}),
)
"""What a loss of all modalities is called, the surest first; a total is most often a sum of several losses."""

_WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_CASES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LONGEST_NAME = 200


class LossName(NamedTuple):
    """The name of a series, read as that of a loss."""

    split: str | None
    """``train``, ``validation`` or ``test``; ``None`` where it says none."""
    head: str
    """Words that are left over, joined by ``_``; empty where none is."""
    joint: str | None
    """Which kind of loss of all modalities it is; ``None`` where it is of one head."""
    rank: tuple[bool, ...]
    """The smaller, the better it stands for its head where several series do."""


class Guess(NamedTuple):
    """A map that was found by the names of the series."""

    map: LossMap
    sentences: tuple[str, ...]
    """What was taken for what, and what was left out."""


def read_name(name: str) -> LossName | None:
    """Read the name of a series; ``None`` where it is no loss.

    Example:
        >>> read_name("train/audio_loss")[:3], read_name("valFusionLoss")[:3], read_name("val_acc")
        (('train', 'audio', None), ('validation', 'fusion', 'fusion'), None)
    """
    parts = [_words(part) for part in re.split(r"[/|]", name[:_LONGEST_NAME])]
    words = [word for part in parts for word in part]
    pairs = set(itertools.pairwise(words))
    if not (set(words) & _LOSSES or ("cross", "entropy") in pairs) or set(words) & _NO_LOSSES:
        return None
    split, evaluated = _split(parts)
    rest = [w for w in words if split_of(w) is None and w not in _LOSSES and w not in _EVERY]
    rest = list(dict.fromkeys(rest))
    kinds = {kind for kind, names in _KINDS if names & set(rest)}
    joint = None
    if not rest:
        joint = "loss"
    elif all(any(w in names for _, names in _KINDS) for w in rest):
        joint = next(kind for kind, _ in _KINDS if kind in kinds)
    rank = (
        not ("clean" in words or evaluated),
        "loss" not in words and "losses" not in words,
        "epoch" not in words,
        "step" in words or "batch" in words,
    )
    return LossName(split, "_".join(rest), joint, rank)


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
        raise LogError(
            f"no head with a train and a validation loss was recognised among the series ({listed(list(runs[0].series), 12) or 'none'}); "
            "name them in a map: heads: {joint: {train: NAME, validation: NAME}}."
        )

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
    joint = _joint_pair(train, validation, sentences)
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
    kinds = [kind for kind, _ in _KINDS]

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


def _has_numbers(run: Run, name: str) -> bool:
    return bool(np.isfinite(run.series[name].value).any())


def _split(parts: Sequence[Sequence[str]]) -> tuple[str | None, bool]:
    """The split that a name speaks of, and whether it is the train set in an evaluation.

    Of two, the one nearer to the end is the data: ``train/val_loss`` was logged during the training, on validation data.
    """
    for part in reversed(parts):
        words = [word for word in part if split_of(word) is not None]
        found = [split_of(word) for word in words]
        if not found:
            continue
        others = {word for word in words if split_of(word) != "train"}
        if "train" in found and others and others <= {"eval", "evaluation"}:
            return "train", True
        return found[-1], False
    return None, False


def _words(text: str) -> list[str]:
    """Words of a name in lower case; 'valloss' and 'TrainLoss' are two."""
    found = []
    for word in _WORDS.findall(_CASES.sub("_", text)):
        lower = word.lower()
        glued = re.fullmatch(r"(.+)loss|loss(\d+)", lower)
        if glued is None:
            found.append(lower)
        else:
            found += [glued[1], "loss"] if glued[1] else ["loss", glued[2]]
    return found
