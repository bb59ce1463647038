"""Names of series, files and folders, read as words: which split they speak of, and whether of a loss."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "JOINT_KINDS",
    "LOSS_WORDS",
    "PLAIN_WORDS",
    "LossName",
    "is_about_a_run",
    "names_a_run",
    "read_name",
    "split_of",
    "splits_in",
    "words_in",
]

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "eval", "evaluation", "dev", "heldout", "holdout"),
        "validation",
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}  # fmt: skip
LOSS_WORDS = {"loss", "losses", "nll", "ce", "bce", "xent", "mse", "crossentropy", "criterion", "objective"}  # fmt: skip
_NO_LOSSES = {
    "scale", "scaler", "scaling", "weight", "weights", "ratio", "grad", "gradient", "gradnorm", "lr", "best", "min",
    "max", "std", "var", "variance", "coef", "coefficient", "lambda", "count", "time", "vs", "delta", "diff", "gap",
    "change", "ema", "smoothed", "smooth", "ogr", "acc", "accuracy",
}  # fmt: skip
PLAIN_WORDS = {
    "step", "epoch", "batch", "iter", "avg", "mean", "average", "clean", "metric", "metrics", "log", "logs", "scalar",
    "scalars", "model", "net", "network", "value", "running", "per", "sample", "samples", "set", "data", "monitor",
    "loop", "end", "curve", "curves", "summary", "phase", "stage", "cross", "entropy", "history",
    "result", "results", "progress", "record", "records",
}  # fmt: skip
JOINT_KINDS: tuple[tuple[str, set[str]], ...] = (
    ("fusion", {"joint", "fusion", "fused", "fuse", "multimodal", "multi", "modal", "concat"}),
    (
        "whole",
        {
            "av",
            "mm",
            "main",
            "mix",
            "mixed",
            "audiovisual",
            "bimodal",
            "trimodal",
            "both",
            "modalities",
        },
    ),
    ("loss", set()),
    ("total", {"total", "all", "overall", "combined", "full", "sum", "summed"}),
)
"""What a loss of all modalities is called, the surest first; a total is most often a sum of several losses."""

_WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_CASES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_RUN_WORDS = {"run", "seed", "fold", "trial", "exp", "experiment", "version", "repeat", "rep", "id"}
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


def split_of(word: str) -> str | None:
    """The split that a word names: ``train``, ``validation`` or ``test``.

    Example:
        >>> split_of("val"), split_of("audio")
        ('validation', None)
    """
    return _SPLITS.get(word.lower())


def words_in(name: str) -> list[str]:
    """The words of a name, as they are written.

    Example:
        >>> words_in("seed0_trainLoss")
        ['seed0', 'train', 'Loss']
    """
    return _WORDS.findall(_CASES.sub("_", name[:_LONGEST_NAME]))


def splits_in(name: str) -> list[str]:
    """The splits that the words of a name are, in their order.

    Example:
        >>> splits_in("seed0_train"), splits_in("audio")
        (['train'], [])
    """
    found = [split_of(word) for word in words_in(name)]
    return [split for split in found if split is not None]


def is_about_a_run(word: str) -> bool:
    """Whether a word tells runs apart: it says so, or has a digit.

    Example:
        >>> is_about_a_run("seed3"), is_about_a_run("audio")
        (True, False)
    """
    return word.lower() in _RUN_WORDS or any(letter.isdigit() for letter in word)


def names_a_run(name: str) -> bool:
    """Whether a name is that of a run: its words tell runs apart, or say nothing, and do not speak of a loss.

    Example:
        >>> names_a_run("seed_3"), names_a_run("audio")
        (True, False)
    """
    words = [word for word in words_in(name) if word.lower() not in PLAIN_WORDS]
    return bool(words) and all(is_about_a_run(word) for word in words)


def read_name(name: str) -> LossName | None:
    """Read the name of a series; ``None`` where it is no loss.

    Example:
        >>> read_name("train/audio_loss")[:3], read_name("valFusionLoss")[:3], read_name("val_acc")
        (('train', 'audio', None), ('validation', 'fusion', 'fusion'), None)
    """
    parts = [_words(part) for part in re.split(r"[/|]", name[:_LONGEST_NAME])]
    words = [word for part in parts for word in part]
    pairs = set(itertools.pairwise(words))
    if not (set(words) & LOSS_WORDS or ("cross", "entropy") in pairs) or set(words) & _NO_LOSSES:
        return None
    split, evaluated = _split(parts)
    rest = [
        w for w in words if split_of(w) is None and w not in LOSS_WORDS and w not in PLAIN_WORDS
    ]
    rest = list(dict.fromkeys(rest))
    kinds = {kind for kind, names in JOINT_KINDS if names & set(rest)}
    joint = None
    if not rest:
        joint = "loss"
    elif all(any(w in names for _, names in JOINT_KINDS) for w in rest):
        joint = next(kind for kind, _ in JOINT_KINDS if kind in kinds)
    rank = (
        not ("clean" in words or evaluated),
        "loss" not in words and "losses" not in words,
        "epoch" not in words,
        "step" in words or "batch" in words,
    )
    return LossName(split, "_".join(rest), joint, rank)


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
