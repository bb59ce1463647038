"""Files of arrays as sources of batches: ``.npz`` and Parquet.

Neither format can run code here: ``.npz`` is read without pickles. Both carry checksums, which are verified; damage ends in a
sentence and never in numbers.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from mmaudit.evidence.loaders import RawBatch, Selection
from mmaudit.exceptions import DataError
from mmaudit.masking.arrays import to_tensor
from mmaudit.report.schema import Note

__all__ = ["ArrayColumns", "ParquetColumns", "open_file"]

_LARGEST_ARRAYS = 8 * 2**30
_PARQUET_BUFFER = 2**20


def open_file(
    path: Path,
    *,
    columns: Mapping[str, str] | None,
    rows: str | None,
    batch_size: int,
    note: Callable[[Note], None],
) -> ArrayColumns | ParquetColumns:
    """Open a file of arrays.

    Args:
        path: ``.npz`` or ``.parquet``.
        columns: Name in the batch -> array in the file; ``None``: all arrays under their own names.
        rows: ``start:stop`` or ``start:stop:step``.
        batch_size: Rows per batch.
        note: Takes what was changed on the way.

    Raises:
        DataError: If the file is missing, damaged, too large, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return ParquetColumns(path, columns, rows, batch_size, note)
    arrays = _read_npz(path, columns)
    lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        listed = ", ".join(f"{name} {'no rows' if n is None else n}" for name, n in lengths.items())
        raise DataError(
            f"{path.name}: expected arrays of equal length, found {listed}; choose them with 'columns'"
        )
    chosen = _slice(path, rows, next(iter(lengths.values())) or 0)
    converted = {
        name: to_tensor(array[chosen], f"{path.name}: array '{name}'", note)
        for name, array in arrays.items()
    }
    where = f"{path.name}, rows {rows}" if rows else path.name
    return ArrayColumns(converted, batch_size, where)


