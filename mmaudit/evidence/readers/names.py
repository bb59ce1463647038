"""Names of series, files and folders, read as words: which split they speak of, and whether of a loss."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
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
    "splits_of",
    "words_in",
]

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(
        ("val", "va", "valid", "validation", "validate", "eval", "evaluation", "dev", "heldout", "holdout"),
        "validation",
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}  # fmt: skip
_PERHAPS_A_SPLIT = "va"
"""Validation beside ``tr``, but also the head of two modalities that are called ``v`` and ``a``."""

LOSS_WORDS = {"loss", "losses", "nll", "ce", "bce", "xent", "mse", "crossentropy", "criterion", "objective"}  # fmt: skip
_NO_LOSSES = {
    "scale", "scaler", "scaling", "weight", "weights", "ratio", "grad", "gradient", "gradnorm", "lr", "best", "min",
    "max", "std", "var", "variance", "coef", "coefficient", "lambda", "count", "time", "vs", "delta", "diff", "gap",
    "change", "ema", "smoothed", "smooth", "ogr", "accuracy",
}  # fmt: skip
PLAIN_WORDS = {
    "step", "epoch", "batch", "iter", "avg", "mean", "average", "clean", "metric", "metrics", "log", "logs", "scalar",
    "scalars", "model", "net", "network", "value", "running", "per", "sample", "samples", "set", "data", "monitor",
    "loop", "end", "curve", "curves", "summary", "phase", "stage", "cross", "entropy", "history",
    "result", "results", "progress", "record", "records",
}  # fmt: skip
_PARTS = {
    "weighted", "scaled", "rescaled", "aux", "auxiliary", "kl", "kld", "kldiv", "reg", "regularization", "regularisation",
    "regularizer", "regulariser", "penalty", "consistency", "commitment", "entropy", "bonus", "sparsity", "smoothness",
    "orthogonality",
}  # fmt: skip
"""Words of losses that are added to another one, or are another one times its weight: no head predicts anything by them."""

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
_LOADER = re.compile(r"[/_. ]dataloader_idx_(\d{1,6})$")


class LossName(NamedTuple):
    """The name of a series, read as that of a loss."""

    split: str | None
    """``train``, ``validation`` or ``test``; ``None`` where it says none."""
    head: str
    """Words that are left over, joined by ``_``; empty where none is."""
    joint: str | None
    """Which kind of loss of all modalities it is; ``None`` where it is of one head."""
    rank: tuple[int, ...]
    """The smaller, the better it stands for its head where several series do."""
    part: bool = False
    """Whether it is a part of a loss, such as a penalty, rather than that of a head."""
    loader: int | None = None
    """Which of several validation sets it is of, as Lightning numbers them; ``None`` where it says none."""


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
    return [split for split in splits_of(words_in(name)) if split is not None]


def splits_of(words: Sequence[str]) -> list[str | None]:
    """The split that each word of one name is; ``va`` is none where another word is one.

    Example:
        >>> splits_of(["va", "loss"]), splits_of(["train", "va", "loss"])
        (['validation', None], ['train', None, None])
    """
    found = [split_of(word) for word in words]
    sure = any(
        s is not None and word.lower() != _PERHAPS_A_SPLIT
        for word, s in zip(words, found, strict=True)
    )
    return [
        None if sure and word.lower() == _PERHAPS_A_SPLIT else s
        for word, s in zip(words, found, strict=True)
    ]


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


def read_name(name: str, *, va_is_validation: bool = True) -> LossName | None:
    """Read the name of a series; ``None`` where it is no loss.

    Args:
        name: As it was logged.
        va_is_validation: Whether ``va`` may be the split, as in ``va_loss``, where no other word is one; else it is a head.

    Example:
        >>> read_name("train/audio_loss")[:3], read_name("valFusionLoss")[:3], read_name("val_acc")
        (('train', 'audio', None), ('validation', 'fusion', 'fusion'), None)
    """
    numbered = _LOADER.search(name)
    if numbered is not None:
        name = name[: numbered.start()]
    parts = [_words(part) for part in re.split(r"[/|]", name[:_LONGEST_NAME])]
    words = [word for part in parts for word in part]
    pairs = set(itertools.pairwise(words))
    if not (set(words) & LOSS_WORDS or ("cross", "entropy") in pairs) or set(words) & _NO_LOSSES:
        return None
    named = {
        word: split
        for word, split in zip(words, splits_of(words), strict=True)
        if split is not None and (va_is_validation or word != _PERHAPS_A_SPLIT)
    }
    split, evaluated = _split(parts, named)
    rest = [w for w in words if w not in named and w not in LOSS_WORDS and w not in PLAIN_WORDS]
    rest = list(dict.fromkeys(rest))
    kinds = {kind for kind, names in JOINT_KINDS if names & set(rest)}
    joint = None
    if not rest:
        joint = "loss"
    elif all(any(w in names for _, names in JOINT_KINDS) for w in rest):
        joint = next(kind for kind, _ in JOINT_KINDS if kind in kinds)
    loader = int(numbered[1]) if numbered is not None else None
    rank = (
        loader or 0,
        not ("clean" in words or evaluated),
        "loss" not in words and "losses" not in words,
        "epoch" not in words,
        "step" in words or "batch" in words,
    )
    return LossName(split, "_".join(rest), joint, rank, _is_part(words), loader)


def _is_part(words: Sequence[str]) -> bool:
    """Whether a loss is a part of another one; the entropy is, the cross entropy is not."""
    found = {
        word
        for before, word in zip(("", *words), words, strict=False)
        if (before, word) != ("cross", "entropy")
    }
    return bool(found & _PARTS)


def _split(parts: Sequence[Sequence[str]], named: Mapping[str, str]) -> tuple[str | None, bool]:
    """The split that a name speaks of, and whether it is the train set in an evaluation.

    Of two, the one nearer to the end is the data: ``train/val_loss`` was logged during the training, on validation data.
    """
    for part in reversed(parts):
        words = [word for word in part if word in named]
        found = [named[word] for word in words]
        if not found:
            continue
        others = {word for word in words if named[word] != "train"}
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
