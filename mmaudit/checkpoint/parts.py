"""Finds which sub-module each part of a file belongs to, where the file names its parts otherwise than the model.

Trainers of several networks save ``audio_state_dict``, ``video_net`` and the like. A part is taken for the sub-module whose name is
the same apart from such words, else for the only one whose keys and shapes it has. Where that leaves a choice, nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

__all__ = ["Paired", "pair_parts", "part_names"]

_NO_NAMES = frozenset(
    {
        "state",
        "dict",
        "statedict",
        "model",
        "net",
        "network",
        "module",
        "weights",
        "params",
        "encoder",
        "enc",
        "backbone",
        "branch",
    }
)

Variants = Callable[[dict[str, Tensor]], list[tuple[str, dict[str, Tensor]]]]


class Paired(NamedTuple):
    """Tensors under the model's names, part -> sub-module where they differ, and how that was found, in words."""

    tensors: dict[str, Tensor]
    names: dict[str, str]
    how: str


def part_names(keys: Iterable[str]) -> list[str]:
    """What stands before the first dot, once each.

    Example:
        >>> part_names(["audio.weight", "audio.bias", "head.weight"])
        ['audio', 'head']
    """
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))


def pair_parts(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], variants: Variants
) -> Paired | None:
    """Pair the parts of a file with the sub-modules of a model.

    Args:
        tensors: The file's, by key.
        target: The model's, by key.
        variants: The keys of one part without wrappers, as ``(words, tensors)``.

    Returns:
        ``None`` where the names are the same already, or the parts leave a choice or do not fit.
    """
    parts, children = _grouped(tensors), _grouped(target)
    if len(parts) < 2 or len(parts) != len(children) or set(parts) == set(children):
        return None
    fitting: dict[str, dict[str, dict[str, Tensor]]] = {}
    for part, inside in parts.items():
        forms = [inside, *(form for _, form in variants(inside))]
        fitting[part] = {}
        for child, wanted in children.items():
            form = next((form for form in forms if _fits(form, wanted)), None)
            if form is not None:
                fitting[part][child] = form
    pairs = _by_name(parts, children)
    if any(child not in fitting[part] for part, child in pairs.items()):
        return None
    named = len(pairs) == len(parts)
    pairs = _by_elimination(pairs, fitting)
    if len(pairs) < len(parts):
        return None
    found = {
        f"{child}.{key}" if key else child: tensor
        for part, child in pairs.items()
        for key, tensor in fitting[part][child].items()
    }
    renamed = {part: child for part, child in pairs.items() if part != child}
    return Paired(found, renamed, "" if named else ", by their keys and shapes")


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, inside = key.partition(".")
        groups.setdefault(part, {})[inside] = tensor
    return groups


def _fits(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return set(tensors) == set(wanted) and all(
        isinstance(value, Tensor) and tensors[key].shape == value.shape
        for key, value in wanted.items()
    )


def _by_name(parts: Iterable[str], children: Iterable[str]) -> dict[str, str]:
    """Parts and sub-modules with the same words in their names, each side once."""
    stems: dict[frozenset[str], tuple[list[str], list[str]]] = {}
    for side, names in enumerate((parts, children)):
        for name in names:
            words = frozenset(re.split(r"[^a-z0-9]+", name.lower())) - _NO_NAMES - {""}
            stems.setdefault(words, ([], []))[side].append(name)
    return {
        ours[0]: theirs[0]
        for words, (ours, theirs) in stems.items()
        if words and len(ours) == len(theirs) == 1
    }


def _by_elimination(
    pairs: dict[str, str], fitting: Mapping[str, Mapping[str, object]]
) -> dict[str, str]:
    """The pairs, and those that follow because a part fits one free sub-module alone."""
    pairs = dict(pairs)
    while True:
        free = {
            part: [child for child in fits if child not in pairs.values()]
            for part, fits in fitting.items()
            if part not in pairs
        }
        single = next((part for part, left in free.items() if len(left) == 1), None)
        if single is None:
            return pairs
        pairs[single] = free[single][0]
