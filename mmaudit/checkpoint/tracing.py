"""Which sources a value comes from: labels that follow tensors through every operation of a forward pass.

Each source tensor gets a bit. Under a dispatch mode the outputs of an operation carry the bits of its inputs, keyed by
storage so that views and in-place writes are followed; module calls read the bits off what they return. Seen this way,
parameters get labels too: those of the values they meet. What bypasses dispatch (Python numbers read out of a tensor) is
watched at the function level and reported as a leak. Labels are an upper bound: storages shared by slices, and values
multiplied by zero, are taken as dependence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmaudit.checkpoint.model import intercepted, version_of
from mmaudit.masking.paths import tensor_paths

__all__ = ["Call", "CallKey", "EncoderCall", "Trace", "output_tensors", "trace"]

CallKey = tuple[str, int]
"""Module name and running number of the call among the calls of this module in one forward."""

_READS = {
    "item",
    "tolist",
    "numpy",
    "__array__",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "__complex__",
}


@dataclass(frozen=True)
class EncoderCall:
    """A module call that depends on one modality and can be stood in for."""

    key: CallKey
    modality: int
    context: tuple[str, ...] = ()
    """Paths of unmasked inputs (lengths, attention masks, ...) that the call depends on as well."""
    dims: tuple[int | None, ...] = ()
    """Sample dimension of each returned tensor; ``None`` where none was found."""
    live: tuple[bool, ...] = ()
    """Whether the value of each returned tensor reaches the output other than through another encoder call."""
    packable: bool = True


@dataclass
class Call:
    """One call of a module."""

    key: CallKey
    parent: int | None
    """Place of the enclosing call in the list of calls."""
    label: int = 0
    """Union of the bits of the returned tensors."""
    outputs: list[Tensor] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    order: int = -1
    """Running number of the call's end."""


@dataclass
class Trace:
    """What one traced forward showed."""

    calls: list[Call] = field(default_factory=list)
    label: int = 0
    """Bits of the model's output."""
    output: Any = None
    parameters: dict[str, int] = field(default_factory=dict)
    """Parameter -> bits of the values it met; absent where no operation read it."""
    leaks: list[tuple[int, tuple[CallKey, ...]]] = field(default_factory=list)
    """Bits that were read into Python, with the calls they were read in, outermost first."""
    consumed: int = 0
    """Sources that any operation read."""


def output_tensors(value: Any) -> list[Tensor]:
    """Tensors in what a module returned, in a fixed order; looks into containers, dataclasses and output objects."""
    return [value] if isinstance(value, Tensor) else list(tensor_paths(value).values())


def trace(
    model: nn.Module,
    call: Callable[[], Any],
    sources: Mapping[int, Iterable[Tensor]],
    *,
    opaque: Mapping[CallKey, tuple[int, ...]] | None = None,
    spreads: int = 0,
) -> Trace:
    """Run a forward pass and follow its sources.

    Args:
        model: The module whose calls are watched.
        call: Runs the forward and returns its output.
        sources: Bit -> tensors that carry it at the start; their storages must be distinct between bits.
        opaque: Calls that are sources themselves: bits inside them are forgotten, and their returned tensors get the given
            bits instead, one per tensor.
        spreads: Bits that are taken to be in everything that follows once they were read into Python.

    Returns:
        The trace. It holds every tensor it saw until it is dropped, so that no storage is reused while it runs.
    """
    mode = _LabelMode(model, sources)
    watch = _Watch(mode, opaque or {}, spreads)
    with intercepted(dict(model.named_modules()), watch.handle), _ReadMode(mode, watch), mode:
        output = call()
    result = watch.trace
    result.output = output
    result.label = mode.union(output_tensors(output))
    result.parameters = mode.parameters
    result.consumed = mode.consumed
    return result


