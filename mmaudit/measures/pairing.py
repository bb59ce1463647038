"""Two coalition tables of the same samples, read side by side: equal units, equal samples in each of them.

Samples are matched by id, never by position: the tables may have been written in another order, by another number of
processes, with the modalities in another order. A sample that one table lacks, or whose values are not finite in one of them,
is in neither of the sums.

Memory: the sums of both tables (see :mod:`mmaudit.measures.resampling`) and about 60 MB for matching, whatever the number of
samples: where more do not fit, the samples are matched in parts by a hash of their ids, and the tables are read once for
each part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmaudit.exceptions import RecordError
from mmaudit.measures.resampling import (
    MOST_UNITS,
    UnitSums,
    check_chunk,
    class_coalitions,
    finite_rows,
    limits,
)
from mmaudit.measures.table_rows import value_columns
from mmaudit.measures.target_spread import Spreads, target_spreads
from mmaudit.measures.units import distinct_keys, place_units, unit_keys
from mmaudit.report.tables import read_chunks
from mmaudit.typing import IntArray, TaskName

__all__ = ["PairedSums", "Table", "pair_tables"]

_PART_BYTES = 64 * 2**20
_SAMPLE_BYTES = 80
"""What matching keeps of a sample besides its answers, with the copies made while it is sorted."""
_SAME = 1e-9
_OVER_COALITIONS = ("correct", "loglik")
"""Columns with an entry for each coalition; the other lists have one for each modality."""

_Chunk = dict[str, np.ndarray]


class Table(NamedTuple):
    """A coalition table and what its columns mean."""

    folder: Path
    modalities: tuple[str, ...]
    """Names in the order of the table's bits."""
    samples: int
    """About how many rows it has."""


@dataclass
class PairedSums:
    """Sums of two tables over the same units of the same samples; modalities in the order of the first table.

    Args:
        before: Sums of the first table.
        after: Sums of the second.
        discordant: Samples with a one in the second table alone (0) and in the first alone (1), shape ``(2, K, C)``. The C
            columns are whether each of ``class_coalitions(M)`` is correct, then for the rules ``exact`` and ``zero`` whether
            the response of each modality is. Zeros in a regression, where nothing is correct or not.
        uneven: Whether a response of the class counts as partly correct somewhere, because classes tie, shape ``(K, C)``.
        only_before: Rows that only the first table has.
        only_after: Rows that only the second has.
        not_finite: Samples of both that are left out because a value is not finite.
    """

    before: UnitSums
    after: UnitSums
    discordant: IntArray
    uneven: np.ndarray
    only_before: int = 0
    only_after: int = 0
    not_finite: int = 0

    @property
    def whole(self) -> bool:
        """Whether every row of both tables that an audit alone would use is in the sums."""
        return not (self.only_before or self.only_after or self.not_finite)

    @property
    def same(self) -> bool:
        """Whether the two models answer every sample alike, whatever is masked, to nine digits."""
        if self.discordant.any():
            return False
        scale = self.before.scale(self.before.scores[1], None)
        pairs = [(self.before.loglik() / scale, self.after.loglik() / scale)]
        for empty in ("exact", "zero"):
            for quantity, order in (("score", 1.0), ("loglik", scale)):
                found = [
                    side.responses(quantity, empty, None) / order
                    for side in (self.before, self.after)
                ]
                pairs.append((found[0], found[1]))
        return all(np.allclose(a, b, rtol=_SAME, atol=_SAME) for a, b in pairs)