class ArrayColumns:
    """Columns in memory, cut into batches.

    Args:
        columns: Mapping or tuple of tensors and lists, all of one length.
        batch_size: Rows per batch.
        description: For the record.
    """

    def __init__(
        self, columns: Mapping[str, Any] | tuple[Any, ...], batch_size: int, description: str
    ) -> None:
        self._columns = columns
        self._size = batch_size
        values = list(columns.values() if isinstance(columns, Mapping) else columns)
        self.samples: int | None = len(values[0]) if values else 0
        self.length: int | None = -(-(self.samples or 0) // batch_size)
        self.description = f"{description} ({self.samples} samples)"

    def by_sample(self) -> tuple[Any, Callable[[list[Any]], Any]]:
        """Rows by position, and how rows become a batch."""
        return _ByRow(self._columns), _stacked

    def read(self, selection: Selection) -> Iterator[RawBatch]:
        """Cut out the wanted batches; their tensors are copies."""
        for index in selection.indices(self.length or 0):
            start = index * self._size
            stop = min(start + self._size, self.samples or 0)
            if isinstance(self._columns, Mapping):
                data: Any = {
                    name: _cut(column, start, stop) for name, column in self._columns.items()
                }
            else:
                data = tuple(_cut(column, start, stop) for column in self._columns)
            yield RawBatch(index, data, start, stop - start)


class _ByRow(Dataset[Any]):
    """Columns, row by row."""

    def __init__(self, columns: Mapping[str, Any] | tuple[Any, ...]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        values = list(
            self._columns.values() if isinstance(self._columns, Mapping) else self._columns
        )
        return len(values[0]) if values else 0

    def __getitem__(self, row: int) -> Any:
        if isinstance(self._columns, Mapping):
            return {name: column[row] for name, column in self._columns.items()}
        return tuple(column[row] for column in self._columns)


def _stacked(rows: list[Any]) -> Any:
    """Rows -> columns again."""
    if isinstance(rows[0], Mapping):
        return {name: _column([row[name] for row in rows]) for name in rows[0]}
    return tuple(_column(list(values)) for values in zip(*rows, strict=True))


def _column(values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return np.stack(values) if isinstance(values[0], np.ndarray | np.generic) else values


class ParquetColumns:
    """A Parquet file, read batch by batch in bounded memory.

    Columns of lists become arrays with one more axis; their lengths have to agree within a batch. A missing list of floats is
    a row of NaN, a column that is missing from a whole batch is ``None``.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str] | None,
        rows: str | None,
        batch_size: int,
        note: Callable[[Note], None],
    ) -> None:
        self._path = path
        self._size = batch_size
        self._note = note
        try:
            with _open_parquet(path) as file:
                names = file.schema_arrow.names
                groups = [
                    file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)
                ]
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path.name} is damaged or no Parquet file: {_line(error)}") from error
        self._columns = dict(columns) if columns is not None else {name: name for name in names}
        _check_columns(path, self._columns, names)
        self._ends = np.cumsum(groups)
        chosen = _slice(path, rows, int(self._ends[-1]) if groups else 0)
        self._rows = range(int(self._ends[-1]) if groups else 0)[chosen]
        self.samples: int | None = len(self._rows)
        self.length: int | None = -(-len(self._rows) // batch_size)
        where = f"{path.name}, rows {rows}" if rows else path.name
        self.description = f"{where} ({self.samples} samples)"

    def read(self, selection: Selection) -> Iterator[RawBatch]:
        """Read the wanted batches; row groups before the first one are not touched."""
        index = next(selection.indices(self.length or 0), None)
        if index is None:
            return
        index = selection.skip
        try:
            pending = None
            for table in self._tables(self._rows[index * self._size :]):
                pending = table if pending is None else pa.concat_tables([pending, table])
                while pending.num_rows >= self._size:
                    if index in selection:
                        yield self._batch(index, pending.slice(0, self._size))
                    pending = pending.slice(self._size)
                    index += 1
            if pending is not None and pending.num_rows and index in selection:
                yield self._batch(index, pending)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self._path.name}: batch {index} (rows from {self._rows[index * self._size]}) is damaged: {_line(error)}"
            ) from error

    def _tables(self, rows: range) -> Iterator[Any]:
        """Tables that hold the given rows of the file and no others, in order."""
        first, last = np.searchsorted(self._ends, [rows[0], rows[-1]], side="right")
        position = int(self._ends[first - 1]) if first else 0
        with _open_parquet(self._path) as file:
            for part in file.iter_batches(
                batch_size=self._size,
                row_groups=list(range(first, last + 1)),
                columns=list(dict.fromkeys(self._columns.values())),
            ):
                table = pa.Table.from_batches([part])
                at = np.arange(position, position + table.num_rows)
                position += table.num_rows
                inside = (
                    (at >= rows.start) & (at < rows.stop) & ((at - rows.start) % rows.step == 0)
                )
                if inside.all():
                    yield table
                elif inside.any():
                    yield table.take(pa.array(np.flatnonzero(inside)))

    def _batch(self, index: int, table: Any) -> RawBatch:
        data: dict[str, Any] = {}
        for name, column in self._columns.items():
            where = f"{self._path.name}: column '{column}'"
            value = _from_arrow(pa.concat_arrays(table.column(column).chunks), where)
            data[name] = (
                value
                if value is None or isinstance(value, list)
                else to_tensor(value, where, self._note)
            )
        return RawBatch(index, data, index * self._size, table.num_rows)


def _open_parquet(path: Path) -> Any:
    # With its default, pre_buffer=True, a file that is read to its end is in memory whole.
    return pq.ParquetFile(
        path, page_checksum_verification=True, pre_buffer=False, buffer_size=_PARQUET_BUFFER
    )


def _read_npz(path: Path, columns: Mapping[str, str] | None) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {
                info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()
            }
        chosen = dict(columns) if columns is not None else {name: name for name in sizes}
        _check_columns(path, chosen, list(sizes))
        total = sum(sizes[name] for name in set(chosen.values()))
        if total > _LARGEST_ARRAYS:
            raise DataError(
                f"{path.name}: {total / 2**30:.1f} GiB of arrays, at most 8 GiB are read into memory; use Parquet or a factory"
            )
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[column] for name, column in chosen.items()}
    except DataError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path.name}: an array holds Python objects, which are not read; store numbers or text"
            ) from error
        raise DataError(f"{path.name} is damaged: {_line(error)}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        KeyError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise DataError(f"{path.name} is damaged or no .npz file: {_line(error)}") from error


def _check_columns(path: Path, columns: Mapping[str, str], names: list[str]) -> None:
    missing = [column for column in columns.values() if column not in names]
    if missing:
        raise DataError(
            f"{path.name}: no array '{missing[0]}'; it has {', '.join(names) or 'none'}"
        )
    if not columns:
        raise DataError(f"{path.name} holds no arrays")


def _slice(path: Path, rows: str | None, length: int) -> slice:
    parts = [int(part) if part.strip() else None for part in (rows or ":").split(":")]
    chosen = slice(*parts)
    if chosen.step is not None and chosen.step < 1:
        raise DataError(f"{path.name}: rows '{rows}' must go forward, in steps of at least 1")
    if length and not len(range(length)[chosen]):
        raise DataError(f"{path.name}: rows '{rows}' select none of {length} rows")
    return chosen


def _from_arrow(column: Any, where: str) -> np.ndarray | list[str | None] | None:
    """An Arrow column as an array, a list of strings, or ``None`` where all of it is missing."""
    kind = column.type
    if pa.types.is_null(kind) or (len(column) and column.null_count == len(column)):
        return None
    if pa.types.is_dictionary(kind):
        return _from_arrow(column.dictionary_decode(), where)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        known = column.drop_null()
        lengths = pc.unique(pc.list_value_length(known)).to_pylist()
        if len(lengths) > 1:
            raise DataError(
                f"{where} has lists of lengths {min(lengths)} to {max(lengths)} in one batch; pad them to one length"
            )
        inner = _from_arrow(known.flatten(), where)
        if not isinstance(inner, np.ndarray):
            raise DataError(f"{where} has lists of {kind.value_type}; expected numbers")
        array = inner.reshape(len(known), lengths[0], *inner.shape[1:])
        return array if not column.null_count else _spread(array, column, where)
    if pa.types.is_floating(kind):
        # A missing number is NaN.
        return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        if column.null_count:
            raise DataError(
                f"{where} has {column.null_count} missing values among {kind}; fill them in or use floats"
            )
        return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    raise DataError(
        f"{where} has values of type {kind}; expected numbers, text or lists of numbers"
    )


def _spread(array: np.ndarray, column: Any, where: str) -> np.ndarray:
    """Put the known rows in their places, NaN in the others."""
    if array.dtype.kind != "f":
        raise DataError(
            f"{where} has {column.null_count} missing lists of {array.dtype}; fill them in or use floats"
        )
    spread = np.full((len(column), *array.shape[1:]), np.nan, dtype=array.dtype)
    spread[column.is_valid().to_numpy(zero_copy_only=False)] = array
    return spread


def _cut(column: Any, start: int, stop: int) -> Any:
    part = column[start:stop]
    # A model that changes its inputs in place must not change the data.
    return part.clone() if isinstance(part, torch.Tensor) else part


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
