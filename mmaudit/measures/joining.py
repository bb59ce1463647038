"""Rows of one table beside the rows of another, by sample id, while both are streamed.

Tables of one audit hold the same rows in the same order, up to rows that one of them left out and to the shards of several
processes, which come one after the other. So one chunk of the other table is kept at a time, and it is read again from its
beginning where ids are sought that lie before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.measures.units import unit_keys
from mmaudit.report.tables import read_chunks
from mmaudit.typing import IntArray

__all__ = ["JoinedTable"]

_ROWS = 8_192


class JoinedTable:
    """Looks rows up by sample id.

    Args:
        folder: Of the table; it has ``sample_id``.
        columns: What is looked up: columns of numbers, ``(n,)`` or ``(n, length)``.
    """

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._folder, self._columns = folder, list(columns)
        self._chunks = self._begin()
        self._chunk: dict[str, np.ndarray] | None = None
        self._keys: IntArray = np.empty(0, np.uint64)
        self._order: IntArray = np.empty(0, np.int64)

    def rows(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of some ids.

        Args:
            ids: Shape ``(n,)``, in the order of the table or some of its parts.

        Returns:
            Column -> the rows of these ids, in their order.

        Raises:
            RecordError: If an id has no row.
        """
        wanted = unit_keys(ids, 0)
        todo = np.ones(len(ids), bool)
        found: dict[str, np.ndarray] = {}
        begun_again = False
        while True:
            self._take(wanted, todo, found)
            if not todo.any() and found:
                return found
            self._chunk = next(self._chunks, None)
            if self._chunk is None:
                if begun_again or not len(ids):
                    missing = f"sample {ids[todo][0]}" if len(ids) else "any row"
                    raise RecordError(
                        f"the table in {self._folder} lacks {missing}; it belongs to another audit: audit again"
                    )
                begun_again = True
                self._chunks = self._begin()
                self._chunk = next(self._chunks)
            keys = unit_keys(self._chunk["sample_id"], 0)
            self._order = np.argsort(keys)
            self._keys = keys[self._order]

    def _begin(self) -> Iterator[dict[str, np.ndarray]]:
        return read_chunks(self._folder, ["sample_id", *self._columns], rows=_ROWS)

    def _take(self, wanted: IntArray, todo: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """Fill in what the current chunk has of what is still to be found."""
        if self._chunk is None or not len(self._keys):
            return
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        here = todo & (self._keys[at] == wanted)
        for name in self._columns:
            values = self._chunk[name]
            rows = found.setdefault(name, np.zeros((len(wanted), *values.shape[1:]), values.dtype))
            rows[here] = values[self._order[at[here]]]
        todo &= ~here
