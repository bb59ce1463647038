"""The samples of an audit: batches in a fixed order, from a file, a DataLoader or anything that can be iterated over."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmaudit.checkpoint.loader import call_factory, import_callable
from mmaudit.evidence.files import ArrayColumns, open_file
from mmaudit.evidence.loaders import BatchReader, BatchStream, RawBatch, Selection, open_loader
from mmaudit.exceptions import DataError
from mmaudit.masking.arrays import to_tensor
from mmaudit.masking.batches import Batch, BatchParser
from mmaudit.masking.spec import MaskingSpec, SourceSpec
from mmaudit.report.schema import FileRecord, Note

__all__ = ["Batch", "Source", "open_source"]

_DEFAULT_BATCH_SIZE = 64


class Source:
    """Batches that can be read again, from any one on, and by several processes each its share.

    Args:
        reader: Where the batches come from.
        spec: Where things are in a batch.
        files: What was read from disk.
        notes: What was done otherwise than asked; reading may add to it.
    """

    def __init__(
        self,
        reader: BatchReader,
        spec: MaskingSpec,
        *,
        files: tuple[FileRecord, ...] = (),
        notes: dict[Note, None],
    ) -> None:
        self._reader = reader
        self._spec = spec
        self._notes = notes
        self.files = files
        self._first: Batch | None = None
        self.may_lack: frozenset[str] = frozenset()
        """Modalities that no sample needs to have, because other data shows what they look like."""

    @property
    def description(self) -> str:
        """What the data is, in a few words."""
        return self._reader.description

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was done otherwise than asked, as far as was read."""
        return tuple(self._notes)

    @property
    def length(self) -> int | None:
        """Number of batches, where it is known beforehand."""
        return self._reader.length

    @property
    def samples(self) -> int | None:
        """Number of samples, where it is known beforehand."""
        return self._reader.samples

    def by_sample(self) -> tuple[Any, Callable[[list[Any]], Any]] | None:
        """Samples by position and the function that batches them; ``None`` where batches come ready-made."""
        view = getattr(self._reader, "by_sample", None)
        return None if view is None else view()

    def first(self) -> Batch:
        """The first batch, read once and kept.

        Raises:
            DataError: If it cannot be read or there is none.
        """
        if self._first is None:
            parser = BatchParser(self._spec, self._add_note)
            raw = self._first_raw()
            start = raw.start if raw.start is not None else 0
            self._first = parser.parse(raw.data, raw.index, start, size=raw.size)
        return self._first

    def first_raw(self) -> Any:
        """The first batch as it comes, before anything is known of what is where in it."""
        return self._first_raw().data

    def _first_raw(self) -> RawBatch:
        if self._reader.length == 0:
            raise DataError(f"{self.description}: no samples; expected at least one")
        for raw in self._reader.read(Selection()):
            return raw
        raise DataError(f"{self.description}: no batches; expected at least one")

    def batches(self, *, skip: int = 0, stride: int = 1, offset: int = 0) -> Iterator[Batch]:
        """Read batches in order.

        Args:
            skip: Number of the first batch, for going on where a reading stopped.
            stride: Number of processes that share the data.
            offset: Which of them this one is, ``0 <= offset < stride``.

        Yields:
            The batches ``i >= skip`` with ``i % stride == offset``. Where the source allows it, the others are not loaded.

        Raises:
            DataError: If a batch cannot be read or does not have what the spec says; also if there is no sample at all, and,
                after a whole reading, if a modality was found in no sample.
        """
        if skip < 0 or stride < 1 or not 0 <= offset < stride:
            raise ValueError(
                f"expected skip >= 0 and 0 <= offset < stride, found {skip}, {stride} and {offset}"
            )
        return self._batches(Selection(skip, stride, offset))

    def _batches(self, selection: Selection) -> Iterator[Batch]:
        if self._reader.length == 0:
            raise DataError(f"{self.description}: no samples; expected at least one")
        once = isinstance(self._reader, BatchStream) and self._reader.once
        dims = None if once else self.first().dims
        parser = BatchParser(self._spec, self._add_note, dims=dims)
        start, read, data = 0, 0, None
        for raw in self._reader.read(selection):
            here = raw.start if raw.start is not None else start
            read, data = read + 1, raw.data
            if raw.index in selection:
                batch = parser.parse(raw.data, raw.index, here, size=raw.size)
                start = here + batch.n
                yield batch
            elif raw.start is None:
                start = here + parser.count(raw.data)
        if self._reader.length is None and not read:
            raise DataError(f"{self.description}: no batches; expected at least one")
        never_found = [name for name in parser.never_found if name not in self.may_lack]
        if selection == Selection() and never_found:
            name = never_found[0]
            paths = ", ".join(f"'{path}'" for path in self._spec.modalities[name].inputs.values())
            raise DataError(
                f"no sample has modality '{name}' (path {paths}); the batches hold {_contents(data)}"
            )

    def _add_note(self, note: Note) -> None:
        self._notes.setdefault(note)


