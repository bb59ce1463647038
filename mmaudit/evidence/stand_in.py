"""Standing in for encoders: record what their calls return, and return something else in the next pass.

Outputs are replaced tensor by tensor inside whatever container the module returned, so that tuples, dictionaries and output
objects come back in their own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmaudit.checkpoint.model import intercepted
from mmaudit.checkpoint.tracing import CallKey, output_tensors
from mmaudit.masking.paths import tensor_paths, with_values

__all__ = ["CallsDifferError", "Recorded", "recorded", "replaced", "with_tensors"]


class CallsDifferError(RuntimeError):
    """A pass did not call the encoders as the recorded pass did."""


class Recorded:
    """What the watched calls of one pass returned."""

    def __init__(self) -> None:
        self.values: dict[CallKey, Any] = {}
        self.tensors: dict[CallKey, list[Tensor]] = {}


@contextmanager
def recorded(
    modules: Mapping[str, nn.Module],
    keep: Mapping[CallKey, Sequence[bool]],
    known: Mapping[str, int],
) -> Iterator[Recorded]:
    """Keep what some calls return.

    Copies are kept: what follows may overwrite what an encoder returned, and an encoder may answer in a buffer of its own.

    Args:
        modules: The modules that are called, by name.
        keep: Call -> which of the tensors it returns are needed; of the others only the shape is.
        known: Module -> how often it is called.

    Raises:
        CallsDifferError: If a module is not called as often as it is known to be.
    """
    seen, counts = Recorded(), dict.fromkeys((name for name, _ in keep), 0)

    def handle(
        name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        key = (name, counts[name])
        counts[name] += 1
        out = forward(*args, **kwargs)
        if key in keep:
            pairs = zip(output_tensors(out), keep[key], strict=True)
            seen.tensors[key] = [tensor.clone() if live else tensor for tensor, live in pairs]
            seen.values[key] = with_tensors(out, seen.tensors[key])
        return out

    with intercepted(modules, handle):
        yield seen
    _check_calls(counts, known)


@contextmanager
def replaced(
    modules: Mapping[str, nn.Module], values: Mapping[CallKey, Any], known: Mapping[str, int]
) -> Iterator[None]:
    """Return given values from some calls instead of running them.

    Raises:
        CallsDifferError: If a module is not called as often as it is known to be.
    """
    counts = dict.fromkeys((name for name, _ in values), 0)

    def handle(
        name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        key = (name, counts[name])
        counts[name] += 1
        return values[key] if key in values else forward(*args, **kwargs)

    with intercepted(modules, handle):
        yield
    _check_calls(counts, known)


def _check_calls(made: Mapping[str, int], known: Mapping[str, int]) -> None:
    """A call that the traced batch did not have (one frame more, say) would run on stand-ins."""
    for name, count in made.items():
        if count != known[name]:
            raise CallsDifferError(
                f"module '{name}' was called {count} times instead of {known[name]}"
            )


def with_tensors(value: Any, tensors: Sequence[Tensor]) -> Any:
    """The same container with other tensors in the order of ``output_tensors``."""
    return (
        tensors[0]
        if isinstance(value, Tensor)
        else with_values(value, dict(zip(tensor_paths(value), tensors, strict=True)))
    )
