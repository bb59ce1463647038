"""Names of heads that are made of the names of others: ``rgb_flow`` of ``rgb`` and ``flow``, ``atv`` of ``a``, ``t`` and ``v``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mmaudit.evidence.readers.names import JOINT_KINDS

__all__ = ["combination", "parts_of"]

_BETWEEN = {"and", "plus", "with", "x", "n"}
_MOST_PARTS = 12


def combination(names: Sequence[str]) -> str | None:
    """The name that is made of all others, two or more: ``rgb_flow`` of ``rgb`` and ``flow``, ``atv`` of ``a``, ``t``, ``v``.

    Names of some of them together (``at``) count as none of the others.

    Example:
        >>> combination(["rgb", "flow", "rgb_flow"]), combination(["a", "v", "t", "av"])
        ('rgb_flow', None)
    """
    made_of = {name: parts_of(name, names) for name in names}
    single = {name for name in names if not made_of[name]}
    whole = [name for name in names if any(parts == single for parts in made_of[name])]
    return whole[0] if whole and len(names) <= _MOST_PARTS + 1 else None


def parts_of(name: str, names: Sequence[str]) -> list[set[str]]:
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
