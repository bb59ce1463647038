"""Doubts that are told of many series in the same words, as one sentence; the record keeps each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmaudit.report.loss_record import LossFlag

__all__ = ["JoinedFlag", "join_flags", "join_texts"]

_QUOTED = re.compile(r"'([^']*)'")
_WITHIN = re.compile(r"\w'\w")
_NAMED = 6


class JoinedFlag(NamedTuple):
    """Flags of one kind whose words differ only in the name of the series."""

    kind: str
    heads: tuple[str, ...]
    """Of all of them; empty where they are of all heads together."""
    text: str


class _Said(NamedTuple):
    """One text, and the names in it."""

    text: str
    head: str | None
    names: tuple[str, ...]


def join_flags(flags: Iterable[LossFlag]) -> tuple[JoinedFlag, ...]:
    """Put flags of the same kind and words into one sentence.

    Args:
        flags: Of a record, in its order.

    Returns:
        One for each kind and wording, at the place of the first of them.

    Example:
        >>> found = [LossFlag(kind="order", text=f"'{name}': points are not in order; they were sorted.") for name in "ab"]
        >>> join_flags(found)[0].text
        "'a': points are not in order; they were sorted; the same of 'b'."
    """
    groups: dict[tuple[str, bool, str], list[_Said]] = {}
    for flag in flags:
        # A name with an apostrophe in it cannot be told from the words around it.
        whole = flag.text.count("'") % 2 or _WITHIN.search(flag.text)
        words = flag.text if whole else _QUOTED.sub("''", flag.text)
        key = flag.kind, flag.unusable, words
        groups.setdefault(key, []).append(_said(flag.text, flag.head))
    joined = []
    for (kind, _, _), said in groups.items():
        for part in _alike(said):
            heads = tuple(dict.fromkeys(one.head for one in part if one.head is not None))
            joined.append(JoinedFlag(kind, heads, _sentence(part)))
    return tuple(joined)


def join_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """The same for sentences without a kind.

    Example:
        >>> join_texts(["2 values of 'a' are left out.", "3 values of 'b' are left out.", "2 values of 'c' are left out."])
        ("2 values of 'a' are left out; the same of 'c'.", "3 values of 'b' are left out.")
    """
    return tuple(
        dict.fromkeys(one.text for one in join_flags(LossFlag(kind="", text=t) for t in texts))
    )


def _said(text: str, head: str | None) -> _Said:
    return _Said(text, head, tuple(_QUOTED.findall(text)))


def _alike(said: Sequence[_Said]) -> list[list[_Said]]:
    """Texts that one sentence can tell: one name differs, and others only where they are the flag's own head."""
    found: list[list[_Said]] = []
    for one in said:
        for part in found:
            if _fits(part[0], one):
                part.append(one)
                break
        else:
            found.append([one])
    return found


def _fits(first: _Said, other: _Said) -> bool:
    pairs = list(zip(first.names, other.names, strict=True))
    differing = [(a, b) for a, b in pairs if a != b]
    named = [(a, b) for a, b in differing if (a, b) != (first.head, other.head)]
    return len(set(named)) <= 1


def _sentence(part: Sequence[_Said]) -> str:
    text = part[0].text
    names = list(dict.fromkeys(_differs(part[0], one) for one in part[1:] if one.text != text))
    if not names:
        return text
    shown = [f"'{name}'" for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED} more")
    told = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{text.removesuffix('.')}; the same of {told}."


def _differs(first: _Said, other: _Said) -> str:
    """The name of the series; that of the head where nothing else differs."""
    differing = [(a, b) for a, b in zip(first.names, other.names, strict=True) if a != b]
    named = [b for a, b in differing if (a, b) != (first.head, other.head)]
    return (named or [b for _, b in differing])[0]