def pair_tables(
    before: Table,
    after: Table,
    *,
    classes: tuple[str, ...],
    grouped: bool,
    seed: int,
    replicates: int = 2000,
    task: TaskName = "multiclass",
    most_units: int = MOST_UNITS,
    part_bytes: int = _PART_BYTES,
) -> PairedSums:
    """Sum two tables over the same units.

    Args:
        before: The first table.
        after: The second; its modalities are the same, perhaps in another order.
        classes: Names of all classes of both.
        grouped: Whether to resample the ``group`` column instead of samples.
        seed: Of the blocks and of the bootstrap.
        replicates: Bootstrap replicates, at least 100.
        task: What the models predict.
        most_units: Beyond so many samples or groups, blocks are resampled.
        part_bytes: Memory for matching.

    Returns:
        The sums.

    Raises:
        RecordError: If a table is missing or damaged, ids are not unique, a sample has another target, group or set of
            modalities in the other table, or no sample is in both with finite values.
    """
    if replicates < 100:
        raise RecordError(f"expected at least 100 bootstrap replicates, got {replicates}")
    M, K = len(before.modalities), len(classes)
    most = limits(M, K, most_units, task)
    stop_at = None if grouped else max(most.units, most.class_units)
    known = distinct_keys(before.folder, "group" if grouped else "sample_id", seed, stop_at=stop_at)
    if not len(known):
        raise RecordError(f"the table in {before.folder} has no rows; there is nothing to compare")

    columns = len(class_coalitions(M)) + 2 * M
    parts = 1 + max(before.samples, after.samples) * (_SAMPLE_BYTES + columns // 8) // part_bytes

    def matched(pairs: PairedSums | None) -> Iterator[tuple[_Reader, _Rows]]:
        for part in range(parts):
            reader = _Reader(M, K, grouped, seed, task, most.rows, part, parts)
            rows = _Rows(reader, before, known, most.units, most.class_units)
            _add_after(pairs, rows, reader, after, before.modalities)
            yield reader, rows

    spreads = _spreads(matched(None), M, K) if task == "regression" else None

    def empty_sums() -> UnitSums:
        return UnitSums(
            modalities=before.modalities,
            classes=classes,
            grouped=grouped,
            seed=seed,
            replicates=replicates,
            units=min(most.units, len(known)),
            class_units=min(most.class_units, len(known)),
            task=task,
            spreads=spreads,
        )

    pairs = PairedSums(
        before=empty_sums(),
        after=empty_sums(),
        discordant=np.zeros((2, K, columns), np.int64),
        uneven=np.zeros((K, columns), bool),
    )
    with_groups = np.zeros(len(known) if grouped else 0, bool)
    for reader, rows in matched(pairs):
        for keys, chunk in reader.chunks(before):
            at = np.searchsorted(rows.key, keys)
            used = rows.used[at]
            at, chunk = at[used], _only(chunk, used)
            pairs.before.add(chunk, rows.unit[at], rows.class_unit[at])
            np.logical_or.at(pairs.uneven, chunk["target"], reader.partly(chunk))
        if grouped:
            with_groups[np.searchsorted(known, rows.group[rows.used])] = True
    if not pairs.before.samples:
        raise RecordError(
            f"the tables in {before.folder} and {after.folder} share no sample with finite values: nothing can be compared"
        )
    if grouped:
        pairs.before.groups = pairs.after.groups = int(with_groups.sum())
    return pairs


def _spreads(matched: Iterator[tuple[_Reader, _Rows]], M: int, K: int) -> Spreads:
    """How far the targets of the rows spread that both tables have."""
    parts = (
        {"target": r.target[r.used], "truth": r.truth[r.used], "present": r.present[r.used]}
        for _, r in matched
    )
    return target_spreads(parts, M, K)


class _Reader(NamedTuple):
    """Reads the rows of one part of the samples."""

    M: int
    K: int
    grouped: bool
    seed: int
    task: TaskName
    rows: int
    part: int
    parts: int

    def chunks(
        self, table: Table, order: tuple[str, ...] | None = None
    ) -> Iterator[tuple[IntArray, _Chunk]]:
        """Keys of the samples and their rows; the modalities are put in another order if one is given."""
        columns = value_columns(self.task)
        if self.task == "multilabel":
            columns = (*columns, "truth")
        columns = (*columns, "group") if self.grouped else columns
        for chunk in read_chunks(table.folder, columns, rows=self.rows):
            check_chunk(chunk, self.M, self.K)
            keys = unit_keys(chunk["sample_id"], self.seed)
            if self.parts > 1:
                mine = keys % np.uint64(self.parts) == self.part
                keys, chunk = keys[mine], _only(chunk, mine)
            if order is not None and order != table.modalities:
                chunk = _reordered(chunk, table.modalities, order)
            yield keys, chunk

    def group_keys(self, chunk: _Chunk) -> IntArray:
        """Keys of the groups; zeros where samples are not grouped."""
        if not self.grouped:
            return np.zeros(len(chunk["target"]), np.uint64)
        lacking = np.array([group is None for group in chunk["group"]], bool)
        if lacking.any():
            raise RecordError(
                f"sample {chunk['sample_id'][lacking][0]} has a group in one record alone; audit both with the same groups"
            )
        return unit_keys(chunk["group"], self.seed)

    def truth(self, chunk: _Chunk) -> np.ndarray:
        """What is judged by beside the class cell; zeros where the cell says it all."""
        return chunk["truth"] if "truth" in chunk else np.zeros(len(chunk["target"]), np.int8)

    def ones(self, chunk: _Chunk) -> np.ndarray:
        """Whether a row counts as wholly correct, columns as in ``PairedSums.discordant``."""
        if self.task == "regression":
            return np.zeros(
                (len(chunk["target"]), len(class_coalitions(self.M)) + 2 * self.M), bool
            )
        has = (chunk["present"][:, None] >> np.arange(self.M) & 1).astype(bool)
        scores = [
            (chunk[f"response_score_{empty}"] >= 1 - 1e-6) & has for empty in ("exact", "zero")
        ]
        return np.hstack([chunk["correct"][:, class_coalitions(self.M)] > 0, *scores])

    def partly(self, chunk: _Chunk) -> np.ndarray:
        """Whether a row counts as partly correct, columns as in ``PairedSums.discordant``."""
        whole = np.zeros((len(chunk["target"]), len(class_coalitions(self.M))), bool)
        if self.task == "regression":
            return np.hstack([whole, np.zeros((len(whole), 2 * self.M), bool)])
        has = (chunk["present"][:, None] >> np.arange(self.M) & 1).astype(bool)
        partly = []
        for empty in ("exact", "zero"):
            score = chunk[f"response_score_{empty}"]
            partly.append((score > 1e-6) & (score < 1 - 1e-6) & has)
        return np.hstack([whole, *partly])


class _Rows:
    """What matching keeps of the first table: one entry for each sample, sorted by key."""

    def __init__(
        self, reader: _Reader, table: Table, known: IntArray, units: int, class_units: int
    ) -> None:
        found: list[tuple[np.ndarray, ...]] = []
        for keys, chunk in reader.chunks(table):
            found.append(
                (
                    keys,
                    chunk["target"],
                    chunk["present"],
                    reader.group_keys(chunk),
                    reader.truth(chunk),
                    finite_rows(chunk, reader.M),
                    np.packbits(reader.ones(chunk), axis=1),
                )
            )
        parts = [np.concatenate(column) for column in zip(*found, strict=True)]
        order = np.argsort(parts[0], kind="stable")
        self.key, self.target, self.present, self.group, self.truth, self.finite, self.ones = (
            column[order] for column in parts
        )
        if (self.key[1:] == self.key[:-1]).any():
            raise RecordError(_not_unique(table))
        owner = self.group if reader.grouped else self.key
        self.unit = place_units(owner, known, units).astype(np.int32)
        self.class_unit = place_units(owner, known, class_units).astype(np.int32)
        self.met = np.zeros(len(self.key), np.int32)
        """How often the second table has the sample."""
        self.used = np.zeros(len(self.key), bool)


def _add_after(
    pairs: PairedSums | None,
    rows: _Rows,
    reader: _Reader,
    table: Table,
    order: tuple[str, ...],
) -> None:
    """Match the rows of the second table, and add them to its sums if there are any yet."""
    M = reader.M
    for keys, chunk in reader.chunks(table, order):
        at = np.minimum(np.searchsorted(rows.key, keys), max(len(rows.key) - 1, 0))
        both = rows.key[at] == keys if len(rows.key) else np.zeros(len(keys), bool)
        at, chunk, seen = at[both], _only(chunk, both), len(keys)
        np.add.at(rows.met, at, 1)
        if (rows.met[at] > 1).any():
            raise RecordError(_not_unique(table))
        _check_alike(rows, at, chunk, reader)
        used = finite_rows(chunk, M) & rows.finite[at]
        lost = int((~used).sum())
        at, chunk = at[used], _only(chunk, used)
        rows.used[at] = True
        if pairs is None:
            continue
        pairs.only_after += seen - int(both.sum())
        pairs.not_finite += lost
        pairs.after.add(chunk, rows.unit[at], rows.class_unit[at])
        ones = reader.ones(chunk)
        were = np.unpackbits(rows.ones[at], axis=1, count=ones.shape[1]).astype(bool)
        np.add.at(pairs.discordant[0], chunk["target"], ones & ~were)
        np.add.at(pairs.discordant[1], chunk["target"], were & ~ones)
        np.logical_or.at(pairs.uneven, chunk["target"], reader.partly(chunk))
    if pairs is not None:
        pairs.only_before += int((rows.met == 0).sum())


def _check_alike(rows: _Rows, at: IntArray, chunk: _Chunk, reader: _Reader) -> None:
    for what, one, other in (
        ("target", rows.target[at], chunk["target"]),
        ("target", rows.truth[at], reader.truth(chunk)),
        ("set of modalities", rows.present[at], chunk["present"]),
        ("group", rows.group[at], reader.group_keys(chunk)),
    ):
        differ = one != other
        if differ.any():
            raise RecordError(
                f"sample {chunk['sample_id'][differ][0]} has another {what} in the second record than in the first, so the "
                f"two are not about the same data; audit both models on the same samples"
            )


def _reordered(chunk: _Chunk, names: tuple[str, ...], order: tuple[str, ...]) -> _Chunk:
    """The rows with modalities, and the bits of coalitions, in another order."""
    places = [names.index(name) for name in order]
    index = np.arange(2 ** len(order))
    coalitions = _moved_bits(index, list(enumerate(places)))
    moved = dict(chunk)
    for name, values in chunk.items():
        if values.ndim == 2:
            moved[name] = values[:, coalitions if name in _OVER_COALITIONS else places]
    moved["present"] = _moved_bits(chunk["present"], [(place, m) for m, place in enumerate(places)])
    return moved


def _moved_bits(values: IntArray, moves: list[tuple[int, int]]) -> IntArray:
    """Bit ``to`` of the result is bit ``bit`` of the values, for each ``(bit, to)``."""
    result = np.zeros_like(values)
    for bit, to in moves:
        result |= (values >> bit & 1) << to
    return result


def _only(chunk: _Chunk, rows: np.ndarray) -> _Chunk:
    return {name: values[rows] for name, values in chunk.items()}


def _not_unique(table: Table) -> str:
    return (
        f"the table in {table.folder} has a sample id more than once, so samples cannot be matched; audit with 'ids' that "
        f"name each sample once"
    )
