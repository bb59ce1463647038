"""The zoo: every row, and what the engine is judged by, written without looking at the engine.

:func:`brute_force` masks the inputs and calls the model once per coalition. :func:`dependence` perturbs one modality at a
time and compares what every module returns. :func:`snapshot` is everything that an audit must leave as it was.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaudit.masking.spec import MaskingSpec, ModalitySpec
from tests.evidence import (
    zoo_batches,
    zoo_fusion,
    zoo_habits,
    zoo_interfaces,
    zoo_masks,
    zoo_sequences,
)
from tests.evidence.zoo_rows import Architecture

__all__ = [
    "ZOO",
    "assert_equal_games",
    "assert_unchanged",
    "brute_force",
    "called",
    "dependence",
    "in_eval_mode",
    "plain",
    "reach",
    "snapshot",
    "tensors",
]

ZOO: tuple[Architecture, ...] = (
    *zoo_fusion.ROWS,
    *zoo_sequences.ROWS,
    *zoo_interfaces.ROWS,
    *zoo_masks.ROWS,
    *zoo_habits.ROWS,
    *zoo_batches.ROWS,
)


def brute_force(model: Any, batch: Any, spec: MaskingSpec) -> dict[frozenset[str], Tensor]:
    """Outputs of every coalition, one full pass for each.

    Returns:
        Coalition -> outputs at ``spec.outputs.path``, as the model gives them.
    """
    answers = {}
    with in_eval_mode(model):
        for index in range(2 ** len(spec.names)):
            present, masked = spec.coalition(index), copy.deepcopy(batch)
            for name, modality in spec.modalities.items():
                gone = _gone(modality, batch, everywhere=name not in present)
                for key, path in modality.inputs.items():
                    masked = _edited(
                        masked, _steps(path), lambda x: _mask(x, modality.mask[key], gone)
                    )
            # A copy, since a model may answer in memory that its next call overwrites.
            answers[present] = reach(called(model, masked, spec), spec.outputs.path).clone()
    return answers


def plain(model: Any, batch: Any, spec: MaskingSpec) -> Tensor:
    """Outputs of the model as its owner calls it, in eval mode."""
    with in_eval_mode(model):
        return reach(called(model, copy.deepcopy(batch), spec), spec.outputs.path).clone()


def called(model: Any, batch: Any, spec: MaskingSpec) -> Any:
    """Call the model as the spec says."""
    if spec.call is not None:
        args = [reach(batch, path) for path in spec.call.args]
        return model(*args, **{key: reach(batch, path) for key, path in spec.call.kwargs.items()})
    inputs = {
        key: reach(batch, path) for m in spec.modalities.values() for key, path in m.inputs.items()
    }
    forward = model.forward if isinstance(model, nn.Module) else model
    if set(inputs) <= set(inspect.signature(forward).parameters):
        return model(**inputs)
    return model(*inputs.values())


def reach(value: Any, path: str | None) -> Any:
    """Follow a path of keys, positions and attributes; a leading ``batch`` stands for the whole."""
    for step in _steps(path or "batch"):
        if isinstance(value, Mapping):
            value = value[step]
        elif isinstance(value, (tuple, list)) and step.isdigit():
            value = value[int(step)]
        else:
            value = getattr(value, step)
    return value


def dependence(model: Any, batch: Any, spec: MaskingSpec) -> dict[str, tuple[str, ...]]:
    """Module -> modalities whose masking changes anything that it returns; modules never called are left out."""
    seen: list[tuple[str, list[Tensor]]] = []

    def watch(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.append(
            (name, [_dense(x) for x in tensors(output)])
        )

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    returned = {}
    try:
        with in_eval_mode(model), torch.no_grad():
            for absent in (None, *spec.names):
                seen.clear()
                masked = copy.deepcopy(batch)
                if absent is not None:
                    modality = spec.modalities[absent]
                    for key, path in modality.inputs.items():
                        masked = _edited(
                            masked, _steps(path), lambda x: _mask(x, modality.mask[key], True)
                        )
                called(model, masked, spec)
                returned[absent] = list(seen)
    finally:
        for hook in hooks:
            hook.remove()
    whole = returned.pop(None)
    names = dict.fromkeys(name for calls in (whole, *returned.values()) for name, _ in calls)
    return {
        name: tuple(
            m for m, calls in returned.items() if _differ(_of(name, whole), _of(name, calls))
        )
        for name in names
    }


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a nested value, in order."""
    if isinstance(value, Tensor):
        yield value
    elif hasattr(value, "batch_sizes"):
        yield value.data
    elif dataclasses.is_dataclass(value):
        yield from tensors(vars(value))
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


