"""JSON documents that are a mapping of numbered points: of each series, as pandas writes a table, or of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmaudit.evidence.readers.base import Kind, known_column
from mmaudit.evidence.readers.names import read_name

__all__ = ["rows_by_index"]

_INDEX = re.compile(r"(?P<clock>[a-z_]*?)[ _-]*(?P<number>\d{1,15})(?:\.0+)?", re.IGNORECASE)
_DEEPEST = 8


class _Leaf(NamedTuple):
    """A value of a document."""

    name: str
    """The keys above it without the number, with slashes."""
    numbers: list[tuple[Kind | None, int]]
    """Keys above it that are the number of a point, and what they count."""
    value: Any


def rows_by_index(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a document whose values lie below a key that is the number of their point.

    ``{"train_loss": {"0": 2.3, "1": 1.9}, ...}``, as ``DataFrame.to_json`` writes it, and ``{"0": {"train_loss": 2.3, ...}, "1": ...}`` are
    the same rows, as are those below ``"epoch_0"``, ``"epoch_1"``.

    Args:
        document: Nested mappings.

    Returns:
        Rows in the order of their numbers, flat; each with its number as an epoch, or as a step where numbers leave places out, if they
        have neither. None where values do not lie below one number each, or losses are lists.

    Example:
        >>> rows_by_index({"loss": {"1": 0.5, "2": 0.4}})
        [{'epoch': 1, 'loss': 0.5}, {'epoch': 2, 'loss': 0.4}]
    """
    rows: dict[int, dict[str, Any]] = {}
    kinds: set[Kind | None] = set()
    for leaf in _leaves(document, [], [], 0):
        if isinstance(leaf.value, list):
            if read_name(leaf.name) is not None:
                return []
            continue
        if not leaf.numbers:
            continue  # such as a configuration beside the history
        if len(leaf.numbers) > 1 or not leaf.name:
            return []
        ((kind, number),) = leaf.numbers
        kinds.add(kind)
        rows.setdefault(number, {})[leaf.name] = leaf.value
    if len(kinds) != 1:
        return []
    names = {name for row in rows.values() for name in row}
    ordered = sorted(rows)
    if any(known_column(name) in ("step", "epoch") for name in names):
        return [rows[number] for number in ordered]
    without_gaps = ordered[-1] - ordered[0] == len(ordered) - 1
    clock = kinds.pop() or ("epoch" if without_gaps else "step")
    return [{clock: number, **rows[number]} for number in ordered]


def _leaves(
    value: Any, above: list[str], numbers: list[tuple[Kind | None, int]], depth: int
) -> Iterator[_Leaf]:
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        yield _Leaf("/".join(above), numbers, value)
        return
    for key, item in value.items():
        number = _number(key)
        if number is None:
            yield from _leaves(item, [*above, key], numbers, depth + 1)
        else:
            yield from _leaves(item, above, [*numbers, number], depth + 1)


def _number(key: str) -> tuple[Kind | None, int] | None:
    """What a key counts, and its number; ``None`` where it is a name, as ``seed0`` is."""
    found = _INDEX.fullmatch(key.strip())
    if found is None:
        return None
    kind = known_column(found["clock"])
    named = kind in ("step", "epoch") or not found["clock"]
    return (kind, int(found["number"])) if named else None
