"""Which input channels of a module carry which modality, found by changing one modality at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmaudit.checkpoint.model import Handler, intercepted, seeded
from mmaudit.checkpoint.structure import perturbed
from mmaudit.checkpoint.tracing import CallKey, output_tensors
from mmaudit.masking.calling import Caller
from mmaudit.masking.masked_batch import MaskedBatch
from mmaudit.masking.paths import map_tensors

__all__ = ["Seen", "channels_by_modality", "watched"]

_CHANGE = 1e-5
"""Smallest change of a channel that counts, as a share of its largest value: above what rounding makes."""


@dataclass
class Seen:
    """What the watched calls of one forward were given and returned: detached copies, in the order of the calls."""

    inputs: dict[CallKey, Tensor] = field(default_factory=dict)
    outputs: dict[CallKey, list[Tensor]] = field(default_factory=dict)


@contextmanager
def watched(*, inputs: Mapping[str, nn.Module], outputs: Mapping[str, nn.Module]) -> Iterator[Seen]:
    """Keep what calls of some modules are given or return, without a pass of its own.

    Copies are kept, because models may write into either afterwards (``out += other``).

    Args:
        inputs: Modules, by name, whose first argument is kept where it is a tensor.
        outputs: Modules, by name, whose returned tensors are kept.
    """
    seen, counts = Seen(), dict.fromkeys({**inputs, **outputs}, 0)

    def handle(name: str, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = (name, counts[name])
        counts[name] += 1
        given = args[0] if args else next(iter(kwargs.values()), None)
        if name in inputs and isinstance(given, Tensor):
            seen.inputs[key] = given.detach().clone()
        out = forward(*args, **kwargs)
        if name in outputs:
            seen.outputs[key] = [tensor.detach().clone() for tensor in output_tensors(out)]
        return out

    handler: Handler = handle
    with intercepted({**inputs, **outputs}, handler):
        yield seen


def channels_by_modality(
    model: nn.Module, caller: Caller, batch: MaskedBatch, modules: Mapping[str, nn.Module]
) -> dict[CallKey, Tensor]:
    """Which modalities change which input channels of linear and convolutional modules.

    Each modality is masked, and replaced by other values, while the others stay.

    Args:
        model: In evaluation mode; passes run without gradients.
        caller: Calls it on a batch.
        batch: A few samples.
        modules: ``nn.Linear`` or convolutions, by name.

    Returns:
        Call -> bool ``(M, channels)``, in the order of the calls.
    """

    def given(data: Any) -> dict[CallKey, Tensor]:
        with seeded(0), torch.no_grad(), watched(inputs=modules, outputs={}) as seen:
            caller(map_tensors(data, torch.clone))
        return seen.inputs

    names = batch.spec.names
    base = given(batch.whole)
    found = {
        key: torch.zeros(len(names), value.shape[_channel_dim(modules[key[0]], value)]).bool()
        for key, value in base.items()
    }
    for m, name in enumerate(names):
        for data in (batch.coalition((2 ** len(names) - 1) & ~(1 << m)), perturbed(batch, name)):
            try:
                other = given(data)
            except Exception:  # values without meaning can make foreign code fail
                continue
            for key, value in base.items():
                dim = _channel_dim(modules[key[0]], value)
                found[key][m] |= _changed(value, other.get(key), dim)
    return found


def _channel_dim(module: nn.Module, given: Tensor) -> int:
    """Of an input: the last one of a linear module, the one before positions of a convolution."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return given.dim() - (weight.dim() - 1)


def _changed(before: Tensor, after: Tensor | None, dim: int) -> Tensor:
    channels = before.shape[dim]
    if after is None or after.shape != before.shape:
        return torch.ones(channels, dtype=torch.bool)
    a = before.movedim(dim, 0).reshape(channels, -1)
    b = after.movedim(dim, 0).reshape(channels, -1)
    scale = torch.maximum(a.abs(), b.abs()).amax(1)
    return ((a - b).abs().amax(1) > _CHANGE * scale).cpu()
