"""Handling a model that belongs to somebody else: unwrapping it, watching its modules, and leaving it as it came."""

from __future__ import annotations

import inspect
import keyword
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import nn

from mmaudit.exceptions import ModelError

__all__ = [
    "OpaqueModel",
    "intercepted",
    "left_as_it_came",
    "model_device",
    "preserved_rng",
    "seeded",
    "unwrapped",
    "version_of",
    "with_parameters",
]

_MOST_COPIED = 2**31

Handler = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class OpaqueModel(nn.Module):
    """A model whose inside cannot be seen: only its inputs are masked, every coalition is a pass of its own.

    Args:
        kind: What it is, for messages: ``a TorchScript program``.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind


def with_parameters(module: nn.Module, run: Callable[..., Any], names: Mapping[str, bool]) -> None:
    """Give a module a ``forward`` whose signature can be read.

    Args:
        module: Gets it, as an attribute of its own.
        run: ``run(module, *args, **kwargs)``.
        names: Parameter -> whether it has to be given; names that are no identifiers leave the signature open.
    """

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return run(self, *args, **kwargs)

    if names and all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
        order = sorted(names, key=lambda name: not names[name])
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if names[name] else None,
            )
            for name in order
        ]
        if order == list(names) and "self" not in names:
            forward.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
    module.__dict__["forward"] = MethodType(forward, module)


def unwrapped(model: Any) -> Any:
    """The module inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` wrappers."""
    while isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        inner = model.__dict__.get("_modules", {}).get("_orig_mod")
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if inner is None:
            return model
        model = inner
    return model


def model_device(model: Any) -> torch.device:
    """Where the model's first parameter or buffer lies; the CPU where it has none."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Leave the generators of python, numpy and torch as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from known seeds in python, numpy and torch, and leave the generators as they were."""
    with preserved_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # Not torch.manual_seed: where CUDA is asleep that formats the whole call stack, every time.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def left_as_it_came(model: Any) -> Iterator[None]:
    """Put a model into eval mode and give it back bit for bit, also after an exception.

    Kept: every module's own ``training`` flag, parameters and buffers (a forward may write to them: counters, embeddings with
    ``max_norm``), gradients, the RNG states. Of models above 2 GiB only buffers are copied.

    Raises:
        ModelError: If the model has parameters that no forward pass has initialised yet; or, afterwards, if a forward wrote to
            parameters that were too large to copy.
    """
    with ExitStack() as stack:
        stack.enter_context(preserved_rng())
        if (
            "torch._dynamo" in sys.modules
        ):  # importing it takes seconds, and where nobody did, nothing is compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if isinstance(model, nn.Module):
            lazy = [
                name
                for name, p in model.named_parameters()
                if isinstance(p, nn.parameter.UninitializedParameter)
            ]
            if lazy:
                raise ModelError(
                    f"parameter '{lazy[0]}' is uninitialised (a lazy module): run one batch through the model before auditing it."
                )
            flags = {module: module.training for module in model.modules()}
            gradients = [(p, p.grad) for p in model.parameters()]
            copy_all = sum(p.numel() * p.element_size() for p in model.parameters()) <= _MOST_COPIED
            tensors = [
                (
                    owner,
                    name,
                    tensor,
                    tensor.detach().clone() if copy_all or owner is module._buffers else None,
                    version_of(tensor),
                )
                for module in model.modules()
                for owner in (module._buffers, module._parameters)
                for name, tensor in owner.items()
                if tensor is not None
            ]
            stack.callback(_restore, flags, gradients, tensors)
            for module in flags:  # not .eval(): models override train() to keep parts frozen, and flags are all we may set
                module.training = False
        yield


def _restore(flags: dict[nn.Module, bool], gradients: list[Any], tensors: list[Any]) -> None:
    for module, training in flags.items():
        module.training = training
    lost = []
    with torch.no_grad():
        for owner, name, tensor, value, version in tensors:
            if owner.get(name) is not tensor:
                owner[name] = tensor
            if version_of(tensor) != version or tensor.is_inference():
                if value is None:
                    lost.append(name)
                elif not torch.equal(tensor, value):
                    with torch.inference_mode() if tensor.is_inference() else nullcontext():
                        tensor.copy_(value)
    for parameter, gradient in gradients:
        parameter.grad = gradient
    if lost:
        raise ModelError(
            f"the model's forward wrote to its parameters ({', '.join(lost[:3])}), which were too large to copy."
        )


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; constant for inference tensors, which do not count."""
    return -1 if tensor.is_inference() else tensor._version


@contextmanager
def intercepted(modules: Mapping[str, nn.Module], handler: Handler) -> Iterator[None]:
    """Route calls of some modules, by name, through a handler ``(name, forward, args, kwargs) -> outputs``.

    The instance's ``forward`` is replaced rather than a hook registered: hooks switch off torch's fast paths, run in an order
    that depends on the user's own hooks, and cannot stand in for a module. The user's hooks keep firing around it.
    """
    replaced: list[tuple[nn.Module, Any]] = []
    absent = object()
    try:
        for name, module in modules.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            replaced.append((module, module.__dict__.get("forward", absent)))
            module.__dict__["forward"] = partial(_routed, handler, name, module.forward)
        yield
    finally:
        for module, own in reversed(replaced):
            if own is absent:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


def _routed(
    handler: Handler, name: str, forward: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    return handler(name, forward, args, kwargs)
