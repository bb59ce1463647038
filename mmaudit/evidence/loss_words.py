"""What the words of a loss's name say of its head: which of them name none, and which say that it is a part of another loss.

A name is read twice. :func:`~mmaudit.evidence.readers.names.read_name` finds the split and the words that are left over; here those words
are weighed against the other losses of the same run, as ``audio_cls`` is the loss of a head only where there is no plainer ``audio``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mmaudit.evidence.readers.names import JOINT_KINDS, LossName, read_name, words_in

__all__ = ["Weighed", "derived_losses", "weighed", "without_unit"]

_ADDED = {
    "contrastive", "infonce", "nce", "ntxent", "itc", "itm", "mlm", "mim", "triplet", "similarity", "distill", "distillation",
    "distilled", "kd", "align", "aligned", "alignment", "mmd", "coral", "hsic", "consistent", "orthogonal", "ortho",
    "decorrelation", "redundancy", "diversity", "vicreg", "codebook", "vq", "adversarial", "adv", "discriminator", "gan",
    "perceptual", "regularize", "regularise", "regularized", "regularised", "cardinality", "bbox", "giou", "objectness", "dfl",
}  # fmt: skip
"""Words of losses that are added to that of a head, or relate heads to each other. Of a name with one of them nothing else counts."""

_TASKS = ("cls", "clf", "classify", "classifier", "classification", "recon", "reconstruct", "reconstruction")  # fmt: skip
"""Words of what a loss is about, those of a prediction first: with the name of a modality it is that head's, alone it is a part."""

_COPIES = {"unscaled", "unweighted", "unnormalized", "unnormalised"}
"""Words of a loss that is logged beside another one, times a factor."""

_FILLERS = {"main", "head", "heads", "branch", "output", "outputs", "logits", "uni", "unimodal"}
"""Words that say that there is a head, but not which."""

_STAGES = {"early", "mid", "late", "hybrid"}
"""Where a fusion takes place; fillers beside that word, and else perhaps the name of a modality."""

_WHOLE = {"ensemble", "ensembled"}
_DERIVED = {"best", "min", "max", "smoothed", "smooth", "ema"}
_UNITS = {"nat", "nats", "bit", "bits", "db", "percent", "log", "au", "1"}

_BRACKETS = re.compile(r"\s*(?:\[([^\[\]]{0,20})\]|\(([^()]{0,20})\))")


class Weighed(NamedTuple):
    """Losses of a run, each weighed against the others."""

    losses: dict[str, LossName]
    """Name of the series -> what it is; those that count for no head are parts."""
    auxiliary: dict[str, str]
    """Name -> the word by which it was taken for a part; only those that could be heads if there were no others."""


def without_unit(name: str) -> str:
    """A name without units in brackets; brackets that may hold the name of a head stay.

    Example:
        >>> without_unit("train_loss [nats]"), without_unit("loss (kcal/mol)"), without_unit("loss[audio]")
        ('train_loss', 'loss', 'loss[audio]')
    """

    def kept(found: re.Match[str]) -> str:
        inside = (found[1] or found[2] or "").strip().lower()
        words = set(re.findall(r"\w+", inside.replace(".", "")))
        is_unit = words <= _UNITS or bool(re.search(r"[%/^²³·]", inside))
        return "" if is_unit else found[0]

    return _BRACKETS.sub(kept, name)


def derived_losses(names: Iterable[str]) -> list[str]:
    """The series that are made of a loss: the best so far, the smallest, a smoothed one. No checkpoint was measured by them.

    Example:
        >>> derived_losses(["val_loss", "best_val_loss", "loss_scale", "train_loss_smoothed", "best_epoch"])
        ['best_val_loss', 'train_loss_smoothed']
    """
    found = []
    for name in names:
        words = words_in(name)
        rest = [word for word in words if word.lower() not in _DERIVED]
        if len(rest) < len(words) and read_name("_".join(rest)) is not None:
            found.append(name)
    return found


class _Shape(NamedTuple):
    """A name of a head, taken apart."""

    head: str
    variant: tuple[str, ...]
    """Words about how the loss was logged, or what it is about."""
    fillers: bool


