"""What is in a batch: every tensor and every list of strings, with its path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmaudit.exceptions import DataError
from mmaudit.masking.masked_batch import batch_dimension
from mmaudit.masking.paths import tensor_paths

__all__ = ["Entry", "entries"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A tensor, or a list of strings, somewhere in a batch."""

    path: str
    value: Any
    n: int
    """Samples in the batch."""

    @property
    def name(self) -> str:
        """Last segment of the path."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape; of a list its length."""
        return tuple(self.value.shape) if isinstance(self.value, Tensor) else (len(self.value),)

    @property
    def dim(self) -> int | None:
        """The dimension that runs over samples."""
        return batch_dimension(self.value, self.n) if isinstance(self.value, Tensor) else 0

    @property
    def is_text(self) -> bool:
        """Whether it is a list of strings."""
        return not isinstance(self.value, Tensor)

    @property
    def is_integer(self) -> bool:
        """Whether it holds whole numbers or booleans."""
        return isinstance(self.value, Tensor) and not (
            self.value.is_floating_point() or self.value.is_complex()
        )

    @property
    def is_vector(self) -> bool:
        """Whether it has one number or string per sample."""
        return self.shape == (self.n,) or self.shape == (self.n, 1)

    def describe(self) -> str:
        """Path, shape and type, with B for the number of samples."""
        if self.is_text:
            return f"{self.path} ({len(self.value)} strings)"
        shape = ", ".join("B" if d == self.dim else str(size) for d, size in enumerate(self.shape))
        dtype = str(self.value.dtype).removeprefix("torch.")
        return f"{self.path} ({shape}) {dtype}"


def entries(batch: Any) -> list[Entry]:
    """All tensors and lists of strings of a batch.

    Args:
        batch: Mapping, tuple, object or tensor, nested as it likes.

    Raises:
        DataError: If there is no tensor in it.
    """
    tensors = tensor_paths(batch)
    if not tensors:
        raise DataError(
            f"the batch is a {type(batch).__name__} without a tensor; expected the inputs of the model and the labels"
        )
    found: dict[str, Any] = {**tensors, **dict(_texts(batch, ()))}
    order = {path: place for place, path in enumerate(_paths(batch, ()))}
    sizes = Counter(
        len(value) for value in found.values() if not isinstance(value, Tensor) or value.dim()
    )
    if not sizes:
        raise DataError("every tensor of the batch is a single number; expected batches of samples")
    n = max(sizes, key=lambda size: (sizes[size], size))
    listed = [Entry(path, value, n) for path, value in found.items()]
    return sorted(listed, key=lambda entry: order.get(entry.path, len(order)))


def _texts(value: Any, segments: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for path, item in _walk(value, segments):
        if _is_strings(item):
            yield path, list(item)


def _paths(value: Any, segments: tuple[str, ...]) -> Iterator[str]:
    for path, item in _walk(value, segments):
        if isinstance(item, Tensor) or _is_strings(item):
            yield path


def _walk(value: Any, segments: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Leaves of mappings and sequences; a list of strings is one."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*segments, str(key)))
    elif isinstance(value, list | tuple) and not _is_strings(value):
        for index, item in enumerate(value):
            yield from _walk(item, (*segments, str(index)))
    else:
        prefix = ("batch",) if not segments or segments[0] == "batch" else ()
        yield ".".join(prefix + segments), value


def _is_strings(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(item, str) for item in value)
    )