def open_source(
    source: Any,
    spec: MaskingSpec,
    *,
    directory: Path | None = None,
    batch_size: int | None = None,
    timeout: float = 120,
) -> Source:
    """Open the data of an audit.

    Args:
        source: A :class:`SourceSpec`; a torch DataLoader or Dataset; a path of an ``.npz`` or Parquet file; a mapping or tuple of
            tensors or arrays of one length; a list or any other iterable of batches; a function that returns one of these.
        spec: Where things are in a batch.
        directory: What relative paths and import strings of a :class:`SourceSpec` start from.
        batch_size: Instead of the source's own; it has no effect on batches that come ready-made.
        timeout: Seconds a DataLoader worker may take for one batch, where the loader itself sets none.

    Raises:
        DataError: If the source cannot be opened.
        SpecError: If its factory cannot be imported.
    """
    notes: dict[Note, None] = {}

    def note(text: Note) -> None:
        notes.setdefault(text)

    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise DataError(f"batch_size is {batch_size!r}; expected a positive integer")
    if isinstance(source, str | Path):
        if Path(source).suffix not in (".npz", ".parquet"):
            raise DataError(
                f"'{source}' is neither .npz nor .parquet; give a DataLoader or batches"
            )
        source = SourceSpec.model_validate({"file": source})
    files: tuple[FileRecord, ...] = ()
    if isinstance(source, SourceSpec) and source.file is not None:
        path = source.file if directory is None else directory / source.file
        size = batch_size or source.batch_size
        reader: BatchReader = open_file(
            path, columns=source.columns, rows=source.rows, batch_size=size, note=note
        )
        return Source(reader, spec, files=(_file_record(path, source.file, "data"),), notes=notes)
    if isinstance(source, SourceSpec):
        reference = source.factory or ""
        factory = import_callable(reference, directory)
        files = _code_record(factory, directory)
        make = functools.partial(
            call_factory, factory, source.args, name=reference, directory=directory
        )
        reader = _open_function(make, reference, batch_size, timeout, directory, note)
    else:
        reader = _open(source, batch_size, timeout, directory, note)
    if (
        batch_size is not None
        and isinstance(reader, BatchStream)
        and not isinstance(source, DataLoader)
    ):
        text = f"batches come ready-made, batch_size={batch_size} has no effect"
        note(Note(kind="information", topic="data", text=text))
    return Source(reader, spec, files=files, notes=notes)