class _LabelMode(TorchDispatchMode):
    """Carries bits from the inputs of every operation to its outputs."""

    def __init__(self, model: nn.Module, sources: Mapping[int, Iterable[Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._labels: dict[Any, int] = {}
        self._alive: list[Any] = []
        self._owners: dict[Any, set[str]] = {}
        self.parameters: dict[str, int] = {}
        self.consumed = 0
        self.pervasive = 0  # bits that were read into Python and may be in anything that follows
        for bit, tensors in sources.items():
            for tensor in tensors:
                for key in self._keys(tensor):
                    self._labels[key] = self._labels.get(key, 0) | 1 << bit
        for name, parameter in model.named_parameters():
            for key in self._keys(parameter):
                self._owners.setdefault(key, set()).add(name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and wrapping for dynamo would import it, which takes a second

    def _keys(self, tensor: Tensor) -> list[Any]:
        if tensor.is_sparse:
            parts = [tensor._indices(), tensor._values()]
        elif tensor.layout in (torch.sparse_csr, torch.sparse_csc):
            parts = [tensor.values()]
        else:
            parts = [tensor]
        keys: list[Any] = []
        for part in parts:
            try:
                storage = part.untyped_storage()
                self._alive.append(storage)
                keys.append(storage._cdata)
            except (RuntimeError, NotImplementedError):
                self._alive.append(part)
                keys.append(("object", id(part)))
        if tensor.layout is not torch.strided:
            self._alive.append(tensor)
            keys.append(("object", id(tensor)))
        return keys

    def label(self, tensor: Tensor) -> int:
        bits = 0
        for key in self._keys(tensor):
            bits |= self._labels.get(key, 0)
        return bits

    def union(self, tensors: Iterable[Tensor]) -> int:
        bits = 0
        for tensor in tensors:
            bits |= self.label(tensor)
        return bits

    def replace(self, tensor: Tensor, bits: int, keep_keys: set[Any]) -> None:
        """Give a tensor new bits; storages in ``keep_keys`` also keep their old ones."""
        for key in self._keys(tensor):
            self._labels[key] = bits | (self._labels.get(key, 0) if key in keep_keys else 0)

    def keys_of(self, tensors: Iterable[Tensor]) -> set[Any]:
        return {key for tensor in tensors for key in self._keys(tensor)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        bits = self.union(inputs)
        self.consumed |= bits
        bits |= self.pervasive
        owners: set[str] = set()
        for tensor in inputs:
            for key in self._keys(tensor):
                owners |= self._owners.get(key, set())
        for name in owners:
            self.parameters[name] = self.parameters.get(name, 0) | bits
        out = func(*args, **kwargs)
        # Tensors made of parameters alone (a normalised weight, an expanded token) still stand for those parameters.
        derived = owners if not bits else set()
        written = [
            args[i]
            for i, a in enumerate(func._schema.arguments)
            if i < len(args) and a.alias_info and a.alias_info.is_write
        ]
        for tensor in (*(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), *written):
            if isinstance(tensor, Tensor):
                for key in self._keys(tensor):
                    self._labels[key] = self._labels.get(key, 0) | bits
                    if derived:
                        self._owners.setdefault(key, set()).update(derived)
        return out


class _ReadMode(TorchFunctionMode):
    """Notices tensors that are read into Python, past dispatch."""

    def __init__(self, labels: _LabelMode, watch: _Watch) -> None:
        super().__init__()
        self._labels, self._watch = labels, watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READS and args and isinstance(args[0], Tensor):
            bits = self._labels.label(args[0])
            self._labels.consumed |= bits
            if bits:
                self._watch.leak(bits)
        return func(*args, **(kwargs or {}))


class _Watch:
    """Keeps the tree of module calls."""

    def __init__(
        self, labels: _LabelMode, opaque: Mapping[CallKey, tuple[int, ...]], spreads: int
    ) -> None:
        self.trace = Trace()
        self._labels, self._opaque, self._spreads = labels, opaque, spreads
        self._stack: list[int] = []
        self._counts: dict[str, int] = {}
        self._ended = 0

    def leak(self, bits: int) -> None:
        self.trace.leaks.append((bits, tuple(self.trace.calls[i].key for i in self._stack)))
        self._labels.pervasive |= bits & self._spreads

    def handle(
        self, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        key = (name, self._counts.get(name, 0))
        self._counts[name] = key[1] + 1
        record = Call(key, self._stack[-1] if self._stack else None)
        self.trace.calls.append(record)
        self._stack.append(len(self.trace.calls) - 1)
        try:
            out = forward(*args, **kwargs)
        finally:
            self._stack.pop()
        record.outputs = output_tensors(out)
        bits = self._opaque.get(key)
        if bits is not None:
            keep = self._labels.keys_of(output_tensors((args, kwargs)))
            for tensor, bit in zip(record.outputs, bits, strict=False):
                self._labels.replace(tensor, 1 << bit, keep)
        record.labels = [self._labels.label(tensor) for tensor in record.outputs]
        record.versions = [version_of(tensor) for tensor in record.outputs]
        for label in record.labels:
            record.label |= label
        record.order = self._ended
        self._ended += 1
        return out