def weighed(losses: Mapping[str, LossName]) -> Weighed:
    """Weigh the losses of a run against each other.

    The rules, the surest first:

    - a word of a loss that is added to others (``contrastive``, ``distill``, ``align``, ...) makes the loss a part, whatever
      stands beside it;
    - one of what a loss is about (``cls``, ``recon``, ...) makes it a part where it is alone; with the name of a head it is the loss
      of that head, unless the head has a plainer one with both splits;
    - a copy (``audio_unscaled``) is a part beside that of which it is one;
    - ``main``, ``head``, ``output`` and the like are no part of a head's name, unless two heads would get one name.

    Args:
        losses: Series -> its name as it was read.

    Example:
        >>> names = ("train_audio_cls_loss", "train_audio_contrastive_loss", "train_fusion_output_loss")
        >>> found = weighed({name: read for name in names if (read := read_name(name)) is not None})
        >>> [(loss.head, loss.joint, loss.part) for loss in found.losses.values()]
        [('audio', None, False), ('audio_contrastive', None, True), ('fusion', 'fusion', False)]
        >>> found.auxiliary
        {'train_audio_contrastive_loss': 'contrastive'}
    """
    found = dict(losses)
    auxiliary: dict[str, str] = {}
    shapes: dict[str, _Shape] = {}
    for name, loss in losses.items():
        if loss.part:
            continue
        word = _auxiliary_word(loss.head)
        if word is not None:
            auxiliary[name] = word
            found[name] = loss._replace(part=True)
        else:
            shapes[name] = _shape(loss.head)
    shapes = _told_apart(shapes, losses)
    for name, shape in shapes.items():
        loss = losses[name]
        if shape.variant or shape.head != loss.head or shape.head in _WHOLE:
            rank = (*loss.rank[:1], _variant_rank(shape.variant), *loss.rank[1:])
            found[name] = loss._replace(head=shape.head, joint=_kind(shape.head), rank=rank)
        else:
            found[name] = loss._replace(rank=(*loss.rank[:1], 0, *loss.rank[1:]))
    for name in _beside_plainer_ones(shapes, losses):
        found[name] = found[name]._replace(part=True)
    return Weighed(found, auxiliary)


def _auxiliary_word(head: str) -> str | None:
    """The word by which a loss is a part of another one."""
    words = head.split("_")
    added = next((word for word in words if word in _ADDED), None)
    if added is not None:
        return added
    rest = [word for word in words if word not in _TASKS and word not in _FILLERS | _COPIES]
    return None if rest else next((word for word in words if word in _TASKS), None)


def _shape(head: str) -> _Shape:
    words = head.split("_")
    variant = tuple(word for word in words if word in _COPIES or word in _TASKS)
    kept = [word for word in words if word not in variant]
    fillers = _FILLERS | _STAGES if "fusion" in words else _FILLERS
    plain = [word for word in kept if word not in fillers]
    # 'head_1' is a name, '1' is none; and 'main' alone is the joint head.
    strips = len(plain) < len(kept) and any(not word.isdigit() for word in plain)
    if strips and _kind("_".join(kept)) is None:
        kept = plain
    else:
        strips = False
    return _Shape("_".join(kept), variant, strips)


def _told_apart(shapes: Mapping[str, _Shape], losses: Mapping[str, LossName]) -> dict[str, _Shape]:
    """Heads keep their whole names where one without its fillers is another one's, too: ``uni_audio`` beside ``audio``."""
    full: dict[str, set[str]] = {}
    for name, shape in shapes.items():
        words = losses[name].head.split("_")
        whole = "_".join(word for word in words if word not in shape.variant)
        full.setdefault(shape.head, set()).add(whole)
    return {
        name: shape._replace(
            head="_".join(w for w in losses[name].head.split("_") if w not in shape.variant)
        )
        if shape.fillers and len(full[shape.head]) > 1
        else shape
        for name, shape in shapes.items()
    }


def _beside_plainer_ones(shapes: Mapping[str, _Shape], losses: Mapping[str, LossName]) -> list[str]:
    """Losses of heads that have a plainer one with both splits."""
    splits: dict[str, dict[tuple[str, ...], set[bool]]] = {}
    for name, shape in shapes.items():
        variants = splits.setdefault(shape.head, {})
        variants.setdefault(shape.variant, set()).add(losses[name].split in ("train", None))
    best = {
        head: min(
            (v for v, found in variants.items() if len(found) == 2), key=_variant_rank, default=None
        )
        for head, variants in splits.items()
    }
    return [
        name
        for name, shape in shapes.items()
        if best[shape.head] is not None and shape.variant != best[shape.head]
    ]


def _variant_rank(variant: tuple[str, ...]) -> int:
    """How far a loss is from the plain one of its head, the plain one 0."""
    tasks = [_TASKS.index(word) + 1 for word in variant if word in _TASKS]
    copies = sum(word in _COPIES for word in variant)
    return sum(tasks) + (len(_TASKS) + 1) * copies


def _kind(head: str) -> str | None:
    """Which kind of loss of all modalities a head is; ``None`` where it is of one."""
    words = {word for word in head.split("_") if word}
    if not words:
        return "loss"
    if not words <= _WHOLE.union(*(names for _, names in JOINT_KINDS)):
        return None
    return next((kind for kind, names in JOINT_KINDS if names & words), "whole")