@contextmanager
def in_eval_mode(model: Any) -> Iterator[None]:
    """Eval mode inside; each module's own flag afterwards."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


def snapshot(model: Any) -> dict[str, Any]:
    """What an audit must leave as it was: weights, flags, gradients, hooks, attributes, generators, global switches."""
    state: dict[str, Any] = {
        "generator of python": random.getstate(),
        "generator of numpy": [
            x.tolist() if isinstance(x, np.ndarray) else x for x in np.random.get_state()
        ],
        "generator of torch": torch.get_rng_state(),
        "gradients enabled": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "threads": torch.get_num_threads(),
    }
    if not isinstance(model, nn.Module):
        return state
    for name, module in model.named_modules():
        state[f"class of {name!r}"] = type(module)
        state[f"training flag of {name!r}"] = module.training
        state[f"attributes of {name!r}"] = sorted(vars(module))
        for key, value in vars(module).items():
            if "hooks" in key and isinstance(value, dict):
                state[f"{key} of {name!r}"] = list(value.items())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        state[f"values of {name}"] = value.detach().clone()
        state[f"identity of {name}"] = (id(value), value.data_ptr())
        state[f"gradient of {name}"] = _gradient(value)
        state[f"requires_grad of {name}"] = value.requires_grad
    return state


def assert_equal_games(
    actual: dict[frozenset[str], Tensor], expected: dict[frozenset[str], Tensor], tolerance: float
) -> None:
    """Compare two games coalition by coalition: values, shapes and dtypes."""
    assert set(actual) == set(expected)
    for coalition, outputs in expected.items():
        torch.testing.assert_close(
            actual[coalition].detach(),
            outputs.detach(),
            atol=tolerance,
            rtol=tolerance,
            msg=lambda text, coalition=coalition: f"coalition {sorted(coalition)}: {text}",
        )


def assert_unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Compare two snapshots bit by bit and name every difference."""
    changed = [key for key in {**before, **after} if not _same(before.get(key), after.get(key))]
    assert not changed, f"changed: {changed}"


def _dense(value: Tensor) -> Tensor:
    copied = value.detach().clone()
    # Torch's fast path hands sequences of unequal length on as nested tensors.
    return copied.to_padded_tensor(0.0) if copied.is_nested else copied.to_dense()


def _gradient(value: Tensor) -> Tensor | None:
    return value.grad.clone() if value.is_leaf and value.grad is not None else None


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return type(left) is type(right) and left == right


def _gone(modality: ModalitySpec, batch: Any, *, everywhere: bool) -> bool | Tensor:
    if everywhere or modality.present is None:
        return everywhere
    return ~reach(batch, modality.present)


def _mask(value: Any, mask: Any, gone: bool | Tensor) -> Any:
    if value is None or gone is False or mask.kind == "keep":
        return value
    if mask.kind == "drop":
        return None
    if mask.kind == "custom":
        module, _, name = mask.function.partition(":")
        ids = [str(i) for i in range(len(value))]
        filled = getattr(importlib.import_module(module), name)(value, ids, torch.Generator())
    elif value.layout != torch.strided:
        filled = value * 0
    else:
        filled = torch.full_like(value, getattr(mask, "value", 0))
    if gone is True:
        return filled
    return torch.where(gone.view(-1, *[1] * (value.dim() - 1)), filled, value)


def _steps(path: str) -> list[str]:
    steps = path.split(".")
    return steps[1:] if steps[0] == "batch" else steps


def _edited(value: Any, steps: list[str], change: Callable[[Any], Any]) -> Any:
    if not steps:
        return change(value)
    step, rest = steps[0], steps[1:]
    if isinstance(value, Mapping):
        return {**value, step: _edited(value[step], rest, change)}
    if isinstance(value, (tuple, list)) and step.isdigit():
        items = list(value)
        items[int(step)] = _edited(items[int(step)], rest, change)
        return type(value)(items)
    new = _edited(getattr(value, step), rest, change)
    return (
        value._replace(**{step: new})
        if hasattr(value, "_replace")
        else dataclasses.replace(value, **{step: new})
    )


def _of(name: str, calls: list[tuple[str, list[Tensor]]]) -> list[list[Tensor]]:
    return [values for called_name, values in calls if called_name == name]


def _differ(left: list[list[Tensor]], right: list[list[Tensor]]) -> bool:
    flat = [[x for call in side for x in call] for side in (left, right)]
    return len(left) != len(right) or not all(
        x.shape == y.shape and torch.allclose(x, y, atol=1e-6) for x, y in zip(*flat, strict=True)
    )