def _open(
    source: Any,
    batch_size: int | None,
    timeout: float,
    directory: Path | None,
    note: Callable[[Note], None],
) -> BatchReader:
    if isinstance(source, Dataset):
        size = batch_size or _DEFAULT_BATCH_SIZE
        stream = isinstance(source, IterableDataset)
        text = f"the dataset was read in batches of {size} with torch's default collate_fn"
        note(Note(kind="information", topic="data", text=text))
        source = DataLoader(source, batch_size=size, shuffle=None if stream else False)
    if isinstance(source, DataLoader):
        return open_loader(
            source, batch_size=batch_size, timeout=timeout, directory=directory, note=note
        )
    columns = _columns(source, note)
    if columns is not None:
        return ArrayColumns(columns, batch_size or _DEFAULT_BATCH_SIZE, "arrays in memory")
    name = type(source).__name__
    if isinstance(source, Iterator):
        text = f"the data is a {name}, which can be read only once: an interrupted audit cannot go on with it"
        note(Note(kind="warning", topic="data", text=text))
        return BatchStream(lambda: source, f"a {name}", once=True, directory=directory)
    if hasattr(source, "__iter__") and not isinstance(
        source, str | bytes | Tensor | np.ndarray | Mapping
    ):
        length = len(source) if isinstance(source, list | tuple) else None
        return BatchStream(
            lambda: source, f"a {name} of batches", length=length, directory=directory
        )
    if callable(source) and not isinstance(source, type):
        name = getattr(source, "__name__", type(source).__name__)
        make = functools.partial(call_factory, source, {}, name=name)
        return _open_function(make, name, batch_size, timeout, directory, note)
    raise DataError(
        f"expected a DataLoader, a Dataset, a file, arrays or an iterable of batches, found {_no_source(source)}"
    )


def _open_function(
    function: Callable[[], Any],
    name: str,
    batch_size: int | None,
    timeout: float,
    directory: Path | None,
    note: Callable[[Note], None],
) -> BatchReader:
    """Data from a function without arguments: called once for something that can be read again, else for every reading."""
    first = function()
    if not isinstance(first, Iterator):
        return _open(first, batch_size, timeout, directory, note)
    waiting = [first]

    def make() -> Any:
        return waiting.pop() if waiting else function()

    return BatchStream(
        make,
        f"batches of {name}",
        directory=directory,
    )


def _columns(source: Any, note: Callable[[Note], None]) -> dict[str, Any] | tuple[Any, ...] | None:
    """Arrays of one length, whole, as tensors; ``None`` if the source is something else."""
    values = list(
        source.values()
        if isinstance(source, Mapping)
        else source
        if isinstance(source, list | tuple)
        else []
    )
    arrays = [value for value in values if isinstance(value, Tensor | np.ndarray)]
    if not arrays or not all(
        isinstance(value, Tensor | np.ndarray | list | tuple) for value in values
    ):
        return None
    if not isinstance(source, Mapping) and len(arrays) < len(values):
        return None
    lengths = [
        len(value) if not isinstance(value, Tensor | np.ndarray) or value.ndim else -1
        for value in values
    ]
    if len(set(lengths)) != 1:
        raise DataError(
            f"expected arrays of equal length, found {', '.join(map(str, lengths))} rows"
        )
    tensors = [
        to_tensor(value, "an array in memory", note)
        if isinstance(value, np.ndarray) and value.dtype.kind != "O"
        else value
        for value in values
    ]
    return (
        dict(zip(source, tensors, strict=True)) if isinstance(source, Mapping) else tuple(tensors)
    )


def _file_record(path: Path, written: Path, role: str) -> FileRecord:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(path=str(written), sha256=digest, bytes=path.stat().st_size, role=role)


def _code_record(factory: Callable[..., Any], directory: Path | None) -> tuple[FileRecord, ...]:
    try:
        found = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:
        return ()
    path = Path(found) if found else None
    if path is None or not path.is_file():
        return ()
    written = path
    if directory is not None and path.resolve().is_relative_to(directory.resolve()):
        written = path.resolve().relative_to(directory.resolve())
    return (_file_record(path, written, "code"),)


def _no_source(value: Any) -> str:
    """What was found instead of data, and what to do where it holds some."""
    if not isinstance(value, Mapping):
        return _contents(value)
    fits = [key for key, part in value.items() if isinstance(part, DataLoader | Dataset)]
    first = f"; give one of them, for example what is under '{fits[0]}'" if fits else ""
    return f"a {type(value).__name__} of {_contents(value)}{first}"


def _contents(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(str(key) for key in list(value)[:12]) or "nothing"
    size = (
        f" of length {len(value)}"
        if isinstance(value, Sized) and not isinstance(value, Tensor | np.ndarray)
        else ""
    )
    return f"a {type(value).__name__}{size}"
